"""`otus-tui shutdown`: end the engine."""

from __future__ import annotations

import click

from otus_tui.cli.common import socket_option
from otus_tui.control_client import ControlClient


@click.command(epilog="Example: otus-tui shutdown")
@socket_option
def command(path: str | None) -> None:
    """End the engine that runs, with its task: what it holds is reported first."""
    with ControlClient(path) as client:
        client.call("shutdown")
        client.wait_closed(5.0)
    click.echo("the engine has ended")
