"""Texts by lines: SIP messages in colours, lists of figures, help; with a find."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.cells import cell_len, chop_cells

from otus_tui import format as fmt
from otus_tui.format import cells
from otus_tui.widgets.ink import Line, plain, width_of
from otus_tui.widgets.ladder import status_role
from otus_tui.widgets.rows_view import RowsView

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otus_tui.glyphs import Glyphs

MAX_LINES = 20_000
"""Of one text; what is over is counted in its last line."""

_HEADER = re.compile(r"([A-Za-z0-9.!%*_+`'~-]+)([ \t]*:)(.*)", re.DOTALL)
_REQUEST = re.compile(r"([A-Za-z0-9.!%*_+`'~-]+) (.*)(?= SIP/2\.0$)")
_RESPONSE = re.compile(r"SIP/2\.0 (\d{3})\b")


class TextView(RowsView):
    """Lines of spans, wrapped or cut at the edge."""

    with_cursor = False

    def __init__(self, id: str | None = None, wrap: bool = True, words: bool = False) -> None:
        super().__init__(id=id)
        self.source: list[Line] = []
        self.wrap = wrap
        self.fold_line = fold_words if words else fold
        self.wanted = ""
        """Text that is looked for: every place of it stands out."""
        self._lines: list[Line] = []
        self._width = 0

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Show these lines."""
        self.source = list(lines[:MAX_LINES])
        if len(lines) > MAX_LINES:
            self.source.append([(f"{len(lines) - MAX_LINES:,} more lines", "warning")])
        self._fold()

    def set_wrap(self, on: bool) -> None:
        """Fold long lines, or cut them at the edge and let them scroll sideways."""
        self.wrap = on
        self._fold()

    def look_for(self, text: str) -> None:
        """Highlight every place of `text`."""
        self.wanted = text
        self.refresh()

    def _fold(self) -> None:
        room = max(8, self.scrollable_content_region.width)
        self._lines = (
            [part for line in self.source for part in self.fold_line(line, room)]
            if self.wrap
            else self.source
        )
        self._width = 0 if self.wrap else max((width_of(line) for line in self._lines), default=0)
        self.layout_changed()

    def on_resize(self) -> None:
        self._fold()

    def row_total(self) -> int:
        return len(self._lines)

    def row_width(self) -> int:
        return self._width

    def row(self, index: int) -> Line:
        line = self._lines[index]
        return highlight(line, self.wanted) if self.wanted else line

    def text(self) -> str:
        """The lines as they were given, without colours."""
        return "\n".join(plain(line) for line in self.source)


def fold(line: Line, room: int) -> list[Line]:
    """A line in pieces of at most `room` cells, continued ones indented by two."""
    if width_of(line) <= room:
        return [line]
    pieces: list[Line] = [[]]
    left = room
    for text, role in line:
        for number, part in enumerate(_parts(text, left, room - 2)):
            if number:
                pieces.append([("  ", "")])
                left = room - 2
            if part:
                pieces[-1].append((part, role))
                left -= cells(part)
    return pieces


def fold_words(line: Line, room: int) -> list[Line]:
    """Like fold(), but between words; continued lines stand under the line's last span."""
    if width_of(line) <= room:
        return [line]
    indent = width_of(line[:-1])
    if not 2 <= indent <= room // 2:
        indent = 2
    pieces: list[Line] = [[]]
    used = 0
    for text, role in line:
        for found in re.findall(r" *[^ ]+| +$", text):
            word = found
            if used + cells(word) > room and used > indent:
                pieces.append([(" " * indent, "")])
                used, word = indent, word.lstrip()
            for number, part in enumerate(_parts(word, max(1, room - used), room - indent)):
                if number:
                    pieces.append([(" " * indent, "")])
                    used = indent
                pieces[-1].append((part, role))
                used += cells(part)
    return pieces


def _parts(text: str, first: int, others: int) -> list[str]:
    """`text` in parts of at most `first` and then `others` cells, each character looked at once."""
    if cells(text) <= first:
        return [text]
    if text.isascii():
        return [text[:first], *(text[at : at + others] for at in range(first, len(text), others))]
    at, room = 0, first
    while at < len(text) and (width := cell_len(text[at])) <= room:
        room -= width
        at += 1
    return [text[:at], *chop_cells(text[at:], others)]


def highlight(line: Line, wanted: str) -> Line:
    """The line with every place of `wanted` (case ignored) in the role `find`."""
    text = plain(line)
    places = [m.span() for m in re.finditer(re.escape(wanted), text, re.IGNORECASE)]
    if not places:
        return line
    result: Line = []
    at = 0
    for part, role in line:
        end = at + len(part)
        cut = at
        for start, stop in places:
            low, high = max(start, cut), min(stop, end)
            if low >= high:
                continue
            if low > cut:
                result.append((text[cut:low], role))
            result.append((text[low:high], "find"))
            cut = high
        if cut < end:
            result.append((text[cut:end], role))
        at = end
    return result


def message_lines(raw: str, glyphs: Glyphs, colours: bool = True) -> list[Line]:
    """A SIP message with its start line, headers and body in roles; nothing in it is obeyed."""
    ascii_only = glyphs.ascii_only
    lines = raw.replace("\r\n", "\n").split("\n")
    if lines and not lines[-1]:
        lines.pop()
    result: list[Line] = []
    body = False
    for number, original in enumerate(lines):
        text = fmt.clean(original.expandtabs(8), ascii_only)
        if not colours:
            result.append([(text, "")])
        elif number == 0:
            result.append(_start_line(text))
        elif not body and not text:
            body = True
            result.append([("", "")])
        elif body:
            result.append(_body_line(text))
        else:
            result.append(_header_line(text))
    return result


def _start_line(text: str) -> Line:
    if response := _RESPONSE.match(text):
        return [("SIP/2.0 ", "dim"), (text[8:], status_role(int(response.group(1))))]
    if request := _REQUEST.match(text):
        method, rest = request.group(1), request.group(2)
        return [(method, status_role(None, method)), (f" {rest}", ""), (" SIP/2.0", "dim")]
    return [(text, "warning")]


def _header_line(text: str) -> Line:
    match = _HEADER.match(text)
    if not match or text[:1] in " \t":
        return [(text, "")]
    return [(match.group(1), "header"), (match.group(2), "dim"), (match.group(3), "")]


def _body_line(text: str) -> Line:
    if len(text) > 1 and text[1] == "=" and text[0].isalpha():
        return [(text[:2], "sdp"), (text[2:], "")]
    return [(text, "")]


def table_lines(pairs: Sequence[tuple[str, str]], title: str = "", role: str = "") -> list[Line]:
    """Names and values in two columns."""
    width = max((cell_len(name) for name, _ in pairs), default=0)
    lines: list[Line] = [[(title, "title")]] if title else []
    lines += [[(fmt.fit(name, width) + "  ", "dim"), (value, role)] for name, value in pairs]
    return lines
