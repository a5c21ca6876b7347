"""The errors that reach a person, and the exit codes that a caller sees."""

from __future__ import annotations

import os
import shlex
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every verb."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_PERMITTED = 3
    INTERRUPTED = 130


class OtusError(Exception):
    """Something a person must know: `message` says what and where, `hint` what would be right.

    Shown as `otus-tui: MESSAGE` and, below it, the hint; never with a traceback.
    """

    code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(OtusError):
    """What was asked cannot be meant: a wrong flag, filter, file or configuration."""

    code = ExitCode.USAGE


class NotPermittedError(OtusError):
    """The kernel refused: the message names the missing capability, the hint the command that grants it."""

    code = ExitCode.NOT_PERMITTED


def folder_hint(path: str) -> str:
    """What mends that a file cannot be opened for writing: the line that makes its folder, if that is all."""
    folder = os.path.dirname(path) or "."
    if os.path.isdir(folder):
        return "name a file in a folder that may be written"
    return f"mkdir -p {shlex.quote(folder)}"
