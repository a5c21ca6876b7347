"""Calls with media, in tunnels of any form, as frames."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

if TYPE_CHECKING:
    from tests.tunnel_packets import Form

ENDS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}


def ip(version: int, back: bool = False) -> Packet:
    """An inner IP header."""
    src, dst = ENDS[version][::-1] if back else ENDS[version]
    return (IP if version == 4 else IPv6)(src=src, dst=dst)


def sip(version: int, call: str, back: bool = False, filler: int = 0, shift: int = 0) -> bytes:
    """An INVITE with SDP, or its answer; media ports 4000 and 5000, `shift` higher."""
    src = ENDS[version][back]
    body = (
        f"v=0\r\no=- 1 1 IN IP{version} {src}\r\ns=-\r\nc=IN IP{version} {src}\r\nt=0 0\r\n"
        f"m=audio {4000 + 1000 * back + shift} RTP/AVP 8\r\n" + f"a=x:{'y' * filler}\r\n" * bool(filler)
    )
    first = "SIP/2.0 200 OK" if back else "INVITE sip:bob@example.com SIP/2.0"
    return (
        f"{first}\r\nVia: SIP/2.0/UDP example.com;branch=z9hG4bK{call}\r\nFrom: <sip:a@example.com>;tag=1\r\n"
        f"To: <sip:b@example.com>\r\nCall-ID: {call}\r\nCSeq: 1 INVITE\r\n"
        f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def speech(number: int, ssrc: int) -> bytes:
    """An RTP packet of PCMA."""
    return struct.pack("!BBHII", 0x80, 8, number, 160 * number, ssrc) + bytes(160)


def call_frames(
    form: Form, form_back: Form | None = None, call: str = "a@b", ssrc: int = 7, shift: int = 0
) -> list[bytes]:
    """A call: INVITE, 200, 3 packets of speech each way, wrapped by `form`, those back by `form_back`."""
    version = form.versions[0]
    outer_back = form.outer.copy()
    outer_back.src, outer_back.dst = form.outer.dst, form.outer.src

    def wrap(payload: bytes, answer: bool, sport: int, dport: int) -> bytes:
        packet = ip(version, answer) / UDP(sport=sport, dport=dport) / Raw(payload)
        return (form_back or form).wrap(packet, outer=outer_back) if answer else form.wrap(packet)

    frames = [
        wrap(sip(version, call, shift=shift), False, 5060, 5060),
        wrap(sip(version, call, True, shift=shift), True, 5060, 5060),
    ]
    for number in range(3):
        frames.append(wrap(speech(number, ssrc), False, 4000 + shift, 5000 + shift))
        frames.append(wrap(speech(number, ssrc + 1), True, 5000 + shift, 4000 + shift))
    return frames
