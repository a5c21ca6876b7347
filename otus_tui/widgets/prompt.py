"""A line to type into, under the header: filters and what to find."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input, Label

from otus_tui import format as fmt

if TYPE_CHECKING:
    from textual import events
    from textual.app import ComposeResult

DEBOUNCE_S = 0.2


class Prompt(Vertical):
    """Opens with a text, tells of changes while typing, closes with Enter (kept) or Esc (as before)."""

    @dataclass
    class Changed(Message):
        """The text changed and rested for a moment."""

        prompt: Prompt
        text: str

    @dataclass
    class Done(Message):
        """Enter; or Esc, with the text that was there before."""

        prompt: Prompt
        text: str
        kept: bool

    def __init__(self, label: str, id: str | None = None) -> None:
        super().__init__(id=id)
        self.label_text = label
        self._before = ""
        self._last = ""
        self._timer_running = 0

    def compose(self) -> ComposeResult:
        with Horizontal(id="prompt-row"):
            yield Label(self.label_text, id="prompt-label", markup=False)
            yield Input(id="prompt-input", compact=True, select_on_focus=False)
        yield Label("", id="prompt-note", markup=False)

    @property
    def open(self) -> bool:
        """Whether it is shown."""
        return self.has_class("-open")

    @property
    def text(self) -> str:
        """What is typed."""
        return self.query_one(Input).value

    def show(self, text: str) -> None:
        """Open with `text`."""
        self._before = self._last = text
        field = self.query_one(Input)
        with self.prevent(Input.Changed):
            field.value = text
        field.cursor_position = len(text)
        self.note("")
        self.add_class("-open")
        field.focus()

    def close(self) -> None:
        """Hide."""
        self.remove_class("-open")
        self.note("")

    def note(self, text: str, position: int | None = None) -> None:
        """What is wrong with the text, under it; with a caret at `position` of the text."""
        label = self.query_one("#prompt-note", Label)
        if text and position is not None:
            indent = " " * (len(self.label_text) + 1 + max(0, position - self._scrolled()))
            text = f"{indent}^ {text}"
        room = self.size.width
        if text and 0 < room < fmt.cells(text):
            text = fmt.fit(text, room)
        label.update(text)
        label.set_class(bool(text), "-shown")

    def _scrolled(self) -> int:
        return int(self.query_one(Input).scroll_offset.x)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        self._timer_running += 1
        ticket = self._timer_running
        self.set_timer(DEBOUNCE_S, lambda: self._rested(ticket))

    def _rested(self, ticket: int) -> None:
        if ticket == self._timer_running and self.open and self.text != self._last:
            self._last = self.text
            self.post_message(self.Changed(self, self.text))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._timer_running += 1
        self.post_message(self.Done(self, event.value, True))

    def on_key(self, event: events.Key) -> None:
        if event.key == "escape" and self.open:
            event.stop()
            event.prevent_default()
            self._timer_running += 1
            self.post_message(self.Done(self, self._before, False))
