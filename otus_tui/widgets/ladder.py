"""The ladder of a call: one column per address, an arrow per message and per media stream.

`Flow` is the picture without a terminal: columns and lines from the answer of the method `call`.
`Ladder` paints it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from textual.strip import Strip
from textual.widget import Widget

from otus_tui import format as fmt
from otus_tui.format import cells
from otus_tui.widgets.ink import Inked, Line
from otus_tui.widgets.rows_view import RowsView

if TYPE_CHECKING:
    from collections.abc import Callable

    from otus_tui.glyphs import Glyphs

NS = 1_000_000_000
TIME_WIDTH = 13
MIN_GAP = 22
MAX_GAP = 46
CSEQ_ROLES = ("accent", "register", "good", "redirect", "warning", "presence")
STOPPED_S = 2.0
"""A stream of a call that had no packet for so long has stopped."""
LOSS_WARNING_PCT = 1.0

SDP_MODES = ("mark", "first", "full", "off")
TIME_MODES = ("delta", "since", "clock")
HOST_MODES = ("auto", "port", "address")


@dataclass(slots=True)
class Options:
    """How a ladder is drawn."""

    hosts: str = "auto"
    sdp: str = "mark"
    times: str = "delta"
    colours: str = "class"
    media: bool = True
    only_media: bool = False
    only_sdp: bool = False


@dataclass(slots=True)
class Item:
    """One line of the ladder."""

    kind: str
    """message, stream or note (SDP under its message)."""
    source: int
    target: int
    time_ns: int
    label: str
    role: str
    data: dict[str, Any]


def split_endpoint(endpoint: str) -> tuple[str, str]:
    """`10.0.0.1:5060` and `[2001:db8::1]:5060` as (address, port)."""
    address, colon, port = endpoint.rpartition(":")
    if not colon or not port.isdigit() or (address.count(":") and not address.startswith("[")):
        return endpoint.strip("[]"), ""
    return address.strip("[]"), port


def join_endpoint(address: str, port: object) -> str:
    """Address and port as one text."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def message_label(message: dict[str, Any], glyphs: Glyphs, sdp: str = "mark") -> str:
    """`INVITE SDP`, `200 OK`."""
    if message["status"] is None:
        words = [str(message["method"] or "?")]
    else:
        words = [str(message["status"]), str(message["reason"] or "")]
    text = fmt.clean(" ".join(w for w in words if w), glyphs.ascii_only)
    if message["sdp"] and sdp == "mark":
        text += " SDP"
    if message["retransmission"]:
        text += f" {glyphs.again}"
    if message.get("copies"):
        times = "x" if glyphs.ascii_only else "\N{MULTIPLICATION SIGN}"
        text += f" {times}{message['copies'] + 1}"
    if message["error"]:
        text = f"{glyphs.warning} {text}"
    return text


def status_role(status: int | None, method: str = "") -> str:
    """The role of a message by its class."""
    if status is None:
        return {"REGISTER": "register", "SUBSCRIBE": "presence", "NOTIFY": "presence", "OPTIONS": "dim"}.get(
            method, "title" if method == "INVITE" else "request"
        )
    return ("failure", "provisional", "success", "redirect", "failure", "failure", "failure")[
        status // 100 if 100 <= status < 700 else 0
    ]


def fitting(label: str, room: int, warning: str) -> str:
    """The parts of a stream's label that have room, in their order: what is wrong before all else."""
    parts = label.split("  ")
    kept: list[int] = []
    for number in sorted(range(len(parts)), key=lambda n: warning not in parts[n]):
        if cells("  ".join(parts[n] for n in sorted([*kept, number]))) <= room:
            kept.append(number)
    return "  ".join(parts[n] for n in sorted(kept)) if kept else label


def stream_label(stream: dict[str, Any], glyphs: Glyphs) -> tuple[str, str]:
    """`RTP PCMA 3,612  loss 0.0 %` and its role."""
    codec = fmt.clean(fmt.codec(stream) or "?", glyphs.ascii_only)
    lost = stream["lost_pct"]
    text = f"RTP {codec} {fmt.count(stream['packets'])}"
    role = "media"
    if lost is not None:
        bad = lost >= LOSS_WARNING_PCT
        text += f"  {glyphs.warning + ' ' if bad else ''}loss {fmt.percent(lost)} %"
        role = "warning" if bad else role
    score = stream.get("mos")
    if score is not None:
        text += f"  MOS {score:.2f}"
    silent = stream.get("silent_for_s")
    if silent is not None and silent >= STOPPED_S:
        text += f"  {glyphs.warning} stopped {fmt.seconds(silent)}"
        role = "warning"
    if stream["found_by"] == "heuristic":
        text += " ?"
    return text, role


def sdp_lines(summary: str) -> list[str]:
    """The media of an SDP summary, one a line."""
    return [part.strip() for part in re.split(r"[\n;]+", summary) if part.strip()]


@dataclass
class Flow:
    """A call as columns and lines."""

    messages: list[dict[str, Any]] = field(default_factory=list)
    streams: list[dict[str, Any]] = field(default_factory=list)
    options: Options = field(default_factory=Options)
    hosts: list[str] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    first_ns: int = 0

    def build(self, glyphs: Glyphs) -> None:
        """Make hosts and items anew."""
        self.hosts = []
        self._by_port = self._ports_wanted()
        self._media_ends: dict[tuple[str, str], int] = {}
        self.first_ns = min((m["time_ns"] for m in self.messages), default=0)
        items: list[Item] = []
        for message in self.messages:
            # Columns stand in the order in which their hosts appear, hidden messages or not.
            source, target = self._column(message["src"]), self._column(message["dst"])
            if message["sdp"]:
                self._learn_media(message, source)
            if self.options.only_media or (self.options.only_sdp and not message["sdp"]):
                continue
            items.extend(self._message_items(message, source, target, glyphs))
        if self.options.media or self.options.only_media:
            items.extend(self._stream_item(stream, glyphs) for stream in self.streams)
        # Stable: SDP lines stay under their message.
        items.sort(key=lambda item: item.time_ns)
        self.items = items

    def _ports_wanted(self) -> set[str]:
        """Addresses whose column has to name the port too."""
        mode = self.options.hosts
        if mode == "address":
            return set()
        ends = [split_endpoint(m[side])[0] for m in self.messages for side in ("src", "dst")]
        if mode == "port":
            return set(ends)
        return {a for a, b in zip(ends[::2], ends[1::2], strict=True) if a == b}

    def _column(self, endpoint: str) -> int:
        address, _ = split_endpoint(endpoint)
        name = endpoint if address in self._by_port else address
        if name not in self.hosts:
            self.hosts.append(name)
        return self.hosts.index(name)

    def _learn_media(self, message: dict[str, Any], column: int) -> None:
        address, _ = split_endpoint(message["src"])
        for port in re.findall(r"(?<![\w.])(\d{2,5})(?![\w.])", message["sdp"]):
            self._media_ends.setdefault((address, port), column)

    def _media_column(self, address: str, port: object) -> int:
        known = self._media_ends.get((address, str(port)))
        if known is not None:
            return known
        for index, host in enumerate(self.hosts):
            if split_endpoint(host)[0] == address:
                return index
        # The media address behind a NAT or of a media server: whoever offered this port.
        ends = {column for (_, p), column in self._media_ends.items() if p == str(port)}
        if len(ends) == 1 and len(self.hosts) == 2:
            return ends.pop()
        self.hosts.append(address)
        return len(self.hosts) - 1

    def _message_items(self, message: dict[str, Any], source: int, target: int, glyphs: Glyphs) -> list[Item]:
        mode = self.options.sdp
        if self.options.colours == "cseq":
            number = re.match(r"\s*(\d+)", str(message["cseq"] or ""))
            role = CSEQ_ROLES[int(number.group(1)[-6:]) % len(CSEQ_ROLES)] if number else ""
        else:
            role = status_role(message["status"], str(message["method"]))
        if message["retransmission"] and self.options.colours == "class":
            role = "dim"
        label = message_label(message, glyphs, mode)
        items = [Item("message", source, target, message["time_ns"], label, role, message)]
        if message["sdp"] and mode in ("first", "full"):
            lines = sdp_lines(message["sdp"])
            for text in lines[:1] if mode == "first" else lines:
                note = fmt.clean(text, glyphs.ascii_only)
                items.append(Item("note", source, target, message["time_ns"], note, "sdp", message))
        return items

    def _stream_item(self, stream: dict[str, Any], glyphs: Glyphs) -> Item:
        source = self._media_column(stream["src"], stream["sport"])
        target = self._media_column(stream["dst"], stream["dport"])
        label, role = stream_label(stream, glyphs)
        return Item("stream", source, target, stream["start_ns"] or self.first_ns, label, role, stream)

    def time_text(self, index: int) -> str:
        """What stands in the time column of a line."""
        item = self.items[index]
        if item.kind == "note":
            return ""
        if self.options.times == "clock":
            return fmt.clock(item.time_ns, 3)
        before = next((i for i in range(index - 1, -1, -1) if self.items[i].kind != "note"), None)
        if before is None:
            return fmt.clock(item.time_ns, 3)
        reference = self.first_ns if self.options.times == "since" else self.items[before].time_ns
        return "+" + fmt.seconds((item.time_ns - reference) / NS)


class Ladder(RowsView):
    """Paints a Flow."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.flow = Flow()
        self.diff_mark: int | None = None
        """Index of the message that is marked for a comparison."""
        self.gap = MIN_GAP
        """Cells from one lifeline to the next."""
        self.lead = 6
        """Cells before the first and after the last lifeline: half a host's name."""
        self.measured: Callable[[], object] = lambda: None
        """Called when the lifelines may stand elsewhere."""

    def row_total(self) -> int:
        return len(self.flow.items)

    def selectable(self, index: int) -> bool:
        return self.flow.items[index].kind != "note"

    def _measure(self) -> None:
        """Fit the lifelines to the width of the view."""
        hosts = self.flow.hosts
        self.lead = max(6, min(12, max((len(h) for h in hosts), default=12) // 2 + 1))
        room = self.size.width - TIME_WIDTH - 1 - 2 * self.lead
        self.gap = MIN_GAP if len(hosts) < 2 else max(MIN_GAP, min(MAX_GAP, room // (len(hosts) - 1)))
        self.side_step = self.gap
        self.layout_changed()
        self.measured()

    def column_x(self, index: int) -> int:
        """Cell of a lifeline."""
        return TIME_WIDTH + 1 + self.lead + index * self.gap

    def row_width(self) -> int:
        return self.column_x(max(0, len(self.flow.hosts) - 1)) + self.lead

    def rebuild(self) -> None:
        """Messages, streams or options changed; the cursor stays on its message."""
        current = self.current()
        key = _key(current) if current else None
        at_end = bool(self.flow.items) and self.cursor == len(self.flow.items) - 1
        self.flow.build(self.glyphs)
        items = self.flow.items
        place = next((i for i, item in enumerate(items) if key is not None and _key(item) == key), None)
        if place is not None and not (at_end and place < self.cursor):
            self.set_reactive(RowsView.cursor, place)
        self._measure()

    def current(self) -> Item | None:
        """The line under the cursor."""
        items = self.flow.items
        return items[self.cursor] if 0 <= self.cursor < len(items) else None

    def row(self, index: int) -> Line:
        item = self.flow.items[index]
        marked = item.kind == "message" and item.data["index"] == self.diff_mark
        time = fmt.fit(self.glyphs.ink(self.flow.time_text(index)), TIME_WIDTH, ">")
        return [
            (time, "mark" if marked else "dim"),
            (self.glyphs.mark if marked else " ", "mark"),
            *self.arrow(item),
        ]

    def arrow(self, item: Item) -> Line:
        """The lifelines with the item between them, from the cell after the time column on."""
        start = TIME_WIDTH + 1
        xs = [self.column_x(i) - start for i in range(len(self.flow.hosts))]
        width = (xs[-1] if xs else 0) + self.lead
        left, right = sorted((item.source, item.target))
        if left == right:
            return self._self_arrow(item, xs, width)
        a, b = xs[left], xs[right]
        inner = self._inner(item, b - a - 1)
        return [
            *self._lifelines(xs, 0, a + 1),
            (inner, item.role),
            *self._lifelines(xs, b, width),
        ]

    def _inner(self, item: Item, room: int) -> str:
        g = self.glyphs
        if item.kind == "note":
            return fmt.fit(item.label, room, "^", g.ellipsis)
        stroke = g.double if item.kind == "stream" else g.line
        label = item.label
        if item.kind == "stream" and cells(label) > room - 6:
            label = fitting(label, room - 6, g.warning)
        if cells(label) > room - 6:
            label = fmt.fit(label, max(1, room - 6), "<", g.ellipsis)
        rest = room - cells(label) - 3
        before = rest // 2
        after = rest - before
        if item.source < item.target:
            return f"{stroke * before} {label} {stroke * after}{g.right}"
        return f"{g.left}{stroke * before} {label} {stroke * after}"

    def _self_arrow(self, item: Item, xs: list[int], width: int) -> Line:
        g = self.glyphs
        a = xs[item.source] if xs else 0
        label = item.label if item.kind == "note" else f"{g.left}{g.line} {item.label}"
        limit = xs[item.source + 1] if item.source + 1 < len(xs) else width
        room = max(8, limit - a - 1)
        if room < cells(label) and a > room:
            # No room on the right: on the left of the lifeline.
            text = fmt.fit(item.label if item.kind == "note" else f"{item.label} {g.line}{g.right}", a, ">")
            return [(text, item.role), *self._lifelines(xs, a, width)]
        text = fmt.fit(label, room, "<", g.ellipsis)
        return [*self._lifelines(xs, 0, a + 1), (text, item.role), *self._lifelines(xs, a + 1 + room, width)]

    def _lifelines(self, xs: list[int], start: int, end: int) -> Line:
        """Empty ladder from cell `start` to `end`."""
        line = [" "] * max(0, end - start)
        for x in xs:
            if start <= x < end:
                line[x - start] = self.glyphs.pipe
        return [("".join(line), "rule")]

    def on_resize(self) -> None:
        self._measure()


def _key(item: Item) -> tuple[str, Any]:
    return (item.kind, item.data["id"] if item.kind == "stream" else item.data["index"])


class LadderHead(Inked, Widget):
    """The hosts over their lifelines."""

    DEFAULT_CSS = "LadderHead { height: 1; width: 1fr; }"

    def __init__(self, ladder: Ladder) -> None:
        super().__init__()
        self.ladder = ladder
        self.named: Callable[[str], str] = str
        """Gives the alias of a host."""

    def on_mount(self) -> None:
        self.ladder.measured = self.refresh
        self.watch(self.ladder, "scroll_x", self._scrolled, init=False)

    def _scrolled(self) -> None:
        self.refresh()

    def render_line(self, y: int) -> Strip:
        ladder = self.ladder
        text, width = "", 0
        g = self.glyphs
        for index, host in enumerate(ladder.flow.hosts):
            room = ladder.gap - 2 if len(ladder.flow.hosts) > 1 else 40
            name = fmt.clean(self.named(host), g.ascii_only)
            name = fmt.fit(name, min(room, cells(name)), "<", g.ellipsis)
            at = ladder.column_x(index) - cells(name) // 2
            space = max(1 if text else 0, at - width)
            text += " " * space + name
            width += space + cells(name)
        return self.strip([(text, "title")], self.size.width, offset=ladder.scroll_offset.x)
