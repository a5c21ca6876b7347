"""Reading maps: per-CPU sums, histograms, hashes; and what each map takes in the kernel."""

from __future__ import annotations

import ctypes
import errno
import struct
import sys
from typing import TYPE_CHECKING

from engine.tcp import histogram
from engine.tcp.backend import Histogram, Map
from engine.tcp.libbpf import layout
from engine.tcp.libbpf.library import library, possible_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Filters, Limits, Sizes

_PAGE = 4096
_BATCH = 4096
"""Keys of one call: the kernel copies their values, too."""
KINDS = {1: "hash", 2: "array", 5: "percpu_hash", 6: "percpu_array", 9: "lru_hash", 27: "ringbuf"}


class PerCpu:
    """Values of a per-CPU map, summed. Words are 8 octets and never negative."""

    def __init__(self, descriptor: int, value_octets: int) -> None:
        self.descriptor = descriptor
        self.octets = (value_octets + 7) & ~7
        self.words = self.octets // 8
        self.cpus = possible_cpus()
        self._buffer = (ctypes.c_ubyte * (self.octets * self.cpus))()
        self._lookup = library().bpf_map_lookup_elem
        self._unpack = struct.Struct(f"={self.words}Q")

    def each(self, key: bytes) -> list[bytes]:
        """The value of each CPU; empty where the key is not there."""
        if self._lookup(self.descriptor, key, self._buffer):
            return []
        whole = bytes(self._buffer)
        return [whole[at : at + self.octets] for at in range(0, len(whole), self.octets)]

    def total(self, key: bytes) -> tuple[int, ...]:
        """The words summed over CPUs; zeros where the key is not there."""
        return self.sum_of(self.each(key))

    def sum_of(self, values: list[bytes]) -> tuple[int, ...]:
        """The same of what each() gave."""
        # One addition of long integers for each CPU: no word overflows into the next one.
        summed = sum(int.from_bytes(value, sys.byteorder) for value in values)
        return self._unpack.unpack(summed.to_bytes(self.octets, sys.byteorder))


class Histograms:
    """All histograms of the observer."""

    def __init__(self, descriptor: int, sub_bits: int) -> None:
        self.buckets = histogram.bucket_count(sub_bits)
        self._values = PerCpu(descriptor, layout.HISTOGRAM_HEAD + 8 * self.buckets)

    def read(self, number: int) -> Histogram:
        """One of them, over all CPUs."""
        key = struct.pack("=I", number)
        values = self._values.each(key)
        words = self._values.sum_of(values)
        largest = max((struct.unpack_from("=Q", value, 8)[0] for value in values), default=0)
        return Histogram(list(words[2:]), words[0], largest)


def keys(descriptor: int, octets: int) -> Iterator[bytes]:
    """The keys of a hash, as far as it holds still."""
    following = library().bpf_map_get_next_key
    current: ctypes.Array[ctypes.c_char] | None = None
    seen: set[bytes] = set()
    while True:
        buffer = ctypes.create_string_buffer(octets)
        if following(descriptor, current, buffer):
            return
        # A key that was deleted meanwhile makes the kernel begin again.
        if buffer.raw in seen:
            return
        seen.add(buffer.raw)
        yield buffer.raw
        current = buffer


def items(descriptor: int, key_octets: int, value_octets: int) -> Iterator[tuple[bytes, bytes]]:
    """The keys of a hash with their values, as far as it holds still."""
    value = (ctypes.c_ubyte * value_octets)()
    for key in keys(descriptor, key_octets):
        if not library().bpf_map_lookup_elem(descriptor, key, value):
            yield key, bytes(value)


def occupancy(descriptor: int, key_octets: int, value_octets: int) -> int | None:
    """How many keys a hash holds; None where the kernel cannot say it in batches (Linux 5.6)."""
    keys_here = (ctypes.c_ubyte * (key_octets * _BATCH))()
    values_here = (ctypes.c_ubyte * (value_octets * _BATCH))()
    lookup, held = library().bpf_map_lookup_batch, 0
    before: ctypes.Array[ctypes.c_ubyte] | None = None
    while True:
        count, after = ctypes.c_uint32(_BATCH), (ctypes.c_ubyte * 8)()
        result = lookup(descriptor, before, after, keys_here, values_here, ctypes.byref(count), None)
        if result not in (0, -errno.ENOENT):
            return None
        held += count.value
        # ENOENT: the end was reached before the space was full.
        if result:
            return held
        before = after


def update(descriptor: int, key: bytes, value: bytes) -> bool:
    """Set one key; False where the map is full."""
    result: int = library().bpf_map_update_elem(descriptor, key, value, 0)
    return result == 0


def planned(filters: Filters, limits: Limits, sizes: Sizes) -> list[tuple[str, int, int, int, int]]:
    """(name, type, key octets, value octets, entries) of every map, as they are set before loading."""
    histogram_octets = layout.HISTOGRAM_HEAD + 8 * histogram.bucket_count(sizes.sub_bits)
    event = layout.EVENT_HEAD.size + layout.CONNECTION.size
    return [
        ("totals", 6, 4, 8 * layout.TOTALS_WORDS, 1),
        ("histograms", 6, 4, histogram_octets, layout.HISTOGRAMS),
        ("sockets", 9, 8, layout.SOCKET_STATE_OCTETS, sizes.sockets),
        ("listener_owners", 9, layout.LISTENER_KEY_OCTETS, layout.OWNER_OCTETS, 1024),
        ("drops", 5, layout.DROP_KEY.size, 8, sizes.stacks),
        ("events", 27, 0, 0, sizes.ring_bytes),
        ("closed", 27, 0, 0, closed_ring(sizes)),
        ("last_events", 1, layout.LAST_KEY_OCTETS, event, last_entries(limits)),
        ("watched_pids", 1, 4, 1, max(1, len(filters.pids))),
        ("watched_inodes", 1, 8, 4, sizes.sockets if filters.pids else 1),
        ("record", 6, 4, layout.CONNECTION.size, 1),
        (".rodata.config", 2, 4, ctypes.sizeof(layout.Config), 1),
        (".rodata.local_ports", 2, 4, 8192, 1),
        (".rodata.remote_ports", 2, 4, 8192, 1),
        (".rodata.local_nets", 2, 4, layout.PREFIXES * 32, 1),
        (".rodata.remote_nets", 2, 4, layout.PREFIXES * 32, 1),
        (".data.runtime", 2, 4, ctypes.sizeof(layout.Runtime), 1),
    ]


def closed_ring(sizes: Sizes) -> int:
    """Octets of the ring of ended connections: room for as many as there are sockets; a power of two."""
    octets = _PAGE * 256
    while octets < sizes.sockets * (layout.CLOSED.size + 8):
        octets *= 2
    return octets


def last_entries(limits: Limits) -> int:
    """Events that --last holds back in the kernel, over all flows."""
    return min(65_536, 256 * limits.last) if limits.last else 1


def footprint(name: str, kind: int, key: int, value: int, entries: int) -> Map:
    """What a map takes in the kernel, all CPUs together."""
    cpus = possible_cpus()
    value8, key8 = (value + 7) & ~7, (key + 7) & ~7
    buckets = 1 << max(0, (entries - 1).bit_length())
    if kind == 2:
        octets = max(_PAGE, (value8 * entries + _PAGE - 1) & ~(_PAGE - 1))
    elif kind == 6:
        octets = entries * (8 + value8 * cpus)
    elif kind == 27:
        octets = entries + 3 * _PAGE
    elif kind == 5:
        octets = buckets * 16 + entries * (48 + key8 + 8 + value8 * cpus)
    elif kind == 9:
        octets = buckets * 16 + entries * (72 + key8 + value8)
    else:
        octets = buckets * 16 + (entries + cpus) * (48 + key8 + value8)
    return Map(name, KINDS[kind], entries, octets)
