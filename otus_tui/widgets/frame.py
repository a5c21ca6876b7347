"""The parts that stand on every screen: header, banner, progress of a loading file, books, keys."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from textual.strip import Strip
from textual.widget import Widget

from otus_tui import actions
from otus_tui import format as fmt
from otus_tui.model import LAYERS, NS, place_of
from otus_tui.widgets.ink import Inked, Line, Span, shorten, width_of

if TYPE_CHECKING:
    from textual import events

    from otus_tui.glyphs import Glyphs
    from otus_tui.model import Model

MIN_WIDTH, MIN_HEIGHT = 60, 15
"""The smallest terminal that a screen has room in."""


def spread(left: Line, right: Line, width: int) -> Line:
    """`left` and `right` at the two ends of a line; the right one goes when there is no room for both."""
    gap = width - width_of(left) - width_of(right)
    return left if gap < 1 else [*left, (" " * gap, ""), *right]


def _task_words(model: Model, glyphs: Glyphs) -> tuple[str, str, str]:
    """What is captured, and how, with its role."""
    task = model.task
    if task is None:
        return "", "IDLE" if model.hello else "…", "accent"
    place = fmt.clean(task["interface"])
    if task["driver"] == "pcap":
        progress, name = task["progress"], place_of(task)
        if task["state"] == "finished" or (progress and progress["done"]):
            return name, "FILE", "accent"
        return name, "LOADING" if model.reading or not progress else task["state"].upper(), "accent"
    if model.lost is not None:
        return place, f"{glyphs.warning} ENGINE LOST", "warning"
    if model.link:
        return "", f"{glyphs.warning} {fmt.fit(place, min(len(place), 20))} {model.link}", "warning"
    state = "LIVE" if task["state"] == "running" else task["state"].upper()
    started = task["started_ns"]
    ended = task["stopped_ns"] or model.clock()
    since = fmt.duration((ended - started) / NS) if started else ""
    return place, f"{state} {since}".strip(), "accent"


class FrameHead(Inked, Widget):
    """Who and what is looked at, and the screens; one line where the terminal is low, else two."""

    def __init__(self, model: Model, mode: str) -> None:
        super().__init__()
        self.model = model
        self.mode = mode
        self._links: list[tuple[int, int, int, str]] = []

    def render_line(self, y: int) -> Strip:
        if y == 0:
            self._links = []
        width = self.size.width
        if self.size.height >= 2:
            line = self._who(width) if y == 0 else self._screens(True, y, 1)
        else:
            line = self._both(width)
        return self.strip([(" ", ""), *line], width, under="bar")

    def _who(self, width: int) -> Line:
        model = self.model
        what, how, role = _task_words(model, self.glyphs)
        now = model.clock()
        line: Line = [("otus", "title")]
        for text, ink in ((fmt.clean(model.node), "dim"), (what, ""), (how, role)):
            if text:
                line += [("  ", ""), (text, ink)]
        return spread(line, [(f"{fmt.clock(now)} {fmt.zone(now)} ", "dim")], width - 1)

    def _screens(self, words: bool, y: int, x: int, gap: str = "  ") -> Line:
        line: Line = []
        for key, mode, title in actions.SCREENS:
            current = mode == self.mode
            text = f"{key} {title}" if words or current else key
            if line:
                line.append((gap, ""))
                x += len(gap)
            self._links.append((y, x, x + len(text), mode))
            if current:
                line.append((text, "current"))
            elif words:
                line += [(key, "dim"), (" " + title, "")]
            else:
                line.append((text, "dim"))
            x += len(text)
        return line

    def _both(self, width: int) -> Line:
        model = self.model
        what, how, role = _task_words(model, self.glyphs)
        now = model.clock()
        clock: Line = [(f"{fmt.clock(now)} {fmt.zone(now)} ", "dim")]
        name: Line = [("otus", "title"), (" ", "")]
        head: Line = [(fmt.fit(what, min(len(what), 20)), ""), (" ", "")] if what else []
        head += [(how, role), (" ", "")]
        short: Line = [(f"{fmt.clock(now)} ", "dim")]
        minutes: Line = [(f"{fmt.clock(now)[:5]} ", "dim")]
        # The names of the screens go last.
        for start, words, gap, end in (
            ([*name, *head], True, "  ", clock),
            ([*name, *head], True, " ", clock),
            ([*name, *head], True, " ", short),
            (head, True, " ", short),
            (head, True, " ", minutes),
            (head, True, " ", []),
            ([*name, *head], False, " ", clock),
        ):
            self._links = []
            line = [*start, *self._screens(words, 0, 1 + width_of(start), gap)]
            if width_of(line) + width_of(end) + 2 <= width:
                return spread(line, end, width - 1)
        return line

    def on_click(self, event: events.Click) -> None:
        for y, start, end, mode in self._links:
            if event.y == y and start <= event.x < end:
                self.app.call_later(self.app.run_action, f"app.show('{mode}')")


class Banner(Inked, Widget):
    """Something that a user must know: shown over the body until it is over."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def update(self) -> None:
        """Show or hide according to the model."""
        self.display = bool(self._text())
        self.refresh()

    def _text(self) -> str:
        if self.model.lost is not None:
            return f"{self.glyphs.warning} engine lost: {fmt.clean(self.model.lost)}; {self.model.notice}"
        task = self.model.task
        if task is not None and task["state"] == "failed":
            return f"{self.glyphs.warning} task {task['task_id']} failed: {fmt.clean(task['error'])}"
        if task is not None and task.get("troubles"):
            return f"{self.glyphs.warning} {fmt.clean('; '.join(task['troubles']))}"
        return ""

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        return self.strip([(" " + fmt.fit(self._text(), width - 1), "")], width, "banner")


class LoadBar(Inked, Widget):
    """How far a capture file is read."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.hidden = False
        self._seen: tuple[int, int] | None = None
        self._speed: float | None = None

    def update(self) -> None:
        """Show while a file loads, and a warning after; measures the speed."""
        task = self.model.task
        progress = task["progress"] if task else None
        self.display = bool(progress and ((self.reading and not self.hidden) or progress["warning"]))
        if progress and self.reading:
            now, octets = self.model.snapshot.get("time_ns", 0), progress["octets"]
            if self._seen and now > self._seen[0] and octets > self._seen[1]:
                speed = (octets - self._seen[1]) * NS / (now - self._seen[0])
                self._speed = speed if self._speed is None else 0.7 * self._speed + 0.3 * speed
            self._seen = (now, octets)
        self.refresh()

    @property
    def reading(self) -> bool:
        """Whether a file is still being read."""
        return self.model.reading

    def render_line(self, y: int) -> Strip:
        task = self.model.task
        progress = task["progress"] if task else None
        width = self.size.width
        if not progress:
            return Strip.blank(width, self.rich_style)
        if not self.reading:
            text = f" {self.glyphs.warning} {fmt.clean(progress['warning'])}"
            return self.strip([(fmt.fit(text, width), "warning")], width)
        size = progress["size"]
        words = f" {fmt.count(progress['packets'])} packets"
        share = None
        if size:
            share = min(1.0, progress["octets"] / size)
            words += f"  {share * 100:.0f} %"
            if self._speed:
                words += f"  {fmt.duration((size - progress['octets']) / self._speed)} left"
        else:
            words += f"  {fmt.octets(progress['octets'])}"
        words += "  Esc stops"
        head = " reading "
        room = width - len(head) - len(words) - 1
        line: Line = [(head, "dim")]
        if share is not None and room >= 5:
            full = round(share * room)
            line += [(self.glyphs.bar * full, "accent"), (self.glyphs.empty * (room - full), "rule")]
        line.append((words, ""))
        return self.strip(line, width)


class BooksLine(Inked, Widget):
    """Packets in, packets lost by layer, and whether the books are even; on every screen."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        return self.strip(books_spans(self.model, width, self.glyphs), width, under="bar")


def books_spans(model: Model, width: int, glyphs: Glyphs) -> Line:
    """The books line in the longest form that fits."""
    for form in (_books_long, _books_short, _books_tiny):
        line = form(model, glyphs)
        if width_of(line) <= width:
            return line
    return line


def _flow(model: Model) -> list[tuple[str, str]]:
    """(name, figure) of what comes in: rates when live, totals of a file."""
    names = (("received", "in"), ("sip", "sip"), ("rtp", "rtp"), ("reported", "out"))
    if model.file:
        newest = model.history.samples[-1].values if model.history.samples else {}
        return [(word, fmt.short(newest.get(name))) for name, word in names]
    return [(word, fmt.rate(model.history.rate(name))) for name, word in names]


def _lost(model: Model, glyphs: Glyphs, gap: str = "  ") -> list[Span]:
    spans: list[Span] = []
    ledger = model.ledger()
    # What was lost before any ring is seldom, and told where it happened.
    before = {layer: lost for layer, lost in ledger.before.items() if lost}
    for layer, lost in {**before, **{layer: ledger.lost[layer] for layer in LAYERS}}.items():
        text = f"{layer} {fmt.short(lost)}"
        if spans:
            spans.append((gap, ""))
        spans.append((f"{glyphs.warning} {text}", "warning") if lost else (text, "dim"))
    return spans


def _balance(model: Model, glyphs: Glyphs) -> Span:
    ledger = model.ledger()
    if ledger.even is None:
        return (f"books {fmt.UNKNOWN}", "dim")
    if ledger.even:
        return ("books even", "dim")
    return (f"{glyphs.warning} books off by {abs(ledger.difference):,}", "error")


def _books_long(model: Model, glyphs: Glyphs) -> Line:
    flow = _flow(model)
    unit = " pkt" if model.file else " pkt/s"
    line: Line = [(f" {flow[0][0]} ", "dim"), (flow[0][1] + unit, "")]
    for word, figure in flow[1:]:
        line += [(f"  {word} ", "dim"), (figure + ("" if model.file else "/s"), "")]
    return [
        *line,
        ("   lost: ", "dim"),
        *_lost(model, glyphs),
        (f"   left out {fmt.short(model.ledger().left_out)}", "dim"),
        ("   ", ""),
        _balance(model, glyphs),
    ]


def _books_short(model: Model, glyphs: Glyphs) -> Line:
    unit = "" if model.file else "/s"
    line: Line = []
    for word, figure in _flow(model)[:3]:
        line += [(f" {word} ", "dim"), (figure + unit, "")]
    return [
        *line,
        ("  lost ", "dim"),
        *_lost(model, glyphs, " "),
        (" ", ""),
        _balance(model, glyphs),
    ]


def _books_tiny(model: Model, glyphs: Glyphs) -> Line:
    """Only layers that lost something."""
    unit = "" if model.file else "/s"
    word, figure = _flow(model)[0]
    line: Line = [(f" {word} ", "dim"), (figure + unit, ""), ("  lost ", "dim")]
    ledger = model.ledger()
    losses = {layer: number for layer, number in {**ledger.before, **ledger.lost}.items() if number}
    for layer, number in losses.items():
        line.append((f"{glyphs.warning} {layer} {fmt.short(number)} ", "warning"))
    if not losses:
        line.append(("0 ", "dim"))
    return [*line, (" ", ""), _balance(model, glyphs)]


class KeyLine(Inked, Widget):
    """The keys that matter here, from the registry."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = scopes
        self._links: list[tuple[int, int, str]] = []

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        shown = sorted((a for a in actions.of(*self.scopes, "app") if a.rank), key=lambda a: a.rank)
        taken = {key for a in shown if a.scope != "app" for key in a.keys}
        taken |= {key for a in actions.of(*self.scopes) for key in a.keys}
        # Above a first screen q takes a step back as Esc does: ^Q asks to leave from anywhere.
        hidden = {"app.back"} if len(self.app.screen_stack) < 2 else {"app.leave"}
        hidden |= getattr(self.screen, "WITHOUT", set())
        if getattr(self.app, "private", False):
            hidden.add("app.detach")
        shown = [a for a in shown if a.id not in hidden]
        left = [a for a in shown if a.rank < 90]
        right = [a for a in shown if a.rank >= 90 and not (a.scope == "app" and set(a.keys) <= taken)]
        self._links = []
        tail = [self._span(a) for a in right]
        room = width - 2 - sum(width_of(s) + 2 for s in tail)
        line: Line = [(" ", "")]
        x = 1
        for action in left:
            spans = self._span(action)
            size = width_of(spans)
            if size + 2 > room:
                break
            line += [*spans, ("  ", "")]
            self._links.append((x, x + size, action.call))
            x += size + 2
            room -= size + 2
        gap = max(0, width - x - sum(width_of(s) + 2 for s in tail) + 1)
        line.append((" " * gap, ""))
        x += gap
        for action, spans in zip(right, tail, strict=True):
            size = width_of(spans)
            self._links.append((x, x + size, action.call))
            line += [*spans, ("  ", "")]
            x += size + 2
        return self.strip(line, width)

    def _span(self, action: actions.Action) -> Line:
        bound = self.app.keymap_keys(action) if hasattr(self.app, "keymap_keys") else action.keys
        key = self.glyphs.ink(actions.key_name(bound[0])) if bound else ""
        return [(key, "key"), (f" {action.label}", "dim")]

    async def on_click(self, event: events.Click) -> None:
        for start, end, call in self._links:
            if start <= event.x < end:
                await self.app.simulate_action(call)  # type: ignore[attr-defined]


class TooSmall(Inked, Widget):
    """Instead of a screen that has no room."""

    def render_line(self, y: int) -> Strip:
        lines = too_small_lines(self.app.size.width, self.app.size.height)
        return self.strip([(lines[y] if y < len(lines) else "", "warning")], self.size.width)


def too_small_lines(width: int, height: int) -> list[str]:
    """That a terminal of this size is too small, in the longest words that it has room for."""
    wanted = f"{MIN_WIDTH}x{MIN_HEIGHT}"
    lines: list[str] = []
    for text in (
        f"terminal {width}x{height} is too small: {wanted} at least",
        f"too small: {wanted} at least",
        f"{wanted} at least",
        wanted,
    ):
        lines = textwrap.wrap(text, max(1, width))
        if len(lines) <= height and max(map(len, text.split())) <= width:
            break
    return lines[:height]


class StatusLine(Inked, Widget):
    """One line of text under the header."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.left: Line = []
        self.right: Line = []

    def set(self, left: Line, right: Line | None = None) -> None:
        """Show `left` and, at the other end, `right`."""
        right = right or []
        if left != self.left or right != self.right:
            self.left, self.right = left, right
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        left = shorten([(" ", ""), *self.left], width, self.glyphs.ellipsis)
        return self.strip(spread(left, [*self.right, (" ", "")], width), width)
