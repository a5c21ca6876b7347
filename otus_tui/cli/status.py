"""`otus-tui status`: the engine in short."""

from __future__ import annotations

import click

from otus_tui.cli.common import (
    clean,
    duration,
    facts,
    json_option,
    print_json,
    socket_option,
    trouble_lines,
)
from otus_tui.cli.health import health
from otus_tui.control_client import ControlClient


@click.command(epilog="Example: otus-tui status --json | jq -r '.tasks[0].state'")
@json_option
@socket_option
def command(as_json: bool, path: str | None) -> None:
    """Show which engine runs, what it does, and its task."""
    with ControlClient(path) as client:
        status = client.call("status")
        state = health(client.call("stats"))
    if as_json:
        print_json({**status, "health": state})
        return
    click.echo(state["text"])
    compiled = "compiled" if status["compiled"] else "not compiled (slow)"
    lines = [
        ("engine", f"{status['version']}, pid {status['pid']}, {compiled}"),
        ("socket", client.path),
        ("node", clean(status["node"])),
        ("up", duration(status["uptime_s"])),
        ("mode", status["mode"]),
    ]
    for task in status["tasks"][:1]:
        source = task["file"] or task["interface"]
        lines.append(("task", f"{task['task_id']}: {task['state']}, {task['driver']}, {clean(source)}"))
        if task["error"]:
            lines.append(("error", clean(task["error"])))
        lines += trouble_lines(task)
    if not status["tasks"]:
        lines.append(("task", "none (otus-tui task create --file FILE, or otus-tui -d IF)"))
    facts(lines)
