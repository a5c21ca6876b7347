"""The verbs as click sees them; not imported where `otus-tui report` runs without it."""

from __future__ import annotations

import importlib

import click

from engine import __version__
from engine.errors import OtusError, UsageError

VERBS = {
    "attach": "Show the screens of the engine that runs.",
    "daemon": "Run the engine alone, as a service (the same as --headless).",
    "doctor": "What this host can do, and what mends the rest.",
    "report": "The whole analysis of a capture file.",
    "shutdown": "End the engine that runs.",
    "stats": "All figures of the engine.",
    "status": "The engine in short.",
    "task": "Create, stop, list tasks, look at one, change its filter.",
    "tcp": "What the kernel's TCP does: a summary each second, events when it hurts.",
}
"""Verb -> line of the help. The module of a verb is imported when it is called."""
_START = "start"
EXAMPLES = (
    ("sudo otus-tui -d eth0 port 5060", "live calls on eth0, SIP only"),
    ("otus-tui -I call.pcapng", "the same screens over a capture file"),
    ("otus-tui report call.pcapng --json", "its analysis as one JSON document"),
    ("sudo otus-tui --headless -d any", "the engine alone, for otus-tui attach"),
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
        """What begins neither with a verb nor with a question about the program is a start.

        `tcp port 5060` is a capture filter: the verb of that name takes options only.
        """
        is_filter = args[:1] == ["tcp"] and len(args) > 1 and not args[1].startswith("-")
        known = args and args[0] in (*VERBS, "--help", "-h", "--version")
        if is_filter or not known:
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
            names = ctx.help_option_names
            start.format_options(
                click.Context(start, info_name="otus-tui", help_option_names=names), formatter
            )
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


def call(arguments: list[str]) -> object:
    """Run a command line; what click complains of becomes an OtusError."""
    try:
        return cli.main(arguments, prog_name="otus-tui", standalone_mode=False)
    except click.UsageError as error:
        name = error.ctx.command_path if error.ctx else "otus-tui"
        hint = f"see {name.removesuffix(f' {_START}')} --help"
        if error.ctx and isinstance(error.ctx.command, click.Group):
            hint = f"one of {', '.join(error.ctx.command.list_commands(error.ctx))}: {hint}"
        if name.endswith(f" {_START}") and arguments[0] == "tcp":
            hint = f"`tcp {arguments[1]}` begins a capture filter; the verb tcp has options only"
        raise UsageError(error.format_message(), hint) from error
    except click.ClickException as error:
        raise OtusError(error.format_message()) from error
    except click.Abort as error:
        raise KeyboardInterrupt from error
