"""The list of calls and other dialogs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from otus_tui import format as fmt
from otus_tui.model import GOING_ON, LIVE, place_of
from otus_tui.screens.cells import call_columns
from otus_tui.screens.dialogs import ShowText
from otus_tui.screens.table import TableScreen
from otus_tui.widgets.columns import Column
from otus_tui.widgets.live_table import LiveTable

if TYPE_CHECKING:
    from engine.snapshot import Snapshot
    from otus_tui.widgets.ink import Line


class CallsScreen(TableScreen):
    """Calls, newest first when live; Enter opens the ladder."""

    SCOPES = ("table", "calls")
    MODE = "calls"
    STORE = "calls"
    SORT = "number"
    NOUN = "calls"

    def make_columns(self) -> list[Column]:
        return call_columns(self.glyphs, self.otus.named)

    def initial_filter(self) -> str:
        return 'method == "INVITE"' if self.otus.calls_only else ""

    def version(self, snapshot: Snapshot) -> Any:
        sip = snapshot.get("sip")
        if sip is None:
            return None
        # Calls that go on get longer although the store does not change.
        media = snapshot.get("media")
        seen = (sip["version"], media["version"] if media else 0)
        return seen if self.model.file or not sip["active"] else None

    def empty_lines(self) -> list[Line]:
        return waiting_lines(self.model.snapshot, self.glyphs.warning)

    def on_rows_view_opened(self, event: LiveTable.Opened) -> None:
        event.stop()
        row = self.table.current()
        if row:
            self.otus.open_call(row["id"])

    def action_raw(self) -> None:
        row = self.table.current()
        if row:
            self.otus.open_raw(row["id"])

    def action_statistics(self) -> None:
        self.app.push_screen(ShowText("Statistics", statistics_lines(self.model.snapshot)))

    def action_filter_form(self) -> None:
        from otus_tui.screens.filter_form import FilterForm

        self.app.push_screen(FilterForm(), self._form_done)

    def _form_done(self, expression: str | None) -> None:
        if expression is not None:
            self.table.set_filter(expression)
            self._status()


def waiting_lines(snapshot: Snapshot, warning: str) -> list[Line]:
    """What is waited for, and how to make some traffic."""
    tasks = snapshot.get("tasks") or []
    if not tasks:
        return [[("no task runs: otus-tui -d IFACE, or otus-tui task create --file TASK.yml", "warning")]]
    task = tasks[0]
    messages = sum(worker["counters"].get("sip_messages", 0) for worker in task["workers"])
    if messages:
        # They were seen and are gone: cleared, or lost with a calls process (the line above says which).
        return [[(f"no call in the list; {messages:,} SIP messages were seen before", "dim")]]
    rule = f"filter: {fmt.clean(task['filter']) or 'none'}"
    media = snapshot.get("media")
    streams = media["streams"] if media else 0
    seen = f"{fmt.count(streams)} media stream{'' if streams == 1 else 's'}: press 3"
    if task["driver"] == "pcap":
        place = place_of(task)
        if task["state"] in GOING_ON:
            return [[(f"reading {place}", "dim")]]
        return [[(f"no SIP in {place}; {seen if streams else rule}", "warning")]]
    place = fmt.clean(str(task["interface"]))
    if task["state"] not in GOING_ON:
        return [[(f"task {fmt.clean(task['task_id'])} is {task['state']}; it saw no SIP on {place}", "dim")]]
    if streams:
        return [[(f"no SIP seen on {place} yet; {rule}; {seen}", "dim")]]
    # Any other task is its owner's.
    change = "; F8 changes interface and filter" if task["task_id"] == LIVE else ""
    return [[(f"no SIP seen on {place} yet; {rule}{change}", "dim")]]


def statistics_lines(snapshot: Snapshot) -> list[Line]:
    """Methods, codes and states with their shares."""
    sip = snapshot.get("sip")
    if not sip:
        return [[("nothing counted yet", "dim")]]
    lines: list[Line] = []

    def block(title: str, counts: dict[str, int]) -> None:
        whole = sum(counts.values())
        lines.append([(title, "title"), (f"  {whole:,}", "dim")])
        for name, number in sorted(counts.items(), key=lambda item: -item[1]):
            share = 100 * number / whole if whole else 0.0
            lines.append(
                [
                    (f"  {fmt.fit(fmt.clean(name.replace('_', ' ')), 20)}", ""),
                    (f"{number:>12,}", ""),
                    (f"{share:>7.1f} %", "dim"),
                ]
            )
        lines.append([("", "")])

    block("Requests", sip["requests"])
    block("Responses", sip["responses"])
    block("States", sip["by_state"])
    block(
        "Messages",
        {
            "first seen": sip["messages"] - sip["retransmissions"],
            "retransmissions": sip["retransmissions"],
        },
    )
    lines.append([("Malformed", "title"), (f"  {sip['malformed']:,}", "dim")])
    return lines
