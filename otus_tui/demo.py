"""A capture for a first look: `python -m otus_tui.demo FILE` writes three calls, the same octets every time.

One call is answered and has media with loss, one meets a busy phone, one is given up while it
rings; a registration stands before them. Addresses are those of the documentation (RFC 5737).
Standard library only; the engine is not imported.
"""

from __future__ import annotations

import struct
import sys
from dataclasses import dataclass, field

START = 1_767_225_600_000_000_000
"""2026-01-01 00:00:00 UTC, ns."""
MS = 1_000_000
ALICE, BOB, CAROL, PROXY = "192.0.2.10", "198.51.100.20", "198.51.100.30", "192.0.2.1"
NAMES = {"alice": ALICE, "bob": BOB, "carol": CAROL}
MAGIC_NANOSECONDS = 0xA1B23C4D
LINKTYPE_RAW = 101
TALK_PACKETS = 700
"""20 ms of speech each: 14 s."""


@dataclass
class Capture:
    """Packets of the demonstration, in any order until `octets()`."""

    packets: list[tuple[int, int, bytes]] = field(default_factory=list)
    identification: int = 0

    def udp(self, at: int, src: str, sport: int, dst: str, dport: int, payload: bytes) -> None:
        """One datagram, `at` ns after START."""
        self.identification = self.identification + 1 & 0xFFFF
        addresses = bytes(int(part) for part in f"{src}.{dst}".split("."))
        length = 8 + len(payload)
        pseudo = addresses + struct.pack(">HHHHHH", 17, length, sport, dport, length, 0) + payload
        checksum = _checksum(pseudo) or 0xFFFF
        udp = struct.pack(">HHHH", sport, dport, length, checksum) + payload
        head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + length, self.identification, 0x4000, 64, 17, 0)
        check = _checksum(head + addresses)
        self.packets.append((at, len(self.packets), head[:10] + struct.pack(">H", check) + addresses + udp))

    def octets(self) -> bytes:
        """The whole pcap file, packets in the order of their times."""
        blocks = [struct.pack("<IHHiIII", MAGIC_NANOSECONDS, 2, 4, 0, 0, 65_535, LINKTYPE_RAW)]
        for at, _, packet in sorted(self.packets):
            seconds, rest = divmod(START + at, 1_000_000_000)
            blocks.append(struct.pack("<IIII", seconds, rest, len(packet), len(packet)) + packet)
        return b"".join(blocks)


def _checksum(octets: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f">{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2)))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return int(~total & 0xFFFF)


@dataclass
class Call:
    """The messages of one INVITE from alice, through the proxy, to `callee`."""

    capture: Capture
    callee: str
    number: int
    start: int

    def message(self, at: int, way: str, first: str, cseq: str, tagged: bool = True, sdp: str = "") -> None:
        """One message, `at` ms after the start; `way` is two of a (alice), p (proxy) and b (callee)."""
        places = {"a": ALICE, "p": PROXY, "b": NAMES[self.callee]}
        src, dst = places[way[0]], places[way[1]]
        sent_by = [ALICE] if "a" in way else [PROXY, ALICE]
        branch = f"branch=z9hG4bK{self.number}{cseq[0]}"
        lines = [first, *(f"Via: SIP/2.0/UDP {hop}:5060;{branch}{hop[-1]}" for hop in sent_by)]
        tag = f";tag={self.callee}{self.number}" if tagged else ""
        method = first.split(" ", 1)[0]
        lines += [] if method == "SIP/2.0" else [f"Max-Forwards: {70 if 'a' in way else 69}"]
        lines += [
            f"From: Alice <sip:alice@example.com>;tag=alice{self.number}",
            f"To: <sip:{self.callee}@example.com>{tag}",
            f"Call-ID: demo-{self.number}@{ALICE}",
            f"CSeq: {cseq}",
            f"Contact: <sip:{'alice' if src == ALICE else self.callee}@{src}:5060>",
            f"User-Agent: {'Desk phone' if 'a' in way else 'Proxy'} 1.0",
        ]
        lines += ["Content-Type: application/sdp"] if sdp else []
        text = "\r\n".join([*lines, f"Content-Length: {len(sdp)}", "", sdp])
        self.capture.udp(self.start + at * MS, src, 5060, dst, 5060, text.encode())

    def both(self, at: int, way: str, first: str, cseq: str, tagged: bool = True, sdp: str = "") -> None:
        """The same message on both sides of the proxy: `way` is ab or ba."""
        self.message(at, f"{way[0]}p", first, cseq, tagged, sdp)
        self.message(at + 4, f"p{way[1]}", first, cseq, tagged, sdp)

    def invite(self) -> None:
        """INVITE with an offer, and the proxy's 100."""
        self.both(
            0, "ab", f"INVITE sip:{self.callee}@example.com SIP/2.0", "1 INVITE", False, _sdp(ALICE, 40_000)
        )
        self.message(2, "pa", "SIP/2.0 100 Trying", "1 INVITE", False)

    def ack(self, at: int) -> None:
        """The ACK of the INVITE's final response."""
        self.both(at, "ab", f"ACK sip:{self.callee}@example.com SIP/2.0", "1 ACK")


def _sdp(address: str, port: int) -> str:
    lines = [
        "v=0",
        f"o=- 1 1 IN IP4 {address}",
        "s=-",
        f"c=IN IP4 {address}",
        "t=0 0",
        f"m=audio {port} RTP/AVP 8 101",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=ptime:20",
        "a=sendrecv",
    ]
    return "".join(f"{line}\r\n" for line in lines)


@dataclass(frozen=True)
class Stream:
    """One direction of speech: G.711 A-law, 20 ms a packet."""

    src: str
    sport: int
    dst: str
    dport: int
    ssrc: int
    lose: tuple[int, ...] = ()
    wobble: int = 1
    """Largest delay in ms that the network adds."""

    def write(self, capture: Capture, start: int) -> None:
        """Speech from `start` ns on, with a sender report each 5 s (RFC 3550 section 6.4.1)."""
        speech = bytes(0xD5 ^ (index * 7 & 0x3F) for index in range(160))
        for number in range(TALK_PACKETS):
            at = start + number * 20 * MS
            stamp = number * 160
            if number % 250 == 249:
                seconds, rest = divmod(START + at, 1_000_000_000)
                ntp = (seconds + 2_208_988_800, (rest << 32) // 1_000_000_000)
                report = struct.pack(
                    ">BBHIIIIII", 0x80, 200, 6, self.ssrc, *ntp, stamp, number + 1, (number + 1) * 160
                )
                name = b"alice@example.com" if self.src == ALICE else b"bob@example.com"
                item = struct.pack(">IBB", self.ssrc, 1, len(name)) + name
                item += bytes(4 - len(item) % 4)
                source = struct.pack(">BBH", 0x81, 202, len(item) // 4) + item
                capture.udp(at, self.src, self.sport + 1, self.dst, self.dport + 1, report + source)
            if number in self.lose:
                continue
            delay = number * 7919 % 1000 * self.wobble * MS // 1000
            header = struct.pack(
                ">BBHII", 0x80, 0x88 if number == 0 else 8, number & 0xFFFF, stamp, self.ssrc
            )
            capture.udp(at + delay, self.src, self.sport, self.dst, self.dport, header + speech)


def _answered(capture: Capture) -> None:
    """Alice talks to bob for 14 s; what bob hears has 21 packets less."""
    call = Call(capture, "bob", 1, 1_000 * MS)
    call.invite()
    call.both(140, "ba", "SIP/2.0 180 Ringing", "1 INVITE")
    call.both(2_300, "ba", "SIP/2.0 200 OK", "1 INVITE", sdp=_sdp(BOB, 41_000))
    call.ack(2_320)
    lose = (120, *range(300, 312), *range(500, 508))
    Stream(ALICE, 40_000, BOB, 41_000, 0x00A11CE0, lose, wobble=12).write(capture, call.start + 2_340 * MS)
    Stream(BOB, 41_000, ALICE, 40_000, 0x00000B0B).write(capture, call.start + 2_330 * MS)
    end = 2_340 + TALK_PACKETS * 20 + 50
    call.both(end, "ab", "BYE sip:bob@example.com SIP/2.0", "2 BYE")
    call.both(end + 20, "ba", "SIP/2.0 200 OK", "2 BYE")


def _busy(capture: Capture) -> None:
    call = Call(capture, "carol", 2, 5_000 * MS)
    call.invite()
    call.both(60, "ba", "SIP/2.0 486 Busy Here", "1 INVITE")
    call.ack(70)


def _cancelled(capture: Capture) -> None:
    call = Call(capture, "bob", 3, 9_000 * MS)
    call.invite()
    call.both(130, "ba", "SIP/2.0 180 Ringing", "1 INVITE")
    call.both(4_100, "ab", "CANCEL sip:bob@example.com SIP/2.0", "1 CANCEL", False)
    call.both(4_112, "ba", "SIP/2.0 200 OK", "1 CANCEL")
    call.both(4_120, "ba", "SIP/2.0 487 Request Terminated", "1 INVITE")
    call.ack(4_140)


def _registration(capture: Capture) -> None:
    for number, (first, extra) in enumerate(
        (
            ("REGISTER sip:example.com SIP/2.0", ""),
            ("SIP/2.0 401 Unauthorized", 'WWW-Authenticate: Digest realm="example.com", nonce="6f1d"\r\n'),
            (
                "REGISTER sip:example.com SIP/2.0",
                'Authorization: Digest username="alice", realm="example.com", nonce="6f1d", '
                'uri="sip:example.com", response="0f3c9b2d4a5e6f708192a3b4c5d6e7f8"\r\n',
            ),
            ("SIP/2.0 200 OK", "Expires: 3600\r\n"),
        )
    ):
        sequence = 1 + number // 2
        tag = ";tag=registrar" if number % 2 else ""
        text = (
            f"{first}\r\nVia: SIP/2.0/UDP {ALICE}:5060;branch=z9hG4bKr{sequence}\r\n"
            f"From: <sip:alice@example.com>;tag=r\r\nTo: <sip:alice@example.com>{tag}\r\n"
            f"Call-ID: demo-register@{ALICE}\r\nCSeq: {sequence} REGISTER\r\n"
            f"Contact: <sip:alice@{ALICE}:5060>\r\n{extra}Content-Length: 0\r\n\r\n"
        )
        ends = (PROXY, ALICE) if number % 2 else (ALICE, PROXY)
        capture.udp(number * 9 * MS, ends[0], 5060, ends[1], 5060, text.encode())


def capture() -> bytes:
    """The demonstration as a pcap file with nanoseconds, link type raw IP."""
    made = Capture()
    _registration(made)
    _answered(made)
    _busy(made)
    _cancelled(made)
    return made.octets()


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as file:
        file.write(capture())
