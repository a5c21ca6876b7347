"""What the kernel's TCP does on this host: figures or the heat map, and a live table of connections; sums by
process, peer and port; the listening sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from otus_tui import actions
from otus_tui import format as fmt
from otus_tui.client import ClientError
from otus_tui.screens.frame import FrameScreen
from otus_tui.screens.table import TableScreen
from otus_tui.screens.tcp_columns import (
    GROUP_TITLES,
    GROUPS,
    connection_columns,
    group_columns,
    group_filter,
    listener_columns,
)
from otus_tui.widgets.columns import Column, Row
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.live_table import LiveTable
from otus_tui.widgets.tcp_figures import TcpFigures
from otus_tui.widgets.text_view import fold_words

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.binding import BindingType
    from textual.geometry import Size

    from engine.snapshot import Snapshot, TcpSection
    from otus_tui.model import Model
    from otus_tui.widgets.ink import Line

HISTORY = 600
AS_ENGINE = (
    ("sudo otus-tui tcp ...", "sudo otus-tui -d any"),
    ("--backend netlink", "otus.tcp.options: {backend: netlink} in the node file"),
)
"""What the observer tells a user of the command line, and what it is for an engine."""
NOTHING: dict[str, Any] = {"total": 0, "matched": 0, "offset": 0, "version": None, "rows": []}


def trouble(tcp: TcpSection | None, model: Model) -> tuple[str, str]:
    """Why there are no figures of TCP, and the line that mends it; empty where there are."""
    if model.file:
        return "a capture file says nothing of this host's TCP", "live: sudo otus-tui -d any"
    if not tcp:
        return "waiting for the engine", ""
    state, error, hint = tcp.get("state", "off"), fmt.clean(tcp.get("error", "")), tcp.get("hint", "")
    if state == "running":
        return ("", "") if tcp.get("windows") else ("the TCP observer has no figures yet", "")
    if state == "off" and not error:
        never = hint.startswith("otus.tcp.start")
        return f"the TCP observer is {'switched off' if never else 'not started'}", hint
    if state in ("starting", "restarting") and not error:
        return f"the TCP observer is {state}", ""
    return error or f"the TCP observer {state}", hint


def trouble_lines(tcp: TcpSection | None, model: Model, warning: str, width: int) -> list[Line]:
    """The same as lines; none where there are figures."""
    error, hint = trouble(tcp, model)
    if not error:
        return []
    calm = model.file or not tcp or not tcp.get("error")
    lines: list[Line] = [[(f" {error}" if calm else f" {warning} {error}", "dim" if calm else "warning")]]
    for command, words in AS_ENGINE:
        hint = hint.replace(command, words)
    for part in fmt.clean(hint).split("; "):
        lines += fold_words([("   ", ""), (part, "key")], width) if part else []
    if not calm:
        lines.append([(" what this host can do: otus-tui doctor; when it is mended, r: try again", "dim")])
        lines.append([(" calls, media and the capture work without it", "dim")])
    return lines


def try_again(screen: FrameScreen) -> None:
    """Have an observer that could not start try once more, and say what came of it."""

    async def ask() -> None:
        try:
            answer = await screen.ask("tcp_retry")
        except ClientError as error:
            screen.notify(fmt.clean(error.message), severity="warning")
            return
        words = answer["error"] or f"the TCP observer is {answer['state']}"
        screen.notify(fmt.clean(words), severity="warning" if answer["error"] else "information")

    screen.run_worker(ask(), group="retry", exclusive=True, exit_on_error=False)


def local_window(rows: list[Row], params: dict[str, Any], total: int, version: Any) -> dict[str, Any]:
    """An answer as of `query`, of rows that are all here."""
    column = str(params.get("sort"))
    known = [row for row in rows if row.get(column) is not None]
    numbers = all(isinstance(row[column], int | float) for row in known)
    known.sort(
        key=lambda row: row[column] if numbers else str(row[column]),
        reverse=bool(params.get("descending")),
    )
    ordered = known + [row for row in rows if row.get(column) is None]
    start = int(params.get("offset") or 0)
    if params.get("ids") is not None:
        by_id = {row["id"]: row for row in ordered}
        window, start = [by_id[name] for name in params["ids"] if name in by_id], 0
    else:
        if params.get("anchor") is not None:
            start += next((i for i, row in enumerate(ordered) if row["id"] == params["anchor"]), 0)
        start = max(0, min(start, len(ordered)))
        window = ordered[start : start + int(params.get("count") or 100)]
    return {"total": total, "matched": len(ordered), "offset": start, "version": version, "rows": window}


class TcpTable(LiveTable):
    """A live table whose g groups."""

    BINDINGS: ClassVar[list[BindingType]] = [
        binding for binding in actions.bindings("tcp") if binding.id == "tcp.group"
    ]

    async def action_group(self) -> None:
        await self.screen.run_action("screen.group")


class TcpTableScreen(TableScreen):
    """What the tables of the observer share: rows are the kernel's, and only there while it runs."""

    SCOPES = ("table", "tcp")
    MODE = "tcp"
    TABLE = TcpTable

    @property
    def section(self) -> TcpSection | None:
        """The newest section of the observer."""
        return self.model.snapshot.get("tcp")

    @property
    def running(self) -> bool:
        """Whether there is something to ask for."""
        return not trouble(self.section, self.model)[0]

    def on_mount(self) -> None:
        FrameScreen.on_mount(self)
        if self._wanted_filter is not None:
            self.table.filter = self._wanted_filter
        self.snapshot_arrived()

    def version(self, snapshot: Snapshot) -> Any:
        tcp = snapshot.get("tcp")
        return tcp.get("version") if tcp else None

    async def _fetch(self, params: dict[str, Any]) -> dict[str, Any]:
        return await self.rows(params) if self.running else dict(NOTHING)

    async def rows(self, params: dict[str, Any]) -> dict[str, Any]:
        """A window of the rows."""
        raise NotImplementedError

    def update_body(self, snapshot: Snapshot) -> None:
        words = trouble_lines(self.section, self.model, self.glyphs.warning, self.app.size.width - 2)
        line = self.query_one("#trouble", StatusLine)
        notes = (self.section or {}).get("notes") or []
        line.set([(f"{self.glyphs.warning} {fmt.clean(notes[0])}", "warning")] if notes else [])
        line.display = bool(notes) and not words
        self.show_figures(words)
        if not words:
            self.table.tick(self.version(snapshot))
        self._status()

    def show_figures(self, words: list[Line]) -> None:
        """What stands over the table; `words` say why there is nothing."""
        line = self.query_one("#trouble", StatusLine)
        if words:
            line.set(words[0])
            line.display = True

    def empty_lines(self) -> list[Line]:
        return [] if trouble(self.section, self.model)[0] else [[(f"no {self.NOUN}", "dim")]]

    def action_clear(self) -> None:
        self.notify(f"{self.NOUN} are the kernel's: they go when they end", severity="warning")

    def action_clear_others(self) -> None:
        self.action_clear()

    def action_heat_map(self) -> None:
        """RTT over time, or the figures."""
        self.notify("the heat map stands over the connections: 4, then m")

    def action_retry(self) -> None:
        """Start the observer once more."""
        try_again(self)

    def action_group(self) -> None:
        """Sums over the connections that are shown."""
        self.app.push_screen(TcpGroupScreen(self.table.filter))

    def action_listeners(self) -> None:
        """The listening sockets."""
        self.app.push_screen(ListenerScreen())


class TcpScreen(TcpTableScreen):
    """Figures over the live table of connections; Enter opens one."""

    STORE = "tcp"
    SORT = "send_bps"
    NOUN = "connections"

    def __init__(self, base: str = "") -> None:
        super().__init__()
        self._base = base
        """The filter that it was opened with, from a group: Esc leads back there."""
        self._asked_points: Any = None

    def compose_body(self) -> ComposeResult:
        yield TcpFigures(id="figures")
        yield from super().compose_body()

    def make_columns(self) -> list[Column]:
        return connection_columns(self.glyphs, self.otus.named)

    def initial_filter(self) -> str:
        return self._base

    async def rows(self, params: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = await self.ask("tcp_connections", **params)
        return answer

    def _fit(self, size: Size) -> None:
        super()._fit(size)
        figures = self.query_one(TcpFigures)
        height = 7 if size.height < 30 else 9 if size.height < 40 else 12
        if figures.heat:
            height = max(height, min(20, size.height // 2 - 3))
        figures.styles.height = height
        figures.display = size.height >= 18

    def show_figures(self, words: list[Line]) -> None:
        figures = self.query_one(TcpFigures)
        figures.words = words
        figures.section = self.section or {}
        figures.update()
        if figures.heat and not words and self.version(self.model.snapshot) != self._asked_points:
            self._asked_points = self.version(self.model.snapshot)
            self.run_worker(self._ask_points(), group="points", exclusive=True, exit_on_error=False)

    async def _ask_points(self) -> None:
        try:
            answer = await self.ask("tcp_history", count=min(HISTORY, self.app.size.width))
        except ClientError:
            return
        figures = self.query_one(TcpFigures)
        figures.points, figures.interval = answer["points"], answer["interval"]
        figures.update()

    def action_heat_map(self) -> None:
        figures = self.query_one(TcpFigures)
        figures.heat = not figures.heat
        self._asked_points = None
        self._fit(self.app.size)
        self.snapshot_arrived()

    def back(self) -> bool:
        if self._base and not self.prompt.open and self.table.filter == self._base:
            return FrameScreen.back(self)
        return super().back()

    def on_rows_view_opened(self, event: LiveTable.Opened) -> None:
        event.stop()
        from otus_tui.screens.tcp_connection import ConnectionScreen

        row = self.table.current()
        if row is not None:
            self.app.push_screen(ConnectionScreen(row))


class TcpGroupScreen(TcpTableScreen):
    """Sums over connections by process, peer or port; Enter shows the connections of one."""

    STORE = "tcp_groups"
    SORT = "connections"
    NOUN = "groups"

    def __init__(self, expression: str = "") -> None:
        super().__init__()
        self._by = GROUPS[0]
        self._expression = expression

    def make_columns(self) -> list[Column]:
        return group_columns(self._by, self.glyphs, self.otus.named)

    def initial_filter(self) -> str:
        return self._expression

    async def rows(self, params: dict[str, Any]) -> dict[str, Any]:
        by = self._by
        answer = await self.ask("tcp_groups", by=by, filter=params.get("filter") or "")
        rows = [{"id": f"{by} {row['key']}", **row} for row in answer["rows"]]
        return local_window(rows, params, answer["total"], answer["version"])

    def _status(self) -> None:
        super()._status()
        table = self.table
        left: Line = [(f"{fmt.count(table.total)} by {GROUP_TITLES[self._by]}", "")]
        if self._refusal and not self.prompt.open:
            left = [(f"{self.glyphs.warning} {self._refusal}", "error"), ("   ", ""), *left]
        if table.shown_filter:
            left += [("   filter ", "dim"), (fmt.clean(table.shown_filter, self.glyphs.ascii_only), "accent")]
        self.query_one("#status", StatusLine).set(left, [("g: next", "dim")])

    def action_group(self) -> None:
        self._by = GROUPS[(GROUPS.index(self._by) + 1) % len(GROUPS)]
        self.table.marks.clear()
        self.table.set_columns(self.make_columns())
        self.table.restart()
        self._status()

    def back(self) -> bool:
        if not self.prompt.open and self.table.filter == self._expression:
            return FrameScreen.back(self)
        return super().back()

    def on_rows_view_opened(self, event: LiveTable.Opened) -> None:
        event.stop()
        row = self.table.current()
        if row is None:
            return
        own = group_filter(self._by, str(row["key"]))
        kept = self.table.shown_filter
        self.app.push_screen(TcpScreen(f"({kept}) and {own}" if kept else own))


class ListenerScreen(TcpTableScreen):
    """The listening sockets, those that drop first; Enter shows the connections to one."""

    STORE = "tcp_listeners"
    SORT = "drops"
    NOUN = "listening sockets"

    def make_columns(self) -> list[Column]:
        return listener_columns(self.glyphs, self.otus.named)

    async def rows(self, params: dict[str, Any]) -> dict[str, Any]:
        answer = await self.ask("tcp_listeners")
        rows = [{"id": f"{row['netns']} {row['local']} {row['port']}", **row} for row in answer["rows"]]
        text = str(params.get("filter") or "").casefold()
        if any(sign in text for sign in "=<>~()"):
            raise ClientError("listening sockets take words to look for, no expression")
        shown = [
            row for row in rows
            if all(any(word in str(value).casefold() for value in row.values()) for word in text.split())
        ]  # fmt: skip
        return local_window(shown, params, answer["total"], None)

    def action_listeners(self) -> None:
        self.app.pop_screen()

    def on_rows_view_opened(self, event: LiveTable.Opened) -> None:
        event.stop()
        row = self.table.current()
        if row is not None:
            self.app.push_screen(TcpScreen(f"local_port == {row['port']}"))
