"""The task of the engine: the one that runs, or the last one."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from otus_tui import format as fmt
from otus_tui.model import place_of
from otus_tui.screens.dialogs import Choose
from otus_tui.screens.frame import FrameScreen
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.ink import Line, rule
from otus_tui.widgets.rows_view import RowsView

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.snapshot import Snapshot, TaskSection
    from otus_tui.glyphs import Glyphs


class TaskRows(RowsView):
    """A line per task, then the details of the one under the cursor."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.tasks: list[TaskSection] = []
        self._details: list[Line] = []

    def set_tasks(self, tasks: list[TaskSection]) -> None:
        """Show these."""
        chosen = self.current()
        self.tasks = tasks
        if chosen is not None:
            for index, task in enumerate(tasks):
                if task["task_id"] == chosen["task_id"]:
                    self.set_reactive(RowsView.cursor, index)
        self._fill()

    def _fill(self) -> None:
        task = self.current()
        self._details = task_details(task, self.size.width - 2, self.glyphs) if task else []
        self.layout_changed()

    def current(self) -> TaskSection | None:
        """The task under the cursor."""
        return self.tasks[self.cursor] if self.cursor < len(self.tasks) else None

    def selectable(self, index: int) -> bool:
        return index < len(self.tasks)

    def row_total(self) -> int:
        return len(self.tasks) + 1 + len(self._details)

    def row(self, index: int) -> Line:
        if index < len(self.tasks):
            return task_row(self.tasks[index], self.glyphs, self.size.width)
        index -= len(self.tasks) + 1
        return self._details[index] if 0 <= index < len(self._details) else []

    def watch_cursor(self, old: int, new: int) -> None:
        super().watch_cursor(old, new)
        self._fill()


def _widths(width: int) -> tuple[int, int]:
    """Cells for the id and for where packets come from: what the other columns leave, no more than needed."""
    room = max(24, width - FIXED)
    name = min(20, room // 2)
    return name, min(18, room - name)


def task_row(task: TaskSection, glyphs: Glyphs, width: int) -> Line:
    """Id, state, driver, interface, packets."""
    name, place = _widths(width)
    state = task["state"]
    role = {"running": "good", "failed": "failure"}.get(state, "dim")
    sign = {"running": glyphs.active, "failed": glyphs.cross}.get(state, " ")
    return [
        (f" {fmt.fit(fmt.clean(task['task_id']), name)} ", ""),
        (fmt.fit(f"{sign} {state}", 12), role),
        (f" {fmt.fit(task['driver'], 14)} ", "dim"),
        (fmt.fit(place_of(task), place), ""),
        (f"{task['books']['received']:>14,}", ""),
    ]


FIXED = 1 + 1 + 12 + 1 + 14 + 1 + 14
"""Cells of a row beside the id and the place."""


def head(width: int) -> Line:
    """The titles over the rows; the line itself begins one cell in."""
    name, place = _widths(width)
    return [(f"{'task':{name}} {'state':12} {'driver':14} {'from':{place}}{'packets':>14}", "head")]


def task_details(task: TaskSection, width: int, glyphs: Glyphs) -> list[Line]:
    """Filter, times, workers, reporters."""
    lines: list[Line] = [rule(fmt.clean(task["task_id"]), width, glyphs)]

    def add(name: str, value: str, role: str = "") -> None:
        for number, part in enumerate(wrapped(value, width - 16)):
            lines.append([(f" {fmt.fit('' if number else name, 14)}", "dim"), (part, role)])

    add("filter", fmt.clean(task["filter"]) or "none")
    add("started", f"{fmt.day(task['started_ns'])} {fmt.clock(task['started_ns'])}")
    if task["stopped_ns"]:
        add("stopped", f"{fmt.day(task['stopped_ns'])} {fmt.clock(task['stopped_ns'])}")
    if task["error"]:
        add("error", f"{glyphs.warning} {fmt.clean(task['error'])}", "error")
    progress = task["progress"]
    if progress:
        add("file", fmt.clean(progress["path"]))
        add("read", f"{fmt.octets(progress['octets'])} of {fmt.octets(progress['size'])}")
    # Each worker has a ring of its own on each interface.
    for place, link in dict.fromkeys((ring["interface"], ring["link"]) for ring in task["capture"]):
        add("interface", f"{fmt.clean(place)}  {link}")
    for worker in task["workers"]:
        beat = worker["heartbeat_age_s"]
        text = f"pid {worker['pid'] or fmt.UNKNOWN}  {worker['state']}  CPU {worker['cpu_s']:.1f} s"
        if beat is not None:
            text += f"  seen {fmt.seconds(beat)} ago"
        if worker["restarts"]:
            text += f"  {glyphs.warning} {worker['restarts']} restart{'' if worker['restarts'] == 1 else 's'}"
        add(f"worker {worker['index']}", glyphs.ink(text))
    for reporter in task["reporters"]:
        name = str(reporter.get("name") or reporter.get("type") or "reporter")
        rest = "  ".join(
            f"{key} {value if key.endswith('pid') and value else _figure(value)}"
            for key, value in reporter.items()
            if key not in ("name", "type", "problem")
        )
        if reporter.get("problem"):
            add("reporter", f"{glyphs.warning} {fmt.clean(name)}: {fmt.clean(str(reporter['problem']))}")
        add("reporter", fmt.clean(f"{name}  {rest}"))
    return lines


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells; figures, which two blanks part, stay whole where they have room."""
    lines = [""]
    for figure in text.split("  "):
        if lines[-1] and fmt.cells(lines[-1]) + 2 + fmt.cells(figure) <= width:
            lines[-1] += f"  {figure}"
            continue
        parts = textwrap.wrap(figure, max(1, width), break_on_hyphens=False) or [""]
        lines[-1:] = [*lines[-1:], *parts] if lines[-1] else parts
    return lines


def _figure(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value) if value is not None else fmt.UNKNOWN
    return f"{value:,}"


class TasksScreen(FrameScreen):
    """The task that runs, or the last one."""

    SCOPES = ("tasks",)
    MODE = "tasks"

    def compose_body(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield TaskRows(id="main")

    def on_mount(self) -> None:
        super().on_mount()
        self.snapshot_arrived()

    def update_body(self, snapshot: Snapshot) -> None:
        tasks = snapshot.get("tasks") or []
        status = self.query_one(StatusLine)
        if tasks:
            status.set(head(self.query_one(TaskRows).size.width or self.app.size.width))
        else:
            status.set([("no task: otus-tui task create --file TASK.yml, or otus-tui -d IFACE", "dim")])
        self.query_one(TaskRows).set_tasks(tasks)

    def on_rows_view_opened(self, event: RowsView.Opened) -> None:
        event.stop()
        self.otus.action_show("drops")

    def action_open(self) -> None:
        self.otus.action_show("drops")

    def action_stop_task(self) -> None:
        task = self.query_one(TaskRows).current()
        if task is None or task["state"] not in ("creating", "running"):
            self.notify("this task does not run", severity="warning")
            return
        name = fmt.clean(task["task_id"])
        self.app.push_screen(
            Choose(
                f"Stop task {name}?",
                [("yes", f"Stop {name}: what it holds is reported first"), ("", "Let it run")],
            ),
            lambda answer: self._stop(task["task_id"]) if answer else None,
        )

    def _stop(self, task_id: str) -> None:
        self.run_worker(self._send_stop(task_id), exit_on_error=False)

    async def _send_stop(self, task_id: str) -> None:
        answer = await self.otus.tell("stop_task", task_id=task_id)
        if answer is not None:
            self.notify(f"task {task_id}: {answer.get('state', 'stopped')}", markup=False)
