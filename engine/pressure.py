"""How full a task's send buffer is, and the sampling that follows from it.

The send buffer is what stands between the workers and the reporters: the send rings and, behind them, a queue
for each reporter; the fullest of them tells. Above the high watermark the share of media conversations that
is reported is halved at each look; below the low watermark all of them are reported again. The controller
looks; the workers read what it decides in shared memory and ask nobody.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING

from engine.log import log
from engine.shm import counters as layout
from engine.shm import ring
from engine.text import share_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.config import BackPressure
    from engine.reporters.figures import SenderFigures
    from engine.shm.counters import Counters
    from engine.shm.region import Region
    from engine.snapshot import RuleFigures, SendBufferFigures

PERIOD = 0.1
"""Seconds between two looks."""
QUIET = 5.0
"""Seconds between two lines of log about sampling: a share may change ten times a second, for hours."""
ALL = 1 << 32


def ring_usage(region: Region) -> float:
    """The share of a send ring that is unread, by records or octets, whichever is fuller."""
    figures = ring.figures(region)
    by_octets = figures["octets"] / figures["capacity"] if figures["capacity"] else 0.0
    by_records = figures["unread"] / figures["limit"] if figures["limit"] else 0.0
    return min(1.0, max(by_octets, by_records))


def queue_usage(reporter: dict[str, int]) -> float:
    """The share of a reporter's queue that is taken; `reporter` as of SenderFigures.reporter()."""
    return min(1.0, reporter["queued"] / reporter["capacity"]) if reporter["capacity"] else 0.0


class SendPressure:
    """The send buffer of one task."""

    def __init__(
        self,
        task: str,
        config: BackPressure,
        workers: Sequence[Counters],
        rings: Sequence[Region],
        sender: SenderFigures | None,
        reporters: int,
    ) -> None:
        """`reporters`: how many there are."""
        self.task = task
        self.config = config
        self.workers = workers
        self.rings = rings
        self.sender = sender
        self.reporters = reporters
        self.rate = 1.0
        """The share of media conversations that is reported now."""
        self._told = self._least = 1.0
        """What the log said last, and the least since then."""
        self._told_at = float("-inf")
        self.kernel: Callable[[int, int], None] | None = None
        """Tells the capture sockets (share of 2**32, key), where that is asked for."""
        self.key = secrets.randbits(32)
        for counters in workers:
            counters.words[layout.SAMPLING_KEY] = self.key
        self.rules: list[str] = []
        """What the processors' counters of the workers stand for (engine.processors.chain)."""

    def usage(self) -> float:
        """How full the fullest part of the send buffer is: 0 to 1."""
        parts = [ring_usage(region) for region in self.rings]
        if self.sender is not None:
            parts += [queue_usage(self.sender.reporter(number)) for number in range(self.reporters)]
        return max(parts, default=0.0)

    def step(self) -> bool:
        """One look: adjust the rate, tell the workers; whether it has changed."""
        usage, buffer = self.usage(), self.config.send_buffer
        rate = self.rate
        if usage > buffer.high_watermark:
            rate = max(self.config.sampling.lowest_rate, rate / 2)
        elif usage < buffer.low_watermark:
            rate = 1.0
        return self.set_rate(rate)

    def set_rate(self, rate: float) -> bool:
        """Tell the workers; whether that is something new."""
        if rate == self.rate:
            return False
        self.rate = rate
        self._least = min(self._least, rate)
        left_out = min(ALL - 1, round((1.0 - rate) * ALL))
        for counters in self.workers:
            counters.words[layout.LEFT_OUT_SHARE] = left_out
        if self.kernel is not None:
            self.kernel(ALL - left_out, self.key)
        return True

    async def watch(self, running: Callable[[], bool]) -> None:
        """Look until the task does not run any more, where sampling is asked for."""
        if not self.config.sampling.enabled or not self.rings:
            return
        try:
            while running():
                self.step()
                if time.monotonic() - self._told_at >= QUIET:
                    self.tell()
                await asyncio.sleep(PERIOD)
        finally:
            self.tell()

    def tell(self) -> None:
        """The log says how much is reported, if it was not like that all the time since the last line."""
        least, self._least = self._least, self.rate
        if self.rate == self._told == least:
            return
        self._told, self._told_at = self.rate, time.monotonic()
        share = f"media of {share_text(self.rate)} of all conversations is reported"
        fields = {"task": self.task, "least": share_text(least)}
        if self.rate < 1.0:
            log.warning("sampling", f"the send buffer is {self.usage():.0%} full: {share}", **fields)
        else:
            log.info("sampling", share, **fields)

    def section(self) -> SendBufferFigures | None:
        """Its part of the snapshot; None where nothing is reported."""
        if not self.rings:
            return None
        return {
            "usage": self.usage(),
            "high_watermark": self.config.send_buffer.high_watermark,
            "low_watermark": self.config.send_buffer.low_watermark,
            "sampling": self.config.sampling.enabled,
            "sample_rate": self.rate,
        }

    def rule_figures(self) -> list[RuleFigures]:
        """What each rule of the processors decided, over all workers."""
        count = min(len(self.rules), layout.RULES)
        columns = zip(*(counters.rules(count) for counters in self.workers), strict=True)
        return [
            {"rule": rule, "packets": sum(column)}
            for rule, column in zip(self.rules[:count], columns, strict=False)
        ]
