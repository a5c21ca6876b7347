"""Steps of the wall clock: time limits go on as if it had never been touched, stamps follow it."""

from __future__ import annotations

import itertools
import time
from typing import Any

import pytest

from engine.shm.counters import Counters
from tests.builds import Build
from tests.packet_road import ALICE, BOB, MS, Road, rtp
from tests.unit.test_fragments_in_tunnels import cut, invite

SECOND = 1_000_000_000
STEPS = [3600 * SECOND, -3600 * SECOND, 400 * 24 * 3600 * SECOND]


@pytest.mark.parametrize("step", STEPS)
def test_fragments_and_media_outlive_a_step(build: Build, step: int) -> None:
    road = Road(build)
    first, *rest = cut(invite(), 1400, 5)
    road.pipeline.moment(road.now, 0)
    road.give(first)
    # NTP, or a person, sets the clock; the packets behind it carry the new time.
    steady = road.now + 2 * MS
    road.pipeline.moment(steady, step)
    road.now += step
    for part in rest:
        road.give(part)
    road.pipeline.idle(steady)
    assert road.counted("sip_messages", "fragments_timed_out", "flows_expired") == (1, 0, 0)
    # The endpoint of its SDP is still known.
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert road.counted("rtp_by_sdp") == (1,)


def walk_of(build: Build, told: list[tuple[int, int]]) -> Any:
    """A walk over an empty ring, whose sink keeps what moment() is told."""
    sink_class = build.module("engine.capture.sink").PacketSink

    class Sink(sink_class):  # type: ignore[misc, valid-type]
        def attach(self, buf: memoryview) -> None:
            pass

        def moment(self, now: int, shift: int) -> int:
            told.append((now, shift))
            return 0

    walk_class = build.module("engine.capture.ring_walk").RingWalk
    words = Counters.create("test", 0)
    return walk_class(memoryview(bytearray(8192)), 4096, 2, words, Sink())


@pytest.mark.parametrize("step", STEPS)
def test_the_walk_tells_a_step_from_slewing(build: Build, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    told: list[tuple[int, int]] = []
    real = 2_000_000_000 * SECOND
    monkeypatch.setattr(time, "time_ns", lambda: real)
    walk = walk_of(build, told)
    begun = time.monotonic_ns()
    walk.moment(begun)
    (_, shift), told[:] = told[-1], []
    real += SECOND
    walk.moment(begun + SECOND)
    # Slewed by 100 ms: the task's clock follows.
    real += SECOND + SECOND // 10
    walk.moment(begun + 2 * SECOND)
    real += SECOND + step
    walk.moment(begun + 3 * SECOND)
    stamps = [now for now, _ in told]
    assert [after - before for before, after in itertools.pairwise(stamps)] == [
        SECOND + SECOND // 10,
        SECOND,
    ]
    assert [found - shift for _, found in told] == [0, 0, step]
