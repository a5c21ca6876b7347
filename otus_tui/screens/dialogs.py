"""Small questions over a screen: choices, a line of text, what a table shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, TypeVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Label, OptionList
from textual.widgets.option_list import Option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from textual.app import ComposeResult

    from otus_tui.widgets.ink import Line

from otus_tui.widgets.text_view import TextView

Result = TypeVar("Result")


class Dialog(ModalScreen[Result]):
    """Esc and q leave without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", show=False),
        Binding("q", "cancel", "cancel", show=False),
    ]

    def action_cancel(self) -> None:
        self.dismiss(None)


class Choose(Dialog[str]):
    """One of several; each is (value, label)."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "move('cursor_down')", show=False),
        Binding("k", "move('cursor_up')", show=False),
    ]

    def __init__(
        self,
        title: str,
        options: Sequence[tuple[str, str]],
        current: str | None = None,
        note: str = "",
    ) -> None:
        super().__init__()
        self.title_text = title
        self.options = options
        self.current = current
        self.note_text = note

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Label(self.title_text, classes="title", markup=False)
            choices = OptionList(markup=False)
            for value, label in self.options:
                choices.add_option(Option(Text(label), id=value))
            yield choices
            if self.note_text:
                yield Label(self.note_text, classes="note", markup=False)

    def on_mount(self) -> None:
        choices = self.query_one(OptionList)
        values = [value for value, _ in self.options]
        choices.highlighted = values.index(self.current) if self.current in values else 0
        choices.focus()

    def action_move(self, how: str) -> None:
        getattr(self.query_one(OptionList), f"action_{how}")()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option.id)


class AskText(Dialog[str]):
    """A line of text."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "cancel", show=False, priority=True)]

    def __init__(self, title: str, text: str = "", note: str = "") -> None:
        super().__init__()
        self.title_text, self.text, self.note_text = title, text, note

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Label(self.title_text, classes="title", markup=False)
            yield Input(self.text, select_on_focus=False)
            if self.note_text:
                yield Label(self.note_text, classes="note", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class Tick(Dialog[list[str]]):
    """Which of these, and in which order: Space ticks, + and - move, Enter takes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "tick", show=False, priority=True),
        Binding("plus", "shift(1)", show=False),
        Binding("minus", "shift(-1)", show=False),
        Binding("j", "move('cursor_down')", show=False),
        Binding("k", "move('cursor_up')", show=False),
        Binding("r", "reset", show=False),
    ]

    def __init__(self, title: str, options: Sequence[tuple[str, str]], ticked: Sequence[str]) -> None:
        super().__init__()
        self.title_text = title
        self.labels = dict(options)
        self.ticked = set(ticked)
        self.order = [*ticked, *(key for key, _ in options if key not in self.ticked)]

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Label(self.title_text, classes="title", markup=False)
            yield OptionList(markup=False)
            yield Label(
                "Space shows or hides, + and - move, r as usual, Enter takes it", classes="note", markup=False
            )

    def on_mount(self) -> None:
        self._fill(0)
        self.query_one(OptionList).focus()

    def _fill(self, highlighted: int) -> None:
        choices = self.query_one(OptionList)
        choices.clear_options()
        for key in self.order:
            box = "[x]" if key in self.ticked else "[ ]"
            choices.add_option(Option(Text(f"{box} {self.labels[key]}"), id=key))
        choices.highlighted = highlighted

    def action_move(self, how: str) -> None:
        getattr(self.query_one(OptionList), f"action_{how}")()

    def action_tick(self) -> None:
        at = self.query_one(OptionList).highlighted or 0
        self.ticked ^= {self.order[at]}
        self._fill(at)

    def action_shift(self, step: int) -> None:
        at = self.query_one(OptionList).highlighted or 0
        to = at + step
        if 0 <= to < len(self.order):
            self.order[at], self.order[to] = self.order[to], self.order[at]
            self._fill(to)

    def action_reset(self) -> None:
        self.dismiss([])

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.dismiss([key for key in self.order if key in self.ticked])


class ShowText(Dialog[None]):
    """Lines to read: help, statistics."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1,question_mark,enter", "cancel", show=False),
    ]

    def __init__(self, title: str, lines: Sequence[Line], note: str = "") -> None:
        super().__init__()
        self.title_text, self.lines, self.note_text = title, lines, note

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Label(self.title_text, classes="title", markup=False)
            yield TextView(id="lines", words=True)
            yield Label("", id="more", classes="more", markup=False)
            if self.note_text:
                yield Label(self.note_text, classes="note", markup=False)

    def on_mount(self) -> None:
        view = self.query_one(TextView)
        view.set_lines(self.lines)
        view.focus()
        self.watch(view, "scroll_y", self._tell_more, init=False)
        self.call_after_refresh(self._tell_more)

    def on_resize(self) -> None:
        self.call_after_refresh(self._tell_more)

    def _tell_more(self) -> None:
        """Say that there is more below, where nothing else shows it."""
        view = self.query_one(TextView)
        left = view.row_total() - view.page - view.scroll_offset.y
        text = f"{view.glyphs.down} {left} more line{'' if left == 1 else 's'}" if left > 0 else ""
        self.query_one("#more", Label).update(text)
