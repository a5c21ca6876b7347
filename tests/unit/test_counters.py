"""The counters of a worker: names, places, and books that balance over a crash."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from engine.shm import counters as module
from engine.shm import ring
from engine.shm.counters import Counters

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def counters() -> Iterator[Counters]:
    made = Counters.create("live", 2)
    yield made
    made.region.close()
    os.close(made.region.fd)


def test_every_name_has_its_own_word() -> None:
    words = [module.index(name) for name in module.NAMES]
    assert len(set(words)) == len(words) == len(module.NAMES)
    assert words == list(range(module.FIRST_COUNTER, module.FIRST_COUNTER + len(words)))
    assert words[0] == module.RECEIVED


def test_another_process_sees_the_same(counters: Counters) -> None:
    counters.add("received", 3)
    counters.add("output")
    other = Counters.open(counters.region.fd)
    assert (other.get("received"), other.get("output")) == (3, 1)
    assert other.as_dict()["handled"] == 0
    assert (other.region.task, other.region.writer) == ("live", 2)
    other.region.close()


def test_balance_is_received_less_every_outcome(counters: Counters) -> None:
    for amount, name in enumerate(module.OUTCOMES, 1):
        counters.add(name, amount)
    total = sum(range(1, len(module.OUTCOMES) + 1))
    counters.add("received", total)
    assert counters.balance() == 0
    counters.add("bytes", 1_000)
    assert counters.balance() == 0


def test_packet_in_work_is_booked_after_a_crash(counters: Counters) -> None:
    counters.add("received", 5)
    counters.add("handled", 4)
    assert counters.balance() == 1
    assert counters.recover() == 1
    assert (counters.balance(), counters.get("worker_lost")) == (0, 1)
    assert counters.recover() == 0


def test_a_record_that_is_out_is_no_lost_packet(counters: Counters) -> None:
    """Killed behind the record and before its outcome; then before the ring's count of records, too."""
    region = ring.create("live", 2, 1 << 18)
    writer = ring.RingWriter(region)
    for number in range(3):
        writer.write(1, 0, number, b"record")
        counters.add("received")
        if number < 2:
            counters.add("output")
    region.words[25] -= 1
    assert ring.recovered(region) == 3
    assert counters.recover(ring.recovered(region)) == 0
    assert (counters.get("output"), counters.get("worker_lost"), counters.balance()) == (3, 0, 0)
    counters.add("received")
    assert counters.recover(ring.recovered(region)) == 1
    region.words[32] = 1 << 40
    assert ring.recovered(region) == 0


def test_recover_never_takes_packets_back(counters: Counters) -> None:
    counters.add("output")
    assert counters.recover() == 0
    assert counters.get("worker_lost") == 0


def test_latency_buckets_are_within_a_quarter() -> None:
    bounds = [module.latency_bounds(bucket) for bucket in range(8, module.LATENCY_BUCKETS)]
    assert all(low < high <= low * 5 // 4 for low, high in pairwise(bounds))
    assert module.latency_bounds(4 * 10 + 3) == 2048
    assert module.latency_bounds(module.LATENCY_BUCKETS - 1) == 1 << 32
