"""The backend of kernels with BTF: counts and histograms in the kernel, sockets by its iterator.

See engine.tcp.backend.Backend for what each method promises.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import struct
import threading
import time
from typing import TYPE_CHECKING

from engine.errors import NotPermittedError, OtusError
from engine.tcp import owners
from engine.tcp.backend import (
    Closed,
    Connection,
    Cost,
    Event,
    Listener,
    Namespace,
    Plan,
    Program,
    Reading,
)
from engine.tcp.libbpf import layout, loader, maps, programs, settings
from engine.tcp.libbpf.btf import Btf
from engine.tcp.libbpf.reading import Reader
from engine.tcp.libbpf.reasons import Reasons
from engine.tcp.libbpf.records import Records
from engine.tcp.libbpf.symbols import Symbols
from engine.tcp.limits import Stages
from engine.tcp.namespaces import call_inside, own

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.tcp.backend import Filters, Limits, Sizes, Triggers

_READ_OCTETS = 1 << 18
_NONE = Reasons({}, {})
_NO_FLOW = (1 << 64) - 1
"""Stands in the table of flows for events that are of none."""


class LibbpfBackend:
    """One run of the programs."""

    name = "libbpf"

    def __init__(self, filters: Filters, triggers: Triggers, limits: Limits, sizes: Sizes) -> None:
        settings.check(filters, limits, sizes)
        self.filters, self.triggers, self.limits, self.sizes = filters, triggers, limits, sizes
        self.off: dict[str, str] = {}
        self.log: list[str] = []
        """The verifier's words about programs that it refused."""
        self._config = settings.config(filters, triggers, limits, sizes)
        self._choice = programs.Choice([], {}, {})
        self._loaded = False
        """Whether the choice is what runs, or ran."""
        self._object: loader.BpfObject | None = None
        self._records = Records(_NONE, lambda _: "")
        self._reasons = _NONE
        self._symbols = Symbols()
        self._namespaces: tuple[Namespace, ...] = tuple(filters.namespaces)
        self._events: list[Event] = []
        self._closed: list[Closed] = []
        self._closed_listeners: list[Listener] = []
        self._rings: dict[str, loader.Ring] = {}
        self._statistics: loader.Statistics | None = None
        self._costs: list[Cost] = []
        self._listeners: list[Listener] | None = None
        self._stages = Stages(limits, in_top=self._in_top)
        self._watched: dict[int, int] = {}
        """Inode -> process, of the sockets that watched processes had at the start."""
        self._surplus = self._found_events = 0
        self._missed: int | None = None
        """Runs that the kernel left out."""
        self._second = self._in_second = 0
        self._last: Reading | None = None
        self._runtime: mmap.mmap | None = None
        self._lock = threading.Lock()

    def plan(self) -> Plan:
        """What start() would load; from BTF where that can be read, else as a kernel that has everything."""
        choice, made = self._choice, self._config
        if not self._loaded:
            # What is told here decides nothing: start() asks again.
            made = layout.Config.from_buffer_copy(self._config)
            with contextlib.suppress(OtusError):
                kernel = Btf.of_kernel()
                try:
                    choice, _ = self._choose_for_kernel(kernel, made)
                finally:
                    kernel.close()
        on = {program.name for program in choice.on}
        known = bool(on or choice.why)
        rows = [
            Program(
                one.name,
                one.section,
                one.metrics,
                not known or one.name in on,
                choice.why.get(one.name, ""),
            )
            for one in programs.PROGRAMS
        ]
        sizes = maps.planned(self.filters, self.limits, self.sizes)
        return Plan(rows, [maps.footprint(*one) for one in sizes], settings.source(made))

    def start(self) -> None:
        """Load and attach."""
        content = loader.octets()
        kernel = Btf.of_kernel()
        try:
            self._choice, self._reasons = self._choose_for_kernel(kernel, self._config)
            names, refused = self._load(content, kernel)
            self._loaded = True
        finally:
            kernel.close()
        opened = self._object
        assert opened is not None
        try:
            self._attach(opened, names, refused)
            self._open_maps(opened)
            if self.filters.pids:
                self._own_listeners(opened)
            self._listeners = None
        except BaseException:
            self.stop()
            raise

    def read(self) -> Reading:
        """The counters and histograms of now."""
        if self._object is None:
            return self._last or Reading(time.monotonic_ns())
        with self._lock:
            reading = self._reader.read()
        # Events that two CPUs let pass for one token, and those that a look has found, are booked here.
        failed = self._rings["events"].failed if "events" in self._rings else 0
        reading.counters["events_emitted"] += self._found_events - self._surplus - failed
        reading.counters["events_lost"] += failed
        if "closed" in self._rings:
            reading.counters["closed_lost"] += self._rings["closed"].failed
        self._count_missed()
        if self._missed is not None:
            reading.counters["runs_missed"] = self._missed
        reading.suppressed["rate"] += self._surplus
        for stage, count in self._stages.suppressed.items():
            reading.suppressed[stage] += count
        return reading

    def connections(self) -> list[Connection]:
        """One sample of every socket; listening ones are kept for listeners()."""
        if self._object is None or "throughput" in self.off:
            return []
        found: list[Connection] = []
        listeners: list[Listener] = []
        for record in self._iterate():
            one = self._records.socket(record)
            if isinstance(one, Listener):
                listeners.append(one)
            else:
                found.append(one)
        self._listeners = listeners
        return found

    def listeners(self) -> list[Listener]:
        """The listening sockets of the last sample; of one that is taken now, if there was none."""
        if self._listeners is None:
            self.connections()
        return list(self._listeners or ())

    def closed_listeners(self) -> list[Listener]:
        """Listening sockets that were closed since the last call."""
        self._consume("closed")
        given, self._closed_listeners = self._closed_listeners, []
        return given

    def closed(self) -> list[Closed]:
        """Connections that ended since the last call."""
        self._consume("closed")
        given, self._closed = self._closed, []
        return given

    def events(self) -> list[Event]:
        """Detail events since the last call."""
        self._consume("events")
        given, self._events = self._events, []
        given.sort(key=lambda event: event.time_ns)
        return given

    def offer(self, event: Event) -> None:
        """An event that the observer has found: the stages of the programs, and the rate of all together."""
        if self._stages.admit(event):
            self._found_events += 1
            self._give(event)

    def event_fd(self) -> int:
        """Readable when the kernel has sent an event."""
        return self._rings["events"].fileno() if "events" in self._rings else -1

    def set_rtt_p99(self, value_us: int) -> None:
        """For the trigger rtt_p99."""
        self._set("rtt_p99_us", value_us)

    def set_namespaces(self, namespaces: Sequence[Namespace]) -> None:
        """Which the iterator visits; the programs see all, or the one of Filters.netns."""
        self._namespaces = tuple(namespaces)

    def set_sampling(self, one_of: int) -> None:
        """The program of each segment looks at one of so many flows."""
        self._set("sample_shift", max(0, one_of - 1).bit_length())

    def count_costs(self) -> None:
        """BPF_ENABLE_STATS until stop()."""
        if self._statistics is None:
            self._statistics = loader.Statistics()

    def costs(self) -> list[Cost]:
        """Of each program."""
        if self._object is not None and self._statistics is not None:
            told = self._object.costs().items()
            self._costs = [Cost(name, runs, ns, missed or 0) for name, (runs, ns, missed) in told]
        return list(self._costs)

    def stop(self) -> None:
        """Detach, take what is left, unload."""
        opened = self._object
        if opened is None:
            return
        self.costs()
        self._count_missed()
        opened.detach()
        if "events" in self._rings:
            self._consume("events")
            self._consume("closed")
            self._flush_last(opened.descriptor("last_events"))
            for event in self._stages.end_all(time.monotonic_ns()):
                self._found_events += 1
                self._give(event, time.monotonic_ns())
            self._reader.count_now()
            self._last = self.read()
        self._object = None
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()
        if self._runtime is not None:
            self._runtime.close()
            self._runtime = None
        opened.close()
        if self._statistics is not None:
            self._statistics.close()
            self._statistics = None

    # ---- loading

    def _choose_for_kernel(self, kernel: Btf, made: layout.Config) -> tuple[programs.Choice, Reasons]:
        choice = programs.choose(kernel, pids=bool(self.filters.pids))
        reasons = Reasons(kernel.enum("skb_drop_reason"), kernel.enum("sk_rst_reason"))
        cookie = kernel.has_function("bpf_get_socket_ptr_cookie")
        cast = kernel.has_function("bpf_rdonly_cast")
        settings.of_kernel(made, reasons, socket_cookie=cookie, rdonly_cast=cast)
        return choice, reasons

    def _load(self, content: bytes, kernel: Btf) -> tuple[list[str], dict[str, str]]:
        def choose(refused: Mapping[str, str]) -> list[str]:
            self._choice = programs.choose(kernel, pids=bool(self.filters.pids), refused=refused)
            return [program.name for program in self._choice.on]

        self._object, names, refused, self.log = loader.load(content, self.prepare, choose)
        return names, refused

    def prepare(self, opened: loader.BpfObject) -> None:
        """Set the sizes and the constants of an object that is not loaded yet."""
        for name, kind, _, value, entries in maps.planned(self.filters, self.limits, self.sizes):
            if name == "histograms":
                opened.set_value_octets(name, value)
            elif kind != 2:
                opened.set_entries(name, entries)
        opened.fill(".rodata.config", bytes(self._config))
        filters = self.filters
        opened.fill(".rodata.local_ports", settings.ports(filters.local_ports))
        opened.fill(".rodata.remote_ports", settings.ports(filters.remote_ports))
        opened.fill(".rodata.local_nets", settings.networks(filters.local_networks))
        opened.fill(".rodata.remote_nets", settings.networks(filters.remote_networks))

    def _attach(self, opened: loader.BpfObject, names: Sequence[str], refused: Mapping[str, str]) -> None:
        self._watch_pids(opened)
        failed = dict(refused)
        for name in names:
            if why := opened.attach(name):
                failed[name] = f"{name} {why}"
        if all(name in failed for name in names):
            raise OtusError("no program can be attached", "; ".join(failed.values()))
        for program in programs.PROGRAMS:
            if program.name in failed and program.name in names:
                for metric in program.metrics:
                    self._choice.off.setdefault(metric, failed[program.name])
                self._choice.why[program.name] = failed[program.name]
                self._choice.on.remove(program)
        self.off = dict(self._choice.off)
        if self.filters.pids and "process.io" not in self.off and not self._is_on("io_send"):
            self.off["process.io"] = "sock_send_length (Linux 6.3)"

    def _is_on(self, name: str) -> bool:
        return any(program.name == name for program in self._choice.on)

    def _open_maps(self, opened: loader.BpfObject) -> None:
        self._records = Records(self._reasons, self._symbols.name, cookies=bool(self._config.socket_cookie))
        self._reader = Reader(
            opened, self._reasons, self._symbols, self.off, self.sizes.sockets, self.sizes.sub_bits
        )
        self._runtime = opened.share(".data.runtime")
        self._rings["events"] = loader.Ring(opened.descriptor("events"), self._take_event)
        self._rings["closed"] = loader.Ring(opened.descriptor("closed"), self._take_closed)

    def _watch_pids(self, opened: loader.BpfObject) -> None:
        if not self.filters.pids:
            return
        pids, inodes = opened.descriptor("watched_pids"), opened.descriptor("watched_inodes")
        for pid in self.filters.pids:
            maps.update(pids, struct.pack("=I", pid), b"\1")
            for inode in owners.inodes_of([pid]):
                self._watched[inode] = pid
                maps.update(inodes, struct.pack("=Q", inode), struct.pack("=I", 1))

    def _own_listeners(self, opened: loader.BpfObject) -> None:
        """Connections accepted from now on are of who listened before."""
        descriptor = opened.descriptor("listener_owners")
        for one in self.listeners():
            if pid := self._watched.get(one.inode or 0):
                key = struct.pack("=II", one.netns, one.port)
                maps.update(descriptor, key, struct.pack("=I16s", pid, owners.command(pid).encode()[:15]))

    def _in_top(self, cookie: int, triggers: int) -> bool:
        """What in_top() of the programs does, in their table: K flows in all, whoever found them."""
        if self._runtime is None:
            return False
        flow = cookie or _NO_FLOW
        base, size = layout.Runtime.top.offset, ctypes.sizeof(layout.TopSlot)
        places = [base + number * size for number in range(self.limits.top_flows)]
        slots = [struct.unpack_from("=QQ", self._runtime, place) for place in places]
        for place, (there, _) in zip(places, slots, strict=True):
            if there == flow:
                struct.pack_into("=QQ", self._runtime, place, flow, triggers)
                return True
        fewest, place = min((count, place) for place, (_, count) in zip(places, slots, strict=True))
        if triggers <= fewest:
            return False
        struct.pack_into("=QQ", self._runtime, place, flow, triggers)
        return True

    def _count_missed(self) -> None:
        """While the programs are attached."""
        told = self._object.costs().values() if self._object is not None else ()
        known = [missed for _, _, missed in told if missed is not None]
        if known:
            self._missed = sum(known)

    def _set(self, name: str, value: int) -> None:
        """Set a variable that the running programs read."""
        if self._runtime is not None:
            struct.pack_into("=Q", self._runtime, getattr(layout.Runtime, name).offset, value)

    # ---- sockets

    def _iterate(self) -> Iterator[bytes]:
        opened = self._object
        assert opened is not None
        size = layout.CONNECTION.size
        for namespace in self._namespaces or (own(),):
            try:
                descriptor = call_inside(namespace, lambda: opened.iterate("sample"))
            except OtusError as error:
                # One of several that went away, or may not be entered, is no failure of the others.
                if len(self._namespaces) <= 1:
                    raise
                if isinstance(error, NotPermittedError):
                    self.off.setdefault("throughput.namespaces", error.message)
                continue
            rest = b""
            try:
                while chunk := _read(descriptor):
                    rest += chunk
                    whole = len(rest) - len(rest) % size
                    for at in range(0, whole, size):
                        yield rest[at : at + size]
                    rest = rest[whole:]
            finally:
                os.close(descriptor)

    # ---- rings

    def _consume(self, name: str) -> None:
        if name in self._rings:
            with self._lock:
                self._rings[name].consume()

    def _take_event(self, record: bytes) -> None:
        self._give(self._records.event(record))

    def _give(self, event: Event, now_ns: int = 0) -> None:
        """The kernel's bucket may give one token to two CPUs; here it is held to the letter. now_ns: when an
        event goes that was held back until now."""
        second = (now_ns or event.time_ns) // 1_000_000_000
        if second > self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > self.limits.per_second:
            self._surplus += 1
            return
        self._events.append(event)

    def _flush_last(self, descriptor: int) -> None:
        """What --last holds back of flows that have not ended goes out, as far as the rate allows."""
        if not self.limits.last:
            return
        size = layout.EVENT_HEAD.size + layout.CONNECTION.size
        kept = maps.items(descriptor, layout.LAST_KEY_OCTETS, size)
        now = time.monotonic_ns()
        for event in sorted((self._records.event(value) for _, value in kept), key=lambda one: one.time_ns):
            self._found_events += 1
            self._give(event, now)

    def _take_closed(self, record: bytes) -> None:
        if len(record) != layout.CLOSED.size:
            one = self._records.socket(record)
            if isinstance(one, Listener):
                self._closed_listeners.append(one)
                now = time.monotonic_ns()
                for event in self._stages.end(one.cookie, now):
                    self._found_events += 1
                    self._give(event, now)
            return
        cookie, acked, received, retransmits = layout.CLOSED.unpack(record)
        self._closed.append(Closed(cookie, acked, received, retransmits))


def _read(descriptor: int) -> bytes:
    """The next records of an iterator; empty at its end."""
    while True:
        try:
            return os.read(descriptor, _READ_OCTETS)
        except OSError as error:
            # The kernel has looked at many sockets that no filter let pass: it wants to be asked again.
            if error.errno != errno.EAGAIN:
                raise OtusError(f"the socket iterator: {os.strerror(error.errno or 0)}") from error
