"""A form that puts a filter expression together."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Label

from otus_tui.screens.dialogs import Dialog

if TYPE_CHECKING:
    from textual.app import ComposeResult

FIELDS = (
    ("from", "From holds", "~"),
    ("to", "To holds", "~"),
    ("src", "source holds", "~"),
    ("dst", "destination holds", "~"),
    ("call_id", "Call-ID holds", "~"),
    ("method", "methods", "in"),
    ("state", "states", "in"),
)


def expression(values: dict[str, str]) -> str:
    """The filter of the filled-in fields."""
    parts = []
    for key, _, kind in FIELDS:
        text = values.get(key, "").strip()
        if not text:
            continue
        if kind == "~":
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'{key} ~ "{quoted}"')
        else:
            words = text.replace(",", " ").split()
            names = [w.upper() if key == "method" else w.lower() for w in words]
            terms = [f"{key} == {name}" for name in names]
            parts.append(terms[0] if len(terms) == 1 else f"({' or '.join(terms)})")
    return " and ".join(parts)


class FilterForm(Dialog[str]):
    """Tab goes through the fields, Enter takes the filter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", show=False, priority=True),
        Binding("down", "app.focus_next", show=False),
        Binding("up", "app.focus_previous", show=False),
    ]

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Label("Show calls with", classes="title", markup=False)
            for key, label, kind in FIELDS:
                with Horizontal(classes="field"):
                    yield Label(label, markup=False)
                    hint = "one or several" if kind == "in" else ""
                    yield Input(id=f"field-{key}", compact=True, placeholder=hint)
            yield Label("Tab to the next field, Enter filters, Esc leaves", classes="note", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.dismiss(expression({key: self.query_one(f"#field-{key}", Input).value for key, _, _ in FIELDS}))
