"""Frames with SIP, SDP and RTP, and a pipeline to give them to."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

from engine.shm.counters import Counters
from tests.builds import Build

NOW = 1_700_000_000_000_000_000
MS = 1_000_000
ALICE, BOB = "10.0.0.1", "10.0.0.2"


def frame(
    payload: bytes, src: str, sport: int, dst: str, dport: int, protocol: int = 17, ident: int = 1
) -> bytes:
    """An Ethernet frame of IPv4 or IPv6 with this payload, in UDP unless another protocol is named."""
    if protocol == 17:
        payload = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if ":" in src:
        header = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64)
        kind = b"\x86\xdd"
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, 0, 64, protocol, 0)
        kind = b"\x08\0"
    addresses = ip_address(src).packed + ip_address(dst).packed
    return bytes.fromhex("0200000000020200000000a1") + kind + header + addresses + payload


def sdp(address: str = ALICE, port: int = 4000, formats: str = "8 101", more: str = "") -> str:
    """An offer of PCMA and digits."""
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {formats}\r\n"
        f"a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )


def sip(
    first: str = f"INVITE sip:bob@{BOB} SIP/2.0", call: str = "a@b", body: str = "", cseq: str = "1 INVITE"
) -> bytes:
    """A request or an answer, with or without SDP."""
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP {ALICE}:5060;branch=z9hG4bK1\r\nFrom: <sip:alice@{ALICE}>;tag=1\r\n"
        f"To: <sip:bob@{BOB}>\r\nCall-ID: {call}\r\nCSeq: {cseq}\r\n"
        f"{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def rtp(
    number: int,
    ssrc: int = 0x1234,
    payload_type: int = 8,
    timestamp: int | None = None,
    body: bytes = bytes(160),
) -> bytes:
    """An RTP packet of 20 ms; its time follows its number unless it is given."""
    stamp = 160 * number if timestamp is None else timestamp
    return struct.pack("!BBHII", 0x80, payload_type, number & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + body


SR = struct.pack("!BBHI", 0x80, 200, 6, 0x1234) + bytes(20)


class Road:
    """A pipeline of one build, with rings and a clock."""

    def __init__(self, build: Build, sending: bool = True, slots: int = 256, **options: Any) -> None:
        self.ring = build.module("engine.shm.ring")
        self.counters = Counters.create("test", 0)
        words = self.counters.words
        self.flows = build.module("engine.shm.flows").FlowTable.create("test", 0, slots)
        self.streams = build.module("engine.shm.streams").StreamTable.create("test", 0, slots)
        self.evidence = self.ring.create("test", 0, 1 << 18)
        self.send = self.ring.create("test", 0, 1 << 18)
        self.pipeline = build.module("engine.pipeline.loop").Pipeline(
            self.counters,
            self.flows,
            self.streams,
            self.ring.RingWriter(self.send) if sending else None,
            self.ring.RingWriter(self.evidence),
            build.module("engine.decode.fragments").Reassembly(words),
            build.module("engine.decode.classifier").Decoder(words),
            options,
        )
        self.now = NOW

    def give(
        self,
        octets: bytes,
        gap_ms: float = 1,
        interface: int = 3,
        kind: int = 0,
        link: int = 1,
        wire: int = 0,
    ) -> None:
        """One frame, of `wire` octets if it is cut, in a larger buffer; the books must balance behind it."""
        self.now += int(gap_ms * MS)
        buffer = bytearray(b"\x80" * 64 + octets + b"\x80" * 64)
        self.pipeline.attach(memoryview(buffer))
        wire = wire or len(octets)
        self.pipeline.packet(64, 64 + len(octets), wire, self.now, interface, link, 0, kind)
        assert self.counters.balance() == 0

    def udp(
        self,
        payload: bytes,
        src: str = ALICE,
        sport: int = 4000,
        dst: str = BOB,
        dport: int = 5000,
        **more: Any,
    ) -> None:
        """A datagram; without more words one of Alice's media."""
        self.give(frame(payload, src, sport, dst, dport), **more)

    def say(self, message: bytes, **more: Any) -> None:
        """A datagram with SIP."""
        self.udp(message, sport=5060, dport=5060, **more)

    def counted(self, *names: str) -> tuple[int, ...]:
        """What the counters say."""
        return tuple(self.counters.get(name) for name in names)

    def sent(self) -> list[tuple[int, bytes]]:
        """Kind and body of each record that goes to reporters."""
        return [(kind, body) for kind, _, _, body in self.ring.RingReader(self.send).read(1 << 20)]

    def witnessed(self) -> list[tuple[int, bytes]]:
        """Kind and body of each record that goes to the calls process."""
        return [(kind, body) for kind, _, _, body in self.ring.RingReader(self.evidence).read(1 << 20)]
