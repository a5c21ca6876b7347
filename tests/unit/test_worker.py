"""The loop of a worker where no ring is needed to see it."""

from __future__ import annotations

import socket
import time
from types import SimpleNamespace
from typing import Any

import pytest

from engine.child import Channel
from engine.pipeline import worker


class Poll:
    """Wakes at once, for a message or an error, as often as told; then sleeps as long as asked."""

    def __init__(self, wakes: int) -> None:
        self.wakes = wakes

    def wait(self, timeout_ms: int) -> bool:
        self.wakes -= 1
        if self.wakes < 0:
            time.sleep(timeout_ms / 1000)
        return False


@pytest.fixture
def ring_worker() -> Any:
    """A worker without a ring; its walk gives out `blocks`."""
    ours, theirs = socket.socketpair()
    one: Any = worker.RingWorker.__new__(worker.RingWorker)
    one.channel = Channel(ours)
    one.beat = lambda: None
    one.blocks = []
    one.walk = SimpleNamespace(run=lambda most: one.blocks.pop(0) if one.blocks else 0)
    yield one
    ours.close()
    theirs.close()


def test_messages_do_not_end_the_last_walk(ring_worker: Any) -> None:
    ring_worker.poll = Poll(5)
    ring_worker.blocks = [0, 0, 0, 0, 2, 0, 1]
    begun = time.monotonic()
    ring_worker.walk_rest(0.05)
    assert not ring_worker.blocks
    assert time.monotonic() - begun >= 0.05
    assert ring_worker.poll.wakes >= -5, "it waits for what does not come, and not again and again"


def test_last_walk_ends(ring_worker: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LAST_WALK", 0.1)
    ring_worker.poll = Poll(0)
    ring_worker.walk = SimpleNamespace(run=lambda most: 1)
    # With packets that never end.
    ring_worker.walk_rest(0.05)
    ring_worker.channel.ended = True
    ring_worker.poll = None
    ring_worker.walk_rest(0.05)
