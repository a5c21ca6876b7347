"""Keeps the observer below a share of a CPU: looks come less often, and segments are sampled by flow.

What is measured, as shares of one CPU since the observer began to watch: the CPU time of this process (looks,
windows, events; the iterator's program runs inside of it) and, from bpf_stats, that of the programs in the
kernel. What came before (the interpreter, loading and verifying the programs) cannot be thinned: it is told
apart, as `start_cpu_s`.

What is bounded: looks and the programs of each segment, each to half of what the rest leaves. Windows and
events are what was asked for (`--interval`, `--max-events`); what they take is taken from the looks' part.
"""

from __future__ import annotations

import contextlib
import math
import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Backend

LOOK_PROGRAM = "sample"
"""The program of a backend that runs when it is looked, inside of this process."""
MOST_STRETCH, MOST_SAMPLING = 64, 1024
JUDGE_S = 0.25
"""How often what was used is compared with what is allowed."""
SMOOTH = 0.1
"""Windows are printed seldom and at once: their share is that of the last JUDGE_S / SMOOTH seconds or so."""
LEAST_ROOM = 0.25
"""Of the limit: what windows and events leave to looks and segments at least."""


class Governor:
    """The factors, and the share. Without a limit the factors stay 1."""

    def __init__(self, limit: float | None) -> None:
        self.limit = limit
        self.stretch = self.sampling = 1
        self.share = 0.0
        """Of one CPU, since the last report; after finish() over the whole run."""
        self.start_cpu_s = 0.0
        """CPU time of this process before it began to watch."""
        self._judged = self._last = self._begun = _Used(0.0, 0.0, 0.0, 0.0)
        self._looks = 0.0
        self._one_look = 0.0
        self._owed = self._rest = 0.0

    def begin(self, backend: Backend) -> None:
        """From now on."""
        self.start_cpu_s = time.process_time()
        self._judged = self._last = self._begun = self._used(backend)

    @contextlib.contextmanager
    def looking(self, *, more: bool = False) -> Iterator[None]:
        """Around a look; more: around what else is done for each look."""
        begun = time.process_time()
        try:
            yield
        finally:
            took = time.process_time() - begun
            self._looks += took
            self._one_look = self._one_look + took if more else took

    def finish(self, backend: Backend) -> None:
        """At the end: the share over the whole run."""
        self.share = _shares(self._begun, self._used(backend)).whole

    def report(self, backend: Backend) -> None:
        """Once a report: the share since the last one."""
        now = self._used(backend)
        self.share = _shares(self._last, now).whole
        self._last = now

    def judge(self, backend: Backend, period: float) -> None:
        """Each JUDGE_S: change the factors if need be. period: seconds between two looks with factor 1."""
        now = self._used(backend)
        if self.limit is None or now.wall - self._judged.wall < JUDGE_S * 0.9:
            return
        found = _shares(self._judged, now)
        self._judged = now
        begun = self._begun
        used = now.process - begun.process + now.segments - begun.segments
        # The next look is paid for beforehand, and the one that closes the run, which may follow at once.
        self._owed = (used + 2 * self._one_look) / self.limit - (now.wall - begun.wall)
        self._rest += (found.rest - self._rest) * SMOOTH
        half = max(self.limit - self._rest, self.limit * LEAST_ROOM) / 2
        wanted = self._one_look / (period * half)
        if wanted > self.stretch:
            self.stretch = min(MOST_STRETCH, _power(wanted))
        elif wanted < self.stretch / 3:
            self.stretch = max(1, self.stretch // 2)
        sampling = self.sampling
        if found.segments > half:
            self.sampling = min(MOST_SAMPLING, sampling * _power(found.segments / half))
        elif found.segments < half / 4:
            self.sampling = max(1, sampling // 2)
        if self.sampling != sampling:
            backend.set_sampling(self.sampling)

    def pause(self, period: float) -> float:
        """Seconds that the next look has to wait at least, until what was used too much is made up for."""
        return min(max(0.0, self._owed), MOST_STRETCH * period)

    def _used(self, backend: Backend) -> _Used:
        segments = sum(cost.ns for cost in backend.costs() if cost.program != LOOK_PROGRAM) / 1e9
        return _Used(time.monotonic(), time.process_time(), self._looks, segments)


class _Used(NamedTuple):
    """CPU time by kind, in seconds."""

    wall: float
    process: float
    looks: float
    """The part of `process` that went into looks."""
    segments: float
    """Of the programs in the kernel."""


class _Shares(NamedTuple):
    """Of one CPU."""

    whole: float
    rest: float
    """What this process did beside looks."""
    segments: float


def _shares(begin: _Used, end: _Used) -> _Shares:
    seconds = max(end.wall - begin.wall, 0.001)
    process, segments = end.process - begin.process, end.segments - begin.segments
    rest = process - (end.looks - begin.looks)
    return _Shares((process + segments) / seconds, max(0.0, rest) / seconds, segments / seconds)


def _power(ratio: float) -> int:
    """The next power of two, at least 2."""
    return 1 << max(1, math.ceil(math.log2(max(ratio, 1.0))))
