"""The keys of a screen, from the registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otus_tui import actions
from otus_tui import format as fmt
from otus_tui.screens.dialogs import ShowText

if TYPE_CHECKING:
    from otus_tui.app import OtusApp
    from otus_tui.widgets.ink import Line


def help_lines(app: OtusApp, scopes: tuple[str, ...]) -> list[Line]:
    """Keys, names and sentences of these scopes, then of `move` and `app`."""
    lines: list[Line] = []
    order = [*scopes, *(s for s in ("move", "app") if s not in scopes)]
    taken: set[str] = set()
    for scope in order:
        found = actions.of(scope)
        if not found:
            continue
        if lines:
            lines.append([("", "")])
        lines.append([(actions.SCOPES[scope], "title")])
        for action in found:
            keys = [key for key in app.keymap_keys(action) if key not in taken]
            if not keys:
                continue
            names = app.glyphs.ink(" ".join(actions.key_name(key) for key in keys))
            lines.append([(f"  {fmt.fit(names, 18)} ", "key"), (action.about, "")])
        if scope not in ("move", "app"):
            taken |= {key for action in found for key in app.keymap_keys(action)}
    return lines


def help_screen(app: OtusApp, scopes: tuple[str, ...]) -> ShowText:
    """The help of a screen with these scopes."""
    return ShowText(
        "Keys of this screen", help_lines(app, scopes), "Esc leaves; ctrl+p finds an action by name"
    )
