"""Drops of listening sockets, told apart: SYNs turned away, and connections for which the accept queue had no
room.

A socket counts both together (sk_drops). Its namespace counts them together (ListenDrops) and the second
alone (ListenOverflows), so that between two looks they can be told apart for each socket where one kind
happened alone, or where a single socket dropped. Otherwise the parts of those sockets are unknown from then
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from engine.tcp.backend import Listener

Key = tuple[int, str, int]
MOST = 4096
"""Listening sockets that are followed."""


class ListenDrops:
    """Give it every look; `since_start` only grows."""

    def __init__(self) -> None:
        self.since_start: dict[Key, tuple[int, int | None, int | None]] = {}
        """(netns, address, port) -> drops, of SYNs, for want of room; None: not known."""
        self._before: dict[Key, int] = {}
        self._kernel: dict[int, dict[str, int]] = {}

    def look(self, listeners: Iterable[Listener], kernel: Mapping[int, Mapping[str, int]]) -> None:
        """One look, with the counters of each namespace (inode -> nstat's names -> value)."""
        first = not self._kernel
        fresh: dict[int, dict[Key, int]] = {}
        rows: dict[Key, int] = {}
        for one in listeners:
            # SO_REUSEPORT: several sockets of one address count as one row.
            key = (one.netns, one.local, one.port)
            if one.drops is not None and (key in rows or len(rows) < MOST):
                rows[key] = rows.get(key, 0) + one.drops
        for key, drops in rows.items():
            before = self._before.get(key, drops if first else 0)
            # Fewer than before: the socket was closed and another one opened.
            delta = drops - before if drops >= before else drops
            fresh.setdefault(key[0], {})[key] = delta
            self.since_start.setdefault(key, (0, 0, 0))
        self._before = rows
        for netns, deltas in fresh.items():
            self._book(deltas, kernel.get(netns), self._kernel.get(netns))
        self._kernel = {netns: dict(counters) for netns, counters in kernel.items()}
        if len(self.since_start) > MOST:
            self.since_start = {key: value for key, value in self.since_start.items() if key in rows}

    def _book(
        self, deltas: Mapping[Key, int], now: Mapping[str, int] | None, before: Mapping[str, int] | None
    ) -> None:
        droppers = [key for key, delta in deltas.items() if delta]
        if not droppers:
            return
        overflows = all_drops = None
        if now is not None and before is not None:
            overflows = _delta(now, before, "TcpExtListenOverflows")
            all_drops = _delta(now, before, "TcpExtListenDrops")
            if all_drops is not None and all_drops < sum(deltas.values()):
                # Drops fell between the look at the sockets and that at the counters.
                overflows = all_drops = None
        for key in droppers:
            syn, accept = split(deltas[key], overflows, all_drops, alone=len(droppers) == 1)
            total, syns, accepts = self.since_start[key]
            self.since_start[key] = (total + deltas[key], _plus(syns, syn), _plus(accepts, accept))


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


def _plus(total: int | None, more: int | None) -> int | None:
    return None if total is None or more is None else total + more
