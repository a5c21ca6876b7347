"""`otus-tui` without a verb: the screens, live or over a file."""

from __future__ import annotations

import difflib
import os
import stat
import sys
from typing import Any, NoReturn

import click

from engine.errors import OtusError, UsageError
from otus_tui.cli.common import check_device
from otus_tui.control_client import (
    ClientError,
    ControlClient,
    default_socket_path,
    start_engine,
    start_private_engine,
)
from otus_tui.terminal import check_terminal

CREATE_TIMEOUT = 60.0


@click.command(add_help_option=True)
@click.option(
    "-d", "--device", metavar="IF", help="Capture from this interface: a name, a,b or any (the default)."
)
@click.option(
    "-I", "--input", "file", metavar="FILE", help="Read a capture file instead (- for standard input)."
)
@click.option("-c", "--calls-only", is_flag=True, help="Show only calls (dialogs that begin with INVITE).")
@click.option(
    "-l", "--limit", type=click.IntRange(1, 10_000_000), metavar="N", help="Keep at most N calls (20000)."
)
@click.option(
    "-B", "--ring-mb", type=click.IntRange(1, 2048), metavar="MB", help="Capture ring of one worker (32)."
)
@click.option("--headless", is_flag=True, help="The engine alone, no screens.")
@click.option("--task", metavar="FILE", help="With --headless: run the task of this file (YAML).")
@click.option("--socket", "path", metavar="PATH", help="The engine's socket, if not at the usual place.")
@click.option("--config", metavar="FILE", help="The node file (YAML) for an engine that is started.")
@click.argument("rest", nargs=-1, metavar="[FILE | FILTER...]")
@click.pass_context
def command(
    ctx: click.Context,
    device: str | None,
    file: str | None,
    calls_only: bool,
    limit: int | None,
    ring_mb: int | None,
    headless: bool,
    task: str | None,
    path: str | None,
    config: str | None,
    rest: tuple[str, ...],
) -> int:
    """The screens; FILTER is an expression in tcpdump's syntax."""
    file, expression = _file_or_filter(file, device, rest)
    check_device(device)
    if file == "":
        raise UsageError("-I: no file is named", "a capture file, or - for standard input")
    if headless:
        if calls_only:
            raise UsageError("-c is for the screens", "of a running engine: otus-tui attach -c")
        from otus_tui.cli.daemon import run_engine

        return run_engine(
            config=config,
            task=task,
            device=device,
            path=path,
            expression=expression,
            ring_mb=ring_mb,
            limit=limit,
            file=file,
        )
    if task is not None:
        raise UsageError("--task is for --headless", "for a running engine: otus-tui task create --file FILE")
    options = [f"--limit={limit}"] if limit else []
    options += [f"--config={config}"] if config else []
    if file is not None:
        options += [f"--file={file if file == '-' else os.path.abspath(file)}"]
        options += [f"--filter={expression}"] if expression else []
    else:
        options = [f"--interface={device or 'any'}", f"--filter={expression}", *options]
        options += [f"--ring-mb={ring_mb}"] if ring_mb else []
    if not sys.stdout.isatty() or not (sys.stdin.isatty() or file == "-"):
        _no_terminal(ctx, file, options)
    check_terminal(keyboard=file != "-")
    if file is not None:
        return _show_file(file, options, calls_only)
    return _show_live(path, device, expression, ring_mb, options, calls_only)


def _no_terminal(ctx: click.Context, file: str | None, options: list[str]) -> NoReturn:
    """What is wrong with what was named comes first; then that there is no terminal, and the way without."""
    if not any(ctx.params.values()):
        click.echo((ctx.parent or ctx).get_help(), err=True)
    elif file != "-":
        from engine.daemon import check

        check(options)
    way = "otus-tui report FILE" if file is not None else "otus-tui --headless, then status and stats"
    if not any(ctx.params.values()):
        way = "otus-tui --headless, status, stats, report FILE"
    raise UsageError("the screens need a terminal", f"without one: {way}")


def _file_or_filter(file: str | None, device: str | None, rest: tuple[str, ...]) -> tuple[str | None, str]:
    """A first word that names a file is one, unless -I or -d said where packets come from."""
    if file is None and device is None and rest and (len(rest) == 1 or _is_file(rest[0])):
        word = rest[0]
        # A single word is a filter such as `sip` only where it cannot be meant as a file.
        if _is_file(word) or word == "-" or "/" in word or word.endswith((".pcap", ".pcapng", ".cap", ".gz")):
            return word, " ".join(rest[1:])
    if file is not None and device is not None:
        raise UsageError("-I and -d exclude each other", "packets come from a file or from an interface")
    if rest and rest[0] != "tcp":
        from otus_tui.cli.group import VERBS

        if rest[0] in VERBS:
            raise UsageError(
                f"{rest[0]} is a verb: it comes before the options", f"see otus-tui {rest[0]} --help"
            )
        # `port` is the one word of filters that looks like a verb.
        near = difflib.get_close_matches(rest[0], VERBS, 1, 0.75) if rest[0] != "port" else []
        if near:
            raise UsageError(f"{rest[0]} is no verb and no capture filter", f"did you mean {near[0]}?")
    return file, " ".join(rest)


def _is_file(word: str) -> bool:
    try:
        mode = os.stat(word).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def _show_file(file: str, options: list[str], calls_only: bool) -> int:
    """The screens over a private engine, which ends with them."""
    descriptors: list[int] = []
    if file == "-":
        descriptors.append(_give_away_stdin())
        options = [*options, f"--file-fd={descriptors[0]}"]
    connection = start_private_engine(options, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    from otus_tui import app

    return app.run(connection, private=True, calls_only=calls_only)


def _give_away_stdin() -> int:
    """The capture on standard input under another number; the keyboard takes its place."""
    if sys.stdin.isatty():
        raise UsageError("standard input is the terminal, not a capture", "tcpdump -w - | otus-tui -I -")
    try:
        terminal = os.open("/dev/tty", os.O_RDWR)
    except OSError as error:
        raise UsageError("there is no terminal to read keys from", "name a file: otus-tui -I FILE") from error
    descriptor = os.dup(0)
    os.dup2(terminal, 0)
    os.close(terminal)
    return descriptor


def _show_live(
    path: str | None,
    device: str | None,
    expression: str,
    ring_mb: int | None,
    options: list[str],
    calls_only: bool,
) -> int:
    """Attach to what runs, or have a task `live` run: in the engine that is there, or in a new one."""
    path, started = path or default_socket_path(), False
    try:
        client = ControlClient(path, CREATE_TIMEOUT)
    except ClientError as error:
        if error.rpc_code or isinstance(error.__cause__, PermissionError) or "protocol" in error.message:
            raise
        start_engine(options, path)
        started = True
    else:
        with client:
            if any(option.startswith(("--limit=", "--config=")) for option in options):
                raise UsageError(
                    f"an engine runs already (pid {client.hello['pid']}): -l and --config are for a new one",
                    "leave them out, or end it first: otus-tui shutdown",
                )
            _use_engine(client, device, expression, ring_mb)
    from otus_tui import app

    return app.run(path, calls_only=calls_only, started=started)


def _use_engine(client: ControlClient, device: str | None, expression: str, ring_mb: int | None) -> None:
    active = [
        task
        for task in client.call("status")["tasks"]
        if task["state"] in ("creating", "running", "stopping")
    ]
    if not active:
        capture: dict[str, Any] = {"driver": "af_packet_v3", "interface": device or "any"}
        if ring_mb:
            capture["config"] = {"ring_mb": ring_mb}
        config = {"id": "live", "capture": capture, "filter": {"bpf": expression}}
        client.call("create_task", config=config)
        return
    task = active[0]
    same_device = device is None or device == task["interface"]
    if same_device and not expression:
        return
    found = client.call("task_status", task_id=task["task_id"])
    if same_device and found["filter"] == expression:
        return
    raise OtusError(
        f"the engine runs task {task['task_id']} on {task['interface'] or task['file']}, "
        f"filter {found['filter'] or 'none'}",
        f"look at it: otus-tui attach; or end it: otus-tui task stop --id {task['task_id']}",
    )
