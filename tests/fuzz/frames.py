"""Frames to begin with, sequences of them as one input, and lengths put right again after a change."""

from __future__ import annotations

import os
import struct
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from engine.capture.pcap_file import PcapFile
from engine.capture.sink import PacketSink
from engine.errors import UsageError
from tests.messages import BODIES, INVITE, MESSAGES

ROOT = Path(__file__).resolve().parents[2]
CAPTURES = Path(os.environ.get("OTUS_CAPTURES") or ROOT.parent / "shared" / "captures")
"""A collection of captures, where there is one: each gives some frames to begin with."""
FROM_EACH = 24
LINKS = (1, 113, 276, 101, 0, 108, 12, 228, 229, 9, 105, 127, 239, 107, 1, 1)
"""Link types by the low four bits of the octet in front of a frame."""
OUTGOING, SNAPPED, OTHER_INTERFACE, TAGGED = 16, 32, 64, 128
ALICE, BOB = "10.0.0.7", "10.0.0.9"
MAC = bytes.fromhex("0200000000020200000000010800")


class Frame(NamedTuple):
    """One frame of a sequence."""

    how: int
    gap: int
    octets: bytes

    @property
    def link_type(self) -> int:
        """LINKTYPE_ number."""
        return LINKS[self.how & 15]

    @property
    def gap_ns(self) -> int:
        """Since the frame before: to 200 ms, above in steps of 1 s."""
        return (self.gap if self.gap < 200 else (self.gap - 199) * 1000) * 1_000_000


def sequence(octets: bytes, most: int = 64) -> list[Frame]:
    """The frames of an input: u8 how, u8 gap, u16 length, octets; the last one may be cut."""
    found = []
    place = 0
    while place + 4 <= len(octets) and len(found) < most:
        how, gap, length = struct.unpack_from("!BBH", octets, place)
        place += 4
        found.append(Frame(how, gap, octets[place : place + length]))
        place += length
    return found


def joined(frames: list[Frame] | list[bytes]) -> bytes:
    """The input that sequence() reads; bare frames are of Ethernet, 20 ms apart."""
    whole = [one if isinstance(one, Frame) else Frame(0, 20, one) for one in frames]
    return b"".join(struct.pack("!BBH", one.how, one.gap, len(one.octets)) + one.octets for one in whole)


def udp(payload: bytes, sport: int, dport: int, src: str = ALICE, dst: str = BOB, ident: int = 1) -> bytes:
    """A UDP datagram in an Ethernet frame."""
    return ip(struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload, 17, src, dst, ident)


def ip(
    payload: bytes, protocol: int, src: str = ALICE, dst: str = BOB, ident: int = 1, field: int = 0
) -> bytes:
    """An IP packet in an Ethernet frame; `field`: flags and offset of IPv4."""
    ends = ip_address(src).packed + ip_address(dst).packed
    if ":" in src:
        header = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64) + ends
        return MAC[:12] + b"\x86\xdd" + header + payload
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, field, 64, protocol, 0) + ends
    return MAC + header + payload


def fragments(frame: bytes, size: int, ident: int) -> list[bytes]:
    """An IPv4 frame in fragments of `size` octets."""
    payload = frame[34:]
    src, dst = (str(ip_address(frame[place : place + 4])) for place in (26, 30))
    parts = [(at, payload[at : at + size]) for at in range(0, len(payload), size)]
    return [
        ip(part, frame[23], src, dst, ident, (at >> 3) | (0x2000 if at + size < len(payload) else 0))
        for at, part in parts
    ]


def rtp(
    number: int, ssrc: int = 0x1234, payload_type: int = 8, body: bytes = bytes(40), marker: int = 0
) -> bytes:
    """An RTP packet of a stream with 160 units a packet."""
    return struct.pack("!BBHII", 0x80, marker << 7 | payload_type, number & 0xFFFF, 160 * number, ssrc) + body


def event(number: int, code: int, ended: int, length: int, start: int = 1600) -> bytes:
    """A telephone event (RFC 4733) of payload type 101."""
    return struct.pack("!BBHIIBBH", 0x80, 101, number, start, 0x1234, code, ended << 7 | 10, length)


def report(ssrc: int = 0x1234, about: int = 0x4321) -> bytes:
    """A compound RTCP packet: SR with a block, SDES, XR with all blocks that are known, APP, BYE."""
    sender = struct.pack("!BBHIQIII", 0x81, 200, 12, ssrc, 0xE0000000_12345678, 1600, 10, 400)
    sender += struct.pack("!IIIIII", about, 0x05000001, 20, 30, 0x00001234, 655)
    names = struct.pack("!BBHI", 0x81, 202, 4, ssrc) + b"\x01\x08a@b.test\0\0"
    extended = struct.pack("!BBHI", 0x80, 207, 18, ssrc) + struct.pack("!BBHQ", 4, 0, 2, 0xE0000000_12345678)
    extended += struct.pack("!BBHIII", 5, 0, 3, about, 0x1234, 655)
    extended += struct.pack("!BBHI", 7, 0, 8, about) + bytes(range(28))
    application = struct.pack("!BBHI4s", 0x80, 204, 2, ssrc, b"test")
    return sender + names + extended + application + struct.pack("!BBHI", 0x81, 203, 1, ssrc)


@cache
def call() -> tuple[bytes, ...]:
    """A call with media both ways, DTMF, RTCP and its end."""
    offer = INVITE.replace(b"192.0.2.1", ALICE.encode())
    head, _, body = offer.partition(b"\r\n\r\n")
    reply = head.replace(b"INVITE sip:bob@example.com:5070;user=phone SIP/2.0", b"SIP/2.0 200 OK", 1)
    answer = reply + b"\r\n\r\n" + body.replace(ALICE.encode(), BOB.encode())
    over = head.replace(b"INVITE sip", b"BYE sip", 1).replace(b"314159 INVITE", b"314160 BYE") + b"\r\n\r\n"
    frames = [udp(offer, 5060, 5060), udp(answer, 5060, 5060, BOB, ALICE)]
    for number in range(4):
        frames.append(udp(rtp(number), 40012, 40012))
        frames.append(udp(rtp(number, 0x4321, 0), 40012, 40012, BOB, ALICE))
    frames += [udp(event(4 + n, 5, n == 2, 160 * n), 40012, 40012) for n in range(3)]
    frames += [udp(report(), 40013, 40013), udp(report(0x4321, 0x1234), 40013, 40013, BOB, ALICE)]
    return (*frames, udp(over, 5060, 5060))


@cache
def tunnelled() -> tuple[bytes, ...]:
    """The first message of the call in every form of tunnel."""
    from tests.tunnel_packets import FORMS

    inner = call()[0][14:]
    wide = ip(call()[0][34:], 17, "fd00::7", "fd00::9")[14:]
    return tuple(
        form.wrap(
            (MAC + inner if 4 in form.versions else MAC[:12] + b"\x86\xdd" + wide)[0 if form.frame else 14 :]
        )
        for form in FORMS.values()
    )


@cache
def others() -> tuple[bytes, ...]:
    """What else is on a wire: TCP, ICMP with a quote, ARP, tags, PPPoE, extension headers, fragments."""
    first = call()[0]
    quote = struct.pack("!BBHI", 3, 3, 0, 0) + first[14:200]
    tcp = struct.pack("!HHIIBBHHH", 5060, 5060, 1, 1, 0x50, 0x18, 1000, 0, 0) + first[42:]
    options = b"\x3c\0\x01\x04\0\0\0\0" + b"\x11\0\x01\x04\0\0\0\0"
    six = ip(options + first[34:], 0, "fd00::7", "fd00::9")
    part = struct.pack("!BBHI", 17, 0, 1, 9) + first[34:82]
    more = struct.pack("!BBHI", 17, 0, 48, 9) + first[82:]
    return (
        ip(quote, 1, BOB, ALICE),
        ip(tcp, 6),
        MAC[:12] + b"\x08\x06" + bytes(28),
        MAC[:12] + b"\x81\0\0\x64" + first[12:],
        MAC[:12] + b"\x88\xa8\0\x64\x81\0\0\x65" + first[12:],
        MAC[:12] + b"\x88\x64\x11\0\0\x07" + struct.pack("!H", len(first) - 12) + b"\0\x21" + first[14:],
        MAC[:12] + b"\x88\x47" + b"\0\x01\x01\x40" + first[14:],
        six,
        ip(part, 44, "fd00::7", "fd00::9"),
        ip(more, 44, "fd00::7", "fd00::9"),
        *fragments(first, 200, 7),
        *(udp(message, 5060, 5060) for message in MESSAGES),
        *(udp(body, 5060, 5060) for body in BODIES),
        udp(bytes([0, 1, 0, 8]) + bytes(16), 3478, 3478),
        udp(b"\r\n\r\n", 5060, 5060),
    )


class _Frames(PacketSink):
    """Keeps the first frames of a file, one of each length."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], Frame] = {}
        self.buf = memoryview(b"")

    def attach(self, buf: memoryview) -> None:
        self.buf = buf

    def packet(
        self, start: int, end: int, wire: int, timestamp: int, interface: int, link: int, *_: int
    ) -> int:
        if link in LINKS and len(self.found) < FROM_EACH:
            octets = bytes(self.buf[start:end])
            self.found.setdefault((link, end - start), Frame(LINKS.index(link), 20, octets))
        return 0


@cache
def captured() -> tuple[Frame, ...]:
    """Frames of the collection of captures; none where it is not at hand."""
    found: list[Frame] = []
    for path in sorted(CAPTURES.glob("*/*.pcap*")):
        sink = _Frames()
        try:
            PcapFile(str(path), sink).run(2000)
        except UsageError:
            continue
        found += sink.found.values()
    return tuple(found)


@cache
def single() -> tuple[Frame, ...]:
    """Single frames of every kind."""
    return (*(Frame(0, 20, one) for one in (*call(), *tunnelled(), *others())), *captured())


# ---- lengths ----


def repaired(frame: bytearray, link_type: int = 1) -> bytearray:
    """The lengths of IP and UDP, also in VXLAN and IP in IP, say what there is."""
    if link_type == 1:
        _ethernet(frame, 0)
    elif link_type in (101, 228, 229):
        _ip(frame, 0)
    return frame


def _ethernet(frame: bytearray, place: int) -> None:
    place += 12
    while frame[place : place + 2] in (b"\x81\0", b"\x88\xa8"):
        place += 4
    if frame[place : place + 2] in (b"\x08\0", b"\x86\xdd"):
        _ip(frame, place + 2)


def _ip(frame: bytearray, place: int, depth: int = 0) -> None:
    left = len(frame) - place
    if depth > 8 or left < 28 or left > 0xFFFF:
        return
    if frame[place] >> 4 == 4:
        struct.pack_into("!H", frame, place + 2, left)
        frame[place] = 0x40 | max(5, frame[place] & 15)
        protocol, inner = frame[place + 9], place + 4 * (frame[place] & 15)
        if frame[place + 6] & 0x1F or frame[place + 7]:
            return
    elif frame[place] >> 4 == 6 and left >= 40:
        struct.pack_into("!H", frame, place + 4, left - 40)
        protocol, inner = frame[place + 6], place + 40
    else:
        return
    if protocol == 17 and len(frame) - inner >= 8:
        struct.pack_into("!H", frame, inner + 4, len(frame) - inner)
        if frame[inner + 2 : inner + 4] == b"\x12\xb5":
            _ethernet(frame, inner + 16)
    elif protocol in (4, 41):
        _ip(frame, inner, depth + 1)
