"""One message, all messages of a call, two messages beside each other, one stream: texts to read."""

from __future__ import annotations

import difflib
import os
from typing import TYPE_CHECKING, Any, ClassVar

from otus_tui import format as fmt
from otus_tui.client import ClientError
from otus_tui.screens.dialogs import AskText
from otus_tui.screens.flow import FlowScreen, answer_lines, raw_text
from otus_tui.screens.frame import FrameScreen
from otus_tui.screens.stream_text import stream_lines
from otus_tui.widgets.frame import StatusLine
from otus_tui.widgets.ladder import message_label
from otus_tui.widgets.prompt import Prompt
from otus_tui.widgets.text_view import TextView, message_lines

if TYPE_CHECKING:
    from textual.app import ComposeResult

    from otus_tui.widgets.ink import Line

RAW_LIMIT = 500
"""Messages that the raw view of a call shows at most."""


class TextScreen(FrameScreen):
    """A text with find, wrap, copy and save."""

    SCOPES = ("message", "text")
    WITHOUT: ClassVar[frozenset[str]] = frozenset({"message.next_message", "message.previous_message"})
    """Actions that its key line does not show: they do nothing here."""
    NAME = "text"

    def __init__(self) -> None:
        super().__init__()
        self.colours = True
        self._found = ""

    def compose_body(self) -> ComposeResult:
        yield StatusLine(id="status")
        yield Prompt("find:", id="prompt")
        yield TextView(id="main")

    @property
    def view(self) -> TextView:
        """The text."""
        return self.query_one("#main", TextView)

    def render_text(self) -> None:
        """Fill the view again."""

    def on_mount(self) -> None:
        super().on_mount()
        self.render_text()

    def action_find(self) -> None:
        self.query_one(Prompt).show(self._found)

    def on_prompt_changed(self, event: Prompt.Changed) -> None:
        event.stop()
        self.view.look_for(event.text)

    def on_prompt_done(self, event: Prompt.Done) -> None:
        event.stop()
        event.prompt.close()
        self.view.focus()
        self._found = event.text
        self.view.look_for(self._found)
        if event.kept:
            self._find(1, True)

    def action_find_next(self) -> None:
        self._find(1)

    def action_find_previous(self) -> None:
        self._find(-1)

    def _find(self, step: int, here: bool = False) -> None:
        if self._found and not self.view.find(self._found, step, here):
            self.notify(f"not found: {self._found}", severity="warning", markup=False)

    def action_syntax(self) -> None:
        self.colours = not self.colours
        self.render_text()

    def action_wrap(self) -> None:
        self.view.set_wrap(not self.view.wrap)

    def text_to_save(self) -> str:
        """What copy and save take."""
        return self.view.text() + "\n"

    def action_copy(self) -> None:
        # A clipboard holds text: octets that are none are left as signs of replacement.
        octets = self.text_to_save().encode("utf-8", "surrogateescape")
        self.app.copy_to_clipboard(octets.decode("utf-8", "replace"))
        self.notify("copied")

    def action_save(self) -> None:
        name = os.path.join(os.getcwd(), f"otus-{self.NAME}.txt")
        self.app.push_screen(AskText("Save this text to", name), self._save)

    def _save(self, path: str | None) -> None:
        self.save_text(path, self.text_to_save())

    def action_next_message(self) -> None:
        """Only where there is a next one."""

    def action_previous_message(self) -> None:
        """Only where there is one before."""


class MessageScreen(TextScreen):
    """One message of a call, as it was on the wire."""

    NAME = "message"
    WITHOUT = frozenset()

    def __init__(self, flow: FlowScreen, index: int) -> None:
        super().__init__()
        self.flow_screen = flow
        self.index = index
        self._answer: dict[str, Any] | None = None

    @property
    def message(self) -> dict[str, Any]:
        """The row of the message."""
        return next(m for m in self.flow_screen.ladder.flow.messages if m["index"] == self.index)

    def render_text(self) -> None:
        self.run_worker(self._fill(), exclusive=True, exit_on_error=False)

    async def _fill(self) -> None:
        answer = await self.flow_screen.raw_message(self.index)
        if answer is None:
            return
        self._answer = answer
        message = self.message
        self.view.set_lines(answer_lines(answer, message, self.glyphs, self.colours))
        self.view.scroll_rows(0)
        places = [item.data["index"] for item in self._items()]
        place = places.index(self.index) + 1 if self.index in places else 0
        role = "warning" if message["error"] else "title"
        self.query_one(StatusLine).set(
            [(message_label(message, self.glyphs, "off"), role)],
            [(f"message {place} of {len(places)}", "dim")],
        )

    def _items(self) -> list[Any]:
        return [item for item in self.flow_screen.ladder.flow.items if item.kind == "message"]

    def _step(self, step: int) -> None:
        places = [item.data["index"] for item in self._items()]
        if self.index not in places:
            return
        to = places.index(self.index) + step
        if 0 <= to < len(places):
            self.index = places[to]
            ladder = self.flow_screen.ladder
            at = next(
                i
                for i, item in enumerate(ladder.flow.items)
                if item.kind == "message" and item.data["index"] == self.index
            )
            ladder.move_to(at)
            self.render_text()

    def action_next_message(self) -> None:
        self._step(1)

    def action_previous_message(self) -> None:
        self._step(-1)

    def text_to_save(self) -> str:
        return (self._answer and raw_text(self._answer)) or super().text_to_save()


class StreamScreen(TextScreen):
    """All figures of one media stream."""

    NAME = "stream"

    def __init__(self, stream: dict[str, Any]) -> None:
        super().__init__()
        self.stream = stream

    def render_text(self) -> None:
        self.view.set_lines(stream_lines(self.stream, self.glyphs))


class RawCallScreen(TextScreen):
    """All messages of a call, one after the other."""

    NAME = "call"

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.call_key = call
        self._parts: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self._load(), exit_on_error=False)

    async def _load(self) -> None:
        try:
            messages: list[dict[str, Any]] = []
            more = True
            while more and len(messages) < RAW_LIMIT:
                answer = await self.ask("call", id=self.call_key, **{"from": len(messages), "count": 200})
                messages += answer["messages"]
                more = answer["more"] and bool(answer["messages"])
            for message in messages[:RAW_LIMIT]:
                raw = await self.ask("message", id=self.call_key, index=message["index"])
                self._parts.append((message, raw))
        except ClientError as error:
            self.query_one(StatusLine).set([(fmt.clean(error.message), "warning")])
        else:
            count = f"{len(self._parts)} messages" + (", the first ones" if more else "")
            self.query_one(StatusLine).set([(count, "title")])
        self.render_text()

    def render_text(self) -> None:
        lines: list[Line] = []
        for message, raw in self._parts:
            if lines:
                lines.append([(self.glyphs.rule * 40, "rule")])
            lines += answer_lines(raw, message, self.glyphs, self.colours)
        self.view.set_lines(lines)


class CompareScreen(TextScreen):
    """Two messages as one text: what only the first has, what only the second has."""

    NAME = "comparison"

    def __init__(self, flow: FlowScreen, first: int, second: int) -> None:
        super().__init__()
        self.flow_screen = flow
        self.pair = (first, second)

    def render_text(self) -> None:
        self.run_worker(self._fill(), exclusive=True, exit_on_error=False)

    async def _fill(self) -> None:
        texts = []
        for index in self.pair:
            answer = await self.flow_screen.raw_message(index)
            texts.append(raw_text(answer).replace("\r\n", "\n").split("\n") if answer else [])
        self.view.set_lines(compare_lines(texts[0], texts[1], self.glyphs.ascii_only))
        self.query_one(StatusLine).set(
            [("- only in the first message", "failure"), ("   ", ""), ("+ only in the second", "success")]
        )


def compare_lines(first: list[str], second: list[str], ascii_only: bool = False) -> list[Line]:
    """A line diff in roles."""
    lines: list[Line] = []
    # By whole lines only: likeness inside lines takes cubic time, and what is compared comes from the wire.
    for _, low, high, begin, end in difflib.SequenceMatcher(None, first, second).get_opcodes():
        if first[low:high] == second[begin:end]:
            pairs = [("  ", text, "dim") for text in first[low:high]]
        else:
            pairs = [("- ", text, "failure") for text in first[low:high]]
            pairs += [("+ ", text, "success") for text in second[begin:end]]
        lines += [[(sign + fmt.clean(text.expandtabs(8), ascii_only), role)] for sign, text, role in pairs]
    return lines


__all__ = [
    "CompareScreen",
    "MessageScreen",
    "RawCallScreen",
    "StreamScreen",
    "TextScreen",
    "compare_lines",
    "message_lines",
]
