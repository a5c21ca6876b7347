"""Lines of cells with a cursor: the base of tables, ladders and texts.

Only the lines in sight are asked for and painted (`render_line`), whatever their number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from otus_tui import actions
from otus_tui.widgets.ink import Inked, Line, plain

if TYPE_CHECKING:
    from textual import events
    from textual.binding import BindingType


class RowsView(Inked, ScrollView, can_focus=True):
    """Rows by number; a subclass says how many, how wide, and how each looks."""

    BINDINGS: ClassVar[list[BindingType]] = [*actions.bindings("move")]

    DEFAULT_CSS = """
    RowsView { height: 1fr; scrollbar-size: 1 1; }
    """

    cursor: reactive[int] = reactive(0, repaint=False)
    with_cursor = True
    side_step = 8
    """Columns that ← and → move by."""

    @dataclass
    class Moved(Message):
        """The cursor is on another row."""

        view: RowsView
        index: int

        @property
        def control(self) -> RowsView:
            return self.view

        def can_replace(self, message: Message) -> bool:
            return isinstance(message, RowsView.Moved) and message.view is self.view

    @dataclass
    class Opened(Message):
        """Enter or a second click on a row."""

        view: RowsView
        index: int

        @property
        def control(self) -> RowsView:
            return self.view

    # --- what a subclass gives

    def row_total(self) -> int:
        """How many rows there are."""
        return 0

    def row(self, index: int) -> Line:
        """The spans of a row."""
        return []

    def row_width(self) -> int:
        """Cells of the widest row; no wider than the view means nothing to scroll."""
        return 0

    def row_role(self, index: int) -> str:
        """A role under the whole row."""
        return ""

    def selectable(self, index: int) -> bool:
        """Whether the cursor may stand on this row."""
        return True

    # --- painting

    def layout_changed(self) -> None:
        """Call after the number or the width of the rows changed: repaints."""
        size = Size(self.row_width(), self.row_total())
        if size != self.virtual_size:
            self.virtual_size = size
        last = max(0, size.height - 1)
        if self.cursor > last:
            self.cursor = last
        self.refresh()

    def render_line(self, y: int) -> Strip:
        left, top = self.scroll_offset
        width = self.size.width
        index = y + top
        if index >= self.row_total():
            return Strip.blank(width, self.rich_style)
        over = ""
        if self.with_cursor and index == self.cursor:
            over = "cursor" if self.has_focus else "blurred"
        return self.strip(self.row(index), width, over, self.row_role(index), left)

    def watch_cursor(self, old: int, new: int) -> None:
        if self.is_mounted:
            self.refresh_line(old)
            self.refresh_line(new)
            self.post_message(self.Moved(self, new))

    def on_focus(self) -> None:
        self.refresh_line(self.cursor)

    def on_blur(self) -> None:
        self.refresh_line(self.cursor)

    # --- moving

    @property
    def page(self) -> int:
        """Rows in sight."""
        return max(1, self.scrollable_content_region.height)

    def move_to(self, index: int, step: int = 1) -> None:
        """Set the cursor and bring it into sight; past rows that cannot be selected, by `step`."""
        total = self.row_total()
        if not total:
            return
        index = max(0, min(total - 1, index))
        probe = index
        while 0 <= probe < total and not self.selectable(probe):
            probe += step
        if not 0 <= probe < total:
            probe = index
            while 0 <= probe < total and not self.selectable(probe):
                probe -= step
            if not 0 <= probe < total:
                return
        self.cursor = probe
        self.show(min(index, probe), max(index, probe))

    def show(self, first: int, last: int | None = None) -> None:
        """Scroll no more than needed for these rows to be in sight."""
        last = first if last is None else last
        top = self.scroll_offset.y
        if first < top:
            self.scroll_rows(first)
        elif last >= top + self.page:
            self.scroll_rows(last - self.page + 1)

    def scroll_rows(self, top: int) -> None:
        """Make `top` the first row in sight."""
        self.scroll_to(y=max(0, top), animate=False, force=True)

    def _step(self, rows: int) -> None:
        if self.with_cursor:
            self.move_to(self.cursor + rows, 1 if rows > 0 else -1)
        else:
            self.scroll_to(y=self.scroll_offset.y + rows, animate=False, force=True)

    def action_cursor_up(self) -> None:
        self._step(-1)

    def action_cursor_down(self) -> None:
        self._step(1)

    def action_page_up(self) -> None:
        self._step(-max(1, self.page - 1))

    def action_page_down(self) -> None:
        self._step(max(1, self.page - 1))

    def action_half_up(self) -> None:
        self._step(-max(1, self.page // 2))

    def action_half_down(self) -> None:
        self._step(max(1, self.page // 2))

    def action_top(self) -> None:
        self._step(-self.row_total())

    def action_bottom(self) -> None:
        self._step(self.row_total())

    def action_cursor_left(self) -> None:
        self.scroll_to(x=self.scroll_offset.x - self.side_step, animate=False, force=True)

    def action_cursor_right(self) -> None:
        self.scroll_to(x=self.scroll_offset.x + self.side_step, animate=False, force=True)

    def action_open(self) -> None:
        if self.row_total():
            self.post_message(self.Opened(self, self.cursor))

    async def on_click(self, event: events.Click) -> None:
        offset = event.get_content_offset(self)
        if offset is None:
            return
        index = offset.y + self.scroll_offset.y
        if index >= self.row_total() or not self.with_cursor or not self.selectable(index):
            return
        if index == self.cursor and event.chain > 1:
            self.action_open()
        else:
            self.cursor = index

    # --- finding text

    def find(self, text: str, step: int = 1, include_cursor: bool = False) -> bool:
        """Move to the next row (previous with step -1) that holds `text`, case ignored, around the end."""
        total = self.row_total()
        wanted = text.casefold()
        start, top = self.cursor, self.scroll_offset.y
        if not self.with_cursor and not top <= start < top + self.page:
            # Who has scrolled away from the last place means from here on.
            start = top
        for distance in range(0 if include_cursor else 1, total + 1):
            index = (start + step * distance) % total if total else 0
            if wanted in plain(self.row(index)).casefold():
                if self.with_cursor:
                    self.move_to(index, step)
                else:
                    self.cursor = index
                    self.scroll_rows(index)
                return True
        return False
