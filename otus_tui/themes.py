"""Colour themes: TOML files with a palette and the `ink` roles; those of the package and a user's own."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from textual.theme import Theme

from otus_tui.settings import config_folder

FOLDER = Path(__file__).parent / "data" / "themes"
STYLE_SHEET = FOLDER / "otus.tcss"

_PALETTE = (
    "primary", "secondary", "accent", "warning", "error", "success", "foreground", "background", "surface",
    "panel", "boost",
)  # fmt: skip


def parse_theme(text: str, defaults: dict[str, str] | None = None) -> tuple[Theme, str]:
    """A theme and its title from the text of a file; ValueError says what is wrong."""
    data: dict[str, Any] = tomllib.loads(text)
    name = data.get("name")
    if not isinstance(name, str) or not isinstance(data.get("primary"), str):
        raise ValueError("a theme has a name and a primary colour")
    variables = dict(defaults or {})
    variables.update({f"ink-{role}": str(colour) for role, colour in data.get("ink", {}).items()})
    variables.update({key: str(value) for key, value in data.get("variables", {}).items()})
    palette: dict[str, Any] = {key: str(data[key]) for key in _PALETTE if key in data}
    theme = Theme(
        name=name,
        dark=bool(data.get("dark", True)),
        ansi=bool(data.get("ansi", False)),
        variables=variables,
        **palette,
    )
    return theme, str(data.get("title", name))


def load_themes() -> tuple[list[tuple[Theme, str]], list[str]]:
    """All themes with their titles, ours first, and what is wrong with a user's files."""
    dark, title = parse_theme((FOLDER / "otus-dark.toml").read_text(encoding="utf-8"))
    themes = [(dark, title)]
    problems: list[str] = []
    own = config_folder() / "themes"
    for path in [*sorted(FOLDER.glob("*.toml")), *sorted(own.glob("*.toml"))]:
        if path.name == "otus-dark.toml" and path.parent == FOLDER:
            continue
        try:
            themes.append(parse_theme(path.read_text(encoding="utf-8"), dark.variables))
        except (OSError, ValueError) as error:
            problems.append(f"{path}: {error}")
    return themes, problems
