"""Windows of time: the difference of two cumulative readings, for any length up to the longest and for the
run."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from engine.tcp.backend import Histogram, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping

LONGEST_S = 60.0
FINEST_S = 0.5
"""Readings that are closer together than this are kept only while they are the newest: 60 s are ~120 of
them."""

Key = TypeVar("Key")


@dataclass(slots=True)
class Window:
    """What was counted between two readings. Its figures are differences; `reading.time_ns` is that of its
    end."""

    since_ns: int
    """Since 1970."""
    until_ns: int
    seconds: float
    reading: Reading


class Windows:
    """The readings of the last LONGEST_S and the first one."""

    def __init__(self, first: Reading, wall_ns: int) -> None:
        self._first = (wall_ns, first)
        self._kept: deque[tuple[int, Reading]] = deque([self._first])
        self._newest = self._first

    def add(self, reading: Reading, wall_ns: int) -> None:
        """One more reading; they come in the order of time."""
        if self._kept[-1] is not self._newest and self._newest[1].time_ns >= (
            self._kept[-1][1].time_ns + FINEST_S * 1e9
        ):
            self._kept.append(self._newest)
        self._newest = (wall_ns, reading)
        horizon = reading.time_ns - LONGEST_S * 1e9
        # One that is older than the horizon stays: the longest window begins there.
        while len(self._kept) > 1 and self._kept[1][1].time_ns <= horizon:
            self._kept.popleft()

    def last(self, seconds: float) -> Window:
        """The last so many seconds, or less where less was seen. Begins at the reading that is nearest to
        that."""
        wanted = self._newest[1].time_ns - seconds * 1e9
        begin = min(self._kept, key=lambda kept: abs(kept[1].time_ns - wanted))
        return difference(begin, self._newest)

    def since(self, begin: tuple[int, Reading]) -> Window:
        """From a reading that the caller kept."""
        return difference(begin, self._newest)

    def run(self) -> Window:
        """Since the start."""
        return difference(self._first, self._newest)

    @property
    def newest(self) -> tuple[int, Reading]:
        """The newest reading, with the time since 1970."""
        return self._newest


def difference(begin: tuple[int, Reading], end: tuple[int, Reading]) -> Window:
    """The window between two readings; what only the later one has counts from 0."""
    wall, before = begin
    until, now = end
    listen = before.listen_drops
    reading = Reading(
        now.time_ns,
        _less(now.counters, before.counters),
        _histograms(now.histograms, before.histograms),
        _less(now.transitions, before.transitions),
        _histograms(now.dwell, before.dwell),
        _less(now.resets, before.resets),
        _less(now.drops, before.drops),
        _less(now.benign, before.benign),
        _less(now.suppressed, before.suppressed),
        _less(now.kernel, before.kernel),
        {key: _listen(value, listen.get(key)) for key, value in now.listen_drops.items()},
    )
    return Window(wall, until, (now.time_ns - before.time_ns) / 1e9, reading)


def _less(now: Mapping[Key, int], before: Mapping[Key, int]) -> dict[Key, int]:
    return {key: max(0, value - before.get(key, 0)) for key, value in now.items()}


def _histograms(now: Mapping[str, Histogram], before: Mapping[str, Histogram]) -> dict[str, Histogram]:
    return {name: subtract(one, before.get(name)) for name, one in now.items()}


def subtract(now: Histogram, before: Histogram | None) -> Histogram:
    """What was added since; the largest value is that since the start, which bounds the window's own."""
    if before is None:
        return now
    buckets = [max(0, new - old) for new, old in zip(now.buckets, before.buckets, strict=True)]
    return Histogram(buckets, max(0, now.total - before.total), now.largest)


def _listen(now: tuple[int, int, int], before: tuple[int, int, int] | None) -> tuple[int, int, int]:
    return now if before is None else (now[0] - before[0], now[1] - before[1], now[2] - before[2])
