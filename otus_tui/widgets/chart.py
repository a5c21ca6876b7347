"""One braille chart: a figure over the last minutes, two points a cell wide, four high."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.strip import Strip
from textual.widget import Widget

from otus_tui.format import cells
from otus_tui.widgets.ink import Inked, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FILL = ((0x40, 0x80), (0x44, 0xA0), (0x46, 0xB0), (0x47, 0xB8))
"""Dots of the left and right half of a cell that is filled 1 to 4 high."""
_STEPS = (1.0, 2.0, 5.0, 10.0)


def nice_ceiling(value: float) -> float:
    """The smallest 1, 2 or 5 times a power of ten that is not below `value`."""
    if value <= 0:
        return 1.0
    value = max(value, 1e-9)
    scale = 1.0
    while value > scale * 10:
        scale *= 10
    while value <= scale:
        scale /= 10
    return next(step * scale for step in _STEPS if value <= step * scale * (1 + 1e-9))


def plot(
    values: Sequence[float | None], width: int, height: int, top: float, ascii_only: bool = False
) -> list[str]:
    """`height` lines of `width` cells, filled from below; `values` has two points a cell (one in ASCII).

    A value above 0 has at least one dot; None is left empty.
    """
    steps = height * 4
    levels = []
    for value in values:
        if value is None or value <= 0:
            levels.append(0)
        else:
            levels.append(max(1, min(steps, round(value / top * steps))))
    per_cell = 1 if ascii_only else 2
    levels = levels[-width * per_cell :]
    levels = [0] * (width * per_cell - len(levels)) + levels
    lines = []
    for row in range(height):
        floor = (height - 1 - row) * 4
        if ascii_only:
            lines.append("".join(" .:=#"[max(0, min(4, level - floor))] for level in levels))
            continue
        cells = []
        for i in range(0, len(levels), 2):
            code = 0
            for side in (0, 1):
                fill = min(4, levels[i + side] - floor)
                if fill > 0:
                    code |= _FILL[fill - 1][side]
            cells.append(chr(0x2800 + code) if code else " ")
        lines.append("".join(cells))
    return lines


class Chart(Inked, Widget):
    """A titled chart; `source(points)` gives that many values, oldest first."""

    DEFAULT_CSS = "Chart { width: 1fr; height: 1fr; }"

    def __init__(
        self,
        title: str,
        source: Callable[[int], list[float | None]],
        show: Callable[[float | None], str],
        unit: str = "",
        alarm: float | None = None,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        self.title = title
        self.source = source
        self.show = show
        self.unit = unit
        self.alarm = alarm
        """From this value on it is drawn as a warning, with its sign."""
        self._role = "accent"
        self.floor = floor
        """The scale is never finer than this."""
        self._lines: list[str] = []
        self._head: Line = []

    def update(self) -> None:
        """Take the newest values."""
        width, height = self.size
        if width < 4 or height < 2:
            return
        g = self.glyphs
        values = self.source(width if g.ascii_only else width * 2)
        known = [v for v in values if v is not None]
        top = max(nice_ceiling(max(known, default=0.0)), self.floor)
        now = values[-1] if values else None
        alarmed = self.alarm is not None and now is not None and now >= self.alarm
        self._role = "warning" if alarmed else "accent"
        sign = f"{g.warning} " if alarmed else ""
        value = f" {sign}{self.show(now)}{self.unit}"
        # The largest value that is drawn, not the end of the scale: that would read like one.
        tail = f"{value}  max {self.show(max(known, default=None))}"
        if len(self.title) + cells(tail) + 2 > width:
            tail = value
        room = max(0, width - len(self.title) - cells(tail) - 4)
        self._head = [
            (f"{g.rule} ", "rule"),
            (self.title, "title"),
            (" " + g.rule * room, "rule"),
            (tail, "warning" if alarmed else "dim"),
        ]
        self._lines = plot(values, width, height - 1, top, g.ascii_only)
        self.refresh()

    def on_resize(self) -> None:
        self.update()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        if y == 0:
            return self.strip(self._head, width)
        if y - 1 < len(self._lines):
            return self.strip([(self._lines[y - 1], self._role)], width)
        return Strip.blank(width, self.rich_style)
