"""Classic BPF: instructions, a small assembler, and what is put around a filter.

A filter is written once, for a packet whose link header is known; `frame()` puts a prologue before
it that finds the network header (behind up to two VLAN tags, or wherever the kernel says it
is), lets fragments pass, and enters the filter with the right offsets. Numbers are those of
include/uapi/linux/filter.h and bpf_common.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

Instruction = tuple[int, int, int, int]
Program = list[Instruction]
"""(code, jt, jf, k) each, as struct sock_filter."""

LD_W, LD_H, LD_B = 0x20, 0x28, 0x30
LD_W_X, LD_H_X, LD_B_X = 0x40, 0x48, 0x50
LDX_IMM, LDX_MSH, TAX, ADD_X = 0x01, 0xB1, 0x07, 0x0C
AND, LSH = 0x54, 0x64
JA, JEQ, JGT, JGE, JSET, RET = 0x05, 0x15, 0x25, 0x35, 0x45, 0x06

SKF_AD = 0xFFFFF000
SKF_NET = 0xFFF00000
"""Loads from here are relative to the network header, wherever that is."""
AD_PKTTYPE, AD_IFINDEX, AD_HATYPE = SKF_AD + 4, SKF_AD + 8, SKF_AD + 28

MOST_INSTRUCTIONS = 4096
"""BPF_MAXINSNS."""
MIXED = -1
"""In place of a link type: live packets of any interface, each with its own kind of link header."""
ETHERNET = 1
RAW_IP = frozenset({12, 14, 101, 228, 229})
LOOPBACK = frozenset({0, 108})
COOKED = {113: (14, 16), 276: (0, 20)}
"""Linux cooked capture: offsets of the protocol and of the network header."""
VLAN_TYPES = (0x8100, 0x88A8, 0x9100)
ETHERTYPE_IPV4, ETHERTYPE_IPV6 = 0x0800, 0x86DD
ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772
PACKET_OUTGOING = 4
_INSTRUCTION = struct.Struct("=HBBI")


def pack(program: Program) -> bytes:
    """The array of struct sock_filter."""
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)


def accept(snaplen: int) -> Program:
    """Everything passes, cut to `snaplen` octets."""
    return [(RET, 0, 0, snaplen)]


REJECT: Program = [(RET, 0, 0, 0)]


def only_interfaces(program: Program, indexes: Iterable[int]) -> Program:
    """The program for packets of these interfaces; nothing else passes."""
    tests = [*dict.fromkeys(indexes)]
    jumps = [(JEQ, 0, 1, index) for index in tests]
    prefix: Program = [(LD_W, 0, 0, AD_IFINDEX)]
    for position, jump in enumerate(jumps):
        prefix += [jump, (JA, 0, 0, 2 * (len(tests) - position - 1) + 1)]
    return [*prefix, (RET, 0, 0, 0), *program]


def once_on_loopback(program: Program) -> Program:
    """The program for one of the two copies that a packet on `lo` has: that which is received."""
    return [
        (LD_W, 0, 0, AD_HATYPE),
        (JEQ, 0, 3, ARPHRD_LOOPBACK),
        (LD_W, 0, 0, AD_PKTTYPE),
        (JEQ, 0, 1, PACKET_OUTGOING),
        (RET, 0, 0, 0),
        *program,
    ]


class Assembler:
    """Collects instructions; jumps go forward to labels."""

    def __init__(self) -> None:
        self.program: Program = []
        self._labels: dict[str, int] = {}
        self._jumps: list[tuple[int, str]] = []

    def emit(self, code: int, k: int, jt: int = 0, jf: int = 0) -> None:
        """One instruction as it is."""
        self.program.append((code, jt, jf, k & 0xFFFFFFFF))

    def label(self, name: str) -> None:
        """The next instruction is called `name`."""
        self._labels[name] = len(self.program)

    def jump(self, name: str) -> None:
        """Go to a label, however far (conditional jumps reach 255 instructions only)."""
        self._jumps.append((len(self.program), name))
        self.emit(JA, 0)

    def when(self, code: int, k: int, name: str) -> None:
        """Go to a label if the comparison of A with `k` holds."""
        self.emit(code, k, 0, 1)
        self.jump(name)

    def unless(self, code: int, k: int, name: str) -> None:
        """Go to a label if the comparison of A with `k` does not hold."""
        self.emit(code, k, 1, 0)
        self.jump(name)

    def finish(self) -> Program:
        """The program with its jumps set."""
        for position, name in self._jumps:
            code, jt, jf, _ = self.program[position]
            self.program[position] = (code, jt, jf, self._labels[name] - position - 1)
        return self.program


class Filter:
    """What frame() puts its prologue around; `enter()` is called where the network header is known."""

    def enter(self, code: Assembler, version: int, base: int, shift: int) -> None:
        """Jump into the filter: IP `version` (0: not IP), its header at `base`, `shift` octets of tags."""
        raise NotImplementedError

    def write(self, code: Assembler) -> None:
        """Write what enter() jumps to; its ways out are the labels `accept` and `reject`."""
        raise NotImplementedError


class Relocated(Filter):
    """A program compiled for one link type, repeated for each place where its network header can be."""

    def __init__(self, program: Program, network: Program | None, threshold: int, snaplen: int) -> None:
        """`program` for the link header, `network` for packets without one (None: they do not match).

        Loads at `threshold` and behind move with VLAN tags; those before it (MAC addresses) stay.
        """
        self.program = program
        self.network = network
        self.threshold = threshold
        self.snaplen = snaplen
        self._used: dict[str, int] = {}

    def enter(self, code: Assembler, version: int, base: int, shift: int) -> None:
        if base >= SKF_NET and self.network is None:
            code.jump("reject")
            return
        place = base if base >= SKF_NET else shift
        self._used[f"filter{place}"] = place
        code.jump(f"filter{place}")

    def write(self, code: Assembler) -> None:
        for label, shift in self._used.items():
            code.label(label)
            source = self.network if shift >= SKF_NET else self.program
            for instruction in source or REJECT:
                code.emit(*self._moved(instruction, shift))
        self._used.clear()

    def _moved(self, instruction: Instruction, shift: int) -> tuple[int, int, int, int]:
        code, jt, jf, k = instruction
        if code == RET and k:
            k = self.snaplen
        elif (code in (LD_W, LD_H, LD_B, LD_W_X, LD_H_X, LD_B_X, LDX_MSH)) and k < SKF_NET:
            threshold = 0 if shift >= SKF_NET else self.threshold
            k += shift if k >= threshold else 0
        return code, k, jt, jf


def finds_ip(link_type: int) -> bool:
    """Whether frame() knows where IP begins in packets of this link type."""
    return link_type in (MIXED, ETHERNET) or link_type in COOKED or link_type in RAW_IP | LOOPBACK


def frame(body: Filter, link_type: int, *, widen: bool, tags: bool, snaplen: int) -> Program:
    """The whole program: prologue for a link type (or MIXED), then the filter.

    `widen`: every fragment passes. `tags`: VLAN tags within the packet are looked through.
    """
    code = Assembler()
    if link_type == MIXED:
        code.emit(LD_W, AD_HATYPE)
        code.when(JEQ, ARPHRD_ETHER, "ethernet")
        code.when(JEQ, ARPHRD_LOOPBACK, "ethernet")
        _by_version(code, body, SKF_NET, widen)
        code.label("ethernet")
    if link_type in (MIXED, ETHERNET):
        for depth in range(3 if tags else 1):
            _by_ethertype(code, body, 12 + 4 * depth, 14 + 4 * depth, 4 * depth, widen, tags and depth < 2)
    elif link_type in COOKED:
        protocol, network = COOKED[link_type]
        _by_ethertype(code, body, protocol, network, 0, widen, deeper=False)
    elif link_type in RAW_IP:
        _by_version(code, body, 0, widen)
    elif link_type in LOOPBACK:
        _by_version(code, body, 4, widen)
    else:
        body.enter(code, 0, 0, 0)
    body.write(code)
    code.label("accept")
    code.emit(RET, snaplen)
    code.label("reject")
    code.emit(RET, 0)
    return code.finish()


def _by_ethertype(
    code: Assembler, body: Filter, place: int, network: int, shift: int, widen: bool, deeper: bool
) -> None:
    """Enter the filter by the EtherType at `place`; `deeper`: tags continue at the next depth."""
    code.label(f"depth{shift}")
    code.emit(LD_H, place)
    for tag in VLAN_TYPES if deeper else ():
        code.when(JEQ, tag, f"depth{shift + 4}")
    _by_family(code, body, (JEQ, ETHERTYPE_IPV4, ETHERTYPE_IPV6), network, shift, widen)


def _by_version(code: Assembler, body: Filter, network: int, widen: bool) -> None:
    """Enter the filter by the version in the first octet at `network`."""
    code.emit(LD_B, network)
    code.emit(AND, 0xF0)
    _by_family(code, body, (JEQ, 0x40, 0x60), network, 0, widen)


def _by_family(
    code: Assembler, body: Filter, test: tuple[int, int, int], network: int, shift: int, widen: bool
) -> None:
    """A holds what tells IPv4 from IPv6: let fragments pass, enter the filter with everything else."""
    comparison, ipv4, ipv6 = test
    name = f"at{network}"
    code.when(comparison, ipv4, f"{name}v4")
    code.when(comparison, ipv6, f"{name}v6")
    body.enter(code, 0, network, shift)
    code.label(f"{name}v4")
    if widen:
        # The first one, too: without it what follows would look like a datagram that lost its beginning.
        code.emit(LD_H, network + 6)
        code.when(JSET, 0x3FFF, "accept")
    body.enter(code, 4, network, shift)
    code.label(f"{name}v6")
    if widen:
        # The fragment header is first, or behind hop-by-hop, routing or destination options (RFC 8200 4.1).
        code.emit(LD_B, network + 6)
        code.when(JEQ, 44, "accept")
        for header in (0, 43, 60):
            code.when(JEQ, header, f"{name}options")
        body.enter(code, 6, network, shift)
        code.label(f"{name}options")
        code.emit(LD_B, network + 40)
        code.when(JEQ, 44, "accept")
    body.enter(code, 6, network, shift)
