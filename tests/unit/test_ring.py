"""The record ring: any use equals a model, in both builds and between them; crashes lose nothing unseen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm import ring
from tests.builds import BUILDS, COMPILED, PURE, ROOT, Build, both_builds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.shm.region import Region

SMALLEST = 262_144
WORDS = {"written": 25, "head": 24, "tail": 32, "lost": 42}


@dataclass
class Model:
    """What the ring must do: entries between tail and head with the space that they take."""

    capacity: int
    limit: int = 0
    head: int = 0
    tail: int = 0
    written: int = 0
    next: int = 0
    entries: deque[tuple[int, int, int, bytes]] = field(default_factory=deque)
    """(where the entry ends, sequence or -1 for padding, kind, body)."""

    def write(self, kind: int, body: bytes) -> bool:
        total = -(-(len(body) + 32) // 8) * 8
        if total > self.capacity // 4:
            return False
        rest = self.capacity - self.head % self.capacity
        need = total if total <= rest else rest + total
        while self.head + need - self.tail > self.capacity:
            self.drop()
        if self.limit and self.written - self.next >= self.limit:
            while self.entries and self.entries[0][1] <= self.written - self.limit:
                self.drop()
        if need != total:
            self.entries.append((self.head + rest, -1, 0, b""))
        self.head += need
        self.entries.append((self.head, self.written, kind, body))
        self.written += 1
        return True

    def drop(self) -> None:
        self.tail = self.entries.popleft()[0]

    def read(self) -> tuple[int, int, bytes] | None:
        for _, sequence, kind, body in self.entries:
            if sequence >= self.next:
                self.next = sequence + 1
                return sequence, kind, body
        return None


def body_of(sequence: int, length: int) -> bytes:
    return bytes([sequence * 37 & 0xFF]) * length


LENGTHS = st.one_of(
    st.integers(0, 200),
    st.sampled_from([5_000, 30_000, 66_399, 66_400, 66_401, 200_000]),
    st.integers(10_000, 66_400),
)
STEPS = st.lists(
    st.one_of(st.tuples(st.just("write"), LENGTHS), st.tuples(st.just("read"), st.integers(1, 4)))
)


@pytest.mark.parametrize("reading", BUILDS, ids=lambda build: f"{build}-reader")
@pytest.mark.parametrize("writing", BUILDS, ids=lambda build: f"{build}-writer")
@settings(max_examples=40, deadline=None)
@given(steps=STEPS, limit=st.sampled_from([0, 1, 2, 5]))
def test_any_use_equals_the_model(
    writing: Build, reading: Build, steps: list[tuple[str, int]], limit: int
) -> None:
    with opened(limit) as region:
        writer = writing.module("engine.shm.ring").RingWriter(region)
        reader = reading.module("engine.shm.ring").RingReader(region)
        model = Model(writer.capacity, limit)
        refused = 0
        for what, amount in [*steps, ("read", 1_000)]:
            if what == "write":
                number = model.written
                kind, body = 1 + number % 5, body_of(number, amount)
                accepted = model.write(kind, body)
                assert writer.write(kind, 3, number * 10, body) is accepted
                refused += not accepted
            else:
                read_and_compare(reader, model, amount)
        figures = ring.figures(region)
        assert figures["read"] + figures["lost"] == figures["written"] == model.written
        assert (figures["refused"], figures["unread"], figures["octets"]) == (refused, 0, 0)
        del writer, reader


def read_and_compare(reader: Any, model: Model, most: int) -> None:
    for _ in range(most):
        expected = model.read()
        assert reader.next() is (expected is not None)
        if expected is None:
            return
        sequence, kind, body = expected
        assert (reader.sequence, reader.kind, reader.flags, reader.timestamp) == (
            sequence,
            kind,
            3,
            sequence * 10,
        )
        assert bytes(reader.record[: reader.length]) == body


class opened:  # noqa: N801 - reads as `with opened(limit) as region`
    """A ring that is unmapped and closed behind the test."""

    def __init__(self, limit: int = 0, octets: int = SMALLEST) -> None:
        self.region = ring.create("test", 3, octets, limit)

    def __enter__(self) -> Region:
        return self.region

    def __exit__(self, *_: object) -> None:
        os.close(self.region.fd)


@pytest.fixture
def region() -> Iterator[Region]:
    with opened() as made:
        yield made


def test_region_names_task_writer_and_generation(region: Region) -> None:
    assert (region.task, region.writer, region.generation) == ("test", 3, 0)
    assert region.next_generation() == 1
    again = ring.open_ring(region.fd)
    assert (again.task, again.generation) == ("test", 1)
    again.close()


@both_builds
def test_reserve_fill_commit(build: Build, region: Region) -> None:
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    place = writer.reserve(5)
    region.memory[place : place + 5] = b"octet"
    assert reader.next() is False
    writer.commit(65_535, 65_535, 2**64 - 1)
    assert reader.read(9) == [(65_535, 65_535, 2**64 - 1, b"octet")]


@both_builds
def test_a_record_that_can_never_fit_is_counted(build: Build, region: Region) -> None:
    writer = build.module("engine.shm.ring").RingWriter(region)
    assert writer.reserve(writer.capacity) == -1
    assert writer.reserve(-1) == -1
    assert ring.figures(region)["refused"] == 2


@both_builds
def test_lapped_reader_counts_what_it_missed(build: Build, region: Region) -> None:
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    for number in range(100):
        writer.write(1, 0, number, bytes(20_000))
    times = [time for _, _, time, _ in reader.read(1_000)]
    assert times == list(range(100 - len(times), 100))
    figures = ring.figures(region)
    assert (figures["read"], figures["lost"]) == (len(times), 100 - len(times))
    assert len(times) == writer.capacity // 20_032


@both_builds
def test_limit_keeps_the_newest(build: Build) -> None:
    module = build.module("engine.shm.ring")
    with opened(limit=10) as region:
        writer, reader = module.RingWriter(region), module.RingReader(region)
        for number in range(25):
            writer.write(1, 0, number, b"x")
        assert [time for _, _, time, _ in reader.read(99)] == list(range(15, 25))
        assert ring.figures(region)["lost"] == 15


@both_builds
def test_successor_of_the_reader_goes_on(build: Build, region: Region) -> None:
    module = build.module("engine.shm.ring")
    writer = module.RingWriter(region)
    for number in range(6):
        writer.write(1, 0, number, b"x")
    assert len(module.RingReader(region).read(4)) == 4
    assert [time for _, _, time, _ in module.RingReader(region).read(9)] == [4, 5]


@both_builds
def test_half_written_record_does_not_exist(build: Build, region: Region) -> None:
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    writer.write(1, 0, 1, b"whole")
    place = writer.reserve(1_000)
    region.memory[place - 32 : place + 500] = b"\xff" * 532
    successor = module.RingWriter(region)
    assert successor.written == 1
    successor.write(2, 0, 2, b"next")
    assert [(kind, body) for kind, _, _, body in reader.read(9)] == [(1, b"whole"), (2, b"next")]
    assert ring.figures(region)["lost"] == 0


@both_builds
def test_killed_between_head_and_written(build: Build, region: Region) -> None:
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    for number in range(3):
        writer.write(1, 0, number, b"x")
    region.words[WORDS["written"]] = 2
    successor = module.RingWriter(region)
    assert successor.written == region.words[WORDS["written"]] == 3
    successor.write(1, 0, 3, b"x")
    assert [time for _, _, time, _ in reader.read(9)] == [0, 1, 2, 3]
    assert ring.figures(region)["lost"] == 0


@both_builds
def test_killed_after_giving_up_the_oldest(build: Build) -> None:
    """The only unread record went to make room, and its successor was never written."""
    module = build.module("engine.shm.ring")
    with opened(limit=1) as region:
        writer, reader = module.RingWriter(region), module.RingReader(region)
        writer.write(1, 0, 1, b"x")
        writer.reserve(1)
        assert reader.next() is False
        figures = ring.figures(region)
        assert (figures["written"], figures["lost"], figures["unread"]) == (1, 1, 0)
        module.RingWriter(region).write(1, 0, 2, b"y")
        assert [body for *_, body in reader.read(9)] == [b"y"]
        assert ring.figures(region)["lost"] == 1


@both_builds
@pytest.mark.parametrize("undone", [(), ("position",), ("position", "next"), ("position", "next", "lost")])
def test_reader_killed_between_two_stores(build: Build, region: Region, undone: tuple[str, ...]) -> None:
    """Its last stores never happened: nothing is counted twice, and nothing is left out."""
    module = build.module("engine.shm.ring")
    words = {"position": 40, "lost": 42, "next": 43}
    writer, reader = module.RingWriter(region), module.RingReader(region)
    writer.write(1, 0, 0, b"x")
    reader.next()
    for number in range(1, 31):
        writer.write(1, 0, number, bytes(20_000))
    before = {name: region.words[word] for name, word in words.items()}
    assert reader.next()
    lost = ring.figures(region)["lost"]
    assert lost > 10
    for name in undone:
        region.words[words[name]] = before[name]
    assert ring.figures(region)["lost"] == lost
    successor = module.RingReader(region)
    times = [time for _, _, time, _ in successor.read(99)]
    assert times == list(range(lost + 2, 31))
    figures = ring.figures(region)
    assert (figures["read"], figures["lost"], figures["unread"]) == (31 - lost, lost, 0)


@both_builds
@pytest.mark.parametrize("word", [0, 1, 0xFFFFFFFF, 1 << 32, (1 << 32) | 0xFFFFFFFF, (7 << 32) | 66_440])
def test_reader_gets_past_a_broken_ring(build: Build, region: Region, word: int) -> None:
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    writer.write(1, 0, 1, b"x")
    region.words[512 >> 3] = word
    assert not reader.next()
    for number in range(5):
        writer.write(1, 0, 2, b"%d" % number)
    assert [body for *_, body in reader.read(9)] == [b"0", b"1", b"2", b"3", b"4"]
    figures = ring.figures(region)
    assert (figures["written"], figures["read"], figures["lost"], figures["unread"]) == (6, 5, 1, 0)


@both_builds
@pytest.mark.parametrize("capacity", [0, 7, 1 << 63])
def test_the_capacity_is_that_of_the_memory(build: Build, region: Region, capacity: int) -> None:
    """No word in front of it, which the other end can write, says how large it is."""
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    writer.write(1, 0, 1, b"x")
    before = module.figures(region)
    region.words[16] = capacity
    assert (module.figures(region), module.recovered(region)) == (before, 1)
    module.RingWriter(region).write(1, 0, 2, b"y")
    assert [body for *_, body in module.RingReader(region).read(9)] == [b"x", b"y"]
    assert reader.next()


@both_builds
@pytest.mark.parametrize("number", [1 << 63, (1 << 64) - 1, 7])
def test_a_number_that_was_not_written_is_not_believed(build: Build, region: Region, number: int) -> None:
    """Else all that come would be taken for records that were read before."""
    module = build.module("engine.shm.ring")
    writer, reader = module.RingWriter(region), module.RingReader(region)
    writer.write(1, 0, 1, b"x")
    region.words[(512 >> 3) + 1] = number
    assert not reader.next()
    for n in range(5):
        writer.write(1, 0, 2, b"%d" % n)
    assert [body for *_, body in reader.read(9)] == [b"0", b"1", b"2", b"3", b"4"]
    figures = ring.figures(region)
    assert (figures["read"], figures["lost"], figures["unread"]) == (5, 1, 0)


WRITER = """
import sys
from engine.shm import ring
region = ring.open_ring(int(sys.argv[1]))
region.next_generation()
writer = ring.RingWriter(region)
print(writer.written, flush=True)
while True:
    sequence = writer.written
    length = 8 + sequence % 4001
    body = sequence.to_bytes(8, "little") + bytes([sequence & 255]) * (length - 8)
    if not writer.write(1, 0, sequence, body):
        raise SystemExit("refused")
"""


@pytest.mark.parametrize("reading", BUILDS, ids=lambda build: f"{build}-reader")
@pytest.mark.parametrize("writing", BUILDS, ids=lambda build: f"{build}-writer")
def test_writer_killed_in_full_run(writing: Build, reading: Build, region: Region) -> None:
    """Two writers, one after the other, are killed while a reader follows: records are whole or counted."""
    COMPILED.module("engine.shm.ring")
    reader = reading.module("engine.shm.ring").RingReader(region)
    environment = os.environ | {"OTUS_PURE": "1" if writing is PURE else "0", "PYTHONPATH": str(ROOT)}
    for generation in (1, 2):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(region.fd)],
            pass_fds=(region.fd,),
            env=environment,
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        with child, child.stdout:
            started = int(child.stdout.readline())
            assert started >= reader.expected
            deadline = time.monotonic() + 0.15
            while time.monotonic() < deadline:
                check_next(reader)
            child.send_signal(signal.SIGKILL)
        assert region.generation == generation
        successor = writing.module("engine.shm.ring").RingWriter(region)
        while check_next(reader):
            pass
        figures = ring.figures(region)
        assert figures["read"] + figures["lost"] == figures["written"] == successor.written
        assert figures["read"] > 100
        del successor


def check_next(reader: Any) -> bool:
    if not reader.next():
        return False
    sequence = reader.sequence
    assert reader.timestamp == sequence
    assert reader.length == 8 + sequence % 4001
    body = bytes(reader.record[: reader.length])
    assert body == sequence.to_bytes(8, "little") + bytes([sequence & 255]) * (reader.length - 8)
    return True
