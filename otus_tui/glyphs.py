"""The signs on the screen, in Unicode and in ASCII for terminals and locales without it."""

from __future__ import annotations

import locale
import os
import sys
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Glyphs:
    """Each sign is one cell wide."""

    ascii_only: bool
    rule: str
    line: str
    """Arrow of a message."""
    double: str
    """Arrow of media."""
    right: str
    left: str
    pipe: str
    warning: str
    good: str
    mark: str
    cursor: str
    up: str
    down: str
    arrow: str
    ellipsis: str
    again: str
    bar: str
    empty: str
    active: str
    pending: str
    cross: str

    def ink(self, text: str) -> str:
        """Our own text in what this terminal can show."""
        return text.translate(_TO_ASCII) if self.ascii_only else text


UNICODE = Glyphs(
    ascii_only=False,
    rule="─",
    line="─",
    double="═",
    right="▶",
    left="◀",
    pipe="│",
    warning="▲",
    good="✓",
    mark="*",
    cursor="▸",
    up="▲",
    down="▼",
    arrow="→",
    ellipsis="…",
    again="↻",
    bar="█",
    empty="░",
    active="●",
    pending="○",
    cross="×",  # noqa: RUF001
)
ASCII = Glyphs(
    ascii_only=True,
    rule="-",
    line="-",
    double="=",
    right=">",
    left="<",
    pipe="|",
    warning="!",
    good="+",
    mark="*",
    cursor=">",
    up="^",
    down="v",
    arrow=">",
    ellipsis="~",
    again="@",
    bar="#",
    empty=".",
    active="*",
    pending="o",
    cross="x",
)
_TO_ASCII = {
    ord(u): a
    for u, a in (
        ("·", "."),
        ("…", "~"),
        ("µ", "u"),
        ("→", ">"),
        ("←", "<"),
        ("↑", "^"),
        ("↓", "v"),
        ("↵", "Enter"),
        ("─", "-"),
        ("│", "|"),
        ("▲", "!"),
        ("●", "*"),
        ("○", "o"),
        ("×", "x"),  # noqa: RUF001
        ("▼", "v"),
        ("—", "-"),
        ("✓", "+"),
        ("↻", "@"),
        ("▶", ">"),
        ("◀", "<"),
        ("Δ", "d"),
    )
}


def choose(ascii_only: bool | None = None) -> Glyphs:
    """The set for this terminal: OTUS_ASCII=1 or a locale other than UTF-8 means ASCII."""
    if ascii_only is None:
        wish = os.environ.get("OTUS_ASCII", "")
        if wish:
            ascii_only = wish not in ("0", "no", "off")
        else:
            # Not what Python makes of LC_ALL=C (its UTF-8 mode): that is the wish of who set it.
            names = {locale.getencoding(), sys.stderr.encoding or "utf-8"}
            ascii_only = any("utf" not in name.lower() for name in names)
    return ASCII if ascii_only else UNICODE
