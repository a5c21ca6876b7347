"""Painting lines of cells in the roles of the theme.

A role (`dim`, `warning`, `request` ...) is a component class `ink--<role>`; the theme gives it its colour and
nothing else in Python or TCSS names one. A line is a list of spans (text, role); text is never markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from otus_tui.glyphs import UNICODE, Glyphs

if TYPE_CHECKING:
    from collections.abc import Iterable

Span = tuple[str, str]
Line = list[Span]

ROLES = (
    "text",
    "dim",
    "title",
    "rule",
    "key",
    "accent",
    "good",
    "warning",
    "error",
    "head",
    "sorted",
    "cursor",
    "blurred",
    "mark",
    "find",
    "request",
    "register",
    "presence",
    "provisional",
    "success",
    "redirect",
    "failure",
    "media",
    "header",
    "quote",
    "sdp",
    "bar",
    "current",
    "banner",
)


class Inked(Widget):
    """A widget that paints spans."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {f"ink--{role}" for role in ROLES}

    _inks: dict[str, Style] | None = None

    def notify_style_update(self) -> None:
        self._inks = None
        super().notify_style_update()

    @property
    def glyphs(self) -> Glyphs:
        """The signs that this terminal can show."""
        return getattr(self.app, "glyphs", UNICODE)

    def ink(self, role: str) -> Style:
        """The style of a role; `a+b` lays b over a; empty is plain."""
        if self._inks is None:
            self._inks = {"": Style.null()}
        style = self._inks.get(role)
        if style is None:
            style = Style.null()
            for part in role.split("+"):
                if part:
                    style += self.get_component_rich_style(f"ink--{part}", partial=True)
            self._inks[role] = style
        return style

    def strip(
        self, spans: Iterable[Span], width: int, over: str = "", under: str = "", offset: int = 0
    ) -> Strip:
        """One line of `width` cells from `offset` on; `over` lies over every span and the rest of the line."""
        base = self.rich_style
        if under:
            base += self.ink(under)
        if over:
            style = base + self.ink(over)
            strip = Strip([Segment(text, style) for text, _ in spans])
            return strip.crop_extend(offset, offset + width, style)
        strip = Strip([Segment(text, base + self.ink(role)) for text, role in spans])
        return strip.crop_extend(offset, offset + width, base)


def width_of(spans: Iterable[Span]) -> int:
    """Cells of a line."""
    return sum(len(text) if text.isascii() else cell_len(text) for text, _ in spans)


def plain(spans: Iterable[Span]) -> str:
    """The text of a line."""
    return "".join(text for text, _ in spans)


def rule(title: str, width: int, glyphs: Glyphs) -> Line:
    """A section's title on a thin line."""
    if not title:
        return [(glyphs.rule * width, "rule")]
    head = f"{glyphs.rule} "
    rest = max(0, width - len(head) - len(title) - 1)
    return [(head, "rule"), (title, "title"), (" " + glyphs.rule * rest, "rule")]
