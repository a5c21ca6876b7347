"""The ring walk over rings that a test writes as the kernel does (include/uapi/linux/if_packet.h)."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine.shm import counters as layout
from engine.shm.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.builds import Build

BLOCK, COUNT = 8192, 8
USER = 1
VLAN_VALID, TPID_VALID = 0x10, 0x40
ETHERNET, RAW, UNKNOWN = 1, 101, 0xFFFF


class KernelRing:
    """Fills blocks in order, as the kernel does; refuses where the reader has not given a block back."""

    def __init__(self, block: int = BLOCK, count: int = COUNT) -> None:
        self.octets = bytearray(block * count)
        self.block, self.count = block, count
        self.active, self.sequence = 0, 0
        self.open()

    def open(self) -> None:
        self.sequence += 1
        base = self.active * self.block
        struct.pack_into("=IIIIII", self.octets, base, 1, 48, 0, 0, 48, 48)
        struct.pack_into("=Q", self.octets, base + 24, self.sequence)

    def status(self, block: int) -> int:
        return int(struct.unpack_from("=I", self.octets, block * self.block + 8)[0])

    def fill(self, *packets: bytes, **facts: int) -> bool:
        """Close the active block with these packets, open the next; False where that one is unread."""
        if self.status(self.active) & USER:
            return False
        base = self.active * self.block
        place = base + 48
        for position, packet in enumerate(packets):
            size = 96 + (len(packet) + 7 & ~7)
            last = position == len(packets) - 1
            mac = 82 if facts.get("hardware", 1) == 1 else 96
            struct.pack_into(
                "=IIIIIIHHIIHH", self.octets, place, 0 if last else size, 100, 7 + position, len(packet),
                facts.get("wire", len(packet)), USER | facts.get("status", 0), facts.get("mac", mac),
                facts.get("net", 96), 0, facts.get("tci", 0), facts.get("tpid", 0), 0,
            )  # fmt: skip
            struct.pack_into(
                "=HHiHBB", self.octets, place + 48, 17, socket.htons(facts.get("protocol", 0x0800)),
                facts.get("interface", 3), facts.get("hardware", 1), facts.get("kind", 0), 6,
            )  # fmt: skip
            self.octets[place + mac : place + mac + len(packet)] = packet
            place += size
        struct.pack_into("=IIII", self.octets, base + 8, 0, len(packets), 48, place - base)
        struct.pack_into("=I", self.octets, base + 8, USER)
        self.active = (self.active + 1) % self.count
        if not self.status(self.active) & USER:
            self.open()
        return True


class KilledError(Exception):
    """Stands for SIGKILL in the middle of a packet."""


@pytest.fixture
def words() -> Iterator[Counters]:
    region = Counters.create("test", 0)
    yield region
    os.close(region.region.fd)


class Reader:
    """A worker's walk with a sink that keeps what it gets."""

    def __init__(self, build: Build, ring: KernelRing, words: Counters, max_waiting: int = 0) -> None:
        sink_class = build.module("engine.capture.sink").PacketSink
        walk_class = build.module("engine.capture.ring_walk").RingWalk
        reader = self
        self.packets: list[tuple[Any, ...]] = []
        self.words = words
        self.die_at = -1

        class Sink(sink_class):  # type: ignore[misc, valid-type]
            def attach(self, buf: memoryview) -> None:
                self.buf = buf

            def packet(self, start: int, end: int, *facts: int) -> int:
                words.add("received")
                if words.get("received") == reader.die_at:
                    raise KilledError
                reader.packets.append((bytes(self.buf[start:end]), *facts))
                words.add("handled")
                return 0

        self.sink = Sink()
        self.walk = walk_class(memoryview(ring.octets), ring.block, ring.count, words, self.sink, max_waiting)

    def octets(self) -> list[bytes]:
        return [packet[0] for packet in self.packets]


def numbered(first: int, count: int) -> list[bytes]:
    return [struct.pack(">I", first + position) * 16 for position in range(count)]


def test_every_packet_once_in_order(build: Build, words: Counters) -> None:
    ring = KernelRing()
    reader = Reader(build, ring, words)
    assert reader.walk.run(100) == 0
    sent: list[bytes] = []
    for turn in range(30):
        block = numbered(len(sent), 1 + turn % 5)
        assert ring.fill(*block)
        sent += block
        if turn % 3 == 2:
            assert reader.walk.run(100) == 3
    assert reader.octets() == sent
    assert words.get("blocks") == 30
    assert words.balance() == 0


def test_what_the_sink_is_told(build: Build, words: Counters) -> None:
    ring = KernelRing()
    ring.fill(b"e" * 60, interface=9, kind=4, wire=1500)
    ring.fill(b"v" * 60, status=VLAN_VALID | TPID_VALID, tci=0xA064, tpid=0x88A8)
    ring.fill(b"w" * 60, status=VLAN_VALID, tci=100)
    ring.fill(b"p" * 60, status=VLAN_VALID | TPID_VALID, tci=0, tpid=0x8100)
    ring.fill(b"l" * 60, hardware=772, mac=82)
    reader = Reader(build, ring, words)
    assert reader.walk.run(9) == 5
    time = 100_000_000_007
    assert reader.packets[0] == (b"e" * 60, 1500, time, 9, ETHERNET, 0, 4)
    assert [packet[5] for packet in reader.packets[1:4]] == [0x88A8A064, 0x81000064, 0x81000000]
    assert reader.packets[4][4] == ETHERNET


def test_status_bits_of_merged_packets_and_checksums(build: Build, words: Counters) -> None:
    """TP_STATUS_CSUMNOTREADY and _GSO_TCP are counted, _LOSING and _CSUM_VALID tell nothing of the packet."""
    ring = KernelRing()
    ring.fill(b"c" * 60, status=0x08)
    ring.fill(b"g" * 60, status=0x108, wire=3000)
    ring.fill(b"h" * 60, status=0x100, wire=60_000)
    ring.fill(b"l" * 60, status=0x84)
    reader = Reader(build, ring, words)
    assert reader.walk.run(9) == 4
    assert words.get("checksum_not_ready") == 2
    # The one of 60,000 octets is counted by its length, where it is decoded.
    assert words.get("gro") == 1
    assert len(reader.packets) == 4


def test_link_headers_of_tunnels_are_left_out(build: Build, words: Counters) -> None:
    ring = KernelRing()
    ring.fill(b"t" * 60, hardware=65534, protocol=0x86DD)
    ring.fill(b"g" * 60, hardware=778, mac=88, net=96, wire=200)
    ring.fill(b"n" * 60, hardware=824, protocol=0x0010)
    ring.fill(b"h" * 60, hardware=778, mac=96, net=300)
    reader = Reader(build, ring, words)
    assert reader.walk.run(9) == 4
    assert [packet[4] for packet in reader.packets] == [RAW, RAW, UNKNOWN, UNKNOWN]
    assert [len(packet[0]) for packet in reader.packets] == [60, 52, 60, 60]
    assert reader.packets[1][1] == 192


def test_walk_keeps_to_the_number_of_blocks(build: Build, words: Counters) -> None:
    ring = KernelRing()
    for number in range(5):
        ring.fill(*numbered(number, 1))
    reader = Reader(build, ring, words)
    assert reader.walk.waiting() == 5
    assert reader.walk.run(2) == 2
    assert reader.walk.waiting() == 3
    assert reader.walk.run(9) == 3
    assert reader.walk.index == 5


@pytest.mark.parametrize("die_at", [1, 2, 7, 10, 11, 20, 24])
def test_successor_goes_on_behind_the_packet_in_work(build: Build, words: Counters, die_at: int) -> None:
    ring = KernelRing()
    sent: list[bytes] = []
    for _ in range(6):
        block = numbered(len(sent), 4)
        ring.fill(*block)
        sent += block
    first = Reader(build, ring, words)
    first.die_at = die_at
    with pytest.raises(KilledError):
        first.walk.run(100)
    assert words.recover() == 1
    second = Reader(build, ring, words)
    second.walk.run(100)
    assert first.octets() + second.octets() == sent[: die_at - 1] + sent[die_at:]
    assert words.get("received") == len(sent)
    assert words.balance() == 0


def test_successor_after_the_last_packet_of_a_block(build: Build, words: Counters) -> None:
    ring = KernelRing()
    ring.fill(*numbered(0, 3))
    first = Reader(build, ring, words)
    first.walk.run(1)
    # The predecessor was killed between the last packet and the block's return.
    struct.pack_into("=I", ring.octets, 8, USER)
    second = Reader(build, ring, words)
    assert second.walk.run(9) == 1
    assert second.octets() == []
    assert words.get("received") == 3


def test_successor_finds_the_block_that_comes_next(build: Build, words: Counters) -> None:
    ring = KernelRing()
    sent: list[bytes] = []
    kept: list[bytes] = []
    for turn in range(3 * COUNT):
        reader = Reader(build, ring, words)
        block = numbered(len(sent), 2)
        assert ring.fill(*block)
        sent += block
        reader.walk.run(100)
        kept += reader.octets()
        assert reader.walk.index == (turn + 1) % COUNT
    assert kept == sent


def test_successor_on_a_full_ring_begins_with_the_oldest(build: Build, words: Counters) -> None:
    ring = KernelRing()
    first = Reader(build, ring, words)
    sent: list[bytes] = []
    for turn in range(COUNT + 3):
        block = numbered(len(sent), 2)
        assert ring.fill(*block)
        sent += block
        if turn < 3:
            first.walk.run(1)
    assert not ring.fill(*numbered(0, 1))
    second = Reader(build, ring, words)
    assert second.walk.index == 3
    assert second.walk.run(100) == COUNT
    assert first.octets() + second.octets() == sent


def test_forgotten_progress_starts_on_another_ring(build: Build, words: Counters) -> None:
    ring = KernelRing()
    ring.fill(*numbered(0, 4))
    Reader(build, ring, words).walk.run(9)
    other = KernelRing()
    other.fill(*numbered(100, 4))
    build.module("engine.capture.ring_walk").forget_progress(words)
    reader = Reader(build, other, words)
    reader.walk.run(9)
    assert reader.octets() == numbered(100, 4)


def test_lagging_worker_skips_the_oldest_blocks_and_counts_them(build: Build, words: Counters) -> None:
    ring = KernelRing()
    for turn in range(6):
        ring.fill(*numbered(10 * turn, 3))
    reader = Reader(build, ring, words, max_waiting=2)
    assert reader.walk.run(100) == 6
    assert reader.octets() == numbered(40, 3) + numbered(50, 3)
    assert words.get("skipped") == 12
    assert words.get("received") == 18
    assert words.balance() == 0


def test_offsets_outside_the_block_end_it(build: Build, words: Counters) -> None:
    for corrupt in (
        (48, 5),
        (48, 1 << 30),
        (48 + 12, 1 << 31),
        (48 + 24, 0xFFFF),
        (16, 1 << 20),
        (16, 4),
        (16, 49),
    ):
        ring = KernelRing()
        ring.fill(*numbered(0, 4))
        ring.fill(*numbered(50, 2))
        struct.pack_into("=I", ring.octets, *corrupt)
        words.words[layout.BLOCK_SEQUENCE] = 0
        before, skipped = words.get("received"), words.get("skipped")
        reader = Reader(build, ring, words)
        assert reader.walk.run(9) == 2
        assert reader.octets()[-2:] == numbered(50, 2)
        assert reader.walk.ring_errors == 1
        assert words.get("received") - before == 6
        assert words.get("skipped") > skipped
        assert words.balance() == 0


def test_any_octets_are_survived(build: Build, words: Counters) -> None:
    rng = random.Random(11)
    for _ in range(60):
        ring = KernelRing(4096, 2)
        ring.fill(*numbered(0, 5))
        for _ in range(rng.randint(1, 60)):
            ring.octets[rng.choice([rng.randrange(8, 4096), rng.randrange(48, 160)])] = rng.randrange(256)
        struct.pack_into("=II", ring.octets, 8, USER, rng.choice([5, 5, 5, 900]))
        words.words[layout.BLOCK_SEQUENCE] = 0
        reader = Reader(build, ring, words)
        reader.walk.run(1)
        assert words.balance() == 0


def histogram(words: Counters) -> list[int]:
    return words.words[layout.FIRST_LATENCY : layout.FIRST_LATENCY + layout.LATENCY_BUCKETS].tolist()


def test_each_block_has_a_latency(build: Build, words: Counters) -> None:
    ring = KernelRing()
    reader = Reader(build, ring, words)
    reader.walk.run(9)
    assert sum(histogram(words)) == 0
    for number in range(5):
        ring.fill(*numbered(number, 3))
    reader.walk.run(3)
    reader.walk.run(9)
    assert sum(histogram(words)) == words.get("blocks") == 5
    assert not any(histogram(words)[:20])


def test_latency_buckets(build: Build, words: Counters) -> None:
    reader = Reader(build, KernelRing(), words)
    for value in (0, 1, 5, 1000, 123_456, 10**9, 1 << 63):
        before = histogram(words)
        reader.walk.latency(value)
        (bucket,) = [index for index, count in enumerate(histogram(words)) if count != before[index]]
        if 4 <= value < 1 << 31:
            assert layout.latency_bounds(bucket - 1) <= value < layout.latency_bounds(bucket)


def test_a_ring_that_is_too_small_is_refused(build: Build, words: Counters) -> None:
    with pytest.raises(ValueError, match="has no 9 blocks"):
        build.module("engine.capture.ring_walk").RingWalk(
            memoryview(bytearray(BLOCK * 8)),
            BLOCK,
            9,
            words,
            build.module("engine.capture.sink").PacketSink(),
        )


class Clock:
    """Both clocks of the machine, as a test moves them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.real, self.monotonic = 1_700_000_000_000_000_000, 5_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda: self.real)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.monotonic)

    def pass_by(self, seconds: float, step: float = 0.0) -> None:
        self.monotonic += int(seconds * 1e9)
        self.real += int((seconds + step) * 1e9)


@pytest.mark.parametrize("step", [3600.0, -3600.0, 0.5])
def test_the_tasks_clock_does_not_follow_steps(
    build: Build, words: Counters, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    clock = Clock(monkeypatch)
    begun = clock.real
    ring = KernelRing()
    moments: list[tuple[int, int]] = []

    class Sink(build.module("engine.capture.sink").PacketSink):  # type: ignore[misc]
        def attach(self, buf: memoryview) -> None:
            pass

        def packet(self, *facts: int) -> int:
            words.add("received")
            return 0

        def moment(self, now: int, shift: int) -> int:
            moments.append((now, shift))
            return 0

    walk = build.module("engine.capture.ring_walk").RingWalk(
        memoryview(ring.octets), ring.block, ring.count, words, Sink()
    )
    assert moments == [(begun, 0)]
    clock.pass_by(1.0)
    ring.fill(b"x" * 60)
    walk.run(1)
    assert moments[-1] == (begun + 1_000_000_000, 0)
    clock.pass_by(1.0, step)
    ring.fill(b"x" * 60)
    walk.run(1)
    assert moments[-1] == (begun + 2_000_000_000, int(step * 1e9))
    # What is slewed is followed.
    for _ in range(10):
        clock.pass_by(1.0, 0.02)
        walk.moment(clock.monotonic)
    assert moments[-1] == (begun + 12_200_000_000, int(step * 1e9))
    # A worker that starts now knows of the step by the task's offset.
    later = build.module("engine.capture.ring_walk").RingWalk(
        memoryview(ring.octets), ring.block, ring.count, words, Sink(), 0, begun - 5_000_000_000
    )
    assert abs(later.shift - int(step * 1e9)) < 250_000_000


def test_a_new_filter_for_what_the_ring_holds(build: Build, words: Counters) -> None:
    ring = KernelRing()
    reader = Reader(build, ring, words)
    long, short = b"\x45" + b"l" * 99, b"\x45" + b"s" * 19
    longer_than_60 = [(0x80, 0, 0, 0), (0x25, 0, 1, 60), (0x06, 0, 0, 0xFFFF), (0x06, 0, 0, 0)]
    ring.fill(long, short, long)
    reader.walk.recheck(longer_than_60)
    ring.fill(short, long)
    reader.walk.run(8)
    assert [packet[0] for packet in reader.packets] == [long, long, long]
    ring.fill(short)
    # The socket has the filter; the block that the kernel has open now may hold older packets too.
    reader.walk.kernel_filters()
    ring.fill(short, long)
    ring.fill(short)
    reader.walk.run(8)
    assert [packet[0] for packet in reader.packets] == [long, long, long, long, short]
    assert words.get("received") == 9
    assert words.get("filtered") == 4
    assert words.get("handled") == 5
    assert words.get("filter_rechecked") == 8
    assert reader.walk.recheck_until == 0
    assert words.balance() == 0


def test_latency_counts_the_wait_behind_blocks_that_were_ready(
    build: Build, words: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    ring = KernelRing()
    reader = Reader(build, ring, words)
    slow = reader.packets

    class Slow(list):  # type: ignore[type-arg]
        def append(self, row: object) -> None:
            clock.pass_by(0.001)

    reader.packets = Slow(slow)
    for _ in range(4):
        ring.fill(b"x" * 60)
    reader.walk.run(8)
    first = layout.FIRST_LATENCY
    booked = {bucket: words.words[first + bucket] for bucket in range(layout.LATENCY_BUCKETS)}
    bounds = [layout.latency_bounds(bucket) for bucket, count in booked.items() for _ in range(count)]
    assert len(bounds) == 4
    # 1, 2, 3 and 4 ms, each known within a quarter.
    assert all(ms * 1e6 < bound <= ms * 1.26e6 for ms, bound in zip((1, 2, 3, 4), bounds, strict=True))
