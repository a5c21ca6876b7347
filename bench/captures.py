"""Captures made here: SIP calls with and without media, in one pcap file, always the same octets.

python bench/captures.py sip FILE CALLS
python bench/captures.py mix FILE CALLS PACKETS_EACH_WAY
"""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

START_NS = 1_700_000_000_000_000_000
FRAME_NS = 20_000_000
"""A G.711 packet: 20 ms, 160 samples, 160 octets."""
SAMPLES = 160
_FILE = struct.Struct("<IHHiIII")
_RECORD = struct.Struct("<IIII")
_IPV4 = struct.Struct("!BBHHHBBH4s4s")
_UDP = struct.Struct("!HHHH")
_RTP = struct.Struct("!BBHII")
_MACS = {0: bytes.fromhex("020000000002020000000001"), 1: bytes.fromhex("020000000001020000000002")}


@dataclass(frozen=True)
class Party:
    """One side of a call."""

    address: bytes
    media_port: int
    ssrc: int

    @property
    def text(self) -> str:
        """The address as it stands in SIP and SDP."""
        return ".".join(map(str, self.address))


class PcapWriter:
    """A little-endian pcap file of Ethernet frames with microseconds."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.packets = 0
        file.write(_FILE.pack(0xA1B2C3D4, 2, 4, 0, 0, 262_144, 1))

    def write(self, timestamp_ns: int, frame: bytes) -> None:
        """Append one frame."""
        seconds, rest = divmod(timestamp_ns, 1_000_000_000)
        self.file.write(_RECORD.pack(seconds, rest // 1000, len(frame), len(frame)) + frame)
        self.packets += 1


def udp_header(src: bytes, dst: bytes, sport: int, dport: int, length: int) -> bytes:
    """Ethernet, IPv4 and UDP in front of `length` octets; the UDP checksum is left out (RFC 768)."""
    head = _IPV4.pack(0x45, 0, 28 + length, 0, 0x4000, 64, 17, 0, src, dst)
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    head = head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:]
    return _MACS[src > dst] + b"\x08\x00" + head + _UDP.pack(sport, dport, 8 + length, 0)


def frame(src: Party, dst: Party, payload: bytes) -> bytes:
    """A SIP message from one side to the other."""
    return udp_header(src.address, dst.address, 5060, 5060, len(payload)) + payload


def sdp(party: Party, session: int) -> str:
    """An offer or answer for one audio stream."""
    lines = (
        "v=0",
        f"o=- {session} 1 IN IP4 {party.text}",
        "s=call",
        f"c=IN IP4 {party.text}",
        "t=0 0",
        f"m=audio {party.media_port} RTP/AVP 0 8 101",
        "a=rtpmap:0 PCMU/8000",
        "a=rtpmap:8 PCMA/8000",
        "a=rtpmap:101 telephone-event/8000",
        "a=fmtp:101 0-16",
        "a=ptime:20",
        "a=sendrecv",
    )
    return "".join(f"{line}\r\n" for line in lines)


class Call:
    """One call: INVITE, 100, 180, 200, ACK; media; BYE, 200."""

    def __init__(self, number: int, chance: random.Random) -> None:
        host = bytes(((number >> 8) & 255, number & 255))
        port = 16_384 + 2 * (number % 20_000)
        self.caller = Party(b"\x0a\x14" + host, port, chance.getrandbits(32))
        self.callee = Party(b"\x0a\x28" + host, port, chance.getrandbits(32))
        self.call_id = f"{chance.getrandbits(96):024x}@{self.caller.text}"
        self.tags = (f"{chance.getrandbits(40):010x}", f"{chance.getrandbits(40):010x}")
        self.branches = tuple(f"z9hG4bK{chance.getrandbits(48):012x}" for _ in range(3))
        self.number = number

    def message(self, first: str, cseq: str, branch: int, body: str = "", answered: bool = True) -> bytes:
        """One message; every message of a dialog shares From, To and Call-ID."""
        to_tag = f";tag={self.tags[1]}" if answered else ""
        content = "Content-Type: application/sdp\r\n" if body else ""
        return (
            f"{first}\r\n"
            f"Via: SIP/2.0/UDP {self.caller.text}:5060;rport;branch={self.branches[branch]}\r\n"
            "Max-Forwards: 70\r\n"
            f'From: "User {self.number}" <sip:{1000 + self.number}@example.com>;tag={self.tags[0]}\r\n'
            f"To: <sip:{9000 + self.number}@example.net>{to_tag}\r\n"
            f"Call-ID: {self.call_id}\r\n"
            f"CSeq: {cseq}\r\n"
            f"Contact: <sip:{1000 + self.number}@{self.caller.text}:5060;transport=udp>\r\n"
            "Allow: INVITE, ACK, CANCEL, BYE, OPTIONS, UPDATE, PRACK\r\n"
            "Supported: replaces, timer\r\n"
            "User-Agent: otus bench\r\n"
            f"{content}Content-Length: {len(body)}\r\n\r\n{body}"
        ).encode()

    def opening(self) -> Iterator[bytes]:
        """The frames up to the ACK."""
        there, back = (self.caller, self.callee), (self.callee, self.caller)
        uri = f"sip:{9000 + self.number}@{self.callee.text}"
        offer, answer = sdp(self.caller, 1), sdp(self.callee, 2)
        yield frame(*there, self.message(f"INVITE {uri} SIP/2.0", "1 INVITE", 0, offer, answered=False))
        yield frame(*back, self.message("SIP/2.0 100 Trying", "1 INVITE", 0, answered=False))
        yield frame(*back, self.message("SIP/2.0 180 Ringing", "1 INVITE", 0))
        yield frame(*back, self.message("SIP/2.0 200 OK", "1 INVITE", 0, answer))
        yield frame(*there, self.message(f"ACK {uri} SIP/2.0", "1 ACK", 1))

    def closing(self) -> Iterator[bytes]:
        """The BYE and its answer."""
        uri = f"sip:{9000 + self.number}@{self.callee.text}"
        yield frame(self.caller, self.callee, self.message(f"BYE {uri} SIP/2.0", "2 BYE", 2))
        yield frame(self.callee, self.caller, self.message("SIP/2.0 200 OK", "2 BYE", 2))

    def media(self) -> list[tuple[bytes, int]]:
        """Header and SSRC of both directions."""
        pairs = ((self.caller, self.callee), (self.callee, self.caller))
        return [
            (udp_header(a.address, b.address, a.media_port, b.media_port, 12 + SAMPLES), a.ssrc)
            for a, b in pairs
        ]


def sip_capture(path: str | Path, calls: int) -> int:
    """`calls` calls of 7 messages and no media, one behind the other; returns the number of packets."""
    chance = random.Random(5060)
    with Path(path).open("wb") as file:
        writer = PcapWriter(file)
        for number in range(calls):
            call = Call(number, chance)
            for octets in (*call.opening(), *call.closing()):
                writer.write(START_NS + writer.packets * 100_000, octets)
        return writer.packets


def mix_capture(path: str | Path, calls: int, packets_each_way: int) -> int:
    """`calls` calls at the same time with G.711 both ways, nothing lost; returns the number of packets."""
    chance = random.Random(4000)
    parties = [Call(number, chance) for number in range(calls)]
    filler = b"\xd5" * SAMPLES
    now = START_NS
    with Path(path).open("wb") as file:
        writer = PcapWriter(file)
        for call in parties:
            for octets in call.opening():
                writer.write(now, octets)
                now += 10_000
        streams = [stream for call in parties for stream in call.media()]
        step = FRAME_NS // max(1, len(streams)) // 1000 * 1000
        for tick in range(packets_each_way):
            for position, (header, ssrc) in enumerate(streams):
                rtp = _RTP.pack(0x80, 0 if tick else 0x80, tick & 0xFFFF, tick * SAMPLES & 0xFFFFFFFF, ssrc)
                writer.write(now + position * step, header + rtp + filler)
            now += FRAME_NS
        for call in parties:
            for octets in call.closing():
                writer.write(now, octets)
                now += 10_000
        return writer.packets


def main(arguments: list[str]) -> int:
    """Make one capture from the command line."""
    if len(arguments) == 3 and arguments[0] == "sip":
        packets = sip_capture(arguments[1], int(arguments[2]))
    elif len(arguments) == 4 and arguments[0] == "mix":
        packets = mix_capture(arguments[1], int(arguments[2]), int(arguments[3]))
    else:
        print(__doc__, file=sys.stderr)
        return 2
    print(f"{arguments[1]}: {packets} packets")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
