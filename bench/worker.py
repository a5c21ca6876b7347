"""Packets per CPU-second of one worker, from TPACKET_V3 blocks in memory into the send ring.

    python bench/worker.py [SECONDS]

RTP: 214-octet frames (G.711, 20 ms) of 1,000 flows known through SDP: decoded, found in the flow registry,
counted in the stream figures and written as records into the send ring; then the same without a send ring.
SIP: INVITE with SDP, scanned in full, its media registered, written into the evidence ring and the send ring.
CPU time of this process; the blocks are made before the clock starts. The three take turns, and the figure is
the median of all walks: where the host's other guests share the core, walks of the same code differ by half.
"""

from __future__ import annotations

import socket
import statistics
import struct
import sys
import time

from bench.figures import figure
from engine import purity
from engine.capture import ring_walk
from engine.decode.classifier import Decoder
from engine.decode.fragments import Reassembly
from engine.pipeline import loop
from engine.pipeline.loop import Pipeline
from engine.shm import ring as shared_ring
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable

FLOWS = 1000
STEPS = 60
"""Packets of a flow in a walk."""
SECONDS = 1_700_000_000
BLOCK = 262_144
RING, UNREAD = 8 << 20, 16_384
"""Octets of a ring and most unread records: those of a live task."""
MUST, STRETCH = 3, 5
"""Million packets per CPU-second."""
ROUNDS = 5
SIP_MUST, SIP_STRETCH = 300, 400
PER = "per CPU-second"
"""Thousand messages per CPU-second."""


def udp(src: int, dst: int, sport: int, dport: int, payload: bytes) -> bytes:
    """An Ethernet frame; addresses as numbers."""
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    header = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0, src, dst)
    return bytes.fromhex("020000000002020000000001") + b"\x08\0" + header + datagram


def message(flow: int) -> bytes:
    """An INVITE with SDP of a usual size; each flow is a call of its own."""
    address = f"10.{flow >> 16 & 255}.{flow >> 8 & 255}.{flow & 255}"
    sdp = (
        f"v=0\r\no=- {flow} 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        "m=audio 4000 RTP/AVP 8 0 101\r\na=rtpmap:8 PCMA/8000\r\na=rtpmap:0 PCMU/8000\r\n"
        "a=rtpmap:101 telephone-event/8000\r\na=fmtp:101 0-15\r\na=ptime:20\r\na=sendrecv\r\n"
    )
    return (
        "INVITE sip:bob@example.com SIP/2.0\r\n"
        f"Via: SIP/2.0/UDP {address}:5060;branch=z9hG4bK{flow:08x};rport\r\n"
        f'Max-Forwards: 70\r\nFrom: "Alice" <sip:alice@example.com>;tag={flow:x}\r\n'
        "To: <sip:bob@example.com>\r\n"
        f"Call-ID: {flow:016x}@{address}\r\nCSeq: 1 INVITE\r\nContact: <sip:alice@{address}:5060>\r\n"
        "User-Agent: bench/1\r\nAllow: INVITE, ACK, BYE, CANCEL, OPTIONS, UPDATE, PRACK, REFER\r\n"
        "Supported: 100rel, timer, replaces\r\nContent-Type: application/sdp\r\n"
        f"Content-Length: {len(sdp)}\r\n\r\n{sdp}"
    ).encode()


class Ring:
    """TPACKET_V3 blocks in memory, ready to be walked any number of times."""

    def __init__(self, frames: list[bytes]) -> None:
        blocks: list[list[bytes]] = [[]]
        room = BLOCK - 48
        for frame in frames:
            size = 96 + (len(frame) + 7 & ~7)
            if size > room:
                blocks.append([])
                room = BLOCK - 48
            room -= size
            blocks[-1].append(frame)
        self.count = len(blocks)
        self.packets = len(frames)
        self.octets = bytearray(BLOCK * len(blocks))
        for position, block in enumerate(blocks):
            self._block(position, block)
        self.places: list[int] = []
        for position, block in enumerate(blocks):
            place = BLOCK * position + 48
            for frame in block:
                self.places.append(place)
                place += 96 + (len(frame) + 7 & ~7)
        self.walks = 0

    def _block(self, position: int, frames: list[bytes]) -> None:
        base = position * BLOCK
        struct.pack_into("=IIIIII", self.octets, base, 1, 48, 0, len(frames), 48, BLOCK)
        struct.pack_into("=Q", self.octets, base + 24, position + 1)
        place = base + 48
        for frame in frames:
            size = 96 + (len(frame) + 7 & ~7)
            last = frame is frames[-1]
            struct.pack_into(
                "=IIIIIIHHIIHH", self.octets, place, 0 if last else size, SECONDS, 0, len(frame), len(frame),
                1, 82, 96, 0, 0, 0, 0,
            )  # fmt: skip
            struct.pack_into("=HHiHBB", self.octets, place + 48, 17, socket.htons(0x0800), 3, 1, 0, 6)
            self.octets[place + 82 : place + 82 + len(frame)] = frame
            place += size

    def ready(self) -> None:
        """All blocks are the reader's again."""
        for block in range(self.count):
            struct.pack_into("=I", self.octets, block * BLOCK + 8, 1)


class RtpRing(Ring):
    """Packets of speech that go on from one walk to the next: sequence numbers, timestamps and arrival."""

    def ready(self) -> None:
        """The next STEPS packets of each flow, 20 ms and up to 0.4 ms behind the one before it."""
        super().ready()
        for index, place in enumerate(self.places):
            step, flow = index // FLOWS + STEPS * self.walks, index % FLOWS
            nanoseconds = step * 20_000_000 + flow * 15_000 + (step + flow) * 7919 % 400 * 1000
            struct.pack_into(
                "=II", self.octets, place + 4, SECONDS + nanoseconds // 10**9, nanoseconds % 10**9
            )
            struct.pack_into("!HI", self.octets, place + 82 + 44, step & 0xFFFF, 160 * step & 0xFFFFFFFF)
        self.walks += 1


class Road:
    """A worker's pipeline with everything it needs, and the ring that it walks."""

    def __init__(self, frames: list[bytes], sending: bool, media: bool) -> None:
        self.ring = RtpRing(frames) if media else Ring(frames)
        self.counters = Counters.create("bench", 0)
        flows = FlowTable.create("bench", 0, 16384)
        streams = StreamTable.create("bench", 0, 16384)
        evidence = shared_ring.RingWriter(shared_ring.create("bench", 0, RING))
        send = shared_ring.RingWriter(shared_ring.create("bench", 0, RING, UNREAD)) if sending else None
        self.pipeline = Pipeline(
            self.counters,
            flows,
            streams,
            send,
            evidence,
            Reassembly(self.counters.words),
            Decoder(self.counters.words),
            {},
        )
        if media:
            self.walk(Ring(sip_frames()))

    def walk(self, ring: Ring) -> float:
        """CPU seconds of one walk over all blocks."""
        ring.ready()
        ring_walk.forget_progress(self.counters)
        walk = ring_walk.RingWalk(memoryview(ring.octets), BLOCK, ring.count, self.counters, self.pipeline)
        begun = time.process_time()
        while walk.run(64):
            pass
        return time.process_time() - begun

    def rates(self, seconds: float) -> list[float]:
        """Packets per CPU-second of each walk, for as long as those take `seconds` in all."""
        self.walk(self.ring)
        rates: list[float] = []
        spent = 0.0
        while spent < seconds:
            spent += (taken := self.walk(self.ring))
            rates.append(self.ring.packets / taken)
        return rates


def rtp_frames() -> list[bytes]:
    """STEPS packets of each flow, all flows in turn."""
    return [
        udp(
            0x0B000000 + flow,
            0x0A000000 + flow,
            5000,
            4000,
            struct.pack("!BBHII", 0x80, 8, step, 160 * step, 0x1000 + flow) + b"\x55" * 160,
        )
        for step in range(STEPS)
        for flow in range(FLOWS)
    ]


def sip_frames() -> list[bytes]:
    """An INVITE with SDP of each flow."""
    return [udp(0x0A000000 + flow, 1, 5060, 5060, message(flow)) for flow in range(FLOWS)]


def spread(rates: list[float], unit: float = 1e6) -> str:
    """Between which rates eight of ten walks lie."""
    tenths = statistics.quantiles(rates, n=10)
    return f"8 of 10 walks {tenths[0] / unit:.3g} to {tenths[-1] / unit:.3g}"


def main() -> int:
    """Print the rates; 1 where one misses what is asked."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    if not purity.is_compiled(loop):
        print("worker: not compiled, the figures are those of the slow build")
    rtp = Road(rtp_frames(), True, True)
    handled = Road(rtp_frames(), False, True)
    sip = Road(sip_frames(), True, False)
    rates: dict[Road, list[float]] = {rtp: [], handled: [], sip: []}
    for _ in range(ROUNDS):
        for road, seen in rates.items():
            seen.extend(road.rates(seconds / ROUNDS))
    rate, quiet, messages = (statistics.median(seen) for seen in rates.values())
    for road in (rtp, handled, sip):
        if road.counters.balance():
            raise AssertionError("the books do not balance")
    if rtp.counters.get("rtp_by_sdp") != rtp.counters.get("output_rtp"):
        raise AssertionError("not every packet was reported")
    print(f"worker: RTP without a send ring: {quiet / 1e6:.2f} M packets/CPU-s")
    name = f"worker: RTP, {FLOWS} flows, block -> send ring"
    good = figure(name, rate / 1e6, MUST, STRETCH, "M packets/s", f"{PER}, {spread(rates[rtp])}")
    name = "worker: SIP, INVITE with SDP, two rings"
    told = figure(
        name, messages / 1e3, SIP_MUST, SIP_STRETCH, "k messages/s", f"{PER}, {spread(rates[sip], 1e3)}"
    )
    return 0 if good and told else 1


if __name__ == "__main__":
    sys.exit(main())
