"""The figures over the table of connections: histograms, retransmits, states, listening sockets; or the heat
map of RTT over time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from textual.strip import Strip
from textual.widget import Widget

from otus_tui import format as fmt
from otus_tui.widgets.ink import Inked, Line, plain, rule, width_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from engine.snapshot import TcpSection
    from otus_tui.glyphs import Glyphs

STATES = (
    "SYN_SENT", "SYN_RECV", "NEW_SYN_RECV", "ESTABLISHED", "CLOSE_WAIT", "LAST_ACK", "FIN_WAIT1", "FIN_WAIT2",
    "CLOSING", "TIME_WAIT", "CLOSE",
)  # fmt: skip
CLASSES = ("rto", "tlp", "fast", "slow_start", "syn", "synack", "window_probe", "other")
"""Of retransmits, what is worst first."""
BAD_CLASSES = {"rto", "syn", "synack"}
CLOSE_WAIT_US = 60_000_000
"""Who lets the other end wait longer than this has forgotten to close."""
WINDOW = "10"
DWELL = "60"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_BARS = " ▁▂▃▄▅▆▇█"
_PLAIN_BARS = " .:-=+*%#"
_SHADES = " ░▒▓█"
_PLAIN_SHADES = " .:*#"
TWO_HISTOGRAMS, WITH_LISTEN = 110, 150
"""Cells from which there is room for more blocks."""


# --- histograms


def powers(hist: Mapping[str, Any]) -> dict[int, int]:
    """Power -> how many values are below 2 ** power and not below its half."""
    found: dict[int, int] = {}
    for bound, number in hist["buckets"]:
        power = int(bound).bit_length()
        found[power] = found.get(power, 0) + number
    return found


def grouped(found: Mapping[int, int], rows: int) -> list[tuple[int, int]]:
    """(lowest power, count) of at most `rows` steps of the same number of powers, without gaps."""
    if not found or rows <= 0:
        return []
    low, high = min(found), max(found)
    step = -(-(high - low + 1) // rows)
    return [
        (first, sum(found.get(power, 0) for power in range(first, first + step)))
        for first in range(low, high + 1, step)
    ]


def from_power(power: int) -> str:
    """The lowest value of a power of two of µs, with its unit."""
    return "0 µs" if power <= 0 else fmt.seconds(2 ** (power - 1) / 1e6)


def micro(value: float | None) -> str:
    """A time in µs, with its unit."""
    return fmt.seconds(None if value is None else value / 1e6)


def bar(share: float, width: int, glyphs: Glyphs) -> str:
    """A bar that is `share` of `width` cells long; more than nothing is seen."""
    if glyphs.ascii_only:
        return ("#" * max(1 if share > 0 else 0, round(share * width))).ljust(width)
    eighths = max(1 if share > 0 else 0, round(share * width * 8))
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)[:width]


def sparks(found: Mapping[int, int], glyphs: Glyphs, most: int = 16) -> str:
    """A histogram in one line, a character for each step of powers."""
    signs = _PLAIN_BARS if glyphs.ascii_only else _BARS
    steps = grouped(found, most)
    top = max((number for _, number in steps), default=0)
    return "".join(signs[-(-number * 8 // top)] if number else signs[0] for _, number in steps)


def histogram_lines(
    title: str, hist: Mapping[str, Any] | None, width: int, rows: int, glyphs: Glyphs, why: str
) -> list[Line]:
    """Title and bars from the smallest to the largest value."""
    if hist is None:
        return [rule(title, width, glyphs), *off_lines(why, width)]
    lines = [rule(f"{title}, {fmt.short(hist['count'])} samples", width, glyphs)]
    if not hist["count"]:
        return [*lines, [(" no sample in this window", "dim")]]
    if rows > 4:
        rows -= 1
        words = [f"{name} {micro(hist[name])}" for name in ("p50", "p90", "p99")]
        if fmt.cells("  ".join(words)) > width - 2:
            del words[1]
        lines.append([(fmt.fit(f"  {'  '.join(words)}", width), "")])
    steps = grouped(powers(hist), rows)
    top = max(number for _, number in steps)
    room = max(4, width - 18)
    for power, number in steps:
        lines.append(
            [
                (f"{from_power(power):>8} ", "dim"),
                (bar(number / top, room, glyphs), "accent"),
                (f"{fmt.short(number):>7}", "" if number else "dim"),
            ]
        )
    return lines


def off_lines(why: str, width: int) -> list[Line]:
    """That a metric is not measured, and why."""
    text = f"not measured: {fmt.clean(why)}" if why else f"{fmt.UNKNOWN} not measured"
    lines: list[Line] = []
    while text and len(lines) < 4:
        cut = len(text) if len(text) <= width - 2 else max(text.rfind(" ", 0, width - 2), 1)
        lines.append([(f" {text[:cut]}", "dim")])
        text = text[cut:].lstrip()
    return lines


def span(window: Mapping[str, Any], name: str) -> str:
    """What to call a window: what was asked for, unless it is another one (at the start, or where looks are
    rare)."""
    seconds, wanted = window["window_s"], float(name)
    return f"{name} s" if abs(seconds - wanted) <= wanted / 10 else f"{seconds:.0f} s"


def why_off(tcp: TcpSection, *metrics: str) -> str:
    """Why these metrics are not measured; empty where they are."""
    off = tcp.get("off") or {}
    return next((off[name] for name in metrics if name in off), "")


# --- retransmits, states, listening sockets


def retransmit_lines(tcp: TcpSection, width: int, rows: int, glyphs: Glyphs) -> list[Line]:
    """Segments a second by class; those that happen first where there is no room for all."""
    window = tcp["windows"][WINDOW]
    found, seconds = window["retransmits"], window["window_s"] or 1.0
    title = "retransmits /s"
    rates: list[tuple[str, float | None]] = []
    for name in CLASSES:
        values = found["by_class"][name]
        number = values["segments"] if values["segments"] is not None else values["events"]
        rates.append((name, None if number is None else number / seconds))
    total = found["segments"] if found["segments"] is not None else found["events"]
    lines = [rule(title, width, glyphs)]
    if all(rate is None for _, rate in rates) and total is None:
        return [*lines, *off_lines(why_off(tcp, "retransmits"), width)]
    if len(rates) >= rows:
        # In the order of CLASSES: a class that comes and goes must not make others jump.
        rates = sorted(rates, key=lambda one: not one[1])[: rows - 1]
        rates.sort(key=lambda one: CLASSES.index(one[0]))
    for name, rate in rates:
        bad = bool(rate) and name in BAD_CLASSES
        role = "warning" if bad else "" if rate else "dim"
        word = fmt.fit(name.replace("_", " "), width - 8)
        lines.append([(f" {word}", "" if rate else "dim"), (f"{_rate(rate):>5}", role), _sign(bad, glyphs)])
    whole = None if total is None else total / seconds
    lines.append([(f" {fmt.fit('all', width - 8)}", "dim"), (f"{_rate(whole):>5}", "" if whole else "dim")])
    return lines


def _rate(value: float | None) -> str:
    if value is not None and 0 < value < 0.1:
        return "<0.1"
    return fmt.rate(value)


def _sign(bad: bool, glyphs: Glyphs) -> tuple[str, str]:
    return (f" {glyphs.warning}" if bad else "  ", "warning")


def state_lines(tcp: TcpSection, width: int, rows: int, glyphs: Glyphs) -> list[Line]:
    """Connections now, and how long they stayed in a state that they left in the last minute."""
    counts = tcp.get("states") or {}
    dwell = tcp["windows"][DWELL]["states"]["dwell_us"]
    names = [name for name in STATES if name in counts or name in (dwell or {})]
    names += [name for name in counts if name not in STATES]
    title = f"states, {fmt.count(tcp.get('connections'))} open" if width >= 34 else "states"
    lines = [rule(f"{title}, dwell p99", width, glyphs)]
    if len(names) > rows:
        names = sorted(names, key=lambda name: -counts.get(name, 0))[:rows]
        names.sort(key=lambda name: STATES.index(name) if name in STATES else len(STATES))
    for name in names:
        stayed = (dwell or {}).get(name)
        p99 = stayed["p99"] if stayed else None
        late = name == "CLOSE_WAIT" and (p99 or 0) >= CLOSE_WAIT_US
        words = micro(p99) if stayed else ""
        lines.append(
            [
                (f" {fmt.fit(name, 11)}", "" if counts.get(name) else "dim"),
                (f"{counts.get(name, 0):>6,}", "" if counts.get(name) else "dim"),
                _sign(late, glyphs),
                (f"{words:>6}", "warning" if late else "dim"),
            ]
        )
    if not names:
        lines.append([(" no connection", "dim")])
    if dwell is None and len(lines) <= rows:
        lines += off_lines(why_off(tcp, "dwell", "transitions"), width)[: rows + 1 - len(lines)]
    return lines


def listen_lines(tcp: TcpSection, width: int, rows: int, glyphs: Glyphs) -> list[Line]:
    """Listening sockets, those that drop or fill first; drops are those since the observer began."""
    found = tcp["windows"]["run"]["listen"]
    if found is None:
        return [rule("listen", width, glyphs), *off_lines(why_off(tcp, "listen"), width)]
    lines = [rule(f"listen, {len(found):,}", width, glyphs)]
    worst = sorted(found, key=lambda one: (-(one["drops"] or 0), not one["open"], -one["backlog"]))
    for one in worst[:rows]:
        bad = bool(one["drops"])
        full = f"{fmt.short(one['backlog'])}/{fmt.short(one['limit'])}" if one["open"] else "closed"
        lines.append(
            [
                (f" {fmt.fit(fmt.clean(str(one['port'])), 6)}", ""),
                (f"{full:>11} ", "" if one["backlog"] and one["open"] else "dim"),
                (f"{glyphs.warning} " if bad else "  ", "warning"),
                (f"{fmt.short(one['drops'])} dropped", "warning" if bad else "dim"),
            ]
        )
    return lines


def listen_words(tcp: TcpSection, glyphs: Glyphs) -> Line:
    """The same in one line."""
    found = tcp["windows"]["run"]["listen"]
    if found is None:
        return [(f" listen {fmt.UNKNOWN}", "dim")]
    known = [one["drops"] for one in found if one["drops"] is not None]
    lost = sum(known) if known or not found else None
    sign = f"{glyphs.warning} " if lost else ""
    drops = (f"{sign}{fmt.short(lost)} dropped", "warning" if lost else "dim")
    return [(f" listen {len(found):,}  ", "dim"), drops]


def more_words(tcp: TcpSection, width: int, glyphs: Glyphs) -> Line:
    """Throughput, handshakes, resets and zero windows, as far as there is room."""
    window = tcp["windows"][WINDOW]
    rates, shake, resets, zero = (
        window["throughput_bps"],
        window["handshake_us"],
        window["resets"],
        window["zero_window"],
    )
    ends = [one["p50"] if one else None for one in (shake["client"], shake["server"])]
    failed = shake["failed"]
    parts: list[Line] = [
        [("send ", "dim"), (f"{fmt.short(rates['send_total'])}b/s", "")],
        [("recv ", "dim"), (f"{fmt.short(rates['receive_total'])}b/s", "")],
        [("resets ", "dim"), (f"{fmt.short(resets['received'])} in {fmt.short(resets['sent'])} out", "")],
        [
            ("zero window ", "dim"),
            (f"{fmt.short(zero['received']['episodes'])} in {fmt.short(zero['sent']['episodes'])} out", ""),
        ],
        [("handshake ", "dim"), (f"client {micro(ends[0])} server {micro(ends[1])}", "")],
    ]
    if failed:
        parts.insert(2, [(f"{glyphs.warning} {failed:,} handshakes failed", "warning")])
    full = tcp["windows"]["run"]["tables"]
    if full["closed_lost"]:
        parts.insert(2, [(f"{glyphs.warning} {full['closed_lost']:,} ends lost", "warning")])
    if full["sockets_evicted"]:
        parts.insert(2, [(f"{glyphs.warning} {full['sockets_evicted']:,} evicted", "warning")])
    if full["runs_missed"]:
        parts.append([(f"{full['runs_missed']:,} runs of programs left out", "dim")])
    line: Line = [(" ", "")]
    for part in parts:
        if width_of(line) + width_of(part) > width - 6:
            break
        line += [*part, ("  ", "")]
    return [*line, (span(window, WINDOW), "dim")]


# --- all of them


def figure_lines(tcp: TcpSection, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """The blocks beside each other, `height` lines with their titles."""
    window = tcp["windows"][WINDOW]
    rows = height - 2
    rtt, var = window["rtt_us"], window["rttvar_us"]

    def histogram(title: str, hist: Any, metric: str) -> Callable[[int, int], list[Line]]:
        return lambda w, n: histogram_lines(title, hist, w, n, glyphs, why_off(tcp, metric))

    makers: list[tuple[Callable[[int, int], list[Line]], int]] = [
        (histogram(f"RTT, {span(window, WINDOW)}", rtt, "rtt"), 32)
    ]
    if width >= TWO_HISTOGRAMS:
        makers.append((histogram(f"RTTVAR, {span(window, WINDOW)}", var, "rttvar"), 32))
    makers.append((lambda w, n: retransmit_lines(tcp, w, n, glyphs), 21))
    makers.append((lambda w, n: state_lines(tcp, w, n, glyphs), 27))
    if width >= WITH_LISTEN:
        makers.append((lambda w, n: listen_lines(tcp, w, n, glyphs), 30))
    widths = _shares([share for _, share in makers], width)
    blocks = []
    for place, ((make, _), cell) in enumerate(zip(makers, widths, strict=True)):
        states = place == len(makers) - 1 and width < WITH_LISTEN
        short = (place == 0 and width < TWO_HISTOGRAMS and var is not None and var["count"]) or states
        lines = make(cell - 1, rows - 1 if short else rows)
        if short:
            lines = lines[:rows] + [[]] * (rows - len(lines))
            lines.append(listen_words(tcp, glyphs) if states else _var_words(var, glyphs))
        blocks.append(lines)
    found = [_beside([b[i] if i < len(b) else [] for b in blocks], widths) for i in range(rows + 1)]
    return [*found, more_words(tcp, width, glyphs)]


def _var_words(var: Mapping[str, Any], glyphs: Glyphs) -> Line:
    return [
        ("  RTTVAR ", "dim"),
        (sparks(powers(var), glyphs, 8), "accent"),
        (f" p50 {micro(var['p50'])}", ""),
    ]


def _shares(shares: Sequence[int], width: int) -> list[int]:
    whole = sum(shares)
    widths = [width * share // whole for share in shares]
    widths[-1] += width - sum(widths)
    return widths


def _beside(parts: Sequence[Line], widths: Sequence[int]) -> Line:
    line: Line = []
    for part, width in zip(parts, widths, strict=True):
        have = width_of(part)
        if have > width - 1:
            # Cut where the next block begins.
            line += [*_cut(part, width - 1), (" ", "")]
        else:
            line += [*part, (" " * (width - have), "")]
    return line


def _cut(part: Line, width: int) -> Line:
    result: Line = []
    for text, role in part:
        room = width - width_of(result)
        if room <= 0:
            break
        result.append((fmt.fit(text, room) if fmt.cells(text) > room else text, role))
    return [*result, (" " * max(0, width - width_of(result)), "")]


# --- heat map


def heat_lines(
    points: Sequence[Mapping[str, Any]], width: int, height: int, glyphs: Glyphs, interval: float = 1.0
) -> list[Line]:
    """RTT over time: a column a report, the newest on the right; a row a step of powers of two."""
    room = max(4, width - 10)
    columns = [dict(point["rtt_buckets"]) for point in points[-room:]]
    known: dict[int, int] = {}
    for column in columns:
        for power, number in column.items():
            known[power] = known.get(power, 0) + number
    top = max((number for column in columns for number in column.values()), default=0)
    lines = [rule(f"RTT over time, shade: samples in {interval:g} s, up to {fmt.short(top)}", width, glyphs)]
    if not known:
        return [*lines, [(" no sample of RTT yet", "dim")]]
    steps = grouped(known, max(1, height - 2))
    span = steps[1][0] - steps[0][0] if len(steps) > 1 else 1
    top = max(sum(column.get(p, 0) for p in range(f, f + span)) for column in columns for f, _ in steps)
    for first, _ in reversed(steps):
        cells = "".join(
            _shade(sum(column.get(power, 0) for power in range(first, first + span)), top, glyphs)
            for column in columns
        )
        lines.append([(f"{from_power(first):>8} ", "dim"), (cells.rjust(room), "accent")])
    ago = fmt.duration(len(columns) * interval)
    lines.append([(" " * 9 + fmt.fit(f"{ago} ago", room - 3) + "now", "dim")])
    return lines


def _shade(number: int, top: int, glyphs: Glyphs) -> str:
    signs = _PLAIN_SHADES if glyphs.ascii_only else _SHADES
    if not number:
        return signs[0]
    # By powers of two from the top: a tail of a few samples is seen beside thousands.
    steps = (top.bit_length() - number.bit_length()) * 4 // max(4, top.bit_length())
    return signs[max(1, 4 - steps)]


class TcpFigures(Inked, Widget):
    """The figures, the heat map, or words where there is neither."""

    def __init__(self, id: str | None = None) -> None:
        super().__init__(id=id)
        self.section: TcpSection = {}
        self.points: list[Mapping[str, Any]] = []
        self.interval = 1.0
        self.heat = False
        self.words: list[Line] = []
        """Why there are no figures."""
        self._lines: list[Line] = []

    def update(self) -> None:
        """Something of the above changed."""
        width, height = self.size
        if width < 20 or height < 3:
            self._lines = []
        elif self.words:
            self._lines = self.words
        elif self.heat:
            self._lines = heat_lines(self.points, width, height, self.glyphs, self.interval)
        elif self.section:
            self._lines = figure_lines(self.section, width, height, self.glyphs)
        self.refresh()

    def on_resize(self) -> None:
        self.update()

    def text(self) -> str:
        """What it shows, without colours."""
        return "\n".join(plain(line) for line in self._lines)

    def render_line(self, y: int) -> Strip:
        if y < len(self._lines):
            return self.strip(self._lines[y], self.size.width)
        return Strip.blank(self.size.width, self.rich_style)
