"""What the kernel dropped of TCP: by reason, with the function that did it and a sentence on each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.tcp import drop_reasons
from otus_tui import format as fmt
from otus_tui.screens.tcp import trouble_lines
from otus_tui.widgets.ink import Line, rule
from otus_tui.widgets.tcp_figures import off_lines, span, why_off
from otus_tui.widgets.text_view import fold_words

if TYPE_CHECKING:
    from engine.snapshot import TcpSection
    from otus_tui.glyphs import Glyphs
    from otus_tui.model import Model

TITLE = "dropped by the kernel, TCP"
SHORT, LONG = "60", "run"
MOST_FUNCTIONS = 3
NAME, NUMBER = 25, 10


def kernel_lines(tcp: TcpSection | None, model: Model, width: int, glyphs: Glyphs) -> list[Line]:
    """The whole section; why there is none where the observer does not run."""
    words = trouble_lines(tcp, model, glyphs.warning, width)
    if words or not tcp:
        return [rule(TITLE, width, glyphs), *words]
    recent, whole = tcp["windows"][SHORT]["drops"], tcp["windows"][LONG]["drops"]
    lines = [rule(f"{TITLE} (net namespace {tcp.get('netns')})", width, glyphs)]
    if whole["total"] is None:
        return [*lines, *off_lines(why_off(tcp, "drops"), width)]
    recently = span(tcp["windows"][SHORT], SHORT)
    lines.append(
        [(f" {fmt.fit('reason', NAME)}{recently:>{NUMBER}}{'in all':>{NUMBER}}  what it means", "head")]
    )
    if whole["by_reason"] is None:
        lines += off_lines(why_off(tcp, "drop_reasons"), width)
        lines += _functions(list(whole["by_function"].items()), glyphs)
        return lines
    lines += _reasons(tcp, recent["by_reason"], whole["by_reason"], width, glyphs)
    benign = whole["benign"] or {}
    if benign:
        lines.append([(" no loss: what a healthy host drops, too", "dim")])
        for name, number in benign.items():
            now = (recent["benign"] or {}).get(name, 0)
            lines += _reason(name, now, number, width, "dim", glyphs)
    return lines


def _reasons(
    tcp: TcpSection, recent: dict[str, int], whole: dict[str, int], width: int, glyphs: Glyphs
) -> list[Line]:
    if not whole:
        return [[(f" {glyphs.good} ", "good"), ("no packet was lost here since the observer began", "good")]]
    places: dict[str, list[tuple[str, int]]] = {}
    for reason, function, number in (tcp.get("drop_places") or {}).get(LONG) or ():
        places.setdefault(reason, []).append((function, number))
    lines: list[Line] = []
    for name, number in whole.items():
        now = recent.get(name, 0)
        lines += _reason(name, now, number, width, "warning" if now else "", glyphs)
        lines += _functions(places.get(name, []), glyphs)
    return lines


def _reason(name: str, now: int, number: int, width: int, role: str, glyphs: Glyphs) -> list[Line]:
    """One reason; its sentence beside it, or below where that has no room."""
    about = drop_reasons.sentence(name)
    line: Line = [
        (glyphs.warning if now and role == "warning" else " ", role),
        (fmt.fit(fmt.clean(name), NAME), role),
        (f"{now:>{NUMBER},}", role if now else "dim"),
        (f"{number:>{NUMBER},}", "" if role != "dim" else "dim"),
    ]
    if fmt.cells(about) <= width - NAME - 2 * NUMBER - 3:
        return [[*line, (f"  {about}", "dim")]]
    return [line, *fold_words([("    ", ""), (about, "dim")], width)]


def _functions(found: list[tuple[str, int]], glyphs: Glyphs) -> list[Line]:
    lines: list[Line] = []
    for name, number in found[:MOST_FUNCTIONS]:
        words = f"    in {fmt.clean(name, glyphs.ascii_only) or fmt.UNKNOWN}"
        lines.append([(fmt.fit(words, NAME + NUMBER + 1), "dim"), (f"{number:>{NUMBER},}", "dim")])
    if len(found) > MOST_FUNCTIONS:
        rest = sum(number for _, number in found[MOST_FUNCTIONS:])
        words = f"    in {len(found) - MOST_FUNCTIONS} more"
        lines.append([(fmt.fit(words, NAME + NUMBER + 1), "dim"), (f"{rest:>{NUMBER},}", "dim")])
    return lines


def kernel_words(tcp: TcpSection | None, glyphs: Glyphs) -> Line:
    """What was lost in the last minute, in one line; empty where nothing was, or nothing is known."""
    found = ((tcp or {}).get("windows") or {}).get(SHORT)
    if not found or not found["drops"]["total"]:
        return []
    reasons = found["drops"]["by_reason"] or {"no reason known": found["drops"]["total"]}
    seconds = found["window_s"] or 1.0
    line: Line = [(f"{glyphs.warning} kernel drops /s ", "warning")]
    for name, number in list(reasons.items())[:5]:
        rate = number / seconds
        line += [(f" {fmt.clean(name)} ", "dim"), ("<0.1" if rate < 0.1 else fmt.rate(rate), "warning")]
    return line
