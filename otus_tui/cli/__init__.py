"""The command line: one module per verb; importing it never imports textual.

A plain `report FILE` runs without click, whose import takes longer than the analysis of a small file.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from engine.errors import ExitCode, OtusError
from otus_tui.cli.report_file import plain_report

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit; errors are one line and a hint, never a traceback."""
    _open_standard_streams()
    words = list(sys.argv[1:] if arguments is None else arguments)
    code = run(words)
    if words[:1] == ["report"]:
        _leave(code)
    sys.exit(code)


def _leave(code: int) -> NoReturn:
    """End without taking apart what goes with the process anyway: a report holds nothing but memory."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may be no UTF-8, and a terminal may know no `·`.
            stream.reconfigure(errors="backslashreplace")
    try:
        report = plain_report(arguments)
        if report is None:
            from otus_tui.cli import group

            result = group.call(arguments)
        else:
            result = report()
        sys.stdout.flush()
    except OtusError as error:
        return complain(error.message, error.hint, error.code)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except RuntimeError as error:
        # Python before 3.12 wraps what interrupts it while a class comes to be.
        if not isinstance(error.__cause__, KeyboardInterrupt):
            raise
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        _silence()
        return ExitCode.DONE
    except OSError as error:
        _silence()
        return complain(
            f"{error.filename or 'standard output'}: {error.strerror or error}", "", ExitCode.FAILED
        )
    return result if isinstance(result, int) else ExitCode.DONE


def _open_standard_streams() -> None:
    """Where one is closed: no file of ours shall take its number, and what is printed goes nowhere."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def complain(message: str, hint: str, code: int) -> int:
    """Print an error for people; returns its exit code."""
    from otus_tui.cli.common import clean

    with contextlib.suppress(OSError, ValueError):
        print(f"otus-tui: {clean(message)}", file=sys.stderr)
        for line in hint.splitlines():
            # A line may show an expression, and the next one a caret below a place in it.
            print(f"          {clean(line)}", file=sys.stderr)
        sys.stderr.flush()
    return int(code)


def _silence() -> None:
    """Nobody reads standard output any more: leave without the interpreter's own complaint."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
