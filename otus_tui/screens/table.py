"""What the screens with a live table share: filter, order, marks, saving, clearing."""

from __future__ import annotations

import csv
import io
import json
import os
from typing import TYPE_CHECKING, Any, ClassVar

from engine.text import unread_sip_text
from otus_tui import format as fmt
from otus_tui.client import ClientError
from otus_tui.model import calls_loss
from otus_tui.screens.dialogs import AskText, Choose, Tick
from otus_tui.screens.frame import FrameScreen
from otus_tui.widgets.columns import Column, Row
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.live_table import LiveTable, TableHead
from otus_tui.widgets.prompt import Prompt

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.snapshot import Snapshot
    from otus_tui.widgets.ink import Line

SAVE_LIMIT = 100_000
"""Rows that one save writes at most."""
SAVE_PAGE = 500


class TableScreen(FrameScreen):
    """A store of the engine as a table."""

    STORE: ClassVar[str] = ""
    SORT: ClassVar[str] = ""
    DESCENDING: ClassVar[bool] = True
    ARRIVAL: ClassVar[str] = ""
    NOUN: ClassVar[str] = "rows"
    TABLE: ClassVar[type[LiveTable]] = LiveTable

    def __init__(self) -> None:
        super().__init__()
        self._wanted_filter: str | None = None
        self._refusal = ""
        """Why the engine did not take the last query; the rows are then those of the one before."""

    def make_columns(self) -> list[Column]:
        """The columns of this table."""
        raise NotImplementedError

    def version(self, snapshot: Snapshot) -> Any:
        """A value that changes when the store changed."""
        raise NotImplementedError

    def empty_lines(self) -> list[Line]:
        """What to show instead of rows."""
        return []

    def compose_body(self) -> ComposeResult:
        table = self.TABLE(
            self.make_columns(),
            self._fetch,
            sort=self.SORT,
            descending=self.DESCENDING and not self.model.file,
            arrival=self.ARRIVAL or self.SORT,
            id="main",
        )
        if self.model.file:
            table.following = False
        table.chosen = self.otus.settings.columns.get(self.STORE)
        table.filter = self.initial_filter()
        yield StatusLine(id="status")
        yield StatusLine(id="trouble")
        yield Prompt("filter:", id="prompt")
        yield TableHead(table)
        yield table

    def initial_filter(self) -> str:
        """The filter that the screen opens with."""
        return ""

    def on_mount(self) -> None:
        super().on_mount()
        if self._wanted_filter is not None:
            self.table.filter = self._wanted_filter
        self.table.want()

    @property
    def table(self) -> LiveTable:
        """The table."""
        return self.query_one(LiveTable)

    @property
    def prompt(self) -> Prompt:
        """The line that a filter is typed into."""
        return self.query_one(Prompt)

    async def _fetch(self, params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.ask("query", store=self.STORE, **params)
        return answer

    def update_body(self, snapshot: Snapshot) -> None:
        self.table.tick(self.version(snapshot))
        self._status()
        trouble = calls_loss(snapshot.get("sip")) or (unread_sip(snapshot) if self.STORE == "calls" else "")
        line = self.query_one("#trouble", StatusLine)
        line.set([(f"{self.glyphs.warning} {trouble}", "warning")])
        line.display = bool(trouble)

    def settings_changed(self) -> None:
        self.table.set_columns(self.make_columns())
        super().settings_changed()

    # --- the line over the table

    def _status(self) -> None:
        table = self.table
        g = self.glyphs
        left: Line = []
        if self._refusal and not self.prompt.open:
            left += [(f"{g.warning} {self._refusal}", "error"), ("   still shown: ", "dim")]
        if table.shown_filter:
            left += [(f"{fmt.count(table.matched)} of {fmt.count(table.total)} {self.NOUN}", "")]
            left += [("   filter ", "dim"), (fmt.clean(table.shown_filter, g.ascii_only), "accent")]
        elif table.loaded and not table.total:
            left = self._empty_spans()
        else:
            left += [(f"{fmt.count(table.total)} {self.NOUN}", "")]
        if table.marks:
            left += [(f"   {g.mark} {len(table.marks):,} marked", "mark")]
        right: Line = []
        if table.paused:
            right = [(f"{g.warning} paused", "warning")]
        elif table.new_rows and not self.model.file:
            sign = g.down if table.edge == "bottom" else g.up
            right = [(f"{sign} {table.new_rows:,} new", "accent")]
        elif table.following and not self.model.file:
            right = [("following", "dim")]
        self.query_one("#status", StatusLine).set(left, right)

    def _empty_spans(self) -> Line:
        lines = self.empty_lines()
        return lines[0] if lines else []

    def on_live_table_loaded(self, event: LiveTable.Loaded) -> None:
        event.stop()
        if not self.table.refused:
            self._refusal = ""
            if self.prompt.open:
                self.prompt.note("")
        self._status()
        self.query_one(TableHead).refresh()

    def on_live_table_refused(self, event: LiveTable.Refused) -> None:
        event.stop()
        error: Any = event.error
        message = fmt.clean(str(getattr(error, "message", error)))
        self._refusal = message if self.model.lost is None else ""
        if self.prompt.open:
            hint = fmt.clean(str(getattr(error, "hint", "") or ""))
            self.prompt.note(f"{message}: {hint}" if hint else message, position_of(error))
        self._status()

    # --- actions

    def action_filter(self) -> None:
        self.prompt.show(self.table.filter)

    def set_filter(self, expression: str) -> None:
        """Show only what this expression keeps."""
        if self.is_mounted and self.query(LiveTable):
            self.table.set_filter(expression)
            self._status()
        else:
            self._wanted_filter = expression

    def on_prompt_changed(self, event: Prompt.Changed) -> None:
        self.table.set_filter(event.text.strip())

    def on_prompt_done(self, event: Prompt.Done) -> None:
        self.table.set_filter(event.text.strip())
        self.prompt.close()
        self.table.focus()
        self._status()

    def back(self) -> bool:
        if super().back():
            return True
        if self.table.filter:
            self.table.set_filter("")
            self._status()
            return True
        return False

    def action_open(self) -> None:
        self.table.action_open()

    def action_sort_prev(self) -> None:
        self.table.sort_step(-1)
        self.query_one(TableHead).refresh()

    def action_sort_next(self) -> None:
        self.table.sort_step(1)
        self.query_one(TableHead).refresh()

    def action_reverse(self) -> None:
        self.table.set_sort(self.table.sort_key, not self.table.descending)
        self.query_one(TableHead).refresh()

    def action_mark(self) -> None:
        self.table.toggle_mark()

    def action_follow(self) -> None:
        table = self.table
        table.follow(not table.following)
        self._status()

    def action_pause(self) -> None:
        table = self.table
        table.paused = not table.paused
        if table.paused:
            table.follow(False)
        else:
            table.want()
        self._status()

    def action_columns(self) -> None:
        table = self.table
        options = [(c.key, f"{c.title.strip() or c.key:12} {c.about}") for c in table.all_columns]
        shown = [column.key for column, _ in table.columns()]
        self.app.push_screen(Tick("Columns", options, shown), self._columns_chosen)

    def _columns_chosen(self, chosen: list[str] | None) -> None:
        if chosen is None:
            return
        table = self.table
        table.chosen = chosen or None
        self.otus.settings.set_columns(self.STORE, chosen or None)
        table.layout_changed()
        self.query_one(TableHead).refresh()

    def action_copy(self) -> None:
        row = self.table.current()
        if row:
            self.app.copy_to_clipboard(json.dumps(row, ensure_ascii=False))
            self.notify("the row is copied as JSON")

    def action_clear(self) -> None:
        self.app.push_screen(
            Choose(
                f"Forget all {self.NOUN}?",
                [("yes", f"Forget {self.table.total:,} {self.NOUN}"), ("", "Keep them")],
                note="The capture goes on.",
            ),
            lambda answer: self._clear() if answer else None,
        )

    def action_clear_others(self) -> None:
        table = self.table
        if not table.asked_filter and not table.marks:
            self.notify("no filter and no mark: nothing would be left out", severity="warning")
            return
        self.run_worker(self._clear_others(), exclusive=True, exit_on_error=False)

    async def _clear_others(self) -> None:
        await self._send_clear(keep=list(self.table.marks), keep_filter=self.table.asked_filter)

    def _clear(self) -> None:
        self.run_worker(self._send_clear(), exclusive=True, exit_on_error=False)

    async def _send_clear(self, **params: Any) -> None:
        params["store"] = self.STORE
        answer = await self.otus.tell("clear", **params)
        if answer is not None:
            self.notify(f"{answer.get('removed', 0):,} {self.NOUN} forgotten")
            self.table.marks.clear()
            self.table.restart()

    # --- saving

    def action_save(self) -> None:
        name = os.path.join(os.getcwd(), f"otus-{self.STORE}.csv")
        which = (
            f"the {len(self.table.marks)} marked" if self.table.marks else f"the {self.table.matched:,} shown"
        )
        self.app.push_screen(
            AskText(
                f"Save {which} {self.NOUN} to", name, "by its ending: .csv, .json (JSON lines), else text"
            ),
            self._save_to,
        )

    def _save_to(self, path: str | None) -> None:
        if path:
            self.run_worker(self._save(path), exclusive=True, exit_on_error=False)

    async def _rows_to_save(self) -> list[Row]:
        table = self.table
        if table.marks:
            return list(table.marks.values())
        # By id: in a store that grows the windows may overlap.
        rows: dict[Any, Row] = {}
        offset = 0
        while offset < SAVE_LIMIT:
            params: dict[str, Any] = {"sort": table.sort_key, "descending": table.descending}
            if table.asked_filter:
                params["filter"] = table.asked_filter
            answer = await self._fetch({**params, "offset": offset, "count": SAVE_PAGE})
            rows |= {row["id"]: row for row in answer["rows"]}
            offset += len(answer["rows"])
            if not answer["rows"] or offset >= answer["matched"]:
                break
        return list(rows.values())

    async def _save(self, path: str) -> None:
        try:
            rows = await self._rows_to_save()
        except ClientError as error:
            self.notify(f"not saved: {error.message}", severity="error", markup=False)
            return
        columns = self.table.columns()
        await self.write_file(path, lambda: rows_as_text(rows, columns, path), f"{len(rows):,} {self.NOUN}")


def unread_sip(snapshot: Snapshot) -> str:
    """That there is SIP which is not read, or nothing."""
    tasks = snapshot.get("tasks") or []
    packets = sum(worker["counters"].get("tcp_sip_port", 0) for task in tasks for worker in task["workers"])
    return unread_sip_text(packets) if packets else ""


def position_of(error: Any) -> int | None:
    """Where in a filter the engine found the error."""
    position = getattr(error, "data", {}).get("position")
    return position if isinstance(position, int) else None


def rows_as_text(rows: list[Row], columns: list[tuple[Column, int]], path: str) -> str:
    """Rows as JSON lines or CSV (every field), or as text in the shown columns, by the path's ending."""
    if path.endswith((".json", ".jsonl")):
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.endswith(".csv"):
        out = io.StringIO()
        if rows:
            writer = csv.DictWriter(out, list(rows[0]), extrasaction="ignore")
            writer.writeheader()
            writer.writerows({key: _csv_safe(value) for key, value in row.items()} for row in rows)
        return out.getvalue()
    lines = [" ".join(fmt.fit(c.title, w, c.align) for c, w in columns).rstrip()]
    lines += [" ".join(fmt.fit(c.cell(row)[0], w, c.align) for c, w in columns).rstrip() for row in rows]
    return "\n".join(lines) + "\n"


def _csv_safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return value
