"""How full the send buffer is, and the sampling that follows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine import pressure
from engine.config import BackPressure, Sampling
from engine.pressure import ALL, SendPressure, queue_usage, ring_usage
from engine.reporters.figures import SenderFigures
from engine.shm import counters as layout
from engine.shm import ring
from engine.shm.counters import Counters
from engine.text import share_text


class Buffer:
    """Two workers with a ring of 100 records each, one reporter with a queue of 1,000."""

    def __init__(self, **sampling: Any) -> None:
        self.workers = [Counters.create("t", number) for number in range(2)]
        self.rings = [ring.create("t", number, 1 << 20, 100) for number in range(2)]
        self.writers = [ring.RingWriter(region) for region in self.rings]
        self.figures = SenderFigures.create("t")
        self.figures.add_reporter(0, "capacity", 1000)
        config = BackPressure(sampling=Sampling(enabled=True, **sampling))
        self.pressure = SendPressure("t", config, self.workers, self.rings, self.figures, 1)
        self.told: list[tuple[int, int]] = []

    def write(self, worker: int, count: int, octets: int = 8) -> None:
        for _ in range(count):
            self.writers[worker].write(1, 0, 0, bytes(octets))

    def queue(self, count: int) -> None:
        self.figures.add_reporter(0, "queued", count)

    def shares(self) -> list[int]:
        return [counters.words[layout.LEFT_OUT_SHARE] for counters in self.workers]


def test_the_fullest_part_tells() -> None:
    buffer = Buffer()
    assert buffer.pressure.usage() == 0.0
    buffer.write(1, 30)
    assert buffer.pressure.usage() == 0.3
    buffer.queue(450)
    assert buffer.pressure.usage() == 0.45
    buffer.write(0, 5, 200_000)
    assert buffer.pressure.usage() == pytest.approx(ring_usage(buffer.rings[0]))
    assert buffer.pressure.usage() > 0.9, "octets fill a ring, too"
    assert queue_usage({"queued": 5, "capacity": 0}) == 0.0


def test_halved_above_the_high_watermark_and_whole_below_the_low_one() -> None:
    buffer = Buffer(lowest_rate=0.2)
    rates = []
    for queued in (800, 801, 900, 1000, 1000, 800, 301, 300, 299, 0):
        buffer.queue(queued)
        buffer.pressure.step()
        rates.append(buffer.pressure.rate)
    assert rates == [1.0, 0.5, 0.25, 0.2, 0.2, 0.2, 0.2, 0.2, 1.0, 1.0]
    assert buffer.shares() == [0, 0]


def test_the_workers_and_the_kernel_are_told_the_same() -> None:
    buffer = Buffer()
    buffer.pressure.kernel = lambda share, key: buffer.told.append((share, key))
    keys = {counters.words[layout.SAMPLING_KEY] for counters in buffer.workers}
    buffer.queue(900)
    assert buffer.pressure.step()
    assert buffer.shares() == [ALL // 2] * 2
    buffer.queue(0)
    assert buffer.pressure.step()
    assert not buffer.pressure.step()
    assert buffer.told == [(ALL // 2, *keys), (ALL, *keys)]


class Log:
    """Keeps what is said of sampling."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str, str]] = []

    def warning(self, _component: str, message: str, **fields: str) -> None:
        self.lines.append(("warning", message, fields["least"]))

    def info(self, _component: str, message: str, **fields: str) -> None:
        self.lines.append(("info", message, fields["least"]))


def test_the_log_of_a_share_that_goes_to_and_fro(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once at once, then at most a line each QUIET seconds; the last state is always told."""
    log, now, looks = Log(), [100.0], [0]

    async def pass_by(seconds: float) -> None:
        now[0] += seconds
        looks[0] += 1
        # Too much for half a second, nothing for a tenth of one: for a minute; then calm.
        buffer.queue(900 if looks[0] % 6 and looks[0] < 600 else 0)

    monkeypatch.setattr(pressure, "log", log)
    monkeypatch.setattr(pressure.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pressure.asyncio, "sleep", pass_by)
    buffer = Buffer(lowest_rate=0.001)
    asyncio.run(buffer.pressure.watch(lambda: looks[0] < 1000))
    assert 10 <= len(log.lines) <= 14
    text = "the send buffer is 90% full: media of 50% of all conversations is reported"
    assert log.lines[0] == ("warning", text, "50%")
    assert log.lines[-1] == ("info", "media of 100% of all conversations is reported", "3.1%")
    log.lines.clear()
    buffer.queue(900)
    looks[0] = 0
    asyncio.run(buffer.pressure.watch(lambda: looks[0] < 4))
    assert log.lines[-1][1:] == (text.replace("50%", "6.2%"), "6.2%"), "told at the end, too"


def test_a_share_that_is_not_nothing() -> None:
    assert [share_text(one) for one in (1, 0.5, 0.125, 1 / 16, 0.01, 0.0005)] == [
        "100%", "50%", "12%", "6.2%", "1%", "0.05%",
    ]  # fmt: skip


def test_what_the_snapshot_says() -> None:
    buffer = Buffer()
    buffer.pressure.rules = ["pings", "2: pass dc"]
    buffer.workers[0].words[layout.FIRST_RULE] = 3
    buffer.workers[1].words[layout.FIRST_RULE] = 4
    buffer.queue(900)
    buffer.pressure.step()
    section = buffer.pressure.section()
    assert section is not None
    assert (section["usage"], section["sample_rate"], section["sampling"]) == (0.9, 0.5, True)
    assert buffer.pressure.rule_figures() == [
        {"rule": "pings", "packets": 7},
        {"rule": "2: pass dc", "packets": 0},
    ]
    nothing = SendPressure("t", BackPressure(), buffer.workers, [], None, 0)
    assert nothing.section() is None
    assert nothing.usage() == 0.0
