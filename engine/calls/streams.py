"""Media streams as the calls process knows them: the shared table, and what has left it."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from engine.calls.rows import ACTIVE_NS, Media, media_key

if TYPE_CHECKING:
    from engine.shm.streams import StreamTable

INTERVAL_S = 0.2
"""The table is read at most so often."""
PATIENCE = 10
"""And at most every so many times as long as a reading took."""
MOST_COMPLETED = 500
"""Streams that fell silent and are read in full in one look."""
ACTIVE_S = 0.5
"""How long a count of active streams is good."""


class StreamRow(dict[str, Any]):
    """A row of the table of streams: its entry at once, all other figures when one of them is asked for."""

    def __init__(self, table: StreamTable, slot: int, entry: dict[str, Any]) -> None:
        super().__init__(entry)
        self.table = table
        self.slot = slot
        self.whole = False

    def complete(self) -> None:
        """Take the other figures, where the stream is still in the table."""
        if self.whole:
            return
        self.whole = True
        figures = self.table.read(self.slot)
        if figures is not None and figures["id"] == self["id"]:
            for name, value in figures.items():
                self.setdefault(name, value)

    def __missing__(self, name: str) -> Any:
        """A figure that is not in the entry; None where nobody knows it any more."""
        self.complete()
        return self.get(name)


class StreamStore:
    """At most `limit` streams; the one that was silent longest makes room."""

    def __init__(self, table: StreamTable | None, limit: int) -> None:
        self.table = table
        self.limit = max(1, limit)
        self.rows: dict[str, StreamRow] = {}
        self._open: OrderedDict[str, None] = OrderedDict()
        self.version = 0
        self.newest = 0
        self.removed = 0
        self._calls: dict[str, set[str]] = {}
        self._media: dict[str, Media] = {}
        self._stale: set[str] = set()
        self._packets = 0
        self._lost = 0
        self._active = (0.0, 0, 0)
        self._hidden: dict[str, int] = {}
        self._since = 0
        self._next = 0.0

    def refresh(self, exact: bool = False, now: int = 0) -> None:
        """Read what has changed since the last time; nothing while that was a moment ago, unless `exact`.

        `now`: the time, ns, where it passes without packets.
        """
        begun = time.monotonic()
        if self.table is None or (begun < self._next and not exact):
            return
        self._since, slots = self.table.changed(self._since)
        for slot in slots:
            row = self.table.read_entry(slot)
            if row is not None:
                self._take(StreamRow(self.table, slot, row))
        self._complete(max(now, self.newest))
        if len(self.rows) > self.limit:
            self._evict()
        cost = time.monotonic() - begun
        self._next = begun + max(INTERVAL_S, PATIENCE * cost)

    def _complete(self, now: int) -> None:
        """Take all figures of streams that fell silent, while the table still has them."""
        for _ in range(min(MOST_COMPLETED, len(self._open))):
            name = next(iter(self._open))
            row = self.rows.get(name)
            if row is not None and now - row["last_ns"] <= ACTIVE_NS:
                break
            del self._open[name]
            if row is not None:
                row.complete()

    def _take(self, row: StreamRow) -> None:
        name = row["id"]
        before = self.rows.get(name)
        if before is not None and before["changes"] == row["changes"]:
            return
        if self._hidden.get(name) == row["packets"]:
            return
        self.version += 1
        self.rows[name] = row
        self._open[name] = None
        self._open.move_to_end(name)
        self.newest = max(self.newest, row["last_ns"])
        self._packets += row["packets"]
        self._lost += max(0, row["lost"])
        if before is not None:
            self._leave(before, before["call_id"] != row["call_id"])
        if row["call_id"]:
            self._calls.setdefault(row["call_id"], set()).add(name)
            self._stale.add(row["call_id"])

    def _leave(self, row: dict[str, Any], moved: bool = True) -> None:
        """The figures of a row count no more; if it `moved`, its call has it no more."""
        self._packets -= row["packets"]
        self._lost -= max(0, row["lost"])
        names = self._calls.get(row["call_id"]) if moved else None
        if names is not None:
            names.discard(row["id"])
            self._stale.add(row["call_id"])
            if not names:
                del self._calls[row["call_id"]]

    def _evict(self) -> None:
        """Down to nine tenths, so that it is not done at each reading."""
        oldest = sorted(self.rows.values(), key=lambda row: row["last_ns"])
        for row in oldest[: len(oldest) - self.limit * 9 // 10]:
            self._drop(row)
            self.removed += 1

    def _drop(self, row: dict[str, Any]) -> None:
        del self.rows[row["id"]]
        self._leave(row)
        self.version += 1

    def clear(self, keep: set[Any]) -> int:
        """Forget all but `keep`; a stream that goes on comes back with its next packet."""
        gone = [row for name, row in self.rows.items() if name not in keep]
        self._hidden = {name: count for name, count in self._hidden.items() if len(self._hidden) < self.limit}
        for row in gone:
            self._hidden[row["id"]] = row["packets"]
            self._drop(row)
        return len(gone)

    def media(self) -> dict[str, Media]:
        """What the streams of each Call-ID come to."""
        for call_id in self._stale:
            names = self._calls.get(call_id)
            if names:
                rows = [self.rows[name] for name in names]
                losses = [loss for row in rows if (loss := row["lost_pct"]) is not None]
                self._media[call_id] = Media(len(names), max(losses, default=None), rows)
            else:
                self._media.pop(call_id, None)
        self._stale.clear()
        return self._media

    def active(self, now: int) -> int:
        """How many streams had a packet lately; counted anew after a moment or a change of their number."""
        clock = time.monotonic()
        until, streams, count = self._active
        if clock >= until or streams != len(self.rows):
            count = sum(now - row["last_ns"] <= ACTIVE_NS for row in self.rows.values())
            self._active = (clock + ACTIVE_S, len(self.rows), count)
        return count

    def ordered(self, now: int) -> list[dict[str, Any]]:
        """All streams, in the order of their first packets; `active` is set."""
        rows: list[dict[str, Any]] = sorted(self.rows.values(), key=lambda row: (row["start_ns"], row["id"]))
        for row in rows:
            _at(row, now)
        return rows

    def of_call(self, call_id: bytes, now: int, end: int = 0) -> list[dict[str, Any]]:
        """The streams of a call that was over at `end` (0: goes on), in the order of their first packets."""
        names = self._calls.get(media_key(call_id), ())
        rows: list[dict[str, Any]] = sorted(
            (self.rows[name] for name in names), key=lambda row: (row["start_ns"], row["id"])
        )
        for row in rows:
            _at(row, now, end)
        return rows

    def in_full(self, row: dict[str, Any]) -> dict[str, Any]:
        """The row with its lists (engine.control.methods.STREAM_DETAIL), while the table has the stream."""
        slot = int(row["id"].partition(".")[0])
        full = None if self.table is None else self.table.read(slot, True)
        if full is None or full["id"] != row["id"]:
            return row
        return {**full, "active": row["active"], "silent_for_s": row.get("silent_for_s")}

    def section(self, now: int) -> dict[str, Any]:
        """The `media` section of a Snapshot, but for `one_way`."""
        return {
            "streams": len(self.rows),
            "active": self.active(now),
            "packets": self._packets,
            "lost": self._lost,
            "version": self.version,
        }


def _at(row: dict[str, Any], now: int, end: int = 0) -> None:
    """What of a row depends on the time, which ended for it at `end`."""
    row["active"] = now - row["last_ns"] <= ACTIVE_NS
    row["silent_for_s"] = max(0, (end or now) - row["last_ns"]) / 1e9
