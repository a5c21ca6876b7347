"""One TCP connection: charts of its last looks, its figures, its owner and its events."""

from __future__ import annotations

import datetime
import itertools
import os
from typing import TYPE_CHECKING, Any

from textual.containers import Horizontal

from otus_tui import format as fmt
from otus_tui.client import ClientError
from otus_tui.screens.frame import FrameScreen
from otus_tui.screens.tcp_columns import bits, endpoint, owner
from otus_tui.widgets.chart import Chart
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.ink import Line, rule
from otus_tui.widgets.tcp_figures import micro
from otus_tui.widgets.text_view import TextView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult
    from textual.geometry import Size

    from engine.snapshot import Snapshot
    from otus_tui.glyphs import Glyphs

Row = dict[str, Any]
SOURCES = {
    "connect": "seen when it called connect()",
    "listen": "the process that called listen()",
    "io": "seen when it read or wrote",
    "proc": "found from the socket in /proc",
}
"""pid_source in words."""


class ConnectionScreen(FrameScreen):
    """The row as it is now; what was seen last stays when the connection is gone."""

    SCOPES = ("connection", "text")

    def __init__(self, row: Row) -> None:
        super().__init__()
        self.row = row
        self.history: dict[str, list[float | None]] = {}
        self.events: list[Row] = []
        self.gone = ""
        self._asked: Any = None

    def compose_body(self) -> ComposeResult:
        yield StatusLine(id="status")
        with Horizontal(classes="tcp-charts"):
            yield Chart("RTT", lambda n: self._series("srtt_us", n), micro)
            yield Chart("cwnd", lambda n: self._series("cwnd", n), fmt.short, " segments")
        with Horizontal(classes="tcp-charts"):
            yield Chart("retransmits", self._again, fmt.short, " a look", alarm=1.0)
            yield Chart("send + receive", self._both, bits, " b/s")
        yield TextView(id="main", wrap=False)

    def on_mount(self) -> None:
        super().on_mount()
        self._show()
        self.snapshot_arrived()

    def _fit(self, size: Size) -> None:
        super()._fit(size)
        height = 4 if size.height < 30 else 6 if size.height < 44 else 8
        for box in self.query(".tcp-charts"):
            box.styles.height = height
            box.display = size.height >= 20
        if self.is_mounted:
            self._show()

    def update_body(self, snapshot: Snapshot) -> None:
        tcp = snapshot.get("tcp")
        version = tcp.get("version") if tcp else None
        if version is not None and version != self._asked and not self.gone:
            self._asked = version
            self.run_worker(self._ask(), group="connection", exclusive=True, exit_on_error=False)

    async def _ask(self) -> None:
        try:
            answer = await self.ask("tcp_connection", id=self.row["id"])
        except ClientError as error:
            if self.model.lost is None:
                self.gone = error.message
        else:
            self.row, self.history, self.events = answer["row"], answer["history"], answer["events"]
        if self.ready:
            self._show()

    # --- charts

    def _values(self, name: str) -> list[float | None]:
        return list(self.history.get(name) or [])

    def _series(self, name: str, points: int) -> list[float | None]:
        return spread_out(self._values(name), points)

    def _again(self, points: int) -> list[float | None]:
        values = self._values("retransmits")
        new = [
            None if old is None or now is None else max(0.0, now - old)
            for old, now in itertools.pairwise(values)
        ]
        return spread_out(new, points)

    def _both(self, points: int) -> list[float | None]:
        pairs = zip(self._values("send_bps"), self._values("receive_bps"), strict=False)
        sums = [None if a is None and b is None else (a or 0) + (b or 0) for a, b in pairs]
        return spread_out(sums, points)

    # --- text

    def _show(self) -> None:
        g, row = self.glyphs, self.row
        ends = f"{self._end('local')} {g.arrow} {self._end('remote')}"
        left: Line = [(f" {fmt.clean(ends, g.ascii_only)}", "title"), (f"  {row.get('state') or ''}", "")]
        if self.gone:
            left.append((f"  {g.warning} gone: what was seen last", "warning"))
        self.query_one(StatusLine).set(left, [(f"{fmt.clean(owner(row), g.ascii_only)} ", "dim")])
        for chart in self.query(Chart):
            chart.update()
        self.query_one(TextView).set_lines(self._lines())

    def _end(self, side: str) -> str:
        return self.otus.named(endpoint(self.row.get(side), self.row.get(f"{side}_port")))

    def _lines(self) -> list[Line]:
        width = max(40, self.app.size.width - 2)
        lines = figure_lines(self.row, width, self.glyphs)
        return [*lines, [("", "")], *event_lines(self.events, width, self.glyphs)]

    def action_find(self) -> None:
        from otus_tui.screens.dialogs import AskText

        def done(text: str | None) -> None:
            if text is not None:
                self.query_one(TextView).look_for(text)
                self.query_one(TextView).find(text)

        self.app.push_screen(AskText("Find", self.query_one(TextView).wanted), done)

    def action_find_next(self) -> None:
        view = self.query_one(TextView)
        view.find(view.wanted)

    def action_find_previous(self) -> None:
        view = self.query_one(TextView)
        view.find(view.wanted, -1)

    def action_copy(self) -> None:
        self.app.copy_to_clipboard(self.query_one(TextView).text())
        self.notify("figures and events are copied")

    def action_save(self) -> None:
        from otus_tui.screens.dialogs import AskText

        text = self.query_one(TextView).text() + "\n"
        name = os.path.join(os.getcwd(), f"otus-tcp-{self.row['id']}.txt")
        self.app.push_screen(
            AskText("Save figures and events to", name), lambda path: self.save_text(path, text)
        )


def spread_out(values: Sequence[float | None], points: int) -> list[float | None]:
    """`values` as the last of `points`; each wider where there is room for them several times."""
    times = max(1, points // max(1, len(values))) if len(values) >= 30 else 1
    wide = [value for value in values for _ in range(times)][-points:]
    return [None] * (points - len(wide)) + wide


def figure_lines(row: Row, width: int, glyphs: Glyphs) -> list[Line]:
    """Everything that is known of a connection, in as many columns as there is room for."""
    source = SOURCES.get(str(row.get("pid_source")), "")

    def octets(name: str) -> str:
        return fmt.octets(row.get(name))

    facts: list[tuple[str, str, str]] = [
        ("state", str(row.get("state") or fmt.UNKNOWN), ""),
        ("role", str(row.get("role") or fmt.UNKNOWN).replace("unknown", fmt.UNKNOWN), ""),
        ("RTT", micro(row.get("srtt_us")), ""),
        ("RTT variation", micro(row.get("rttvar_us")), ""),
        ("RTO", micro(row.get("rto_us")), ""),
        ("cwnd", _unit(row.get("cwnd"), "segments"), ""),
        ("ssthresh", _unit(row.get("ssthresh"), "segments"), ""),
        ("in flight", _unit(row.get("in_flight"), "segments"), ""),
        ("pacing", _unit(row.get("pacing_bps"), "b/s", bits), ""),
        (
            "retransmits",
            _unit(row.get("retransmits"), "segments"),
            "warning" if row.get("retransmits_new") else "",
        ),
        ("send", _unit(row.get("send_bps"), "b/s", bits), ""),
        ("receive", _unit(row.get("receive_bps"), "b/s", bits), ""),
        ("acknowledged", octets("bytes_acked"), ""),
        ("received", octets("bytes_received"), ""),
        ("send queue", octets("send_queue"), ""),
        ("not sent yet", octets("unsent_queue"), ""),
        ("receive queue", octets("receive_queue"), ""),
        ("send window", octets("send_window"), ""),
        ("receive window", octets("receive_window"), ""),
        ("user id", _plain(row.get("uid")), ""),
        ("interface", _plain(row.get("interface") or None), ""),
        ("netns", _plain(row.get("netns") or None), ""),
        ("cgroup", _plain(row.get("cgroup")), ""),
        ("socket cookie", _plain(row.get("id")), ""),
    ]
    columns = max(1, width // 38)
    lines: list[Line] = [rule("figures", width, glyphs)]
    depth = -(-len(facts) // columns)
    for at in range(depth):
        line: Line = []
        for name, value, role in facts[at::depth]:
            sign = f"{glyphs.warning} " if role else ""
            line += [
                (f" {fmt.fit(name, 15)}", "dim"),
                (fmt.fit(sign + fmt.clean(value, glyphs.ascii_only), 20), role),
                (" ", ""),
            ]
        lines.append(line)
    who = fmt.clean(owner(row), glyphs.ascii_only)
    lines.append([(f" {fmt.fit('process', 15)}", "dim"), (who, ""), (f"  {source}" if source else "", "dim")])
    return lines


def _name(event: Row) -> str:
    """The trigger, and which way it went: zero window sent."""
    direction = event.get("direction")
    name = str(event["trigger"]["name"]).replace("_", " ")
    return f"{name} {direction}" if direction else name


def _plain(value: Any) -> str:
    return fmt.UNKNOWN if value is None else str(value)


def _unit(value: Any, unit: str, show: Any = fmt.count) -> str:
    return fmt.UNKNOWN if value is None else f"{show(value)} {unit}"


def event_lines(events: Sequence[Row], width: int, glyphs: Glyphs) -> list[Line]:
    """Its detail events, the newest first."""
    lines: list[Line] = [rule(f"events, {len(events)}", width, glyphs)]
    if not events:
        return [*lines, [(" none: thresholds stand in the node file (otus.tcp), see docs/tcp.md", "dim")]]
    lines.append([(" time          trigger              value      threshold    RTT     cwnd  why", "head")])
    for one in reversed(events):
        trigger = one["trigger"]
        why = one.get("retrans_reason") or one.get("reset_reason") or one.get("drop_reason") or ""
        if one.get("drop_function"):
            why = f"{why} {one['drop_function']}"
        lines.append(
            [
                (f" {_clock(one['timestamp'])} ", "dim"),
                (fmt.fit(fmt.clean(_name(one)), 20), "warning"),
                (f"{_value(trigger['value'], trigger['unit']):>11}", ""),
                (f"{_value(trigger['threshold'], trigger['unit']):>12}", "dim"),
                (f"{micro(one.get('srtt_us')):>9}", ""),
                (f"{fmt.count(one.get('cwnd')):>7}", ""),
                (f"  {fmt.clean(str(why), glyphs.ascii_only)}", "dim"),
            ]
        )
    return lines


def _value(value: Any, unit: str) -> str:
    if value is None:
        return fmt.UNKNOWN
    if unit == "us":
        return micro(value)
    return f"{fmt.short(value)} {unit}"


def _clock(timestamp: str) -> str:
    """Local time of day with milliseconds of an RFC 3339 time."""
    try:
        moment = datetime.datetime.fromisoformat(timestamp)
    except ValueError:
        return fmt.UNKNOWN
    return fmt.clock(int(moment.timestamp()) * 1_000_000_000 + moment.microsecond * 1000, 3)
