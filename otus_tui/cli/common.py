"""What the verbs share: options, tables, numbers."""

from __future__ import annotations

import json
import shutil
import time
from typing import TYPE_CHECKING, Any

import click

from engine.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN = "·"
WARNING = "▲"

socket_option = click.option(
    "--socket", "path", metavar="PATH", help="The engine's socket, if it is not at the usual place."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def clean(value: Any) -> str:
    """A value as text on one line: what a terminal would obey is shown as an escape; None as `·`."""
    if value is None or value == "":
        return UNKNOWN
    text = str(value)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def number(value: float | None) -> str:
    """A count with thousands separators."""
    return UNKNOWN if value is None else f"{value:,}"


def octets(value: float | None) -> str:
    """Octets with a unit (powers of 1024)."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if value >= 100 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return UNKNOWN


def duration(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = int(seconds)
    minutes, rest = whole // 60, whole % 60
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def clock(nanoseconds: int | None) -> str:
    """Local date and time of day with the zone."""
    if nanoseconds is None:
        return UNKNOWN
    return time.strftime("%Y-%m-%d %H:%M:%S %Z", time.localtime(nanoseconds / 1e9))


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], right: Sequence[int] = ()) -> None:
    """Print columns that fit the terminal: the last one is cut, the others keep their width."""
    cells = [list(header), *([clean(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    room = max(60, shutil.get_terminal_size((80, 24)).columns)
    for row in cells:
        parts = [
            text.rjust(widths[column]) if column in right else text.ljust(widths[column])
            for column, text in enumerate(row)
        ]
        line = "  ".join(parts).rstrip()
        click.echo(line if len(line) <= room else line[: room - 1] + "…")


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Print `name  value` lines."""
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        click.echo(f"{name:{width}}  {value}")


def drop_lines(books: dict[str, Any]) -> list[tuple[str, str]]:
    """Every drop that happened, by layer and name; a layer without any is `none`."""
    lines = []
    for layer, names in books["dropped"].items():
        found = [f"{number(count)} {name.replace('_', ' ')}" for name, count in names.items() if count]
        lines.append((f"  {layer.replace('_', ' ')}", ", ".join(found) or "none"))
    return lines


def partly_lines(books: dict[str, Any]) -> list[tuple[str, str]]:
    """What one of several reporters lost and another one took."""
    partly = {name: count for name, count in books.get("partly", {}).items() if count}
    if not partly:
        return []
    found = ", ".join(f"{number(count)} by {clean(name)}" for name, count in partly.items())
    return [("lost by one", f"{WARNING} {found} (reported: at least one other reporter took them)")]


def ring_lines(task: dict[str, Any]) -> list[tuple[str, str]]:
    """The rings of a live task as the kernel granted them, and how packets are spread over them."""
    ring = task.get("ring")
    if not ring:
        return []
    size = f"{ring['ring_mb']:g} MiB each: {ring['blocks']} blocks of {ring['block_kb']} KiB"
    group = f"group {ring['fanout_group']}" if ring["fanout_group"] is not None else "a single ring, no group"
    cpus = ", ".join(map(str, ring["cpus"]))
    return [
        ("ring", f"{size}, {ring['retire_ms']} ms at most; {number(ring['snaplen'])} octets of a packet"),
        ("fanout", f"{ring['fanout_mode']}, {group}{'; CPU ' if cpus else ''}{cpus}"),
    ]


def lost_before_lines(task: dict[str, Any]) -> list[tuple[str, str]]:
    """What was lost before any ring, which is not in the books."""
    lost = task.get("lost_before")
    if not lost or task.get("ring") is None:
        return []
    nic = [(name.replace("rx_", ""), lost[name]) for name in ("rx_dropped", "rx_missed", "rx_fifo")]
    words = ", ".join(f"{number(count)} {name}" for name, count in nic)
    sign = f"{WARNING} " if any(lost.values()) else ""
    host = f"backlog of the host {number(lost['softnet'])}"
    return [("before", f"{sign}interface {words}; {host} (not in the books)")]


def trouble_lines(task: dict[str, Any]) -> list[tuple[str, str]]:
    """What a person must know of a task that runs: its interface is away, calls were lost."""
    lines = []
    if task.get("link"):
        lines.append(("link", f"{WARNING} {clean(task['interface'])} is {task['link']}"))
    lines += [("trouble", f"{WARNING} {clean(text)}") for text in task.get("troubles", ())]
    restarts = task.get("calls_restarts")
    if restarts:
        lines.append(
            ("calls", f"{WARNING} {lost_calls(task['lost_calls'], task['calls_restarted'], restarts)}")
        )
    return lines


def lost_calls(lost: int | None, when_ns: int | None, restarts: int) -> str:
    """What a killed calls process took along, in words."""
    again = f", restart {restarts}" if restarts > 1 else ""
    text = f"{number(lost)} calls were lost when the calls process was restarted"
    return f"{text} at {clock(when_ns)}{again}"


def books_lines(books: dict[str, Any]) -> list[tuple[str, str]]:
    """The ledger of a task."""
    even = "even" if books["even"] else f"off by {number(books['difference'])}"
    return [
        ("captured", number(books["captured"] if books["captured"] is not None else books["received"])),
        ("reported", f"{number(books['reported'])} (taken by at least one reporter)"),
        ("handled", f"{number(books['handled'])} (used for calls and figures, nothing to report)"),
        ("in flight", number(books["in_flight"])),
        ("dropped", ""),
        *drop_lines(books),
        *partly_lines(books),
        ("books", even),
    ]


def check_device(device: str | None) -> None:
    """Refuse `-d ""`, which a variable that is not set leaves; without -d it is another matter."""
    if device is not None and not device.strip():
        raise UsageError("-d: no interface is named", "a name, several with commas, or any")
