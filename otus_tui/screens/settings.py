"""What can be set: the theme, and what the engine was told (to read)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otus_tui.screens.dialogs import Choose

if TYPE_CHECKING:
    from otus_tui.app import OtusApp


def open_settings(app: OtusApp) -> None:
    """Choose a theme; the change is seen at once and kept."""
    options = [
        (theme, f"Theme: {title}{'  (in use)' if theme == app.theme else ''}")
        for theme, title in app.theme_titles.items()
    ]
    options.append(("keys", "Keys of this screen"))
    where = app.settings.path
    note = f"kept in {where}" if where and not app.settings.problem else "not kept"
    app.push_screen(
        Choose("Settings", options, app.theme, note), lambda answer: _chosen(app, answer) if answer else None
    )


def _chosen(app: OtusApp, answer: str) -> None:
    if answer == "keys":
        app.action_help()
    else:
        app.set_theme(answer)
