"""Floods against every table, at full size: memory stays flat, counters tell what was turned away.

    python -m bench.bounds [SHARE]

One worker's packet road, the calls' store behind it, tables of the sizes that a live task has, and 100
calls with media that were up before. Then 1,000,000 INVITEs with Call-IDs and endpoints of their own;
1,000,000 SSRCs in one flow; a call of 60,000 messages; messages that are nothing but headers; SDP with
1,000 media lines. SHARE (1.0) of all that. RSS: what the process grew by in the second half of a flood.
CPU: thread time of a frame in the last tenth against the first.
"""

from __future__ import annotations

import os
import struct
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bench.figures import figure
from engine import purity
from engine.calls.store import Calls
from engine.decode.classifier import ALL_TUNNELS, Decoder
from engine.decode.fragments import Reassembly
from engine.pipeline import loop
from engine.shm import ring
from engine.shm.counters import Counters
from engine.shm.flows import FlowTable
from engine.shm.streams import StreamTable

START = 1_700_000_000_000_000_000
CALLS_UP = 100
DRAIN_EVERY = 64
SIZES = {
    "calls": 20_000,
    "messages_per_call": 500,
    "message_bytes": 64 << 20,
    "streams": 32_768,
    "flows": 131_072,
}
"""As a live task has them (engine.config), half of the octets of messages."""
MOST_GROWTH = 4 << 20
"""Octets of RSS while a flood goes on; the allocator's own share is in it."""
MOST_SLOWER = 2.0
CALLER, CALLEE = (10, 0, 0, 1), (10, 0, 0, 2)


def udp(payload: bytes, src: tuple[int, ...], dst: tuple[int, ...], sport: int, dport: int) -> bytearray:
    """An Ethernet frame."""
    head = struct.pack("!BBHHHBBH4B4B", 0x45, 0, 28 + len(payload), 1, 0, 64, 17, 0, *src, *dst)
    ports = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0)
    return bytearray(bytes.fromhex("0200000000020200000000010800") + head + ports + payload)


def message(first: str, call: str, cseq: str, body: str = "", more: str = "", to_tag: str = "") -> bytes:
    """A SIP message."""
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP 10.0.0.1:5060;branch=z9hG4bK{call}\r\nFrom: <sip:a@x.test>;tag=1\r\n"
        f"To: <sip:b@x.test>{to_tag}\r\nCall-ID: {call}\r\nCSeq: {cseq}\r\n{more}{kind}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def sdp(address: tuple[int, ...], port: int, media: int = 1) -> str:
    """A description with so many media lines."""
    where = ".".join(map(str, address))
    lines = "".join(f"m=audio {(port + 2 * number) % 65_536} RTP/AVP 8\r\n" for number in range(media))
    return f"v=0\r\no=- 1 1 IN IP4 {where}\r\ns=-\r\nc=IN IP4 {where}\r\nt=0 0\r\n{lines}"


def rtp(number: int, ssrc: int) -> bytes:
    """20 ms of PCMA."""
    return struct.pack("!BBHII", 0x80, 8, number & 0xFFFF, (160 * number) & 0xFFFFFFFF, ssrc) + bytes(160)


class Host:
    """A worker and the calls' store, as a task has them, without the processes."""

    def __init__(self, **sizes: int) -> None:
        self.sizes = {**SIZES, **sizes}
        self.counters = Counters.create("bounds", 0)
        self.flows = FlowTable.create("bounds", 0, self.sizes["flows"])
        self.streams = StreamTable.create("bounds", 0, self.sizes["streams"])
        self.evidence = ring.create("bounds", 0, 4 << 20)
        self.calls = Calls({key: self.sizes[key] for key in SIZES if key != "flows"}, "packet", self.streams)
        self.reader = ring.RingReader(self.evidence)
        self.road = loop.Pipeline(
            self.counters,
            self.flows,
            self.streams,
            ring.RingWriter(ring.create("bounds", 0, 1 << 20)),
            ring.RingWriter(self.evidence),
            Reassembly(self.counters.words),
            Decoder(self.counters.words, ALL_TUNNELS),
            {},
        )
        self.now = START
        self.given = 0

    def give(self, frame: bytes | bytearray, gap_us: int = 100) -> None:
        """One frame; the calls' process reads along and looks at its timers."""
        self.now += 1000 * gap_us
        self.road.attach(memoryview(frame))
        self.road.packet(0, len(frame), len(frame), self.now, 1, 1, 0, 0)
        self.given += 1
        if self.given % DRAIN_EVERY == 0:
            self.calls.drain(self.reader, 4096)
        if self.given % (64 * DRAIN_EVERY) == 0:
            self.road.idle(self.now)
            self.calls.refresh(exact=True)

    def settle(self) -> None:
        """Read what is left."""
        while self.calls.drain(self.reader, 4096):
            pass
        self.calls.refresh(exact=True)
        assert self.counters.balance() == 0

    def get(self, name: str) -> int:
        """A counter."""
        return self.counters.get(name)

    # ---- calls that are up ----

    def bring_up(self, count: int) -> None:
        """Calls with media: INVITE, answer, ACK."""
        for number in range(count):
            call, ends = f"up{number}@x.test", self.ends(number)
            offer, answer = sdp(CALLER, ends[0]), sdp(CALLEE, ends[1])
            self.give(
                udp(
                    message("INVITE sip:b@x.test SIP/2.0", call, "1 INVITE", offer),
                    CALLER,
                    CALLEE,
                    5060,
                    5060,
                )
            )
            ok = message("SIP/2.0 200 OK", call, "1 INVITE", answer, to_tag=";tag=2")
            self.give(udp(ok, CALLEE, CALLER, 5060, 5060))
            ack = message("ACK sip:b@x.test SIP/2.0", call, "1 ACK", to_tag=";tag=2")
            self.give(udp(ack, CALLER, CALLEE, 5060, 5060))
        self.talk(count, 0)
        self.settle()

    def ends(self, number: int) -> tuple[int, int]:
        """Media ports of both ends of a call."""
        return 20_000 + 2 * number, 40_000 + 2 * number

    def talk(self, count: int, turn: int) -> None:
        """Each call says something, both ways."""
        for number in range(count):
            here, there = self.ends(number)
            self.give(udp(rtp(turn, number + 1), CALLER, CALLEE, here, there))
            self.give(udp(rtp(turn, 10_000 + number), CALLEE, CALLER, there, here))

    def still_up(self, count: int) -> int:
        """How many of these calls are in the list, in a call, with media that carries their name."""
        self.settle()
        rows = self.calls.answer(
            "query", {"store": "calls", "filter": 'call_id ~ "^up" and state == in_call', "count": 1000}
        )
        listed = {row["call_id"] for row in rows["rows"]}
        owners = [row["call_id"] for row in self.streams.rows() if row["ssrc"] <= 10_000 + count]
        return sum(
            f"up{number}@x.test" in listed and owners.count(f"up{number}@x.test") == 2
            for number in range(count)
        )


class Cost(NamedTuple):
    """What a flood cost."""

    growth: int
    """Octets of RSS in its second half: the first fills the tables."""
    filled: int
    """Octets of RSS in its first half."""
    first_us: float
    last_us: float
    """CPU time of a frame in the first and in the last tenth."""


def resident() -> int:
    """Octets of this process in memory."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def flood(
    host: Host, frames: Iterator[bytes | bytearray], count: int, between: Callable[[int], None]
) -> Cost:
    """Give `count` frames in ten parts, `between(part)` behind each; only giving is timed."""
    times: list[float] = []
    start = grown = resident()
    for part in range(10):
        begun = time.thread_time()
        for _ in range(count // 10):
            host.give(next(frames))
        times.append((time.thread_time() - begun) / max(1, count // 10) * 1e6)
        between(part)
        if part == 4:
            grown = resident()
    return Cost(resident() - grown, grown - start, times[0], min(times[8:]))


def invites() -> Iterator[bytearray]:
    """INVITEs with a Call-ID, a branch and a media endpoint each; one buffer, changed each time."""
    text = message(
        "INVITE sip:b@x.test SIP/2.0", "flood0000000000", "1 INVITE", sdp((10, 100, 100, 100), 30_000)
    )
    frame = udp(text, (10, 9, 9, 9), CALLEE, 5060, 5060)
    names = [place for place in range(len(frame)) if frame.startswith(b"flood0000000000", place)]
    address = frame.index(b"c=IN IP4 10.") + 12
    number = 0
    while True:
        digits = b"%010d" % number
        for place in names:
            frame[place + 5 : place + 15] = digits
        frame[address : address + 11] = b"%03d.%03d.%03d" % (
            100 + number // 30_000 % 100,
            100 + number // 200 % 150,
            50 + number % 200,
        )
        number += 1
        yield frame


def sources(host: Host) -> Iterator[bytearray]:
    """RTP of the first call with an SSRC of its own in each packet."""
    here, there = host.ends(0)
    frame = udp(rtp(1, 0), CALLER, CALLEE, here, there)
    number = 1 << 20
    while True:
        struct.pack_into("!I", frame, 42 + 8, number)
        number += 1
        yield frame


def strangers() -> Iterator[bytearray]:
    """RTP between endpoints that nobody announced, each time others."""
    frame = udp(rtp(1, 0), CALLER, CALLEE, 4000, 5000)
    number = 1
    while True:
        struct.pack_into("!I", frame, 26, 0x0B000000 + number)
        struct.pack_into("!I", frame, 42 + 8, number)
        number += 1
        yield frame


def dialog(call: str = "long@x.test") -> Iterator[bytes]:
    """A call that never ends: requests within it, and their answers."""
    number = 1
    while True:
        info = message("INFO sip:b@x.test SIP/2.0", call, f"{number} INFO", to_tag=";tag=2")
        yield udp(info, CALLER, CALLEE, 5060, 5060)
        ok = message("SIP/2.0 200 OK", call, f"{number} INFO", to_tag=";tag=2")
        yield udp(ok, CALLEE, CALLER, 5060, 5060)
        number += 1


def bombs(octets: int = 60_000) -> dict[str, bytes]:
    """Messages of about so many octets that are nothing but headers."""

    def invite(more: str, call: str = "bomb@x.test") -> bytes:
        return message("INVITE sip:b@x.test SIP/2.0", call, "1 INVITE", sdp(CALLER, 30_000), more)

    return {
        "lines": invite("a:\r\n" * (octets // 4)),
        "names": invite("".join(f"X-{number}: 1\r\n" for number in range(octets // 12))),
        "one line": invite("X-Long: " + "x" * octets + "\r\n"),
        "folded": invite("X-Folded: 1" + "\r\n 1" * (octets // 4) + "\r\n"),
        "Call-ID": invite("", "c" * (octets // 3)),
        "Via": invite("Via: SIP/2.0/UDP a\r\n" * (octets // 20)),
        "Via list": invite("Via: " + "SIP/2.0/UDP a;b=c, " * (octets // 19) + "SIP/2.0/UDP a\r\n"),
        "parameters": invite("Contact: <sip:a@b>" + ";a=b" * (octets // 4) + "\r\n"),
        "quotes": invite('Contact: "' + '\\"' * (octets // 2) + '" <sip:a@b>\r\n'),
        "brackets": invite("Contact: " + "<" * octets + "\r\n"),
        "no end": invite("X: 1\r\n" * (octets // 6)).partition(b"\r\n\r\n")[0],
        "boundaries": invite("Content-Type: multipart/mixed;boundary=x\r\n") + b"--x\r\n" * (octets // 5),
        "empty lines": b"\r\n" * (octets // 2) + invite(""),
    }  # fmt: skip


def bomb_times(host: Host, octets: int = 60_000) -> dict[str, float]:
    """CPU milliseconds of each bomb, the best of three."""
    times = {}
    for name, text in bombs(octets).items():
        frame = udp(text, CALLER, CALLEE, 5060, 5060)
        taken = []
        for _ in range(3):
            begun = time.thread_time()
            host.give(frame)
            host.settle()
            taken.append((time.thread_time() - begun) * 1000)
        times[name] = min(taken)
    return times


# ---- the benchmark ----


def show(name: str, cost: Cost) -> bool:
    """Two lines; whether both hold."""
    note = f"{cost.filled / 2**20:.0f} MiB in the first half"
    growth = cost.growth / 2**20
    grown = figure(f"{name}: growth of RSS", growth, MOST_GROWTH / 2**20, 1, "MiB", note, most=True)
    ratio = cost.last_us / cost.first_us
    note = f"{cost.first_us:.2f} us, then {cost.last_us:.2f} us a frame"
    return (
        figure(f"{name}: CPU of the last tenth to the first", ratio, MOST_SLOWER, 1.1, "x", note, most=True)
        and grown
    )


def tell(host: Host, *names: str) -> None:
    """Counters of what was turned away."""
    print("   " + ", ".join(f"{name} {host.get(name):,}" for name in names))


def calls_flood(share: float) -> bool:
    """A million Call-IDs."""
    host = Host()
    host.bring_up(CALLS_UP)
    cost = flood(host, invites(), int(1_000_000 * share), lambda part: host.talk(CALLS_UP, part + 1))
    up = host.still_up(CALLS_UP)
    good = show("1 M Call-IDs", cost)
    good &= figure("1 M Call-IDs: calls that are still up with their media", up, CALLS_UP, CALLS_UP, "of 100")
    tell(host, "flows_yielded", "flows_full", "flow_conflicts", "evidence_oversize", "sip_messages")
    print(f"   calls {len(host.calls.table.dialogs):,}, given up {host.calls.table.removed:,}")
    return good


def streams_flood(share: float) -> bool:
    """A million SSRCs in a known flow, then a million flows that nobody announced."""
    host = Host()
    host.bring_up(CALLS_UP)
    before = host.get("rtp_by_sdp")
    count = int(1_000_000 * share)
    good = show("1 M SSRCs", flood(host, sources(host), count, lambda part: host.talk(CALLS_UP, part + 1)))
    named = host.get("rtp_by_sdp") - before
    good &= figure(
        "1 M SSRCs: packets with the labels of their call", named, count // 10 * 10 + 2000, 0, "packets"
    )
    tell(host, "streams_full")
    good &= show(
        "1 M flows of nobody", flood(host, strangers(), count, lambda part: host.talk(CALLS_UP, part + 20))
    )
    up = host.still_up(CALLS_UP)
    good &= figure("1 M flows of nobody: calls that are still up", up, CALLS_UP, CALLS_UP, "of 100")
    tell(host, "candidates_full", "unmatched", "streams_full", "flows_full")
    return good


def dialog_flood(share: float) -> bool:
    """60,000 messages of one call."""
    host = Host()
    host.bring_up(1)
    cost = flood(host, dialog("up0@x.test"), int(60_000 * share), lambda part: None)
    host.settle()
    row = host.calls.answer("query", {"store": "calls"})["rows"][0]
    begun = time.thread_time()
    ladder = host.calls.answer("call", {"id": row["id"], "count": 1000})
    took = (time.thread_time() - begun) * 1000
    good = show("60,000 messages of a call", cost)
    good &= figure("60,000 messages of a call: its ladder", took, 100, 50, "ms", most=True)
    kept, unkept = len(ladder["messages"]), host.calls.table.unkept
    print(f"   messages {row['messages']:,}, kept {kept:,}, not kept {unkept:,}")
    return good


def bombs_and_media(share: float) -> bool:
    """Header bombs and media lines."""
    host = Host()
    times = bomb_times(host)
    print("   ms: " + ", ".join(f"{name} {took:.2f}" for name, took in times.items()))
    good = figure(
        "header bombs of 60 kB: the slowest",
        max(times.values()),
        5,
        1,
        "ms",
        max(times, key=times.get),
        most=True,
    )
    before = resident()
    for number in range(int(1000 * share)):
        text = message("INVITE sip:b@x.test SIP/2.0", f"m{number}", "1 INVITE", sdp(CALLER, 1024, 1000))
        host.give(udp(text, CALLER, CALLEE, 5060, 5060))
    host.settle()
    good &= figure(
        "SDP with 1,000 media lines, 1,000 calls: growth of RSS",
        (resident() - before) / 2**20,
        40,
        32,
        "MiB",
        most=True,
    )
    tell(host, "sdp_media", "sdp_over_limit", "flow_conflicts", "flows_full")
    return good


def main() -> int:
    """1 where a bound does not hold."""
    if not purity.is_compiled(loop):
        print("the modules are not compiled: not measured")
        return 1
    share = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    parts: list[Callable[[float], Any]] = [calls_flood, streams_flood, dialog_flood, bombs_and_media]
    held = [part(share) for part in parts]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
