"""`otus-tui attach`: the screens of a running engine."""

from __future__ import annotations

import click

from otus_tui.cli.common import socket_option
from otus_tui.control_client import ControlClient
from otus_tui.terminal import check_terminal


@click.command(epilog="Example: otus-tui attach --socket /run/otus/otus.sock")
@click.option("-c", "--calls-only", is_flag=True, help="Show only calls (dialogs that begin with INVITE).")
@socket_option
def command(path: str | None, calls_only: bool) -> int:
    """Show the screens of the engine that runs. Leaving them (d) leaves the engine as it is."""
    check_terminal()
    with ControlClient(path) as client:
        found = client.path
    from otus_tui import app

    return app.run(found, calls_only=calls_only)
