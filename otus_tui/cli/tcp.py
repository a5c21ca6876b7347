"""`otus-tui tcp`: what the kernel's TCP does, for a while or until interrupted."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, TypeVar

import click

from otus_tui.cli.common import octets, table

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.tcp.backend import Backend, Plan
    from engine.tcp.options import Options

EXAMPLES = """\b
Example:
  sudo otus-tui tcp --mode both --interval 1 --duration 10
  sudo otus-tui tcp --lport 443 --rtt-above 200ms --mode detail
  sudo otus-tui tcp --format jsonl | jq '.retransmits.by_class.rto'
  sudo otus-tui tcp --format prometheus --output /var/lib/otus.prom
  otus-tui tcp --backend netlink    without root and without eBPF
  otus-tui tcp --dry-run            what would be loaded, and the C of it
"""
_Command = TypeVar("_Command", bound="Callable[..., Any]")


def _flag(name: str, default: str, about: str) -> Callable[[_Command], _Command]:
    return click.option(f"--{name}/--no-{name}", default=None, help=f"Event: {about} ({default}).")


@click.command(epilog=EXAMPLES)
@click.option("--mode", metavar="MODE", help="summary, detail (events) or both (summary).")
@click.option("--interval", metavar="S", help="Seconds between two summaries (1).")
@click.option("--duration", metavar="S", help="End after so long: 60, 10m (when interrupted).")
@click.option("--window", metavar="S,...", help="Lengths of the windows shown: 1,10,60 (the interval).")
@click.option("--iface", metavar="IF", help="Only connections over this interface.")
@click.option("--lport", metavar="PORTS", help="Local ports: 443, 80,443, 8000-8100, https.")
@click.option("--rport", metavar="PORTS", help="Remote ports.")
@click.option("--laddr", metavar="NET", help="Local addresses: 10.0.0.7, 10.0.0.0/8, 2001:db8::/32.")
@click.option("--raddr", metavar="NET", help="Remote addresses.")
@click.option("--pid", metavar="PID,...", help="Only sockets of these processes.")
@click.option("--cgroup", metavar="PATH", help="Only sockets of this cgroup v2 (path, inode) and below.")
@click.option("--netns", metavar="NS", help="Network namespace: name, pid, path, or all (the own one).")
@click.option("--mask", metavar="WHAT", help="Hide none, ports, addresses or all (none).")
@click.option("--format", metavar="FORMAT", help="text, json, jsonl or prometheus (text).")
@click.option("--output", metavar="FILE", help="Where summaries go (- for standard output).")
@click.option("--events", metavar="FILE", help="Where events go, as JSON Lines (- for standard output).")
@click.option("--rtt-above", metavar="T", help="Event: RTT above 200ms (off).")
@click.option("--rtt-jump", metavar="Nx", help="Event: RTT so many times the connection's own: 3x (off).")
@click.option("--rtt-p99", is_flag=True, default=None, help="Event: RTT above the p99 of the last window.")
@click.option("--retrans-burst", metavar="N/s", help="Event: so many segments sent again in a second (off).")
@_flag("rto", "on", "a retransmission timeout")
@_flag("tlp", "on", "a tail loss probe")
@click.option(
    "--cwnd-halved", metavar="S", help="Event: cwnd at half its largest of the last S seconds (off)."
)
@_flag("pacing-zero", "on", "pacing rate 0")
@_flag("zero-window", "on", "a window is closed")
@_flag("backlog-overflow", "on", "a listening socket turns away")
@_flag("resets", "off", "each reset")
@click.option("--reset-rate", metavar="N/s", help="Event: so many resets a second (off).")
@_flag("drops", "off", "each packet that the kernel drops")
@click.option("--max-events", metavar="N/s", help="At most so many events a second (200/s).")
@click.option("--sample", metavar="1/N", help="Events of one of N flows only (1/1).")
@click.option("--top-flows", metavar="K", help="Events of the K flows with most triggers only (all).")
@click.option("--first", metavar="N", help="The first N events of each flow only (all).")
@click.option("--last", metavar="N", help="And the last N, when it ends.")
@click.option("--max-cpu", metavar="P%", help="Above this share of one CPU look less often (no bound).")
@click.option("--sockets", metavar="N", help="Entries of the tables of sockets (16384).")
@click.option("--ring", metavar="SIZE", help="Ring buffer of events (256K).")
@click.option("--sub-bits", metavar="B", help="2^B buckets for each power of two; error 1/2^B (3).")
@click.option("--backend", metavar="NAME", help="auto, libbpf, bcc or netlink (auto).")
@click.option("--dry-run", is_flag=True, help="Print programs, hooks, maps, memory and the C; load nothing.")
@click.option("--stats", is_flag=True, default=None, help="Cost of each program, in the last summary.")
@click.option("--verbose", is_flag=True, default=None, help="Each program with the reason why it is off.")
def command(dry_run: bool, **words: Any) -> int:
    """Watch the kernel's TCP: RTT, handshakes, retransmits by class, throughput, states, queues, drops.

    A summary each interval and one of the whole run at the end, also when interrupted; events as JSON Lines
    when something is wrong. Sees the network namespace that it starts in. What this kernel cannot measure is
    unknown (`·`, null), with the reason.
    """
    from engine.tcp import options

    made = options.make(**words)
    if dry_run:
        _print_plan(made)
        return 0
    from engine.tcp import run

    return int(run.run(made))


def _print_plan(made: Options) -> None:
    """What would be loaded; needs no root."""
    from engine.errors import OtusError
    from engine.tcp import choose

    names = choose.ORDER if made.backend == "auto" else (made.backend,)
    for place, name in enumerate(names):
        try:
            backend = choose.construct(name, made)
            plan = backend.plan()
        except OtusError as error:
            if place == len(names) - 1:
                raise
            click.echo(f"{name}: {error.message}", err=True)
            continue
        _print_programs(backend, plan)
        return


def _print_programs(backend: Backend, plan: Plan) -> None:
    click.echo(f"backend {backend.name}; nothing is loaded\n")
    names = max(len(one.name) for one in plan.programs)
    for one in plan.programs:
        click.echo(f"{'on ' if one.on else 'off'}  {one.name:{names}}  {one.hook}")
        for line in textwrap.wrap(one.why or ", ".join(one.metrics), 74, break_on_hyphens=False):
            click.echo(f"     {line}")
    if plan.maps:
        click.echo()
        maps = [(one.name, one.kind, f"{one.entries:,}", octets(one.octets)) for one in plan.maps]
        table(maps, ("map", "kind", "entries", "memory"), right=(2, 3))
        click.echo(f"\nmemory of all maps: {octets(sum(one.octets for one in plan.maps))}")
    if backend.off:
        click.echo()
        for metric, why in backend.off.items():
            click.echo(f"not measured: {metric}: {why}")
    if plan.source:
        click.echo(f"\n{plan.source.rstrip()}")
