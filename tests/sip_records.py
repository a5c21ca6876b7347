"""SIP records made from text, as the pipeline writes them: packet header, fixed part, slots, message."""

from __future__ import annotations

from ipaddress import ip_address

from engine.packet import MAPPED
from engine.shm.records import PACKET, SIP_FIXED, SIP_SLOTS
from tests.builds import load_pure

SECOND = 1_000_000_000
START = 1_763_764_801 * SECOND
"""2025-11-21T22:40:01Z, the first message of most tests."""


def address_to_bytes(address: str) -> bytes:
    """The 16 octets of a field with an address."""
    packed = ip_address(address).packed
    return MAPPED + packed if len(packed) == 4 else packed


def packet_header(
    src: str, dst: str, flags: int = 0, frame: int = 0, length: int = 0, protocol: int = 17
) -> bytes:
    """The packet header of a record; `src` and `dst` are address:port."""
    (source, sport), (target, dport) = (end.rsplit(":", 1) for end in (src, dst))
    return PACKET.pack(
        address_to_bytes(source.strip("[]")), address_to_bytes(target.strip("[]")), int(sport), int(dport),
        protocol, flags, 0, 0, 0, 0, 0, bytes(6), bytes(6), 1, length, length, 0, 64, 1,
        bytes(16), bytes(16), frame, 0xFFFFFFFF, 0,
    )  # fmt: skip


def record(text: str | bytes, src: str, dst: str, flags: int = 0, frame: int = 0) -> bytes:
    """The body of a SIP record; lines of `text` may end in LF."""
    octets = text.replace("\r\n", "\n").replace("\n", "\r\n").encode() if isinstance(text, str) else text
    parser = load_pure("engine.parsers.sip")["engine.parsers.sip"].SipParser()
    parser.attach(octets)
    if not parser.parse(0, len(octets)):
        raise ValueError("not SIP")
    slots = parser.slots
    message = octets[parser.start : parser.end]
    return (
        packet_header(src, dst, flags, frame, len(message))
        + SIP_FIXED.pack(
            parser.status,
            parser.error,
            parser.headers,
            parser.method,
            parser.flags & 0xFF,
            parser.cseq,
            len(message),
        )
        + b"".join(slots[place].to_bytes(4, "little", signed=True) for place in range(2 * SIP_SLOTS))
        + message
    )


SDP = """v=0
o=- 1 1 IN IP4 10.0.0.7
s=-
c=IN IP4 10.0.0.7
t=0 0
m=audio 40012 RTP/AVP 8 0
a=rtpmap:8 PCMA/8000
a=rtpmap:0 PCMU/8000
"""


def sip(
    first: str, cseq: str, call_id: str = "c1@test", branch: str = "z9hG4bKa", from_tag: str = "f1",
    to_tag: str = "", extra: str = "", body: str = "",
) -> str:  # fmt: skip
    """One message: `first` is a method or `200 OK`, `cseq` is `1 INVITE`."""
    line = f"SIP/2.0 {first}" if first[:1].isdigit() else f"{first} sip:bob@example.com SIP/2.0"
    kind = "Content-Type: application/sdp\n" if body else ""
    tag = f";tag={to_tag}" if to_tag else ""
    length = len(body) + body.count("\n")
    return (
        f"{line}\nVia: SIP/2.0/UDP 10.0.0.7:5060;branch={branch}\nMax-Forwards: 70\n"
        f'From: "Alice" <sip:alice@example.com>;tag={from_tag}\nTo: <sip:bob@example.com>{tag}\n'
        f"Call-ID: {call_id}\nCSeq: {cseq}\n{extra}{kind}Content-Length: {length}\n\n{body}"
    )
