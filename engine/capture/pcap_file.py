"""Read pcap and pcapng files, plain or gzip, from a file or a pipe, in chunks of bounded memory.

pcap: microseconds and nanoseconds, either byte order, also the modified format of 1999 with its longer
record header (libpcap savefile.c). pcapng (draft-ietf-opsawg-pcapng): either byte order, several sections and
interfaces, Enhanced, Simple and the obsolete Packet Block; other blocks are left out.
"""

from __future__ import annotations

import os
import struct
from array import array
from typing import TYPE_CHECKING

from engine.capture.pcap_source import PcapSource, not_a_capture
from engine.errors import UsageError

if TYPE_CHECKING:
    from engine.capture.sink import PacketSink

MASK64 = 0xFFFFFFFFFFFFFFFF
BILLION = 1_000_000_000
BUFFER = 1 << 20
CHUNK = 128 << 10
"""Octets of one read(): small enough to be still in the cache when they are parsed."""
LARGEST_RECORD = 262_144
"""Octets of the longest packet that libpcap and Wireshark write (MAXIMUM_SNAPLEN)."""
LARGEST_BLOCK = LARGEST_RECORD + (256 << 10)
"""A pcapng block of a packet, an interface or a section with its options."""
MOST_INTERFACES = 65_536
INCOMPLETE = "the file is incomplete or damaged: fetch or make it again"
INTERFACE_WORDS = 6
NO_LIMIT = 1 << 62
MULTIPLY, DIVIDE, BINARY = 0, 1, 2
SECTION, INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET = 0x0A0D0D0A, 1, 2, 3, 6
# The same, as compiled constants: those are not visible from Python.
K_MULTIPLY = MULTIPLY
K_DIVIDE = DIVIDE
B_SECTION = SECTION
B_INTERFACE = INTERFACE
B_OBSOLETE = OBSOLETE_PACKET
B_SIMPLE = SIMPLE_PACKET
B_ENHANCED = ENHANCED_PACKET
C_LARGEST_RECORD = LARGEST_RECORD
C_LARGEST_BLOCK = LARGEST_BLOCK

# Magic number, big-endian on disk: nanoseconds of a fraction, octets of a record header.
_PCAP = {0xA1B2C3D4: (1000, 16), 0xA1B23C4D: (1, 16), 0xA1B2CD34: (1000, 24)}


class PcapFile:
    """A capture file and the sink for its packets.

    After opening: `format` (pcap or pcapng, with " gzip" where it is compressed), `size` and `octets_read`
    for a progress bar (octets on disk; `size` None for a pipe). After run(): `packets` handed over;
    `first_ns`, `last_ns` the earliest and latest time (0 without packets); `link_types`; `interface_names`
    (pcapng, by the interface index that the sink gets, which counts on over sections); `truncated`: empty,
    or what is cut or damaged and where.
    """

    def __init__(self, path_or_fd: str | os.PathLike[str] | int, sink: PacketSink) -> None:
        """Open a path, `-` (standard input) or a descriptor and read its header.

        UsageError for no such file, an empty one and one that is no capture, with what was found.
        """
        self.source = PcapSource(path_or_fd)
        self.sink = sink
        self.memory = bytearray(BUFFER)
        self.view = memoryview(self.memory)
        self.buf = self.view
        self.position = self.limit = 0
        self.base = 0
        self.skip = 0
        self.big = self.pcapng = self.finished = self.swapped_lengths = False
        self.format = self.truncated = ""
        self.packets = 0
        self.first_ns = self.last_ns = 0
        self.record_header = 16
        self.fraction = 1000
        self.link_type = 0
        self.interfaces = memoryview(array("Q", bytes(8 * 16 * INTERFACE_WORDS)))
        self.interface_count = self.section_base = 0
        self.interface_names: list[str] = []
        self.links: dict[int, None] = {}
        try:
            self.open_header()
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int | None:
        """Octets on disk; None for a pipe."""
        return self.source.size

    @property
    def octets_read(self) -> int:
        """Octets read so far, of `size`."""
        return self.source.octets_read

    @property
    def link_types(self) -> list[int]:
        """Those of the interfaces so far, each once."""
        return [*self.links]

    @property
    def name(self) -> str:
        """What was opened, for messages."""
        return self.source.name

    def ready(self, seconds: float = 0) -> bool:
        """Whether run() would not wait; of a pipe that gives nothing, after at most `seconds`."""
        return self.finished or self.source.ready(seconds)

    def close(self) -> None:
        """Close the file, where it was opened here."""
        self.source.close()

    def run(self, max_packets: int, max_octets: int = NO_LIMIT) -> int:
        """Hand up to `max_packets` packets to the sink; returns how many, 0 at the end of the file.

        Of so many that have `max_octets` together, and one more, for who has no room for the longest ones.
        Returns early with what there is when a pipe has no more just now, and waits only when it has
        nothing at all. UsageError for a block length that cannot be before the first packet; later, and for
        a file that is cut, `truncated`.
        """
        if self.finished:
            return 0
        if self.base == 0:
            self.sink.attach(self.view)
        if self.pcapng:
            return self.run_pcapng(max(1, max_packets), max_octets)
        return self.run_pcap(max(1, max_packets), max_octets)

    def open_header(self) -> None:
        """Tell the format from the first octets and read a pcap file's header."""
        while self.limit < 28 and self.fill():
            pass
        first = bytes(self.view[: self.limit])
        magic = int.from_bytes(first[:4], "big")
        if magic == SECTION:
            self.pcapng = True
            self.format = "pcapng"
            self.section(0)
            self.position = 0
        else:
            self.open_pcap(first)
        if self.source.gzip:
            self.format += " gzip"

    def open_pcap(self, first: bytes) -> None:
        """Read a pcap file's header, 24 octets."""
        name = self.source.name
        sign = ">" if int.from_bytes(first[:4], "big") in _PCAP else "<"
        magic = struct.unpack_from(sign + "I", first)[0] if len(first) >= 4 else 0
        if magic not in _PCAP:
            if self.source.damage:
                raise UsageError(f"{name}: {self.source.damage}", INCOMPLETE)
            raise not_a_capture(name, first)
        if len(first) < 24:
            raise UsageError(f"{name}: is cut in its header, after {len(first)} of 24 octets", INCOMPLETE)
        major, minor = struct.unpack_from(sign + "HH", first, 4)
        if major != 2:
            raise UsageError(f"{name}: is a pcap file of version {major}.{minor}", "only version 2 is known")
        self.format = "pcap"
        self.big = sign == ">"
        self.fraction, self.record_header = _PCAP[magic]
        self.swapped_lengths = minor < 3
        self.link_type = struct.unpack_from(sign + "I", first, 20)[0] & 0xFFFF
        self.links[self.link_type] = None
        self.position = 24

    def fill(self) -> bool:
        """Move what is left to the front and read on; False at the end of the stream."""
        rest = self.limit - self.position
        if self.position:
            self.memory[:rest] = self.memory[self.position : self.limit]
            self.base += self.position
            self.position = 0
            self.limit = rest
        count = self.source.readinto(self.view[rest : rest + CHUNK])
        self.limit += count
        return count > 0

    def more(self, count: int) -> int:
        """Read on, unless that means to wait with `count` packets handed over; whether there is more."""
        if count and not self.source.ready(0):
            return 0
        if self.fill():
            self.sink.attach(self.view)
            return 1
        self.finished = True
        if self.skip or self.position < self.limit:
            self.truncated = self.describe_cut()
        if self.source.damage:
            cut = f", {self.truncated}" if self.truncated else f", behind packet {self.packets}"
            self.truncated = self.source.damage + cut
        return 0

    def describe_cut(self) -> str:
        """What the end of the stream cuts."""
        end = self.base + self.limit
        rest = self.limit - self.position
        if self.pcapng:
            kind = self.u32(self.position) if rest >= 4 and not self.skip else 0
            if kind not in {OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET}:
                return f"cut in the middle of a block behind packet {self.packets} at octet {end}"
        return f"cut in the middle of packet {self.packets + 1} at octet {end}"

    def damaged(self, what: str) -> int:
        """End here: the record at `position` cannot be. UsageError if nothing was shown before."""
        self.finished = True
        place = self.base + self.position
        self.truncated = f"damaged behind packet {self.packets} at octet {place}: {what}"
        if self.packets == 0 and self.pcapng:
            raise UsageError(
                f"{self.source.name}: is damaged at octet {place}: {what}",
                "a pcapng block has its length, a multiple of 4, at its begin and end",
            )
        return 0

    def too_long(self, length: int) -> int:
        """End here: a packet that claims more than any has."""
        self.finished = True
        self.truncated = (
            f"damaged in packet {self.packets + 1} at octet {self.base + self.position}: "
            f"it claims {length} octets, the longest packet has {LARGEST_RECORD}"
        )
        return 0

    def run_pcap(self, max_packets: int, max_octets: int) -> int:
        """run() for pcap."""
        count = 0
        octets = 0
        while count < max_packets and (octets < max_octets or count == 0):
            place = self.position
            start = place + self.record_header
            if start > self.limit:
                if not self.more(count):
                    break
                continue
            length = self.u32(place + 8)
            wire = self.u32(place + 12)
            if self.swapped_lengths and length > wire:
                length, wire = wire, length
            if length > C_LARGEST_RECORD:
                self.too_long(length)
                break
            end = start + length
            if end > self.limit:
                if not self.more(count):
                    break
                continue
            timestamp = self.u32(place)
            timestamp = timestamp * BILLION + self.u32(place + 4) * self.fraction
            self.position = end
            self.stamp(timestamp)
            count += 1
            octets += end - start
            self.sink.packet(start, end, wire, timestamp, 0, self.link_type, 0, 0)
        return count

    def run_pcapng(self, max_packets: int, max_octets: int) -> int:
        """run() for pcapng, whose blocks are counted as a whole."""
        count = 0
        octets = 0
        while count < max_packets and (octets < max_octets or count == 0):
            if self.skip:
                self.pass_over()
            place = self.position
            if self.skip or self.limit - place < 12:
                if not self.more(count):
                    break
                continue
            kind = self.u32(place)
            if kind == B_SECTION:
                self.order(place)
            length = self.u32(place + 4)
            if length < 12 or length & 3:
                self.damaged(f"a block of {length} octets")
                break
            if kind not in (B_ENHANCED, B_SIMPLE, B_OBSOLETE, B_SECTION, B_INTERFACE):
                self.skip = length
                continue
            if length > C_LARGEST_BLOCK:
                self.too_long(length)
                break
            end = place + length
            if end > self.limit:
                if not self.more(count):
                    break
                continue
            octets += length
            count += self.take_block(kind, place, length)
            if self.finished:
                break
            self.position = end
        return count

    def take_block(self, kind: int, place: int, length: int) -> int:
        """Use a whole block; returns the number of packets in it, with the file ended where it cannot be."""
        if self.u32(place + length - 4) != length:
            end = self.u32(place + length - 4)
            return self.damaged(f"a block of {length} octets that ends with the length {end}")
        if kind == B_SECTION:
            if length < 28:
                return self.damaged(f"a section header of {length} octets")
            return self.section(place)
        if kind == B_INTERFACE:
            return self.interface(place, length)
        return self.packet_block(kind, place, length)

    def pass_over(self) -> int:
        """Leave out what is there of a block that is not wanted."""
        rest = min(self.limit - self.position, self.skip)
        self.position += rest
        self.skip -= rest
        return 0

    def packet_block(self, kind: int, place: int, length: int) -> int:
        """Hand over the packet of a block; returns 1, or 0 with the file ended where the block cannot be."""
        number = 0
        start = place + 28
        if kind == B_SIMPLE:
            start = place + 12
        if place + length - 4 < start:
            return self.damaged(f"a packet block of {length} octets")
        if kind == B_ENHANCED:
            number = self.u32(place + 8)
        elif kind == B_OBSOLETE:
            number = self.u16(place + 8)
        if self.section_base + number >= self.interface_count:
            return self.damaged(f"a packet of interface {number}, which was not described before")
        number += self.section_base
        if kind == B_SIMPLE:
            wire = self.u32(place + 8)
            captured = min(wire, length - 16)
            timestamp = self.interfaces[number * INTERFACE_WORDS + 4]
            if timestamp and captured > timestamp:
                captured = timestamp
            timestamp = self.last_ns
        else:
            captured = self.u32(place + 20)
            wire = self.u32(place + 24)
            timestamp = self.nanoseconds(number, self.u32(place + 12), self.u32(place + 16))
        if captured > C_LARGEST_RECORD:
            return self.too_long(captured)
        if captured > length - 4 - (start - place):
            return self.damaged(f"a packet of {captured} octets in a block of {length}")
        self.position = place + length
        self.stamp(timestamp)
        link_type = self.interfaces[number * INTERFACE_WORDS]
        self.sink.packet(start, start + captured, wire, timestamp, number, link_type, 0, 0)
        return 1

    def stamp(self, timestamp: int) -> int:
        """Count a packet and its time."""
        if self.packets == 0:
            self.first_ns = self.last_ns = timestamp
        elif timestamp > self.last_ns:
            self.last_ns = timestamp
        elif timestamp < self.first_ns:
            self.first_ns = timestamp
        self.packets += 1
        return 0

    def nanoseconds(self, number: int, high: int, low: int) -> int:
        """Time since 1970 of a stamp in an interface's units, modulo 2**64."""
        place = number * INTERFACE_WORDS
        kind = self.interfaces[place + 1]
        factor = self.interfaces[place + 2]
        units = high
        units = units << 32 | low
        if kind == K_MULTIPLY:
            units = (units * factor) & MASK64
        elif kind == K_DIVIDE:
            units = units // factor if factor else 0
        else:
            rest = units & self.interfaces[place + 5]
            units = 0 if factor > 63 else ((units >> factor) * BILLION) & MASK64
            if factor > 34:
                rest = rest >> (factor - 34) if factor < 98 else 0
                factor = 34
            units = (units + (rest * BILLION >> factor)) & MASK64
        return (units + self.interfaces[place + 3]) & MASK64

    def order(self, place: int) -> int:
        """Take the byte order of the section that begins at `place`."""
        if self.buf[place + 8] == 0x1A and self.buf[place + 9] == 0x2B and self.buf[place + 10] == 0x3C:
            self.big = self.buf[place + 11] == 0x4D
        else:
            self.big = False
        return 0

    def section(self, place: int) -> int:
        """Check a section's header; its interfaces are numbered from 0 again."""
        head = bytes(self.view[place : min(place + 28, self.limit)])
        name = self.source.name
        if len(head) < 28:
            raise UsageError(f"{name}: is cut in its header, after {len(head)} of 28 octets", INCOMPLETE)
        self.order(place)
        sign = ">" if self.big else "<"
        magic, major, minor = struct.unpack_from(sign + "IHH", head, 8)
        length = struct.unpack_from(sign + "I", head, 4)[0]
        if magic != 0x1A2B3C4D:
            return self.damaged(f"a section with byte order {head[8:12].hex(' ')}, not 1a 2b 3c 4d or back")
        if length < 28 or length & 3:
            return self.damaged(f"a section header of {length} octets")
        if major != 1:
            return self.damaged(f"a section of version {major}.{minor}; only version 1 is known")
        self.section_base = self.interface_count
        return 0

    def interface(self, place: int, length: int) -> int:
        """Take an Interface Description Block."""
        if length < 20:
            return self.damaged(f"an interface description of {length} octets")
        if self.interface_count >= MOST_INTERFACES:
            return self.damaged(f"more than {MOST_INTERFACES} interfaces")
        block = bytes(self.view[place : place + length])
        words, name = describe_interface(block, ">" if self.big else "<")
        base = self.interface_count * INTERFACE_WORDS
        if base + INTERFACE_WORDS > len(self.interfaces):
            grown = array("Q", bytes(16 * len(self.interfaces)))
            memoryview(grown)[: len(self.interfaces)] = memoryview(self.interfaces)
            self.interfaces = memoryview(grown)
        for position, word in enumerate(words):
            self.interfaces[base + position] = word
        self.interface_count += 1
        self.interface_names.append(name)
        self.links[words[0]] = None
        return 0

    def u16(self, place: int) -> int:
        """Two octets in the file's order."""
        if self.big:
            return self.buf[place] << 8 | self.buf[place + 1]
        return self.buf[place + 1] << 8 | self.buf[place]

    def u32(self, place: int) -> int:
        """Four octets in the file's order."""
        if self.big:
            value = self.buf[place]
            value = value << 8 | self.buf[place + 1]
            value = value << 8 | self.buf[place + 2]
            return value << 8 | self.buf[place + 3]
        value = self.buf[place + 3]
        value = value << 8 | self.buf[place + 2]
        value = value << 8 | self.buf[place + 1]
        return value << 8 | self.buf[place]


def describe_interface(block: bytes, sign: str) -> tuple[tuple[int, ...], str]:
    """The words of an Interface Description Block, and the interface's name.

    Words: link type, how units become ns (MULTIPLY, DIVIDE, BINARY), the factor or the power of two, ns
    to add, snap length (0: none), mask of the fraction (BINARY).
    """
    link_type, snap_length = struct.unpack_from(sign + "H2xI", block, 8)
    resolution, offset, name = 6, 0, ""
    place = 16
    while place + 4 <= len(block) - 4:
        code, size = struct.unpack_from(sign + "HH", block, place)
        value = block[place + 4 : place + 4 + size]
        if code == 0 or place + 4 + size > len(block) - 4:
            break
        if code == 2:
            name = value.rstrip(b"\0").decode("utf-8", "replace")[:256]
        elif code == 9 and size >= 1:
            resolution = value[0]
        elif code == 14 and size >= 8:
            offset = struct.unpack_from(sign + "q", value)[0]
        place += 4 + (size + 3 & ~3)
    power = resolution & 0x7F
    if resolution & 0x80:
        units = (BINARY, power)
    elif power <= 9:
        units = (MULTIPLY, 10 ** (9 - power))
    else:
        units = (DIVIDE, 10 ** (power - 9) if power <= 28 else 0)
    mask = (1 << power) - 1 if power < 64 else (1 << 64) - 1
    return (link_type, *units, offset * 1_000_000_000 & ((1 << 64) - 1), snap_length, mask), name
