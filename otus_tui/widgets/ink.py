"""Painting lines of cells in the roles of the theme.

A role (`dim`, `warning`, `request` ...) has its colour from the theme's variable `ink-<role>`, and
nothing else in Python names one. A line is a list of spans (text, role); text is never markup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.strip import Strip
from textual.widget import Widget

from otus_tui.glyphs import UNICODE, Glyphs

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rich.color import Color as RichColor

    from otus_tui.app import OtusApp

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
"""Roles that every theme gives a colour."""
BOLD = {"title", "key", "sorted", "cursor", "current"}
ATTRIBUTES = {
    "cursor": "reverse",
    "blurred": "underline",
    "find": "reverse",
    "current": "reverse bold",
    "banner": "reverse",
    "dim": "dim",
    "rule": "dim",
    "quote": "dim",
    "head": "underline",
}
"""What says the same in themes without colours of their own."""


class Inks:
    """The styles of the roles in one theme."""

    def __init__(self, variables: Mapping[str, str], ansi: bool) -> None:
        self.variables = variables
        self.ansi = ansi
        self._styles: dict[str, Style] = {"": Style.null()}

    def __getitem__(self, role: str) -> Style:
        style = self._styles.get(role)
        if style is None:
            style = self._styles[role] = self._make(role)
        return style

    def _make(self, role: str) -> Style:
        attributes = ATTRIBUTES.get(role, "") if self.ansi else ""
        if role in BOLD:
            attributes += " bold"
        return Style(color=self._colour(role), bgcolor=self._colour(f"{role}-background")) + Style.parse(
            attributes
        )

    def _colour(self, name: str) -> RichColor | None:
        value = self.variables.get(f"ink-{name}")
        return None if value is None else Color.parse(value).rich_color


class Inked(Widget):
    """A widget that paints spans."""

    @property
    def glyphs(self) -> Glyphs:
        """The signs that this terminal can show."""
        return getattr(self.app, "glyphs", UNICODE)

    def ink(self, role: str) -> Style:
        """The style of a role; empty is plain."""
        return cast("OtusApp", self.app).inks[role]

    def strip(
        self, spans: Iterable[Span], width: int, over: str = "", under: str = "", offset: int = 0
    ) -> Strip:
        """One line of `width` cells from `offset` on; `over` lies over every span and the rest."""
        if self.glyphs.ascii_only:
            spans = [(text if text.isascii() else self.glyphs.ink(text), role) for text, role in spans]
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


def shorten(spans: Line, width: int, ellipsis: str = "…") -> Line:
    """`spans` in at most `width` cells: words that have no room go, with an ellipsis instead of them."""
    if width_of(spans) <= width:
        return spans
    room = width - cell_len(ellipsis) - 1
    kept: Line = []
    for text, role in spans:
        left = room - width_of(kept)
        if width_of([(text, role)]) > left:
            part = set_cell_size(text, max(0, left + 1))
            words = part[: part.rfind(" ") + 1]
            # A word longer than the line is cut where the line ends.
            kept.append((words if words.strip() or plain(kept).strip() else part[:-1], role))
            break
        kept.append((text, role))
    line = [(text, role) for text, role in kept if text]
    if line:
        line[-1] = (line[-1][0].rstrip(), line[-1][1])
    return [*line, (f" {ellipsis}", "dim")]


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
