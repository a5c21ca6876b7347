"""A flood of spoofed first fragments, and the calls behind it: what comes through, at which cost and memory.

    python bench/fragments.py [FRAGMENTS]

FRAGMENTS (1,000,000) first fragments of 64 octets, none of which is ever completed, through the pipeline of
one worker: TPACKET_V3 blocks in memory, decoder, reassembly. Among them 1,000 INVITEs with SDP in two
fragments, the second 1 to 4,000 packets behind the first. Three floods: every source random; one source;
random sources in one /16, which is that of the callers too. CPU time of this process; blocks are made before
the clock starts. RSS: what the process grew by in all walks but the first of 20, which fills the table.
"""

from __future__ import annotations

import random
import struct
import sys
from pathlib import Path

from bench.worker import Road, message
from engine import purity
from engine.decode import fragments
from engine.shm import counters as layout

BATCHES = 20
CALLS = 50
"""INVITEs in a batch."""
CUT = 552
GAP = 4000
MOST_MICROSECONDS = 1.5
"""Below 1 on an idle machine; the caches are shared."""
LEAST_DECODED = 0.99
MOST_GROWTH = 3 << 20
"""Octets; 2 MiB of them are the INVITEs in the evidence ring."""
CALLERS = {"random": 0x0A000000, "one source": 0x0A000000, "one /16": 0xC0A80000}
_ETHERNET = bytes.fromhex("020000000002020000000001") + b"\x08\0"


def fragment(src: int, identification: int, offset: int, more: bool, octets: bytes) -> bytes:
    """An IPv4 fragment of UDP."""
    field = (0x2000 if more else 0) | offset >> 3
    head = struct.pack("!BBHHHBBHII", 0x45, 0, 20 + len(octets), identification, field, 64, 17, 0, src, 1)
    return _ETHERNET + head + octets


def invite(number: int, src: int) -> tuple[bytes, bytes]:
    """Both fragments of one INVITE."""
    text = message(number)
    octets = struct.pack("!HHHH", 5060, 5060, 8 + len(text), 0) + text
    identification = number & 0xFFFF
    return (
        fragment(src, identification, 0, True, octets[:CUT]),
        fragment(src, identification, CUT, False, octets[CUT:]),
    )


def batch(kind: str, size: int, number: int, chance: random.Random) -> list[bytes]:
    """`size` fragments of the flood, with CALLS INVITEs among them."""
    body = struct.pack("!HHHH", 5060, 5060, 1400, 0) + bytes(56)
    frames = []
    for _ in range(size):
        src = chance.getrandbits(32)
        if kind == "one source":
            src = 0xC0A80101
        elif kind == "one /16":
            src = 0xC0A80000 | src & 0xFFFF
        frames.append(fragment(src, chance.getrandbits(16), 0, True, body))
    places: list[tuple[int, bytes]] = []
    for call in range(CALLS):
        name = number * CALLS + call
        first, second = invite(name, CALLERS[kind] + name % 40)
        place = chance.randrange(size - GAP)
        places += [(place, first), (place + chance.randrange(1, GAP), second)]
    for place, octets in sorted(places, reverse=True, key=lambda pair: pair[0]):
        frames.insert(place, octets)
    return frames


def resident() -> int:
    """Octets of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def flood(kind: str, amount: int) -> bool:
    """Run one flood and print its line; whether all that is asked is reached."""
    chance = random.Random(5)
    size = max(GAP + 1, amount // BATCHES)
    road = Road(batch(kind, size, 0, chance), False, False)
    spent, growth, seen = 0.0, 0, 0
    for number in range(BATCHES):
        if number:
            road.ring = type(road.ring)(batch(kind, size, number, chance))
        before = resident()
        spent += road.walk(road.ring)
        seen += road.ring.packets
        if number:
            growth += resident() - before
        # Lets go of this ring before the next one is made.
        road.pipeline.attach(memoryview(b"-"))
    counters = road.counters
    decoded = counters.get("sip_requests") / (BATCHES * CALLS)
    cost = 1e6 * spent / seen
    fates = ("merged", "held", "duplicate")
    booked = sum(counters.get(f"fragments_{name}") for name in fates)
    booked += sum(counters.get(name) for name in layout.FRAGMENT_LOSSES)
    if counters.balance() or booked != seen or counters.get("received") != seen:
        raise AssertionError("the books do not balance")
    print(
        f"fragments: {seen:,} of a flood, {kind:10}  {cost:5.2f} us each   "
        f"{100 * decoded:6.2f} % of the INVITEs   RSS {growth / 1024:+,.0f} KiB"
    )
    return decoded >= LEAST_DECODED and cost <= MOST_MICROSECONDS and growth <= MOST_GROWTH


def main() -> int:
    """Print a line for each flood; 1 where one misses what is asked."""
    amount = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    if not purity.is_compiled(fragments):
        print("fragments: not compiled, the figures are those of the slow build")
    return int(sum(flood(kind, amount) for kind in CALLERS) < len(CALLERS))


if __name__ == "__main__":
    sys.exit(main())
