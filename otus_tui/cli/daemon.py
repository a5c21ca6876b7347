"""`otus-tui daemon`, `otus-tui --headless`: the engine alone, in the foreground."""

from __future__ import annotations

import click

from otus_tui.cli.common import check_device


@click.command(epilog="Example: otus-tui daemon --config /etc/otus/otus.yml")
@click.option("--config", metavar="FILE", help="The node file (YAML).")
@click.option("--task", metavar="FILE", help="Run the task of this file from the start.")
@click.option(
    "-d", "--device", metavar="IF", help="Capture from this interface (a name, a,b or any) from the start."
)
@click.option("--socket", "path", metavar="PATH", help="Where to listen.")
@click.argument("expression", nargs=-1, metavar="[FILTER]...")
def command(
    config: str | None, task: str | None, device: str | None, path: str | None, expression: tuple[str, ...]
) -> int:
    """Run the engine without screens, until SIGINT or SIGTERM.

    It captures nothing until it has -d, a task file or a command (otus-tui task create). Its log goes to
    standard error, one JSON object a line.
    """
    check_device(device)
    return run_engine(config=config, task=task, device=device, path=path, expression=" ".join(expression))


def run_engine(
    *,
    config: str | None = None,
    task: str | None = None,
    device: str | None = None,
    path: str | None = None,
    expression: str = "",
    ring_mb: int | None = None,
    limit: int | None = None,
    file: str | None = None,
) -> int:
    """Be the engine; returns its exit code."""
    import asyncio

    from engine import daemon

    given = {
        "--config": config,
        "--task": task,
        "--interface": device,
        "--socket": path,
        "--filter": expression or None,
        "--ring-mb": ring_mb,
        "--limit": limit,
        "--file": file,
    }
    arguments = [f"{flag}={value}" for flag, value in given.items() if value is not None]
    asyncio.run(daemon.run(daemon.parse_arguments(arguments)))
    return 0
