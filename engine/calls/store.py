"""The stores of calls and of media streams, and the methods that read them.

One object for the calls process and for `report`: evidence goes in with `drain()` or `add()`, answers
come out of `answer()` and `section()`. Which time it is says the task's clock: of this host when live,
of the newest packet in a file.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from engine.calls.dialogs import DialogTable
from engine.calls.messages import error_text, message_answer, message_rows
from engine.calls.one_way import OneWay
from engine.calls.query import MOST_ROWS, PATIENCE, Guard, Windows, parse_query
from engine.calls.rows import CallRows, endpoint, stream_columns, stream_search
from engine.calls.states import CLASSES, STATES, Dialog
from engine.calls.streams import StreamRow, StreamStore
from engine.control.methods import STREAM_DETAIL, STREAM_ROW
from engine.errors import OtusError, UsageError
from engine.shm.records import packet_header
from engine.text import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from engine.shm.ring import RingReader
    from engine.shm.streams import StreamTable

DEFAULTS = {
    "calls": 20_000,
    "messages_per_call": 500,
    "message_bytes": 128 * 1024**2,
    "streams": 32_768,
}
PARAMETERS = {
    "query": ("store", "filter", "sort", "descending", "anchor", "offset", "count", "ids"),
    "call": ("id", "from", "count"),
    "message": ("id", "index"),
    "clear": ("store", "keep", "keep_filter"),
    "section": (),
}
"""What each method takes (engine.control.methods)."""
LOST = 42
"""Word of a ring: records lost before they were read."""
SWEEP_S = 1.0
MOST_IN_FULL = 64
"""Streams of one call that are answered with their lists."""
_CALL = CLASSES.index("call")


class Calls:
    """Dialogs, messages and streams of one task, bounded by `limits` (engine.config.Stores)."""

    def __init__(
        self,
        limits: dict[str, int],
        clock: str = "live",
        streams: StreamTable | None = None,
        patience: float = PATIENCE,
        guard: Guard = nullcontext,
    ) -> None:
        """`clock`: live or packet. `message_bytes` 0 keeps no messages at all, only figures."""
        self.limits = {**DEFAULTS, **limits}
        self.live = clock == "live"
        self.table = DialogTable(
            self.limits["calls"],
            self.limits["messages_per_call"],
            self.limits["message_bytes"],
            self.limits["message_bytes"] > 0,
        )
        # Ids of an earlier process of this engine are not taken for those of this one.
        self.rows = CallRows(self.table, (int(time.time()) & 0xFFFFF) << 32)
        self.streams = StreamStore(streams, self.limits["streams"])
        self.one_way = OneWay(self.table)
        self.call_windows = Windows(self.rows.names, self.rows.search, "number", patience, guard)
        self.stream_windows = Windows(stream_columns(), stream_search, "", patience, guard)
        self.readers: list[RingReader] = []
        self._next_sweep = 0.0
        self._methods: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "query": self.query,
            "call": self.call,
            "message": self.message,
            "clear": self.clear,
            "section": lambda _: self.section(),
        }

    # ------------------------------------------------------------------ in

    def drain(self, reader: RingReader, most: int) -> int:
        """Take up to `most` records out of an evidence ring; returns how many."""
        if reader not in self.readers:
            self.readers.append(reader)
        return self.table.drain(reader, most)

    def add(self, kind: int, timestamp: int, body: bytes) -> None:
        """Take one record."""
        self.table.add(kind, timestamp, body)

    def now(self) -> int:
        """The task's clock, ns since 1970."""
        if self.live:
            return time.time_ns()
        return max(int(self.table.newest), self.streams.newest)

    def stepped(self, by: int) -> None:
        """Live: the wall clock was stepped `by` ns. Timers go on; what people see has the new time."""
        self.table.stepped(by)

    def refresh(self, exact: bool = False) -> None:
        """Read the streams and take the steps that time brings, where it is due; always if `exact`."""
        self.streams.refresh(exact, time.time_ns() if self.live else 0)
        self.rows.media = self.streams.media()
        self.rows.now = now = self.now()
        clock = time.monotonic()
        if exact or clock >= self._next_sweep:
            self._next_sweep = clock + SWEEP_S
            self.table.sweep(now)

    # ------------------------------------------------------------------ out

    def answer(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """The result of `query`, `call`, `message`, `clear` or `section`; OtusError says why not."""
        handler = self._methods.get(method)
        if handler is None:
            raise UsageError(f"no method {method!r} here", f"methods: {', '.join(self._methods)}")
        for name in params:
            if name not in PARAMETERS[method]:
                raise UsageError(
                    f"{method}: no parameter {name!r}", f"parameters: {', '.join(PARAMETERS[method])}"
                )
        return handler(params)

    def query(self, params: dict[str, Any]) -> dict[str, Any]:
        """A window of `calls` or `streams`."""
        self.refresh()
        if _store(params) == "streams":
            return self._query_streams(params)
        query = parse_query(params, self.rows.names, "number")
        version = self.table.version + self.streams.version
        found, start, dialogs = self.call_windows.window(
            query, version, lambda: [*self.table.dialogs.values()], self.rows.id
        )
        if "ids" in params:
            start, dialogs = 0, _named(params["ids"], self.table.dialogs.values(), self.rows.id)
        return {
            "total": len(self.table.dialogs),
            "matched": len(found.rows),
            "offset": start,
            "version": version,
            "rows": [self.rows.row(dialog) for dialog in dialogs],
        }

    def _query_streams(self, params: dict[str, Any]) -> dict[str, Any]:
        query = parse_query(params, self.stream_windows.names, "start_ns")
        version = self.streams.version
        now = self.now()
        found, start, rows = self.stream_windows.window(
            query, version, lambda: self.streams.ordered(now), lambda row: row["id"]
        )
        if "ids" in params:
            start, rows = 0, _named(params["ids"], self.streams.ordered(now), lambda row: row["id"])
        full = "ids" in params
        return {
            "total": found.total,
            "matched": len(found.rows),
            "offset": start,
            "version": version,
            "rows": [self._full_row(row) if full else _stream_row(row) for row in rows],
        }

    def _full_row(self, row: dict[str, Any]) -> dict[str, Any]:
        return _stream_row(self.streams.in_full(row), STREAM_ROW + STREAM_DETAIL)

    def dialog(self, params: dict[str, Any]) -> Dialog:
        """The call that `id` names."""
        number = params.get("id")
        if not isinstance(number, int):
            raise UsageError(f"id: {number!r} is no id of a call", "ids stand in the rows of `query`")
        own = number - self.rows.base
        found = self.table.find(own) if 0 < own <= self.table.number else None
        if found is None:
            raise OtusError("no such call", "it had to make room, or was cleared")
        return found

    def call(self, params: dict[str, Any]) -> dict[str, Any]:
        """The ladder of one call."""
        self.refresh()
        dialog = self.dialog(params)
        start, count = _whole(params, "from", 0), min(_whole(params, "count", 500), 1000)
        messages, hosts, media = message_rows(self.table, dialog, start, count)
        now = self.now()
        return {
            "call": self.rows.row(dialog),
            "hosts": hosts,
            "messages": messages,
            "more": start + len(messages) < dialog.kept,
            "streams": [
                self._full_row(row) if number < MOST_IN_FULL else _stream_row(row)
                for number, row in enumerate(self.streams.of_call(dialog.call_id, now, dialog.end_ns))
            ],
            "media": media,
        }

    def message(self, params: dict[str, Any]) -> dict[str, Any]:
        """One message as it was on the wire."""
        return message_answer(self.table, self.dialog(params), _whole(params, "index", 0))

    def clear(self, params: dict[str, Any]) -> dict[str, Any]:
        """Forget the rows of a store, except those of `keep` and those that match `keep_filter`."""
        keep, matching = _keep(params)
        self.refresh()
        if _store(params) == "streams":
            kept = self._matching(self.stream_windows, matching, lambda: self.streams.ordered(self.now()))
            removed = self.streams.clear(keep | {row["id"] for row in kept})
            self.stream_windows.forget()
            return {"removed": removed}
        dialogs = [*self.table.dialogs.values()]
        kept = self._matching(self.call_windows, matching, lambda: dialogs)
        keep |= {self.rows.id(dialog) for dialog in kept}
        gone = [dialog for dialog in dialogs if self.rows.id(dialog) not in keep]
        for dialog in gone:
            self.table.remove(dialog)
        self.call_windows.forget()
        return {"removed": len(gone)}

    def _matching(self, windows: Windows, text: str, rows: Callable[[], list[Any]]) -> list[Any]:
        if not text:
            return []
        query = parse_query({"filter": text, "sort": windows.natural or "start_ns"}, windows.names, "")
        windows.forget()
        return windows.find(query, 0, rows).rows

    def section(self) -> dict[str, Any]:
        """The `sip` and `media` sections of a Snapshot (engine.snapshot)."""
        self.refresh(exact=not self.live)
        table = self.table
        requests, responses = table.all_counts()
        counts = table.state_counts()
        sip = {
            "calls": len(table.dialogs),
            "active": table.active(_CALL),
            "by_state": {name: counts[number] for number, name in enumerate(STATES) if counts[number]},
            "messages": table.messages,
            "retransmissions": table.retransmissions,
            "malformed": table.malformed,
            "requests": requests,
            "responses": responses,
            "removed": table.removed,
            "lost": sum(int(reader.region.words[LOST]) for reader in self.readers),
            "held_bytes": table.arena.held_octets(),
            "restarts": 0,
            "lost_calls": None,
            "restarted_ns": None,
            "version": table.version,
        }
        now = self.now()
        one_way = self.one_way.count(self.streams.rows.values(), now)
        return {"sip": sip, "media": {**self.streams.section(now), "one_way": one_way}}

    def dialogs_report(self) -> list[dict[str, Any]]:
        """One entry for each Call-ID in the form of `report --json`; messages without one have none."""
        self.refresh(exact=True)
        return [self._report(dialog) for dialog in self.table.dialogs.values() if dialog.call_id]

    def defects_report(self) -> list[dict[str, Any]]:
        """The first malformed messages, at most dialogs.MOST_DEFECTS of them."""
        return [self._defect(*defect) for defect in self.table.defects]

    def _defect(
        self, call_id: bytes, timestamp: int, error: int, method: int, status: int, header: bytes
    ) -> dict[str, Any]:
        packet = packet_header(header)
        return {
            "frame": packet.frame or None,
            "time": format_timestamp(timestamp),
            "src": endpoint(packet.src, packet.sport),
            "dst": endpoint(packet.dst, packet.dport),
            "call_id": call_id.decode("utf-8", "replace") if call_id else None,
            "method": self.table.method_name(method),
            "status": status or None,
            "error": error_text(error),
        }

    def _report(self, dialog: Dialog) -> dict[str, Any]:
        rows = self.rows
        methods, codes = self.table.counts(dialog)
        return {
            "call_id": rows.call_id(dialog),
            "methods": methods,
            "codes": codes,
            "from": rows.sender(dialog),
            "to": rows.receiver(dialog),
            "src": rows.src(dialog),
            "dst": rows.dst(dialog),
            "state": STATES[dialog.state],
            "messages": dialog.messages,
            "start": format_timestamp(dialog.first_ns),
            "setup_s": _rounded(rows.setup_s(dialog)),
            "duration_s": _rounded(rows.duration_s(dialog)),
            "reason": rows.reason(dialog),
        }


def _stream_row(row: dict[str, Any], names: tuple[str, ...] = STREAM_ROW) -> dict[str, Any]:
    if isinstance(row, StreamRow):
        row.complete()
    return {name: _short(row.get(name)) for name in names}


def _short(value: Any) -> Any:
    """Six decimals, so that a line takes more rows."""
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, dict):
        return {name: _short(one) for name, one in value.items()}
    return value


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _store(params: dict[str, Any]) -> str:
    store = params.get("store", "calls")
    if store not in ("calls", "streams"):
        raise UsageError(f"store: no store {store!r}", "stores: calls, streams")
    return str(store)


def _keep(params: dict[str, Any]) -> tuple[set[Any], str]:
    keep, matching = params.get("keep") or [], params.get("keep_filter") or ""
    if not isinstance(keep, list) or not all(isinstance(name, int | str) for name in keep):
        raise UsageError("keep: not a list of ids")
    if not isinstance(matching, str):
        raise UsageError("keep_filter: not a text")
    return set(keep), matching


def _named(ids: Any, rows: Iterable[Any], identity: Callable[[Any], Any]) -> list[Any]:
    """The rows with these ids in their order, without those that are gone."""
    if not isinstance(ids, list) or len(ids) > MOST_ROWS or not all(isinstance(i, int | str) for i in ids):
        raise UsageError(f"ids: not a list of at most {MOST_ROWS} ids")
    wanted = set(ids)
    found = {name: row for row in rows if (name := identity(row)) in wanted}
    return [found[name] for name in ids if name in found]


def _whole(params: dict[str, Any], name: str, default: int) -> int:
    value = params.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise UsageError(f"{name}: {value!r} is no whole number from 0 to {(1 << 32) - 1}")
    return value
