"""The first screen: what the engine sees, in short; every figure leads to what explains it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textual.containers import Horizontal

from otus_tui import format as fmt
from otus_tui.model import calls_loss, lost_by_layer, place_of
from otus_tui.screens.calls import waiting_lines
from otus_tui.screens.frame import FrameScreen
from otus_tui.screens.kernel_drops import kernel_words
from otus_tui.widgets.chart import Chart
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.ink import Line, Span, rule, width_of
from otus_tui.widgets.rows_view import RowsView
from otus_tui.widgets.tcp_figures import micro

if TYPE_CHECKING:
    from textual.app import ComposeResult
    from textual.geometry import Size

    from engine.snapshot import Snapshot, TcpSection
    from otus_tui.glyphs import Glyphs
    from otus_tui.model import Model

STATES = (
    ("call_setup", "setting up"),
    ("ringing", "ringing"),
    ("in_call", "in call"),
    ("completed", "completed"),
    ("cancelled", "cancelled"),
    ("busy", "busy"),
    ("rejected", "rejected"),
    ("diverted", "diverted"),
    ("timeout", "timeout"),
    ("registering", "registering"),
    ("registered", "registered"),
    ("expired", "expired"),
    ("pending", "pending"),
    ("active", "active"),
    ("terminated", "terminated"),
    ("done", "done"),
    ("failed", "failed"),
)
_BAD = {"busy", "rejected", "timeout", "failed"}
ALWAYS = {"in_call", "completed"}
FOUR_BLOCKS = 100
"""Cells from which TCP has a block of its own."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A named figure, and where Enter on it leads: (mode, filter)."""

    name: str
    value: str
    role: str = ""
    target: tuple[str, str] = ("", "")


@dataclass(slots=True)
class Block:
    """A titled group of facts."""

    title: str
    facts: list[Fact]


def blocks(model: Model, glyphs: Glyphs, worst: dict[str, Any], wide: bool = True) -> list[Block]:
    """Calls, media, capture and, where it is known, TCP as facts."""
    found = [_calls(model, glyphs), _media(model, glyphs, worst), _capture(model, glyphs)]
    tcp = model.snapshot.get("tcp")
    if wide and tcp and tcp.get("windows") and not model.file:
        found.insert(2, Block("TCP", tcp_facts(tcp, glyphs)))
    return found


def _calls(model: Model, glyphs: Glyphs) -> Block:
    sip = model.snapshot.get("sip")
    if not sip:
        return Block("Calls", [Fact("now", fmt.UNKNOWN, "dim", ("calls", ""))])
    going_on = "state == call_setup or state == ringing or state == in_call"
    facts = [
        Fact("now", fmt.count(sip["active"]), "", ("calls", going_on)),
        Fact("in the list", fmt.count(sip["calls"]), "", ("calls", "")),
    ]
    if not model.file:
        facts.insert(1, Fact("new", f"{fmt.rate(model.history.rate('calls'))}/s", "", ("calls", "")))
    for state, word in STATES:
        number = sip["by_state"].get(state, 0)
        if number or state in ALWAYS:
            bad = state in _BAD and number
            value = f"{glyphs.cross} {number:,}" if bad else f"{number:,}"
            facts.append(Fact(word, value, "failure" if bad else "", ("calls", f"state == {state}")))
    if sip["malformed"]:
        facts.append(
            Fact("malformed", f"{glyphs.warning} {sip['malformed']:,}", "warning", ("calls", "malformed > 0"))
        )
    return Block("Calls", facts)


def _media(model: Model, glyphs: Glyphs, worst: dict[str, Any]) -> Block:
    media = model.snapshot.get("media")
    if not media:
        return Block("Media", [Fact("streams", fmt.UNKNOWN, "dim", ("media", ""))])
    whole = media["packets"] + media["lost"]
    loss = 100 * media["lost"] / whole if whole else None
    bad = loss is not None and loss >= 1
    facts = [
        Fact("streams", fmt.count(media["streams"]), "", ("media", "")),
        Fact("now", fmt.count(media["active"]), "", ("media", "active == yes")),
        Fact("packets", fmt.count(media["packets"]), "", ("media", "")),
        Fact(
            "loss",
            f"{glyphs.warning + ' ' if bad else ''}{fmt.percent(loss)} %",
            "warning" if bad else "",
            ("media", "lost > 0"),
        ),
    ]
    jitter = worst.get("mean_jitter_ms")
    facts.append(Fact("worst jitter", f"{fmt.milliseconds(jitter)} ms", "", ("media", "")))
    worst_loss = worst.get("lost_pct")
    facts.append(Fact("worst loss", f"{fmt.percent(worst_loss)} %", "", ("media", "lost > 0")))
    if media["one_way"]:
        facts.append(Fact("one way", f"{glyphs.warning} {media['one_way']:,}", "warning", ("media", "")))
    return Block("Media", facts)


def _capture(model: Model, glyphs: Glyphs) -> Block:
    task = model.task
    if task is None:
        return Block("Capture", [Fact("task", "none", "warning", ("tasks", ""))])
    drops = ("drops", "")
    facts = [Fact("from", place_of(task) or fmt.UNKNOWN, "", ("tasks", ""))]
    if model.link:
        facts.append(Fact("interface", f"{glyphs.warning} {model.link}", "warning", drops))
    waiting = [c["blocks_waiting"] for c in task["capture"] if c["blocks_waiting"] is not None]
    total = [c["blocks_total"] for c in task["capture"] if c["blocks_total"]]
    if waiting and total:
        facts.append(Fact("ring", f"{100 * sum(waiting) / sum(b or 0 for b in total):.0f} %", "", drops))
    whole = sum(lost_by_layer(task["books"]).values())
    lost = f"{glyphs.warning} {whole:,}" if whole else "0"
    facts.append(Fact("lost", lost, "warning" if whole else "", drops))
    even = task["books"]["even"]
    facts.append(
        Fact("books", "even" if even else f"{glyphs.warning} not even", "" if even else "error", drops)
    )
    states = [w["state"] for w in task["workers"]]
    up = sum(state in ("running", "ready", "finished", "stopped") for state in states)
    facts.append(Fact("workers", f"{up} of {len(states)}", "" if up == len(states) else "warning", drops))
    sip = model.snapshot.get("sip")
    restarts = sum(w["restarts"] for w in task["workers"]) + (sip["restarts"] if sip else 0)
    restarts += max((int(r.get("restarts") or 0) for r in task["reporters"]), default=0)
    if restarts:
        facts.append(Fact("restarts", f"{glyphs.warning} {restarts}", "warning", drops))
    if sip and sip["lost"]:
        facts.append(Fact("evidence lost", f"{glyphs.warning} {sip['lost']:,}", "warning", drops))
    engine = model.snapshot.get("engine")
    if engine:
        facts.append(Fact("memory", fmt.octets(engine["memory_bytes"]), "", ("tasks", "")))
        if not engine["compiled"]:
            facts.append(Fact("hot path", f"{glyphs.warning} not compiled", "warning", ("tasks", "")))
    return Block("Capture", facts)


def tcp_facts(tcp: TcpSection, glyphs: Glyphs) -> list[Fact]:
    """What TCP of this host does, in the last ten seconds."""
    window = tcp["windows"]["10"]
    seconds = window["window_s"] or 1.0
    rtt, again, zero = window["rtt_us"], window["retransmits"], window["zero_window"]

    def fact(name: str, value: str, bad: bool = False, mode: str = "tcp", expression: str = "") -> Fact:
        return Fact(
            name, f"{glyphs.warning} {value}" if bad else value, "warning" if bad else "", (mode, expression)
        )

    def rate(number: int | None) -> str:
        return fmt.UNKNOWN if number is None else f"{fmt.rate(number / seconds)}/s"

    rto = again["by_class"]["rto"]["events"]
    listen = tcp["windows"]["60"]["listen"]
    known = [one["drops"] for one in listen or () if one["drops"] is not None]
    turned_away = sum(known) if known or listen == [] else None
    closed = zero["received"]["episodes"]
    drops = window["drops"]["total"]
    return [
        fact("connections", fmt.count(tcp.get("connections"))),
        fact("RTT p50", micro(rtt["p50"]) if rtt else fmt.UNKNOWN),
        fact("RTT p99", micro(rtt["p99"]) if rtt else fmt.UNKNOWN),
        fact("retransmits", rate(again["segments"] if again["segments"] is not None else again["events"])),
        fact("timeouts", rate(rto), bool(rto), expression="retransmits > 0"),
        fact("zero window", fmt.count(closed), bool(closed)),
        fact("listen drops", fmt.count(turned_away), bool(turned_away)),
        fact("kernel drops", rate(drops), bool(drops), "drops"),
    ]


class Facts(RowsView):
    """Blocks of facts beside each other (or under each other where it is narrow); arrows walk over them."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.blocks: list[Block] = []
        self.at = (0, 0)
        """Block and fact under the cursor."""
        self.with_cursor = False

    def set_blocks(self, blocks_: list[Block]) -> None:
        """Show these."""
        self.blocks = blocks_
        block, fact = self.at
        block = min(block, max(0, len(blocks_) - 1))
        facts = blocks_[block].facts if blocks_ else []
        self.at = (block, min(fact, max(0, len(facts) - 1)))
        self.layout_changed()

    @property
    def across(self) -> bool:
        """Whether the blocks stand beside each other."""
        return self.size.width >= 72

    def row_total(self) -> int:
        if self.across:
            return 1 + max((len(b.facts) for b in self.blocks), default=0)
        return sum(1 + len(b.facts) for b in self.blocks)

    def current(self) -> Fact | None:
        """The fact under the cursor."""
        block, fact = self.at
        if block < len(self.blocks) and fact < len(self.blocks[block].facts):
            return self.blocks[block].facts[fact]
        return None

    def row(self, index: int) -> Line:
        if not self.across:
            for number, block in enumerate(self.blocks):
                if index <= len(block.facts):
                    return self._cell(number, index, self.size.width)
                index -= 1 + len(block.facts)
            return []
        width = self.size.width // max(1, len(self.blocks))
        line: Line = []
        for number in range(len(self.blocks)):
            line += self._cell(number, index, width)
        return line

    def _cell(self, number: int, index: int, width: int) -> Line:
        block = self.blocks[number]
        if index == 0:
            return [*rule(block.title, width - 1, self.glyphs), (" ", "")]
        if index > len(block.facts):
            return [(" " * width, "")]
        fact = block.facts[index - 1]
        on = self.at == (number, index - 1) and self.has_focus
        g = self.glyphs
        spans: list[Span] = [
            (f"{g.cursor} " if on else "  ", "key"),
            (fmt.fit(g.ink(fact.name), 14), "cursor" if on else "dim"),
            (fmt.fit(g.ink(fact.value), max(6, width - 18)), "cursor" if on else fact.role),
        ]
        return [*spans, (" " * max(0, width - width_of(spans)), "")]

    def _move(self, block: int, fact: int) -> None:
        if not self.blocks:
            return
        block = max(0, min(len(self.blocks) - 1, block))
        fact = max(0, min(len(self.blocks[block].facts) - 1, fact))
        self.at = (block, fact)
        row = 1 + fact
        if not self.across:
            row += sum(1 + len(b.facts) for b in self.blocks[:block])
        self.show(row)
        self.refresh()

    def action_cursor_down(self) -> None:
        block, fact = self.at
        if not self.across and fact + 1 >= len(self.blocks[block].facts) and block + 1 < len(self.blocks):
            self._move(block + 1, 0)
        else:
            self._move(block, fact + 1)

    def action_cursor_up(self) -> None:
        block, fact = self.at
        if not self.across and fact == 0 and block > 0:
            self._move(block - 1, len(self.blocks[block - 1].facts))
        else:
            self._move(block, fact - 1)

    def action_cursor_right(self) -> None:
        self._move(self.at[0] + 1, self.at[1])

    def action_cursor_left(self) -> None:
        self._move(self.at[0] - 1, self.at[1])

    def action_open(self) -> None:
        self.post_message(self.Opened(self, 0))

    async def on_click(self, event: Any) -> None:
        offset = event.get_content_offset(self)
        if offset is None or not self.blocks:
            return
        row = offset.y + self.scroll_offset.y
        if self.across:
            block = min(len(self.blocks) - 1, offset.x // max(1, self.size.width // len(self.blocks)))
            place = (block, row - 1)
        else:
            block = 0
            while row > len(self.blocks[block].facts) and block + 1 < len(self.blocks):
                row -= 1 + len(self.blocks[block].facts)
                block += 1
            place = (block, row - 1)
        if place[1] < 0:
            return
        same = place == self.at
        self._move(*place)
        if same and event.chain > 1:
            self.action_open()


class OverviewScreen(FrameScreen):
    """Calls, media, capture, and the last five minutes."""

    SCOPES = ("overview",)
    MODE = "overview"

    def __init__(self) -> None:
        super().__init__()
        self._worst: dict[str, Any] = {}
        self._asked_version: Any = None

    def compose_body(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Facts(id="main")
        yield StatusLine(id="tcp-line")
        yield StatusLine(id="kernel-line")
        with Horizontal(id="charts"):
            yield Chart(
                "new calls/s, 5 minutes",
                lambda points: self.model.history.series("calls", points),
                fmt.rate,
                floor=1.0,
            )
            yield Chart(
                "media loss, 5 minutes",
                self.model.history.loss_series,
                fmt.percent,
                " %",
                alarm=1.0,
                floor=0.1,
            )

    def on_mount(self) -> None:
        super().on_mount()
        self.snapshot_arrived()

    def _fit(self, size: Size) -> None:
        super()._fit(size)
        charts = self.query_one("#charts")
        charts.display = not self.model.file and size.height >= 18
        # One chart where there is no width for two.
        list(self.query(Chart))[1].display = size.width >= 72

    def update_body(self, snapshot: Snapshot) -> None:
        wide = self.app.size.width >= FOUR_BLOCKS
        self.query_one(Facts).set_blocks(blocks(self.model, self.glyphs, self._worst, wide))
        self._tcp_lines(snapshot, wide)
        charts = self.query_one("#charts")
        charts.display = not self.model.file and self.app.size.height >= 18
        if charts.display:
            for chart in self.query(Chart):
                chart.update()
        sip, media = snapshot.get("sip"), snapshot.get("media")
        status: Line = []
        if not snapshot:
            status = [("waiting for the engine", "dim")]
        elif calls_loss(sip):
            status = [(f"{self.glyphs.warning} {calls_loss(sip)}", "warning")]
        elif not (sip and sip["calls"]) and not (media and media["streams"]):
            status = waiting_lines(snapshot, self.glyphs.warning)[0]
        self.query_one(StatusLine).set(status)
        self.query_one(StatusLine).display = bool(status)
        if media and media["version"] != self._asked_version:
            self._asked_version = media["version"]
            self.run_worker(self._ask_worst(), group="worst", exclusive=True, exit_on_error=False)

    def _tcp_lines(self, snapshot: Snapshot, wide: bool) -> None:
        """TCP in one line where it has no block, and what the kernel dropped."""
        tcp = None if self.model.file else snapshot.get("tcp")
        line: Line = []
        if tcp and tcp.get("windows") and not wide:
            line = [("4 TCP", "key")]
            # What is wrong comes first; what has no room is left out whole.
            for one in sorted(tcp_facts(tcp, self.glyphs), key=lambda fact: not fact.role):
                more: Line = [(f"  {one.name} ", "dim"), (one.value, one.role)]
                if width_of([*line, *more]) < self.app.size.width - 1:
                    line += more
        elif tcp and tcp.get("error"):
            line = [
                (f"{self.glyphs.warning} TCP: {fmt.clean(tcp['error'])}", "warning"),
                ("  4: more", "dim"),
            ]
        for name, spans in (("#tcp-line", line), ("#kernel-line", kernel_words(tcp, self.glyphs))):
            widget = self.query_one(name, StatusLine)
            widget.set(spans)
            widget.display = bool(spans)

    async def _ask_worst(self) -> None:
        for column in ("mean_jitter_ms", "lost_pct"):
            answer = await self.ask("query", store="streams", sort=column, descending=True, offset=0, count=1)
            self._worst[column] = answer["rows"][0][column] if answer["rows"] else None

    def on_rows_view_opened(self, event: RowsView.Opened) -> None:
        event.stop()
        self._open()

    def action_open(self) -> None:
        self._open()

    def _open(self) -> None:
        fact = self.query_one(Facts).current()
        if fact and fact.target[0]:
            self.otus.open_filtered(*fact.target)
