"""Windows of a store: filter, sort, offset, count; what was found is kept while nothing changes.

A regular expression can take for ever on a text that was made for it, and texts come from the wire:
who must not hang gives a `guard`, such as time_limit(), around each pass of a filter.
"""

from __future__ import annotations

import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, NamedTuple

from engine.calls.filter import Column, Test, compile_filter
from engine.errors import OtusError, UsageError

MOST_ROWS = 1000
"""Rows of one answer."""
KEPT = 8
"""Answers whose order is kept."""
PATIENCE = 5
"""An order may be shown this many times as long as making it took, although rows have changed meanwhile."""


TICK_S = 0.05
"""CPU time between two signs of life while a filter is at work."""
SLOW_S = 30.0
"""So long a filter that took too long is refused without another try: screens ask again and again."""

Guard = Callable[[], AbstractContextManager[Any]]


@contextmanager
def time_limit(seconds: float, beat: Callable[[], object] = bool) -> Iterator[None]:
    """UsageError when the body takes more CPU time; in the main thread only. `re` lets signals through.

    `beat` is called all the while: other processes may take the CPU, and who waits is not dead.
    """
    ticks = 0

    def tick(*_: object) -> None:
        nonlocal ticks
        beat()
        ticks += 1
        if ticks * TICK_S < seconds:
            return
        raise UsageError(
            f"filter: takes longer than {seconds:g} s",
            "repeat less inside repetitions, such as (a+)+ or .*x.*y.*",
        )

    before = signal.signal(signal.SIGVTALRM, tick)
    signal.setitimer(signal.ITIMER_VIRTUAL, TICK_S, TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


class Query(NamedTuple):
    """What is asked of a store (engine.control.methods, `query`)."""

    filter: str
    sort: str
    descending: bool
    anchor: Any
    offset: int
    most: int


def parse_query(params: dict[str, Any], names: dict[str, Column], sort: str) -> Query:
    """Check the parameters of `query`; UsageError names the wrong one. `sort` is the default."""
    column = params.get("sort") or sort
    if not isinstance(column, str) or column not in names:
        raise UsageError(f"sort: no column {column!r}", f"columns: {', '.join(names)}")
    text = params.get("filter") or ""
    offset, count = params.get("offset") or 0, params.get("count", 100)
    if not isinstance(text, str):
        raise UsageError("filter: not a text")
    for name, value in (("offset", offset), ("count", count)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise UsageError(f"{name}: {value!r} is no whole number")
    if count < 0:
        raise UsageError(f"count: {count} is below 0")
    return Query(
        text, column, bool(params.get("descending")), params.get("anchor"), offset, min(count, MOST_ROWS)
    )


def order(objects: Sequence[Any], column: Column, descending: bool) -> list[Any]:
    """Sorted stably; text without regard to case; what is unknown stands last in either direction."""
    get = column.get
    if column.kind == "number":
        keys = [get(o) for o in objects]
    else:
        keys = [None if (value := get(o)) is None else str(value).lower() for o in objects]
    known = [place for place, key in enumerate(keys) if key is not None]
    known.sort(key=keys.__getitem__, reverse=descending)
    found = [objects[place] for place in known]
    if len(known) < len(keys):
        found += [objects[place] for place, key in enumerate(keys) if key is None]
    return found


class _Found(NamedTuple):
    version: int
    made: float
    cost: float
    total: int
    rows: list[Any]


class Windows:
    """Answers queries over one store. The rows of the store come in the order of `natural`."""

    def __init__(
        self,
        names: dict[str, Column],
        search: Callable[[Any], str],
        natural: str,
        patience: float = PATIENCE,
        guard: Guard = nullcontext,
    ) -> None:
        self.names = names
        self.search = search
        self.natural = natural
        self.patience = patience
        self.guard = guard
        self.kept: OrderedDict[tuple[str, str, bool], _Found] = OrderedDict()
        self.slow: OrderedDict[str, tuple[float, UsageError]] = OrderedDict()
        """Filters that took too long, until when they are refused, and with what."""

    def forget(self) -> None:
        """Rows were taken out: nothing that was found is valid."""
        self.kept.clear()

    def find(self, query: Query, version: int, rows: Callable[[], list[Any]]) -> _Found:
        """Everything that matches, in order."""
        key = query[:3]
        found = self.kept.get(key)
        now = time.monotonic()
        if found is not None:
            fresh = found.version == version and now < found.made + 1
            if fresh or now < found.made + self.patience * found.cost:
                self.kept.move_to_end(key)
                return found
        test = compile_filter(query.filter, self.names, self.search)
        every = rows()
        matched = every
        if test is not None:
            matched = self._passed(query.filter, test, every)
        if query.sort != self.natural:
            matched = order(matched, self.names[query.sort], query.descending)
        elif query.descending:
            matched = matched[::-1]
        end = time.monotonic()
        found = _Found(version, end, end - now, len(every), matched)
        self.kept[key] = found
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)
        return found

    def _passed(self, text: str, test: Test, every: list[Any]) -> list[Any]:
        """The rows that pass the filter, within the guard."""
        until, error = self.slow.pop(text, (0.0, None))
        if error is not None and time.monotonic() < until:
            self.slow[text] = until, error
            raise error
        try:
            with self.guard():
                return [row for row in every if test(row)]
        except UsageError as error:
            self.slow[text] = time.monotonic() + SLOW_S, UsageError(error.message, error.hint)
            while len(self.slow) > KEPT:
                self.slow.popitem(last=False)
            raise

    def window(
        self, query: Query, version: int, rows: Callable[[], list[Any]], identity: Callable[[Any], Any]
    ) -> tuple[_Found, int, list[Any]]:
        """(everything found, where the window begins, the rows in it); OtusError if the anchor is gone."""
        found = self.find(query, version, rows)
        start = query.offset
        if query.anchor is not None:
            place = next((i for i, row in enumerate(found.rows) if identity(row) == query.anchor), None)
            if place is None:
                raise OtusError("the row is gone or does not match the filter any more", "ask by offset")
            start += place
        start = max(0, min(start, len(found.rows)))
        return found, start, found.rows[start : start + query.most]
