"""`otus-tui stats`: all figures of the engine."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from engine.text import share_text
from otus_tui.cli.common import (
    WARNING,
    books_lines,
    clean,
    duration,
    facts,
    json_option,
    lost_before_lines,
    lost_calls,
    number,
    octets,
    print_json,
    socket_option,
    table,
    trouble_lines,
)
from otus_tui.control_client import ControlClient


@click.command(epilog="Example: otus-tui stats --json | jq '.tasks[0].books'")
@json_option
@socket_option
def command(as_json: bool, path: str | None) -> None:
    """Show packets, drops by layer, calls and media. With --json: every counter there is."""
    with ControlClient(path) as client:
        snapshot = client.call("stats")
    if as_json:
        print_json(snapshot)
        return
    engine = snapshot["engine"]
    memory = octets(engine["memory_bytes"])
    lines = [
        ("engine", f"up {duration(engine['uptime_s'])}, CPU {engine['cpu_s']:.1f} s, memory {memory}"),
    ]
    for task in snapshot["tasks"]:
        lines.append(("task", f"{task['task_id']}: {task['state']}"))
        lines += books_lines(task["books"]) + lost_before_lines(task)
        lines += _tunnels(task)
        lines += _send_buffer(task)
        if task["error"]:
            lines.append(("error", clean(task["error"])))
        lines += [(name, text) for name, text in trouble_lines(task) if name in ("link", "trouble")]
    facts(lines + _calls(snapshot))
    for task in snapshot["tasks"]:
        _workers(task)
        _reporters(task)
        _rules(task)


def _calls(snapshot: dict[str, Any]) -> list[tuple[str, str]]:
    lines = []
    sip, media = snapshot.get("sip"), snapshot.get("media")
    if sip:
        lines.append(("calls", f"{number(sip['calls'])}, {number(sip['active'])} active"))
        if sip["restarts"]:
            lost = lost_calls(sip["lost_calls"], sip["restarted_ns"], sip["restarts"])
            lines.append(("calls lost", f"{WARNING} {lost}"))
        found = ", ".join(f"{number(count)} {method}" for method, count in list(sip["requests"].items())[:6])
        lines.append(("messages", f"{number(sip['messages'])}" + (f" ({clean(found)})" if found else "")))
    if media:
        lost = f"{number(media['lost'])} of {number(media['packets'] + media['lost'])} packets lost"
        lines.append(
            ("media", f"{number(media['streams'])} streams, {number(media['active'])} active, {lost}")
        )
    return lines


def _tunnels(task: dict[str, Any]) -> list[tuple[str, str]]:
    """How many of each type were taken off, and what was wrong with others; nothing where there were none."""
    total: Counter[str] = Counter()
    for worker in task["workers"]:
        total.update(worker["counters"])
    found = [
        f"{number(count)} {name.removeprefix('tunnels_').replace('_', '-')}"
        for name, count in total.items()
        if count and name.startswith("tunnels_")
    ]
    for name, text in (("malformed_tunnel", "malformed"), ("tunnel_depth_exceeded", "too deep")):
        if total[name]:
            found.append(f"{WARNING} {number(total[name])} {text}")
    return [("tunnels", ", ".join(found))] if found else []


def _workers(task: dict[str, Any]) -> None:
    if not task["workers"]:
        return
    click.echo()
    rows = [
        (
            worker["index"],
            worker["pid"],
            worker["state"],
            number(worker["cpu"]),
            worker["restarts"],
            number(worker["counters"]["received"]),
            number(worker["counters"]["sip_messages"]),
            number(worker["counters"]["rtp_packets"]),
            f"{worker['cpu_s']:.2f}",
        )
        for worker in task["workers"]
    ]
    header = ("worker", "pid", "state", "CPU", "restarts", "packets", "SIP", "RTP", "CPU s")
    table(rows, header, right=(0, 1, 3, 4, 5, 6, 7, 8))


def _reporters(task: dict[str, Any]) -> None:
    if not task["reporters"]:
        return
    click.echo()
    drops = ("queue_full", "report_error", "report_timeout")
    rows = [
        (
            reporter["type"],
            number(reporter["accepted"]),
            number(reporter["queued"]),
            number(sum(reporter[name] for name in drops)),
            reporter["problem"] or "well",
        )
        for reporter in task["reporters"]
    ]
    table(rows, ("reporter", "accepted", "queued", "dropped", "state"), right=(1, 2, 3))


def _send_buffer(task: dict[str, Any]) -> list[tuple[str, str]]:
    """How full it is and, where the node asks for sampling, how much of the media is reported."""
    buffer = task.get("send_buffer")
    if not buffer:
        return []
    lines = [("send buffer", f"{buffer['usage']:.0%} full")]
    if buffer["sampling"]:
        high, low = buffer["high_watermark"], buffer["low_watermark"]
        text = f"media of {share_text(buffer['sample_rate'])} of all conversations is reported"
        sign = f"{WARNING} " if buffer["sample_rate"] < 1 else ""
        lines.append(("sampling", f"{sign}{text} (less above {high:.0%} full, all again below {low:.0%})"))
    return lines


def _rules(task: dict[str, Any]) -> None:
    """What each rule of the processors decided, to drop or to pass."""
    if not task.get("rules"):
        return
    click.echo()
    rows = [(clean(rule["rule"]), number(rule["packets"])) for rule in task["rules"]]
    table(rows, ("rule", "packets"), right=(1,))
