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
LD, LDX, ST, STX, ALU, JMP, RET = range(7)
"""Classes of instructions: the lowest three bits; the eighth is MISC, with TAX and TXA."""
ABS, IND, MEM, LEN, MSH = 0x20, 0x40, 0x60, 0x80, 0xA0
"""Modes of loads; the remaining one, 0, is an immediate value."""
TXA = 0x87
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

    def operand(self, code: int, k: int, x: int) -> int:
        """What a load instruction (BPF_LD, BPF_LDX) loads; sets `outside` beyond the packet."""
        size = 4 >> ((code & 0x18) >> 3)
        mode = code & 0xE0
        if mode == ABS:
            return self.load(k, size)
        if mode == IND:
            return self.load((x + k) & MASK32, size)
        if mode == MSH:
            return (self.load(k, 1) & 15) << 2
        if mode == MEM:
            return self.scratch[k]
        return self.wire_length if mode == LEN else k

    def jump(self, place: int, a: int, x: int) -> int:
        """How many instructions behind the jump at `place` are left out."""
        code = self.codes[place]
        k = self.values[place]
        if code == 0x05:
            return k
        if code & 8:
            k = x
        code &= 0xF0
        if code == 0x10:
            hit = a == k
        elif code == 0x20:
            hit = a > k
        elif code == 0x30:
            hit = a >= k
        else:
            hit = a & k != 0
        return self.yes[place] if hit else self.no[place]

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
            kind = code & 7
            if kind == JMP:
                place += self.jump(place, a, x)
            elif kind == LD:
                a = self.operand(code, k, x)
            elif kind == LDX:
                x = self.operand(code, k, x)
            elif kind == ALU:
                a = self.compute(code, a, x, k)
            elif kind == RET:
                return a if code == 0x16 else k
            elif kind == ST:
                self.scratch[k] = a
            elif kind == STX:
                self.scratch[k] = x
            elif code == TXA:
                a = x
            else:
                x = a
            if self.outside:
                return 0
            place += 1
        return 0
