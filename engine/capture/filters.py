"""Capture filters: tcpdump expressions and the structured keys, compiled to classic BPF programs.

Programs are lists of (code, jt, jf, k) as SO_ATTACH_FILTER takes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.capture.cbpf import Program

MIXED = -1
"""In place of a link type: live packets of any interface, each with its own kind of link header."""


def compile_filter(
    expression: str,
    link_type: int = MIXED,
    time_limit: float = 2.0,
    *,
    widen: bool = True,
    snaplen: int = 262144,
) -> Program:
    """Compile a tcpdump expression through libpcap, in a child process.

    Widened by default: fragments pass whatever they hold, and in-band VLAN tags (up to two) are looked
    through. UsageError with libpcap's message and the place; also for names, which libpcap would
    resolve through DNS, for an empty expression, and where libpcap is missing.
    """
    raise NotImplementedError


def structured_filter(
    rules: dict[str, Any], link_type: int = MIXED, *, widen: bool = True, snaplen: int = 262144
) -> Program:
    """Compile the keys `src_ip`, `dst_ip` (prefixes), `ports`, `port_range`, `protocol`; both directions."""
    raise NotImplementedError


def expression_of(rules: dict[str, Any]) -> str:
    """The same filter in tcpdump syntax, for people; `bpf` as it is; empty if everything passes."""
    raise NotImplementedError


def live_program(rules: dict[str, Any], snaplen: int = 262144) -> Program:
    """The program of a task's `filter:` section (plain dict of engine.config.Filter) for open_rings().

    An empty section lets everything pass. Takes 30 ms and up to 2 s: not for an event loop.
    """
    raise NotImplementedError
