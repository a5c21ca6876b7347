"""Runs a capture filter outside the kernel: on packets of files, and on reassembled datagrams."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.capture.cbpf import Program

MASK32 = 0xFFFFFFFF
ANCILLARY = 0xFFFFF000
NETWORK = 0xFFF00000
LINK_LAYER = 0xFFE00000
MOST_INSTRUCTIONS = 4096
_LOADS = frozenset({0x00, 0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0x60, 0x80, 0x01, 0x61, 0x81, 0xB1})
_COMPUTE = frozenset(op | source | 0x04 for op in range(0, 0xB0, 0x10) for source in (0, 8)) - {0x8C}
_JUMPS = frozenset({0x05, *(op | source | 0x05 for op in (0x10, 0x20, 0x30, 0x40) for source in (0, 8))})
_KNOWN = _LOADS | _COMPUTE | _JUMPS | {0x02, 0x03, 0x06, 0x16, 0x07, 0x87}


class PacketFilter:
    """Classic BPF over a buffer, as the kernel runs it (net/core/filter.c, bpf_check_classic).

    What the kernel knows beside the octets is set as attributes before match(): `wire_length`,
    `protocol` (EtherType), `packet_type`, `interface`, `hardware` (ARPHRD), `vlan` (TPID << 16 | TCI,
    0: none), `network` (offset of the network header in the buffer).
    """

    def __init__(self, program: Program) -> None:
        """ValueError for a program that could leave its end or has an unknown instruction."""
        last = len(program) - 1
        if not 0 <= last < MOST_INSTRUCTIONS or program[last][0] not in (0x06, 0x16):
            raise ValueError("a filter has 1 to 4096 instructions and ends with a return")
        for place, (code, yes, no, k) in enumerate(program):
            jumps = (k,) if code == 0x05 else (yes, no) if code in _JUMPS else ()
            if code not in _KNOWN or any(place + jump >= last for jump in jumps):
                raise ValueError(f"instruction {place} of the filter, {(code, yes, no, k)}, cannot be")
            if code in (0x02, 0x03, 0x60, 0x61) and k > 15:
                raise ValueError(f"instruction {place} of the filter: there is no memory word {k}")
        self.codes = memoryview(array("I", (row[0] for row in program)))
        self.yes = memoryview(array("I", (row[1] for row in program)))
        self.no = memoryview(array("I", (row[2] for row in program)))
        self.values = memoryview(array("I", (row[3] for row in program)))
        self.scratch = memoryview(array("I", [0] * 16))
        self.length = len(program)
        self.buf = memoryview(b"")
        self.start = 0
        self.end = 0
        self.outside = False
        self.wire_length = 0
        self.protocol = 0
        self.packet_type = 0
        self.interface = 0
        self.hardware = 1
        self.vlan = 0
        self.network = 0

    def attach(self, buf: memoryview) -> None:
        """Offsets of match() are into `buf`."""
        self.buf = buf

    def load(self, k: int, size: int) -> int:
        """The big-endian number of `size` octets at offset `k`; sets `outside` beyond the packet."""
        if k >= ANCILLARY:
            return self.ancillary(k)
        if k >= NETWORK:
            place = self.network + (k - NETWORK)
        elif k >= LINK_LAYER:
            place = self.start + (k - LINK_LAYER)
        else:
            place = self.start + k
        if place + size > self.end or place < self.start:
            self.outside = True
            return 0
        value = 0
        for index in range(place, place + size):
            value = (value << 8) | self.buf[index]
        return value

    def ancillary(self, k: int) -> int:
        """What the kernel knows beside the octets."""
        k -= ANCILLARY
        if k == 0:
            return self.protocol
        if k == 4:
            return self.packet_type
        if k == 8:
            return self.interface
        if k == 28:
            return self.hardware
        if k == 44:
            return self.vlan & 0xFFFF
        if k == 48:
            return 1 if self.vlan else 0
        if k == 60:
            return self.vlan >> 16
        self.outside = True
        return 0

    def compute(self, code: int, a: int, x: int, k: int) -> int:
        """One arithmetic instruction; sets `outside` on a division by zero."""
        other = x if code & 8 else k
        code &= 0xF0
        if code == 0x00:
            a += other
        elif code == 0x10:
            a -= other
        elif code == 0x20:
            a *= other
        elif code == 0x30 or code == 0x90:  # noqa: PLR1714 -- a tuple would be a Python object
            if other == 0:
                self.outside = True
                return 0
            a = a // other if code == 0x30 else a % other
        elif code == 0x40:
            a |= other
        elif code == 0x50:
            a &= other
        elif code == 0x60:
            a = a << (other & 31)
        elif code == 0x70:
            a = a >> (other & 31)
        elif code == 0x80:
            a = 0 - a
        else:
            a ^= other
        return a & MASK32

    def match(self, start: int, end: int) -> int:
        """How many octets of the packet start..end pass; 0: it does not match."""
        self.start = start
        self.end = end
        self.outside = False
        a = 0
        x = 0
        place = 0
        while place < self.length:
            code = self.codes[place]
            k = self.values[place]
            place += 1
            kind = code & 7
            if kind == 5:
                if code == 0x05:
                    place += k
                    continue
                other = x if code & 8 else k
                kind = code & 0xF0
                if kind == 0x10:
                    hit = a == other
                elif kind == 0x20:
                    hit = a > other
                elif kind == 0x30:
                    hit = a >= other
                else:
                    hit = a & other != 0
                place += self.yes[place - 1] if hit else self.no[place - 1]
                continue
            if kind == 6:
                return a if code == 0x16 else k
            if kind == 4:
                a = self.compute(code, a, x, k)
            elif code == 0x20:
                a = self.load(k, 4)
            elif code == 0x28:
                a = self.load(k, 2)
            elif code == 0x30:
                a = self.load(k, 1)
            elif code == 0x40:
                a = self.load((x + k) & MASK32, 4)
            elif code == 0x48:
                a = self.load((x + k) & MASK32, 2)
            elif code == 0x50:
                a = self.load((x + k) & MASK32, 1)
            elif code == 0xB1:
                x = (self.load(k, 1) & 15) << 2
            elif code == 0x00:
                a = k
            elif code == 0x01:
                x = k
            elif code == 0x07:
                x = a
            elif code == 0x87:
                a = x
            elif code == 0x80:
                a = self.wire_length
            elif code == 0x81:
                x = self.wire_length
            elif code == 0x60:
                a = self.scratch[k]
            elif code == 0x61:
                x = self.scratch[k]
            elif code == 0x02:
                self.scratch[k] = a
            else:
                self.scratch[k] = x
            if self.outside:
                return 0
        return 0
