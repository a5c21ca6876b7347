"""Where packets were lost: every counter by layer and worker, the rings, the books in words, and what the
kernel dropped by reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.text import share_text
from otus_tui import format as fmt
from otus_tui.model import LAYERS, place_of
from otus_tui.screens.frame import FrameScreen
from otus_tui.screens.kernel_drops import kernel_lines, kernel_words
from otus_tui.screens.tcp import try_again
from otus_tui.widgets.ink import Line, rule
from otus_tui.widgets.text_view import TextView

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from engine.snapshot import Books, CaptureFigures, Snapshot, TaskSection, WorkerFigures
    from otus_tui.glyphs import Glyphs

LAYER_WORDS = {
    "ring": "the kernel's ring was full",
    "worker": "worker: the packet could not be read or handled",
    "buffer": "send buffer: the sender was too slow",
    "report": "reporters: the receiver was too slow or refused",
    "left_out": "as asked: unmatched, filtered, duplicates",
}


class DropsScreen(FrameScreen):
    """All counters of the task that runs, or of the last one; the kernel's drops below them."""

    SCOPES = ("drops", "text")
    MODE = "drops"

    def compose_body(self) -> ComposeResult:
        yield TextView(id="main", wrap=False)

    def __init__(self) -> None:
        super().__init__()
        self._kernel_at = 0
        """The line on which the kernel's part begins."""

    def on_mount(self) -> None:
        super().on_mount()
        self.snapshot_arrived()

    def update_body(self, snapshot: Snapshot) -> None:
        width = self.app.size.width
        lines: list[Line] = []
        for task in snapshot.get("tasks") or []:
            lines += task_lines(task, width - 2, self.glyphs)
        sip = snapshot.get("sip")
        if sip:
            lines += evidence_lines(sip, width - 2, self.glyphs)
        if not lines:
            lines = [[("no task runs, so nothing can be lost", "dim")], [("", "")]]
        tcp = snapshot.get("tcp")
        if not self.model.file:
            words = kernel_words(tcp, self.glyphs)
            if words:
                lines = [[*words, ("   K: why", "dim")], *lines]
            self._kernel_at = len(lines)
            lines += kernel_lines(tcp, self.model, width - 2, self.glyphs)
        self.query_one(TextView).set_lines(lines)

    def action_kernel(self) -> None:
        view = self.query_one(TextView)
        there = view.scroll_offset.y and view.scroll_offset.y >= min(self._kernel_at, view.max_scroll_y)
        view.scroll_rows(0 if there else self._kernel_at)

    def action_retry(self) -> None:
        try_again(self)

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


def task_lines(task: TaskSection, width: int, glyphs: Glyphs) -> list[Line]:
    """Everything of one task."""
    name = fmt.clean(task["task_id"])
    lines = [rule(f"{name}  {place_of(task)}  {task['state']}", width, glyphs)]
    lines += books_lines(task["books"], width, glyphs)
    lines += [[("", "")], *layer_lines(task["books"], width, glyphs)]
    if task["capture"]:
        lines += [[("", "")], *ring_lines(task["capture"], width, glyphs)]
        lines += setup_lines(task)
    if task["driver"] != "pcap":
        lines += [[("", "")], *before_lines(task.get("lost_before") or {}, width, glyphs)]
    if task["reporters"]:
        lines += [[("", "")], *reporter_lines(task["reporters"], width, glyphs)]
    if task.get("send_buffer") or task.get("rules"):
        lines += [[("", "")], *pressure_lines(task, width, glyphs)]
    if task["workers"]:
        lines += [[("", "")], *worker_lines(task["workers"], width, glyphs)]
    return [*lines, [("", "")]]


def books_lines(books: Books, width: int, glyphs: Glyphs) -> list[Line]:
    """The equation: what came in went out, was handled, is on its way, or was dropped."""
    dropped = {layer: sum(names.values()) for layer, names in books["dropped"].items()}
    after_ring = sum(n for layer, n in dropped.items() if layer not in ("ring", "left_out"))
    lines: list[Line] = []

    def add(sign: str, name: str, value: int | None, about: str, role: str = "") -> None:
        number = f"{value:,}" if value is not None else fmt.UNKNOWN
        lines.append(
            [
                (f" {sign} ", "dim"),
                (fmt.fit(name, 14), role or "dim"),
                (f"{number:>16}", role),
                (f"   {shortened(about, width - 36)}", "dim"),
            ]
        )

    add(" ", "captured", books["captured"], "packets that the capture filter let pass")
    add("-", "ring", dropped.get("ring"), LAYER_WORDS["ring"], "warning" if dropped.get("ring") else "")
    add("=", "received", books["received"], "delivered to workers", "title")
    add(" ", "reported", books["reported"], "taken by at least one reporter")
    partly = sum(books.get("partly", {}).values())
    if partly:
        add(glyphs.warning, "not by all", partly, "lost by one reporter, taken by another", "warning")
    add("+", "handled", books["handled"], "used for calls and figures, without output")
    add("+", "in flight", books["in_flight"], "in send buffers and queues of reporters")
    add("+", "left out", dropped.get("left_out"), LAYER_WORDS["left_out"])
    add("+", "lost", after_ring, "in worker, send buffer and reporters", "warning" if after_ring else "")
    if books["even"]:
        lines.append([(f" {glyphs.good} ", "good"), ("the books are even", "good")])
    else:
        lines.append(
            [
                (f" {glyphs.warning} ", "error"),
                (f"the books are off by {books['difference']:+,} packets", "error"),
            ]
        )
    return lines


def shortened(text: str, width: int) -> str:
    """`text`, with an ellipsis for what has no room in `width` cells."""
    return fmt.fit(text, width) if fmt.cells(text) > width else text


def layer_lines(books: Books, width: int, glyphs: Glyphs) -> list[Line]:
    """Every named drop."""
    lines: list[Line] = [rule("lost and left out, by layer and reason", width, glyphs)]
    for layer in [*LAYERS, *(name for name in books["dropped"] if name not in LAYERS)]:
        names = books["dropped"].get(layer)
        if names is None:
            lines.append([(f" {fmt.fit(layer, 10)}", ""), (fmt.UNKNOWN, "dim")])
            continue
        total = sum(names.values())
        asked = layer == "left_out"
        role = "dim" if asked or not total else "warning"
        sign = glyphs.warning if total and not asked else " "
        lines.append(
            [
                (f"{sign}{fmt.fit(layer.replace('_', ' '), 10)}", role),
                (f"{total:>14,}", role),
                (f"   {shortened(LAYER_WORDS.get(layer, ''), width - 28)}", "dim"),
            ]
        )
        for name, number in sorted(names.items(), key=lambda item: (-item[1], item[0])):
            role = "warning" if number and not asked else "dim"
            lines.append([(f"    {fmt.fit(fmt.clean(name), 30)}", "dim"), (f"{number:>14,}", role)])
        if layer == "report":
            lines += partly_lines(books, glyphs)
    return lines


def partly_lines(books: Books, glyphs: Glyphs) -> list[Line]:
    """What one of several reporters lost and another one took: a drop of the reporter, not of the task."""
    lines: list[Line] = []
    for name, number in books.get("partly", {}).items():
        lines.append(
            [
                (f"{glyphs.warning if number else ' '}", "warning"),
                (f"   {fmt.fit('by ' + fmt.clean(name) + ' alone', 30)}", "dim"),
                (f"{number:>14,}", "warning" if number else "dim"),
                ("   another reporter took them", "dim"),
            ]
        )
    return lines


def reporter_lines(reporters: list[dict[str, Any]], width: int, glyphs: Glyphs) -> list[Line]:
    """What became of the packets in each reporter."""
    lines: list[Line] = [rule("reporters", width, glyphs)]
    lines.append([(" reporter          accepted       queued      dropped   restarts   state", "head")])
    for one in reporters:
        lost = sum(int(one.get(name) or 0) for name in ("queue_full", "report_error", "report_timeout"))
        sign = f"{glyphs.warning} " if lost else ""
        problem = fmt.clean(str(one.get("problem") or ""))
        # What has no room behind the figures stands below them.
        below = fmt.cells(problem) > width - 69
        state = f"   {glyphs.warning} {'' if below else problem}" if problem else "   well"
        lines.append(
            [
                (f" {fmt.fit(fmt.clean(str(one.get('type'))), 12)}", ""),
                (f"{fmt.count(one.get('accepted')):>14}", ""),
                (f"{fmt.count(one.get('queued')):>13}", ""),
                (f"{sign + fmt.count(lost):>13}", "warning" if lost else ""),
                (f"{fmt.count(one.get('restarts')):>11}", ""),
                (state, "warning" if problem else "dim"),
            ]
        )
        if problem and below:
            lines.append([(f"   {glyphs.warning} {shortened(problem, width - 5)}", "warning")])
    return lines


def ring_lines(capture: list[CaptureFigures], width: int, glyphs: Glyphs) -> list[Line]:
    """What the kernel says of each ring."""
    lines: list[Line] = [rule("rings", width, glyphs)]
    lines.append([(" interface        link       packets       drops   freezes   blocks waiting", "head")])
    for ring in capture:
        waiting, total = ring["blocks_waiting"], ring["blocks_total"]
        share = f"{waiting:,} of {total:,}" if waiting is not None and total is not None else fmt.UNKNOWN
        bad = bool(ring["ring_drops"])
        down = ring["link"] in ("down", "gone")
        lines.append(
            [
                (f" {fmt.fit(fmt.clean(ring['interface']), 16)} ", ""),
                (
                    fmt.fit(f"{glyphs.warning} {ring['link']}" if down else ring["link"], 6),
                    "warning" if down else "dim",
                ),
                (f"{fmt.count(ring['ring_packets']):>12}", ""),
                (
                    f"{(glyphs.warning + ' ' if bad else '') + fmt.count(ring['ring_drops']):>12}",
                    "warning" if bad else "",
                ),
                (f"{fmt.count(ring['ring_freezes']):>10}", ""),
                (f"   {share}", ""),
            ]
        )
    return lines


def setup_lines(task: TaskSection) -> list[Line]:
    """The rings as they were granted, and how packets are spread over them."""
    ring = task.get("ring")
    if not ring:
        return []
    group = f"group {ring['fanout_group']}" if ring["fanout_group"] is not None else "no group"
    size = f"{ring['ring_mb']:g} MiB a worker, {ring['blocks']} blocks of {ring['block_kb']} KiB"
    words = f" {size}, {ring['retire_ms']} ms, {fmt.count(ring['snaplen'])} octets of a packet"
    return [[(words, "dim")], [(f" fanout {ring['fanout_mode']}, {group}", "dim")]]


BEFORE_WORDS = {
    "rx_dropped": "interface: no room in the host, or nobody wanted it",
    "rx_missed": "interface: its own memory was full",
    "rx_fifo": "interface: its queue overran",
    "softnet": "backlog of a CPU was full (of the whole host)",
}


def before_lines(lost: dict[str, int | None], width: int, glyphs: Glyphs) -> list[Line]:
    """What was lost before any ring: beside the books, because no socket knows whether it was its own."""
    lines: list[Line] = [rule("lost before the rings (not in the books)", width, glyphs)]
    for name, words in BEFORE_WORDS.items():
        number = lost.get(name)
        role = "warning" if number else "dim"
        sign = glyphs.warning if number else " "
        lines.append(
            [
                (f"{sign}{fmt.fit(name.replace('_', ' '), 10)}", role),
                (f"{fmt.count(number):>14}", role),
                (f"   {shortened(words, width - 28)}", "dim"),
            ]
        )
    return lines


def pressure_lines(task: TaskSection, width: int, glyphs: Glyphs) -> list[Line]:
    """How full the send buffer is, what sampling leaves of the media, and what the rules decided."""
    lines: list[Line] = []
    buffer = task.get("send_buffer")
    if buffer:
        full = buffer["usage"] > buffer["high_watermark"]
        lines.append(rule("send buffer", width, glyphs))
        lines.append(
            [
                (f"{glyphs.warning if full else ' '}{fmt.fit('full', 14)}", "warning" if full else "dim"),
                (f"{buffer['usage']:>16.0%}", "warning" if full else ""),
                ("   the fullest of the send rings and queues", "dim"),
            ]
        )
        if buffer["sampling"]:
            less = buffer["sample_rate"] < 1
            marks = (
                f"less above {buffer['high_watermark']:.0%}, all again below {buffer['low_watermark']:.0%}"
            )
            lines.append(
                [
                    (
                        f"{glyphs.warning if less else ' '}{fmt.fit('media', 14)}",
                        "warning" if less else "dim",
                    ),
                    (f"{share_text(buffer['sample_rate']):>16}", "warning" if less else ""),
                    (f"   of all conversations is reported: {marks}", "dim"),
                ]
            )
    if task.get("rules"):
        lines += [[("", "")]] if lines else []
        lines.append(rule("packets that a rule decided, to drop or to pass", width, glyphs))
        for one in task["rules"]:
            lines.append([(f" {fmt.fit(fmt.clean(one['rule']), 40)}", "dim"), (f"{one['packets']:>14,}", "")])
    return lines


def worker_lines(workers: list[WorkerFigures], width: int, glyphs: Glyphs) -> list[Line]:
    """A column per worker, a line per counter that any of them has moved."""
    rows: list[tuple[str, list[str], list[str]]] = []

    def add(name: str, values: list[str], roles: list[str] | None = None) -> None:
        rows.append((name, values, roles or [""] * len(values)))

    add("", [f"worker {w['index']}" for w in workers], ["head"] * len(workers))
    states = [w["state"] for w in workers]
    add(
        "state",
        states,
        ["" if s in ("running", "ready", "finished", "stopped") else "warning" for s in states],
    )
    add("pid", [str(w["pid"] or fmt.UNKNOWN) for w in workers])
    add("bound to CPU", [fmt.count(w.get("cpu")) for w in workers])
    add(
        "restarts",
        [f"{w['restarts']:,}" for w in workers],
        ["warning" if w["restarts"] else "" for w in workers],
    )
    add("CPU s", [f"{w['cpu_s']:,.1f}" for w in workers])
    for ring in ("send_ring", "evidence_ring"):
        names = sorted({name for w in workers for name in (w.get(ring) or {})})  # type: ignore[attr-defined]
        for name in names:
            values = [(w.get(ring) or {}).get(name) for w in workers]  # type: ignore[attr-defined]
            add(f"{ring.replace('_', ' ')} {name}", [fmt.count(v) for v in values])
    order = list(dict.fromkeys(name for w in workers for name in w["counters"]))
    moved = [name for name in order if any(w["counters"].get(name) for w in workers)]
    for name in moved:
        add(fmt.clean(name.replace("_", " ")), [fmt.count(w["counters"].get(name)) for w in workers])
    still = len(order) - len(moved)
    cell = max(13, *(2 + len(value) for _, values, _ in rows for value in values))
    lines: list[Line] = [rule("workers", width, glyphs)]
    for name, values, roles in rows:
        cells: Line = [(f"{value:>{cell}}", role) for value, role in zip(values, roles, strict=True)]
        lines.append([(f" {fmt.fit(name, 28)}", "dim"), *cells])
    if still:
        lines.append([(f" {still} more counters are 0", "dim")])
    return lines


def evidence_lines(sip: Any, width: int, glyphs: Glyphs) -> list[Line]:
    """What the calls process had to leave out."""
    lines: list[Line] = [rule("calls process", width, glyphs)]
    pairs = (
        ("evidence it was too slow for", sip["lost"], True),
        ("calls that had to make room", sip["removed"], False),
        ("restarts", sip["restarts"], True),
        ("calls lost by a restart", sip["lost_calls"], True),
    )
    for name, value, bad in pairs:
        role = "warning" if bad and value else ""
        sign = f"{glyphs.warning} " if role else ""
        lines.append([(f" {fmt.fit(name, 34)}", "dim"), (f"{sign + fmt.count(value):>14}", role)])
    lines.append([(f" {fmt.fit('messages held', 34)}", "dim"), (f"{fmt.octets(sip['held_bytes']):>14}", "")])
    return lines
