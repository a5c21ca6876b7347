"""Drops of listening sockets, told apart: SYNs turned away, and connections for which the accept queue had no
room; also of those that were closed in between.

A socket counts both together (sk_drops), and with them packets of half-open connections that want nothing,
such as a repeated SYN. Its namespace counts the two kinds and nothing else (ListenDrops), and the second by
itself (ListenOverflows): no more were dropped than that, and between two looks the kinds can be told apart
for each socket where one happened alone, or where a single socket dropped. What cannot be told apart is in
the total alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from engine.tcp.backend import Listener

Key = tuple[int, str, int]
Counts = tuple[int, int, int]
"""All drops, those known to be of SYNs, those known to be for want of room."""
MOST = 4096
"""Listening sockets that are followed; as many are remembered after they were closed."""


class ListenDrops:
    """Give it every look; `since_start` only grows."""

    def __init__(self) -> None:
        self.since_start: dict[Key, Counts] = {}
        """By (netns, address, port); `parts()` says what of it is known."""
        self.total: Counts = (0, 0, 0)
        """Of all sockets, also of those that are forgotten."""
        self.left_out = 0
        """Sockets for which there was no room."""
        self._before: dict[int, int] = {}
        """Socket's cookie -> its drops at the last look."""
        self._last: dict[Key, tuple[Listener, int]] = {}
        """Each with the time of the look that saw it last; those that were closed first stand first."""
        self._kernel: dict[int, dict[str, int]] = {}
        self._unclaimed: dict[int, int] = {}
        """Namespace -> drops that it counted before the last look and that no socket had then: the counters
        are read after the sockets."""
        self._told: dict[int, int] = {}
        self._full: set[Key] = set()
        """Those that had no room at the last look."""

    def look(
        self,
        listeners: Iterable[Listener],
        kernel: Mapping[int, Mapping[str, int]],
        ended: Iterable[Listener] = (),
        time_ns: int = 0,
    ) -> list[tuple[Listener, int]]:
        """One look, with the counters of each namespace (inode -> nstat's names -> value), the sockets that
        were closed since the last one, and the time since 1970.

        Returns the sockets that have dropped since the last look, with how many of these drops were told by
        no event yet.
        """
        first = not self._kernel
        fresh: dict[int, dict[Key, int]] = {}
        were_full, self._full = self._full, {_key(one) for one in listeners if _full(one)}
        before, self._before = self._before, {}
        told: dict[Key, int] = {}
        had_told, self._told = self._told, {}
        for open_now, ones in ((False, ended), (True, listeners)):
            for one in ones:
                if len(self._before) >= MOST:
                    self.left_out += 1
                    continue
                # SO_REUSEPORT: several sockets of one address are one row.
                key = _key(one)
                self._last.pop(key, None)
                self._last[key] = (one, time_ns)
                if one.drops is None:
                    continue
                base = before.pop(one.cookie, one.drops if first else 0)
                if open_now:
                    self._before[one.cookie] = one.drops
                deltas = fresh.setdefault(one.netns, {})
                deltas[key] = deltas.get(key, 0) + max(0, one.drops - base)
                self.since_start.setdefault(key, (0, 0, 0))
                told[key] = told.get(key, 0) + one.told - had_told.get(one.cookie, one.told if first else 0)
                if open_now and one.told:
                    self._told[one.cookie] = one.told
        found: list[tuple[Listener, int]] = []
        likely = were_full | self._full | {key for key in told if told[key]} | {_key(one) for one in ended}
        for netns, deltas in fresh.items():
            booked = self._book(netns, deltas, kernel.get(netns), likely)
            found += [(self._last[key][0], drops - told[key]) for key, drops in booked.items()]
        self._kernel = {netns: dict(counters) for netns, counters in kernel.items()}
        while len(self._last) > 2 * MOST:
            key = next(iter(self._last))
            del self._last[key]
            self.since_start.pop(key, None)
        return [(one, more) for one, more in found if more > 0]

    def within(self, listeners: Iterable[Listener], since_ns: int) -> list[Listener]:
        """These, one for each address, and those that were closed after a time."""
        found = merged(listeners)
        there = {(one.netns, one.local, one.port) for one in found}
        gone = (
            replace(one, closed=True, fullest=_fullness(one))
            for key, (one, seen) in self._last.items()
            if key not in there and seen >= since_ns
        )
        return [*found, *gone]

    def _book(
        self, netns: int, deltas: Mapping[Key, int], now: Mapping[str, int] | None, likely: set[Key]
    ) -> dict[Key, int]:
        """Add what the sockets of a namespace have dropped; what each had of it. likely: those that may have
        had no room."""
        before = self._kernel.get(netns)
        overflows = all_drops = None
        if now is not None and before is not None:
            overflows = _delta(now, before, "TcpExtListenOverflows")
            all_drops = _delta(now, before, "TcpExtListenDrops")
        counted = sum(deltas.values())
        if all_drops is not None:
            most = all_drops + self._unclaimed.get(netns, 0)
            self._unclaimed[netns] = max(0, all_drops - counted)
            all_for_want_of_room = bool(overflows) and (overflows or 0) >= all_drops
            deltas = bounded(deltas, most, likely if all_for_want_of_room else ())
            if all_drops < sum(deltas.values()):
                # Some fell between the last look at the sockets and that at the counters.
                overflows = None
        droppers = {key: delta for key, delta in deltas.items() if delta}
        for key, delta in droppers.items():
            syn, accept = split(delta, overflows, all_drops, alone=len(droppers) == 1)
            total, syns, accepts = self.since_start[key]
            self.since_start[key] = (total + delta, syns + (syn or 0), accepts + (accept or 0))
            total, syns, accepts = self.total
            self.total = (total + delta, syns + (syn or 0), accepts + (accept or 0))
        return droppers


def merged(listeners: Iterable[Listener]) -> list[Listener]:
    """One for each (netns, address, port): with SO_REUSEPORT several sockets share it."""
    found: dict[Key, Listener] = {}
    for one in listeners:
        key = (one.netns, one.local, one.port)
        fullest = _fullness(one)
        have = found.get(key)
        if have is None:
            found[key] = replace(one, fullest=fullest)
            continue
        have.sockets += 1
        have.backlog += one.backlog
        have.limit += one.limit
        have.fullest = max(have.fullest, fullest)
        if have.drops is not None and one.drops is not None:
            have.drops += one.drops
        if have.pid != one.pid:
            have.pid = None
        if have.comm != one.comm:
            have.comm = ""
    return list(found.values())


def _key(one: Listener) -> Key:
    return one.netns, one.local, one.port


def _full(one: Listener) -> bool:
    """As the kernel judges: it lets in one more than the limit."""
    return one.backlog > one.limit


def _fullness(one: Listener) -> float:
    return one.backlog / one.limit if one.limit else 0.0


def bounded(deltas: Mapping[Key, int], most: int, likely: Collection[Key] = ()) -> dict[Key, int]:
    """Counts of sockets that together are no more than `most`: what is too much is taken first from those
    that are not likely to have dropped anything, from each by its share."""
    kept = _shares({key: delta for key, delta in deltas.items() if key in likely}, most)
    rest = {key: delta for key, delta in deltas.items() if key not in likely}
    kept |= _shares(rest, most - sum(kept.values()))
    return {key: kept[key] for key in deltas}


def _shares(deltas: Mapping[Key, int], most: int) -> dict[Key, int]:
    counted = sum(deltas.values())
    if counted <= most:
        return dict(deltas)
    found, seen, given = {}, 0, 0
    for key, delta in deltas.items():
        seen += delta
        found[key] = seen * most // counted - given
        given += found[key]
    return found


def parts(counts: Counts | None) -> tuple[int | None, int | None, int | None]:
    """(drops, of SYNs, for want of room) where that is known."""
    if counts is None:
        return None, None, None
    total, syns, accepts = counts
    return counts if syns + accepts == total else (total, None, None)


def split(
    drops: int, overflows: int | None, all_drops: int | None, *, alone: bool
) -> tuple[int | None, int | None]:
    """(SYNs, for want of room) of one socket's drops; (None, None) where that cannot be known."""
    if overflows is None or all_drops is None:
        return None, None
    if overflows == 0:
        return drops, 0
    if overflows >= all_drops:
        return 0, drops
    if alone and drops == all_drops:
        return drops - overflows, overflows
    return None, None


def _delta(now: Mapping[str, int], before: Mapping[str, int], name: str) -> int | None:
    return now[name] - before.get(name, 0) if name in now else None
