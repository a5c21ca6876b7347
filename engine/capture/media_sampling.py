"""Sampling in the kernel's filter: RTP of conversations that the workers leave out does not reach the ring.

The same arithmetic as engine.pipeline.reports.RtpReports.place_of(), in classic BPF, which knows no flow:
packets that look like RTP over UDP and IP without options, from and to ports above 1023, RTCP excepted. What
else there is passes, and the workers decide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.capture.cbpf import JEQ, JGE, JSET, LD_B, LD_H, LD_W, RET, SKF_AD, SKF_NET, Assembler

if TYPE_CHECKING:
    from engine.capture.cbpf import Program

LD_LENGTH, LD_MEMORY, STORE, TAX = 0x80, 0x60, 0x02, 0x07
AD_PROTOCOL = SKF_AD
AND, XOR, XOR_X, ADD_X, MUL, RSH = 0x54, 0xA4, 0xAC, 0x0C, 0x24, 0x74
SPREAD1, SPREAD2 = 0x9E3779B1, 0x85EBCA77
"""As in engine.pipeline.reports."""
LONGEST_LINK = 28
"""Octets before the network header: cooked, or Ethernet with tags. A load behind the packet would drop it."""
MAPPED = 0xFFFF
"""What ::ffff:0:0/96 makes of an IPv4 address whose four words are put together."""
IPV4, IPV6, UDP = 0x0800, 0x86DD, 17
FIRST_PORT = 1024
"""Below are services, whose datagrams may begin like RTP."""


def leave_out(program: Program, share: int, key: int) -> Program:
    """The program for all but the media that is left out; `share` of 2**32 is kept, `key` is of the task."""
    code = Assembler()
    code.emit(LD_W, AD_PROTOCOL)
    code.when(JEQ, IPV4, "ipv4")
    code.unless(JEQ, IPV6, "pass")
    code.emit(LD_B, SKF_NET + 6)
    code.unless(JEQ, UDP, "pass")
    _looks_like_rtp(code, 40)
    for side, place in enumerate((8, 24)):
        _side(code, SKF_NET + 40 + 2 * side, [SKF_NET + place + 4 * word for word in range(4)], key)
        _add_side(code, side)
    code.jump("hash")
    code.label("ipv4")
    code.emit(LD_B, SKF_NET)
    code.unless(JEQ, 0x45, "pass")
    code.emit(LD_H, SKF_NET + 6)
    code.when(JSET, 0x3FFF, "pass")
    code.emit(LD_B, SKF_NET + 9)
    code.unless(JEQ, UDP, "pass")
    _looks_like_rtp(code, 20)
    for side, place in enumerate((12, 16)):
        _side(code, SKF_NET + 20 + 2 * side, [SKF_NET + place], key ^ MAPPED)
        _add_side(code, side)
    code.label("hash")
    code.emit(MUL, SPREAD1)
    code.emit(TAX, 0)
    code.emit(RSH, 15)
    code.emit(XOR_X, 0)
    code.emit(MUL, SPREAD2)
    code.unless(JGE, share, "pass")
    code.emit(RET, 0)
    code.label("pass")
    return [*code.finish(), *program]


def _looks_like_rtp(code: Assembler, header: int) -> None:
    """Go on if the datagram behind an IP header of so many octets does, else to `pass`."""
    ports, payload = SKF_NET + header, SKF_NET + header + 8
    code.emit(LD_LENGTH, 0)
    code.unless(JGE, LONGEST_LINK + header + 8 + 12, "pass")
    for port in (ports, ports + 2):
        code.emit(LD_H, port)
        code.unless(JGE, FIRST_PORT, "pass")
    code.emit(LD_B, payload)
    code.emit(AND, 0xC0)
    code.unless(JEQ, 0x80, "pass")
    code.emit(LD_B, payload + 1)
    code.emit(JGE, 192, 0, 2)
    code.emit(JGE, 224, 1, 0)
    code.jump("pass")


def _side(code: Assembler, port: int, words: list[int], key: int) -> None:
    """One end of the conversation in A, mixed."""
    code.emit(LD_H, port)
    for word in words:
        code.emit(TAX, 0)
        code.emit(LD_W, word)
        code.emit(XOR_X, 0)
    code.emit(XOR, key)
    code.emit(MUL, SPREAD1)
    code.emit(TAX, 0)
    code.emit(RSH, 15)
    code.emit(XOR_X, 0)


def _add_side(code: Assembler, side: int) -> None:
    """Keep the first one, add it to the second."""
    if side == 0:
        code.emit(STORE, 0)
    else:
        code.emit(TAX, 0)
        code.emit(LD_MEMORY, 0)
        code.emit(ADD_X, 0)
