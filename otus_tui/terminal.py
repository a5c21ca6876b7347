"""Whether this terminal can show a screen; asked before Textual is imported."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from engine.errors import OtusError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_terminal(keyboard: bool = True) -> None:
    """OtusError in one line if the screens cannot be shown here; `keyboard`: standard input must be one."""
    if not (sys.stdout.isatty() and (sys.stdin.isatty() or not keyboard)):
        raise UsageError(
            "the screens need a terminal, and standard input or output is none",
            "without one: otus-tui --headless, otus-tui status, otus-tui report FILE",
        )
    term = os.environ.get("TERM", "")
    if term in ("", "dumb", "unknown"):
        raise OtusError(
            f"TERM={term or '(empty)'} cannot show screens",
            "use another terminal (TERM=xterm-256color), or otus-tui status and otus-tui report FILE",
        )


@contextlib.contextmanager
def painted() -> Iterator[None]:
    """Textual paints on standard error: where that is none (`2> log`), standard output takes its place."""
    if os.isatty(2):
        yield
        return
    elsewhere = os.dup(2)
    os.dup2(1, 2)
    try:
        yield
    finally:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(elsewhere, 2)
        os.close(elsewhere)
