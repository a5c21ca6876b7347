"""The columns of a table: what stands in them, and which are shown in how much room."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
Cell = tuple[str, str]
"""Text and its role."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `cell` gives text that is clean and the role of it."""

    key: str
    title: str
    width: int
    cell: Callable[[Row], Cell]
    align: str = "<"
    flex: int = 0
    """Share of the room that is left over."""
    about: str = ""
    density: int = 0
    """Shown by default from this many columns of the terminal on."""
    sort: bool = True
    descending: bool = False
    """Order in which one wants it first: the greatest loss, but names from A."""


def lay_out(
    columns: list[Column], chosen: list[str] | None, room: int, terminal: int
) -> list[tuple[Column, int]]:
    """The columns that are shown and their widths in `room` cells."""
    if chosen is not None:
        by_key = {column.key: column for column in columns}
        shown = [by_key[key] for key in chosen if key in by_key]
    else:
        shown = [column for column in columns if column.density <= terminal]
    widths = [column.width for column in shown]
    spare = room - sum(widths) - max(0, len(shown) - 1)
    shares = sum(column.flex for column in shown)
    if spare > 0 and shares:
        for i, column in enumerate(shown):
            if column.flex:
                # What does not divide goes to the first flexible columns.
                part = spare * column.flex // shares
                widths[i] += part
                spare -= part
                shares -= column.flex
    return list(zip(shown, widths, strict=True))
