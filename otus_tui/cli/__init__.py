"""The command line: one module per verb; importing it never imports textual."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

from engine import __version__
from engine.errors import ExitCode, OtusError
from otus_tui.cli.common import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS = {
    "attach": "Show the screens of the engine that runs.",
    "daemon": "Run the engine alone, as a service (the same as --headless).",
    "doctor": "What this host can do, and what mends the rest.",
    "report": "The whole analysis of a capture file.",
    "shutdown": "End the engine that runs.",
    "stats": "All figures of the engine.",
    "status": "The engine in short.",
    "task": "Create, stop, list tasks, and look at one.",
    "tcp": "What the kernel's TCP does: a summary each second, events when it hurts.",
}
"""Verb -> line of the help. The module of a verb is imported when it is called."""
_START = "start"
EXAMPLES = (
    ("sudo otus-tui -d eth0 port 5060", "live calls on eth0, SIP only"),
    ("otus-tui -I call.pcapng", "the same screens over a capture file"),
    ("otus-tui report call.pcapng --json", "its analysis as one JSON document"),
    ("sudo otus-tui --headless -d any", "the engine alone; come back with: otus-tui attach"),
)


class Main(click.Group):
    """Verbs, and without one: the screens."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb's command, from its module."""
        if cmd_name not in VERBS and cmd_name != _START:
            return None
        command = importlib.import_module(f"otus_tui.cli.{cmd_name}").command
        return command if isinstance(command, click.Command) else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """What begins neither with a verb nor with a question about the program is a start."""
        if not args or (args[0] not in VERBS and args[0] not in ("--help", "-h", "--version")):
            args = [_START, *args]
        return super().parse_args(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Both forms: the screens with their options, and the verbs."""
        formatter.write_usage("otus-tui", "[OPTIONS] [FILE | FILTER...]")
        formatter.write_usage("otus-tui", "VERB --help", " " * 7)
        formatter.write_paragraph()
        formatter.write_text(
            "SIP calls, media and their drops, live from this host or from a capture file. Without a verb: "
            "the screens, over the engine that runs, or over one that is started for it."
        )
        start = self.get_command(ctx, _START)
        if start is not None:
            start.format_options(click.Context(start, info_name="otus-tui"), formatter)
        with formatter.section("About"):
            formatter.write_dl([("--version", "Show the version and exit.")])
        with formatter.section("Verbs"):
            formatter.write_dl(list(VERBS.items()))
        with formatter.section("Examples"):
            formatter.write_dl(list(EXAMPLES), col_max=40)


@click.command(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="otus-tui", message="%(prog)s %(version)s")
def cli() -> None:
    """Otus, the program of the workstation."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command line and exit; errors are one line and a hint, never a traceback."""
    _open_standard_streams()
    code = run(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line; its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may be no UTF-8, and a terminal may know no `·`.
            stream.reconfigure(errors="backslashreplace")
    try:
        result = cli.main(arguments, prog_name="otus-tui", standalone_mode=False)
        sys.stdout.flush()
    except OtusError as error:
        return complain(error.message, error.hint, error.code)
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "otus-tui"
        name = name.removesuffix(f" {_START}")
        return complain(error.format_message(), f"see {name} --help", ExitCode.USAGE)
    except click.ClickException as error:
        return complain(error.format_message(), "", ExitCode.FAILED)
    except (KeyboardInterrupt, click.Abort):
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
    try:
        click.echo(f"otus-tui: {clean(message)}", err=True)
        for line in hint.splitlines():
            # A line may show an expression, and the next one a caret below a place in it.
            click.echo(f"          {clean(line)}", err=True)
    except OSError:
        pass
    return int(code)


def _silence() -> None:
    """Nobody reads standard output any more: leave without the interpreter's own complaint."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
