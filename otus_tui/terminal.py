"""Whether this terminal can show a screen; asked before Textual is imported."""

from __future__ import annotations

import os
import sys

from engine.errors import OtusError, UsageError


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
