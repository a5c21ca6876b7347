"""One reporter at work: a bounded queue that drops its head, a thread, time limits and retries.

A reporter that is slow or broken loses its own packets and delays nobody.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from engine.plugin import RAISED

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.packet import OutputPacket
    from engine.plugin import Reporter
    from engine.reporters.figures import SenderFigures

BATCH = 512
GRACE = 0.5
"""Seconds beyond its timeout that a reporter has for saying itself that it was too slow."""


class Item:
    """A packet on its way through all queues of a task; settled when the last reporter is done with it."""

    __slots__ = ("accepted", "packet", "waiting")

    def __init__(self, packet: OutputPacket, waiting: int) -> None:
        self.packet = packet
        self.waiting = waiting
        self.accepted = False


class ReporterQueue:
    """The queue of one reporter. `put` and `finish` are called by the sender's main thread."""

    def __init__(
        self,
        number: int,
        reporter: Reporter,
        figures: SenderFigures,
        lock: threading.Lock,
        capacity: int,
        timeout: float,
        retries: int,
    ) -> None:
        self.number = number
        self.reporter = reporter
        self.figures = figures
        self.capacity = capacity
        self.timeout = timeout
        self.retries = retries
        self.problem = ""
        """Why it does not work now; empty while well."""
        self.stuck = False
        """A call of the reporter has not come back in time; until it does, its packets are dropped."""
        self._items: deque[Item] = deque()
        self._work: list[Item] = []
        """What the reporter has in hand; empty when the time for it is over."""
        self._work_begun = 0.0
        self._lock = lock
        self._wake = threading.Condition(lock)
        self._finishing = False
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"reporter-{number}", daemon=True)
        self.on_problem: Callable[[str], None] | None = None

    def start(self) -> None:
        """Start the thread."""
        self.figures.add_reporter(self.number, "capacity", self.capacity)
        self._thread.start()

    def put(self, items: list[Item]) -> None:
        """Queue packets; the oldest make room."""
        with self._lock:
            self._items.extend(items)
            excess = len(self._items) - self.capacity
            if excess > 0:
                self._settle([self._items.popleft() for _ in range(excess)], "queue_full")
            self.figures.add_reporter(self.number, "queued", len(self._items))
            self._wake.notify()

    def room(self) -> int:
        """How many packets fit without a drop; for one that hangs nobody waits."""
        return self.capacity if self.stuck else max(0, self.capacity - len(self._items))

    def watch(self, now: float) -> None:
        """Give up what a reporter has in hand that does not come back; `now` is monotonic."""
        with self._lock:
            if not self._work or now - self._work_begun <= self.timeout + GRACE:
                return
            self._settle(self._work, "report_timeout")
            self._work = []
            self.stuck = True
        self._note(f"hangs: no answer for {self.timeout:g} s")

    def finish(self, deadline: float) -> None:
        """Send what waits, until `deadline` (monotonic); the rest is counted as timed out."""
        with self._lock:
            self._finishing = True
            self._deadline = deadline
            self._wake.notify()

    def join(self) -> None:
        """Wait for the end of finish(); packets of a reporter that hangs are counted as timed out."""
        self._thread.join(max(0.0, self._deadline - time.monotonic()) + 0.1)
        with self._lock:
            rest = self._work + list(self._items)
            self._work = []
            self._items.clear()
            self._settle(rest, "report_timeout")
            self.figures.add_reporter(self.number, "queued", 0)

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._items and not self._finishing:
                    self._wake.wait()
                if not self._items or time.monotonic() > self._deadline:
                    break
                batch = [self._items.popleft() for _ in range(min(BATCH, len(self._items)))]
            self._send(batch)
            with self._lock:
                self.figures.add_reporter(self.number, "queued", len(self._items))
        for last in (self.reporter.flush, self.reporter.stop):
            try:
                last()
            except RAISED as error:
                self._note(f"does not stop: {type(error).__name__}: {error}")

    def _send(self, batch: list[Item]) -> None:
        """Try until all is out, the time is over or the retries are used."""
        begun = time.monotonic()
        rest = batch
        attempts = 0
        while rest:
            with self._lock:
                self._work, self._work_begun = rest, time.monotonic()
            accepted, reason, problem = self._try(rest)
            with self._lock:
                self.figures.add_reporter(self.number, "batches", 1)
                given_up, self._work, self.stuck = not self._work, [], False
                if not given_up:
                    self._settle(rest[:accepted], "")
            self._note(problem)
            if given_up:
                return
            rest = rest[accepted:]
            if not rest:
                return
            attempts += 1
            with self._lock:
                self.figures.add_reporter(self.number, "failures", 1)
            if time.monotonic() - begun > self.timeout:
                reason = "report_timeout"
                break
            if attempts > self.retries:
                break
        with self._lock:
            self._settle(rest, reason)

    def _try(self, rest: list[Item]) -> tuple[int, str, str]:
        """One call of the reporter: (packets taken, drop reason for the others, what is wrong)."""
        try:
            taken = self.reporter.report([item.packet for item in rest])
            return max(0, min(len(rest), taken)), "report_error", ""
        except TimeoutError as error:
            return 0, "report_timeout", str(error) or "too slow"
        except OSError as error:
            return 0, "report_error", error.strerror or str(error) or type(error).__name__
        except RAISED as error:
            return 0, "report_error", f"{type(error).__name__}: {error}"

    def _note(self, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            if self.on_problem is not None:
                self.on_problem(problem)

    def _settle(self, items: list[Item], drop: str) -> None:
        """Count packets that this reporter took (`drop` empty) or lost; with the lock held."""
        if not items:
            return
        self.figures.add_reporter(self.number, drop or "accepted", len(items))
        done: dict[str, int] = {}
        for item in items:
            item.waiting -= 1
            item.accepted = item.accepted or not drop
            if not item.waiting:
                end = "reported" if item.accepted else drop
                done[end] = done.get(end, 0) + 1
        for name, amount in done.items():
            self.figures.add(name, amount)
