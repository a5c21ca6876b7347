"""A live table over a store in the engine: asks for the rows in sight, keeps the cursor on its row.

While the cursor stands inside, the window is tied to a row by its id, so that nothing moves under
it; at the edge where new rows arrive the table follows them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from engine.control.methods import ERROR_INVALID
from otus_tui import format as fmt
from otus_tui.format import cells
from otus_tui.widgets.columns import Column, Row, lay_out
from otus_tui.widgets.ink import Inked, Line, Span
from otus_tui.widgets.rows_view import RowsView

if TYPE_CHECKING:
    from textual import events

Fetch = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]

MARGIN = 60
"""Rows asked for beyond the page, so that scrolling finds them there."""
NOTHING, VALUES, WINDOW = range(3)
"""What is to be asked for: the values of the rows in sight, or which rows are in sight."""
MARK_WIDTH = 2


class LiveTable(RowsView):
    """Rows come from `fetch(params)`, which answers as the control method `query` does."""

    @dataclass
    class Loaded(Message):
        """A window of rows came."""

        table: LiveTable

        @property
        def control(self) -> LiveTable:
            return self.table

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, LiveTable.Loaded) and message.table is self.table

    @dataclass
    class Refused(Message):
        """The engine did not take the query."""

        table: LiveTable
        error: Exception

        @property
        def control(self) -> LiveTable:
            return self.table

    def __init__(
        self,
        columns: list[Column],
        fetch: Fetch,
        sort: str,
        descending: bool = False,
        arrival: str = "",
        id: str | None = None,
    ) -> None:
        super().__init__(id=id)
        self.all_columns = columns
        self.chosen: list[str] | None = None
        """Column keys that a user chose; None is by width."""
        self.fetch = fetch
        self.sort_key = sort
        self.descending = descending
        self.arrival = arrival or sort
        """The column that grows with each new row."""
        self.filter = ""
        self.shown_filter = ""
        """The filter of the rows that are shown: the last one that the engine took."""
        self._refused: str | None = None
        """The filter that the engine did not take, until there is another."""
        self.paused = False
        self.following = True
        self.marks: dict[Any, Row] = {}
        self.rows: dict[int, Row] = {}
        self.total = 0
        self.matched = 0
        self._seen_version: Any = None
        self.selected: Any = None
        """Id of the row under the cursor."""
        self.loaded = False
        self._left_at = 0
        self._anchor_index = 0
        self._matched_now = 0
        self._gone: set[Any] = set()
        self._margin = MARGIN
        self._wanted = NOTHING
        self._asking = False
        self._own_scroll = False
        self._layout: list[tuple[Column, int]] = []
        self._layout_for: tuple[object, ...] = ()

    # --- columns

    def columns(self) -> list[tuple[Column, int]]:
        """The shown columns with their widths."""
        width = self.size.width
        key = (width, tuple(self.chosen or ()))
        if key != self._layout_for:
            self._layout_for = key
            self._layout = lay_out(
                # The last column keeps a blank cell to the edge.
                self.all_columns,
                self.chosen,
                width - MARK_WIDTH - 1,
                self.app.size.width,
            )
        return self._layout

    def set_columns(self, columns: list[Column]) -> None:
        """Other columns, or the same that draw themselves in another way."""
        self.all_columns = columns
        self._layout_for = ()
        self.layout_changed()

    def row_width(self) -> int:
        return MARK_WIDTH + sum(width + 1 for _, width in self.columns()) - 1

    def row_total(self) -> int:
        return self.matched

    def row(self, index: int) -> Line:
        row = self.rows.get(index)
        if row is None:
            return [("  " + fmt.UNKNOWN, "dim")]
        gone = row["id"] in self._gone
        spans: Line = [(f"{self.glyphs.mark} " if row["id"] in self.marks else "  ", "mark")]
        ellipsis = self.glyphs.ellipsis
        for column, width in self.columns():
            text, role = column.cell(row)
            spans.append((fmt.fit(text, width, column.align, ellipsis), "rule" if gone else role))
            spans.append((" ", ""))
        return spans

    def head_spans(self) -> list[tuple[Span, str]]:
        """Titles as (span, column key)."""
        result: list[tuple[Span, str]] = [(("  ", "head"), "")]
        for column, width in self.columns():
            title = self.glyphs.ink(column.title)
            role = "head"
            if column.key == self.sort_key:
                title = f"{title}{self.glyphs.down if self.descending else self.glyphs.up}"
                role = "sorted"
            result.append(((fmt.fit(title, width, column.align, self.glyphs.ellipsis), role), column.key))
            result.append(((" ", "head"), ""))
        return result

    # --- which rows

    @property
    def edge(self) -> str:
        """Where new rows arrive."""
        return "bottom" if self.sort_key == self.arrival and not self.descending else "top"

    @property
    def new_rows(self) -> int:
        """Rows that came since the table stopped following."""
        return 0 if self.following else max(0, self._matched_now - self._left_at)

    def current(self) -> Row | None:
        """The row under the cursor as it was last seen."""
        return self.rows.get(self.cursor)

    @property
    def asked_filter(self) -> str:
        """The filter that the rows are asked for with: the one before, where the engine refused this one."""
        return self.shown_filter if self.filter == self._refused else self.filter

    def request(self) -> dict[str, Any]:
        """The query for the rows in sight."""
        page = self.page
        params: dict[str, Any] = {"sort": self.sort_key, "descending": self.descending}
        if self.asked_filter:
            params["filter"] = self.asked_filter
        params["count"] = page + 2 * self._margin
        top = self.scroll_offset.y if self.loaded else 0
        if self.following and self.edge == "top" and top == 0:
            params["offset"] = 0
        elif self.following and self.edge == "bottom":
            params["offset"] = max(0, self.matched - page - self._margin)
        else:
            anchor = self._anchor(top, page)
            first = max(0, top - self._margin)
            if anchor is None:
                params["offset"] = first
            else:
                index, found = anchor
                params["anchor"] = found["id"]
                params["offset"] = first - index
                self._anchor_index = index
        return params

    def _anchor(self, top: int, page: int) -> tuple[int, Row] | None:
        if not self.loaded:
            return None
        candidates = [self.cursor] if top <= self.cursor < top + page else []
        candidates += range(top, min(top + page, self.matched))
        for index in candidates:
            if index in self.rows:
                return index, self.rows[index]
        return None

    def want(self, what: int = WINDOW) -> None:
        """Ask for the rows in sight, as soon as the last answer is there."""
        self._wanted = max(self._wanted, what)
        if not self._asking and self.is_mounted:
            self._asking = True
            self.run_worker(self._ask(), group=f"ask-{self.id}", exit_on_error=False)

    async def _ask(self) -> None:
        try:
            while self._wanted:
                values = self._wanted == VALUES
                self._wanted = NOTHING
                params = self._values_request() if values else self.request()
                stamp = (self.sort_key, self.descending, self.filter)
                try:
                    answer = await self._window(params)
                except Exception as error:
                    self.post_message(self.Refused(self, error))
                    if getattr(error, "rpc_code", None) == ERROR_INVALID and stamp[2] != self.shown_filter:
                        self._refused = stamp[2]
                        self._wanted = WINDOW
                    continue
                if stamp != (self.sort_key, self.descending, self.filter):
                    continue
                if values:
                    self._take_values(params["ids"], answer)
                else:
                    self.take(params, answer)
        finally:
            self._asking = False

    def _values_request(self) -> dict[str, Any]:
        """The query for the rows in sight as they stand, whatever their order would be now."""
        top = self.scroll_offset.y
        ids = [self.rows[i]["id"] for i in range(top, top + self.page) if i in self.rows]
        params: dict[str, Any] = {
            "sort": self.sort_key,
            "descending": self.descending,
            "ids": ids,
            "count": 0,
        }
        if self.asked_filter:
            params["filter"] = self.asked_filter
        return params

    def _take_values(self, ids: list[Any], answer: dict[str, Any]) -> None:
        fresh = {row["id"]: row for row in answer["rows"]}
        self._gone = {name for name in ids if name not in fresh}
        for index, row in self.rows.items():
            if row["id"] in fresh:
                self.rows[index] = fresh[row["id"]]
                if row["id"] in self.marks:
                    self.marks[row["id"]] = fresh[row["id"]]
        self.total = answer["total"]
        self._matched_now = answer["matched"]
        self.refresh()
        self.post_message(self.Loaded(self))

    async def _window(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            return await self.fetch(params)
        except Exception:
            if "anchor" not in params:
                raise
            # The row may be gone: go on by number.
            del params["anchor"]
            params["offset"] = max(0, self.scroll_offset.y - self._margin)
            return await self.fetch(params)

    def take(self, params: dict[str, Any], answer: dict[str, Any]) -> None:
        """Show a window; the row under the cursor stays on its line of the screen."""
        offset = answer["offset"]
        first_time = not self.loaded
        if first_time:
            self.selected = None
            self.set_reactive(RowsView.cursor, 0)
        was_cursor, top = self.cursor, self.scroll_offset.y
        self.rows = {offset + i: row for i, row in enumerate(answer["rows"])}
        self.total, self.matched = answer["total"], answer["matched"]
        self._matched_now = self.matched
        self.shown_filter = str(params.get("filter") or "")
        self._gone.clear()
        self.loaded = True
        shift = 0
        if "anchor" in params:
            for index, found in self.rows.items():
                if found["id"] == params["anchor"]:
                    shift = index - self._anchor_index
                    break
        self._own_scroll = True
        try:
            last = max(0, self.matched - 1)
            if first_time and self.edge == "bottom":
                cursor = 0 if not self.following else last
            elif self.following:
                cursor = 0 if self.edge == "top" else last
            else:
                cursor = max(0, min(last, was_cursor + shift))
            self.set_reactive(RowsView.cursor, cursor)
            self.layout_changed()
            if self.following:
                self.scroll_rows(0 if self.edge == "top" else self.matched)
            elif first_time:
                self.scroll_rows(0)
            elif shift:
                self.scroll_rows(top + shift)
        finally:
            self._own_scroll = False
        row = self.current()
        if row is not None and (
            self.following or self.selected is None or was_cursor == self.cursor or shift
        ):
            self.selected = row["id"]
        for index, found in self.rows.items():
            if found["id"] in self.marks:
                self.marks[found["id"]] = found
            if found["id"] == self.selected and index != self.cursor and not self.following:
                self.set_reactive(RowsView.cursor, index)
        if self._covers():
            self._margin = MARGIN
        elif self._margin:
            # An answer has a limit of octets: rows that are very long come in smaller windows.
            self._margin //= 4
            self._wanted = WINDOW
        self.post_message(self.Loaded(self))
        self.post_message(self.Moved(self, self.cursor))

    def _covers(self) -> bool:
        top = self.scroll_offset.y
        bottom = min(self.matched, top + self.page)
        return all(index in self.rows for index in (top, bottom - 1) if 0 <= index < self.matched)

    # --- changes

    def tick(self, version: Any) -> None:
        """A snapshot came: ask again unless paused, or nothing changed."""
        if self.paused or (version is not None and version == self._seen_version and self.loaded):
            return
        self._seen_version = version
        # In the order of arrival nothing but the cursor's line has to be kept; in any other order rows would
        # change places under the cursor.
        frozen = self.loaded and not self.following and self.sort_key != self.arrival and self._covers()
        self.want(VALUES if frozen else WINDOW)

    def restart(self) -> None:
        """Filter or order changed: from the edge again, as soon as the engine has answered."""
        self.following = not self.paused
        self.loaded = False
        self.want()

    def set_sort(self, key: str, descending: bool | None = None) -> None:
        """Sort by this column; again turns the order round."""
        column = next((c for c in self.all_columns if c.key == key), None)
        if column is None or not column.sort:
            return
        if descending is None:
            descending = not self.descending if key == self.sort_key else column.descending
        self.sort_key, self.descending = key, descending
        self.restart()

    @property
    def refused(self) -> bool:
        """Whether the rows are those of an older filter, as the engine did not take this one."""
        return self.filter == self._refused

    def set_filter(self, text: str) -> None:
        """Show only rows that `text` keeps."""
        if text != self.filter:
            self.filter = text
            self._refused = None
            self.restart()

    def sort_step(self, step: int) -> None:
        """Sort by the next shown column in the direction of `step`."""
        keys = [column.key for column, _ in self.columns() if column.sort]
        at = keys.index(self.sort_key) if self.sort_key in keys else -1
        self.set_sort(keys[(at + step) % len(keys)])

    def follow(self, on: bool) -> None:
        """Stay at the edge where new rows come, or do not."""
        if on:
            self.following = True
            self.want()
        elif self.following:
            self.following = False
            self._left_at = self.matched
            self.post_message(self.Loaded(self))

    def toggle_mark(self) -> None:
        """Mark the row under the cursor and go on to the next."""
        row = self.current()
        if row is None:
            return
        if row["id"] in self.marks:
            del self.marks[row["id"]]
        else:
            self.marks[row["id"]] = row
        self.refresh_line(self.cursor)
        self.move_to(self.cursor + 1)
        self.post_message(self.Loaded(self))

    # --- moving

    def _user_moved(self) -> None:
        at_edge = self.cursor == (0 if self.edge == "top" else max(0, self.matched - 1))
        self.follow(at_edge)
        row = self.current()
        self.selected = row["id"] if row else None

    def move_to(self, index: int, step: int = 1) -> None:
        super().move_to(index, step)
        self._user_moved()
        if not self._covers():
            self.want()

    async def on_click(self, event: events.Click) -> None:
        before = self.cursor
        await super().on_click(event)
        if self.cursor != before:
            self._user_moved()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if self._own_scroll or round(old_value) == round(new_value):
            return
        if self.following and not (0 <= self.cursor - round(new_value) < self.page):
            self.follow(False)
        if self.loaded and not self._covers():
            self.want()

    def on_resize(self) -> None:
        self.layout_changed()
        self.want()


class TableHead(Inked, Widget):
    """The titles over a LiveTable; a click sorts."""

    def __init__(self, table: LiveTable) -> None:
        super().__init__()
        self.table = table

    def on_mount(self) -> None:
        self.watch(self.table, "scroll_x", self._scrolled, init=False)

    def _scrolled(self) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        spans = [span for span, _ in self.table.head_spans()]
        return self.strip(spans, self.size.width, under="head", offset=self.table.scroll_offset.x)

    def on_click(self, event: events.Click) -> None:
        x = -self.table.scroll_offset.x
        for (text, _), key in self.table.head_spans():
            width = cells(text)
            if key and x <= event.x < x + width:
                self.table.set_sort(key)
                self.refresh()
                return
            x += width
