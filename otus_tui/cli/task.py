"""`otus-tui task create|stop|filter|list|status`."""

from __future__ import annotations

import os
import sys

import click

from engine.errors import UsageError
from otus_tui.cli.common import (
    books_lines,
    clean,
    clock,
    facts,
    json_option,
    lost_before_lines,
    print_json,
    ring_lines,
    socket_option,
    table,
    trouble_lines,
)
from otus_tui.control_client import ControlClient

CREATE_TIMEOUT = 60.0


@click.group(no_args_is_help=False)
def command() -> None:
    """Create, stop, list tasks, look at one, change its filter."""


@command.command(epilog="Example: otus-tui task create --file configs/tasks/sip.yml")
@click.option(
    "--file", "-f", "file", required=True, metavar="FILE", help="The task file (YAML); - for standard input."
)
@json_option
@socket_option
def create(file: str, as_json: bool, path: str | None) -> None:
    """Run the task that FILE describes. Returns when it runs, or says why it does not."""
    name = "standard input" if file == "-" else file
    try:
        if file == "-":
            text = sys.stdin.read()
        else:
            with open(file, encoding="utf-8") as source:
                text = source.read()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: octet {error.start} is no UTF-8", "a task file is YAML text") from error
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}") from error
    with ControlClient(path, CREATE_TIMEOUT) as client:
        answer = client.call("create_task", text=text, name=name if file == "-" else os.path.normpath(name))
    if as_json:
        print_json(answer)
    else:
        click.echo(f"task {answer['task_id']} is {answer['state']}")


@command.command(epilog="Example: otus-tui task stop --id live")
@click.option("--id", "task_id", required=True, metavar="ID", help="The task's id.")
@json_option
@socket_option
def stop(task_id: str, as_json: bool, path: str | None) -> None:
    """Stop a task.

    What it holds is reported, then its sockets are closed. Its calls stay visible.
    """
    with ControlClient(path) as client:
        answer = client.call("stop_task", task_id=task_id)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"task {answer['task_id']} is {answer['state']}{' already' if answer['already'] else ''}")
        facts(books_lines(answer["books"]))


@command.command("filter", epilog='Example: otus-tui task filter --id live --filter "udp port 5060"')
@click.option("--id", "task_id", required=True, metavar="ID", help="The task's id.")
@click.option(
    "--filter", "-f", "expression", required=True, metavar="FILTER", help="tcpdump's syntax; '' is all."
)
@json_option
@socket_option
def filter_(task_id: str, expression: str, as_json: bool, path: str | None) -> None:
    """Give a running live task another capture filter.

    The rings stay: calls, streams and books go on, and nothing is missed that both filters let in. A filter
    that cannot be is refused, and the old one stays.
    """
    with ControlClient(path) as client:
        answer = client.call("set_filter", task_id=task_id, filter=expression)
    if as_json:
        print_json(answer)
    else:
        click.echo(f"task {answer['task_id']} captures {clean(answer['filter'] or 'everything')}")


@command.command("list", epilog="Example: otus-tui task list --json | jq -r '.tasks[].task_id'")
@json_option
@socket_option
def list_(as_json: bool, path: str | None) -> None:
    """List the active task and the finished ones, newest first."""
    with ControlClient(path) as client:
        answer = client.call("list_tasks")
    if as_json:
        print_json(answer)
        return
    rows = [
        (
            task["task_id"],
            task["state"],
            task["driver"],
            task["workers"],
            clock(task["started"]),
            task["error"] or task["file"] or task["interface"],
        )
        for task in answer["tasks"]
    ]
    if rows:
        table(rows, ("id", "state", "driver", "workers", "started", "source"), right=(3,))
    else:
        click.echo("no task (otus-tui task create --file FILE)")


@command.command(epilog="Example: otus-tui task status --id live --json | jq .books")
@click.option("--id", "task_id", required=True, metavar="ID", help="The task's id.")
@json_option
@socket_option
def status(task_id: str, as_json: bool, path: str | None) -> None:
    """Show one task with its books.

    What was captured, reported and dropped, by layer.
    """
    with ControlClient(path) as client:
        task = client.call("task_status", task_id=task_id)
    if as_json:
        print_json(task)
        return
    lines = [
        ("task", f"{task['task_id']}: {task['state']}"),
        ("source", f"{task['driver']}, {clean(task['file'] or task['interface'])}"),
        ("filter", "none" if task.get("filter") == "" else clean(task.get("filter"))),
        *ring_lines(task),
        ("workers", str(task["workers"] if isinstance(task["workers"], int) else len(task["workers"]))),
        ("started", clock(task["started"])),
    ]
    if task["stopped"] is not None:
        lines.append(("stopped", clock(task["stopped"])))
    if task["error"]:
        lines.append(("error", clean(task["error"])))
    lines += trouble_lines(task)
    facts(lines + books_lines(task["books"]) + lost_before_lines(task))
