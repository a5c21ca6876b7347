"""The table of programs: what each hooks, which metrics die with it, and what its kernel must have.

`choose` decides from the kernel's BTF alone, never from its version. bpf/README.md is this table for people,
and a test holds the two together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class KernelTypes(Protocol):
    """What a kernel's BTF is asked for."""

    def arguments(self, tracepoint: str) -> int | None:
        """How many arguments the tracepoint has; None: there is no such tracepoint."""

    def has_function(self, name: str) -> bool:
        """Whether the kernel has a function of this name."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the object."""

    name: str
    kind: str
    """tp_btf, raw_tp or iter."""
    hook: str
    """Tracepoint or iterator."""
    arguments: int
    """That the tracepoint must have; 0 for an iterator."""
    metrics: tuple[str, ...]
    """Keys of Backend.off that are off without it; parts after a dot."""
    since: str
    """First upstream release whose kernel has it so."""
    substitute: str
    """What there is without it."""
    lacks: tuple[tuple[str, str], ...] = ()
    """(metric, why) that is off although it runs: what a later form of the tracepoint adds."""
    only_for_pids: bool = False

    @property
    def section(self) -> str:
        """As in the object, and as people write it."""
        return f"{self.kind}/{self.hook}"


_NO_RESET_REASON = (
    "reset_reasons",
    "the tracepoint tcp_send_reset gives no reason (it does since Linux 6.10)",
)

_NO_SOCKET = ("resets.no_socket", "before Linux 6.10 resets to packets without a socket raise no tracepoint")
_NO_DROP_SOCKET = (
    "drops.socket",
    "the tracepoint kfree_skb names no receiving socket (it does since Linux 6.11): the packet's headers say "
    "whose it was",
)

PROGRAMS = (
    Program("segment", "tp_btf", "tcp_probe", 2,
            ("rtt", "rttvar", "tlp_new_data", "zero_window_received", "zero_window_sent"),
            "4.16", "RTT at each look (inet_diag)"),
    Program("retransmit_2", "tp_btf", "tcp_retransmit_skb", 2, ("retransmits",), "4.15",
            "counters of the namespace (nstat)"),
    Program("retransmit_3", "tp_btf", "tcp_retransmit_skb", 3, ("retransmits",), "6.17",
            "retransmit_2 before"),
    Program("retransmit_synack", "tp_btf", "tcp_retransmit_synack", 2, ("retransmits.synack",), "4.15",
            "TcpExtTCPSynRetrans less the class syn"),
    Program("state_change", "tp_btf", "inet_sock_set_state", 3,
            ("handshake_client", "handshake_server", "transitions", "dwell", "retransmits.per_connection",
             "throughput.closed", "process.connect"),
            "4.16", "states at each look"),
    Program("destroy", "tp_btf", "tcp_destroy_sock", 1, ("dwell.forget",), "4.15",
            "the least recently used socket is evicted"),
    Program("reset_received", "tp_btf", "tcp_receive_reset", 1, ("resets.received",), "4.15", "none"),
    Program("reset_sent_2", "raw_tp", "tcp_send_reset", 2, ("resets.sent",), "4.15",
            "TcpOutRsts of the namespace",
            (_NO_RESET_REASON, _NO_SOCKET)),
    Program("reset_sent_3", "raw_tp", "tcp_send_reset", 3, ("resets.sent", "reset_reasons"), "6.10",
            "reset_sent_2 before"),
    Program("drop_2", "raw_tp", "kfree_skb", 2, ("drops",), "2.6.30", "sk_drops of listening sockets",
            (("drop_reasons", "the tracepoint kfree_skb gives no reason (it does since Linux 5.17)"),
             _NO_DROP_SOCKET)),
    Program("drop_3", "raw_tp", "kfree_skb", 3, ("drops", "drop_reasons"), "5.17", "drop_2 before",
            (_NO_DROP_SOCKET,)),
    Program("drop_4", "raw_tp", "kfree_skb", 4, ("drops", "drop_reasons"), "6.11", "drop_3 before"),
    Program("sample", "iter", "tcp", 0,
            ("cwnd", "ssthresh", "pacing", "send_queue", "unsent_queue", "receive_queue", "throughput",
             "listen"),
            "5.9", "inet_diag (--backend netlink)"),
    Program("io_send", "tp_btf", "sock_send_length", 3, ("process.io",), "6.3",
            "the process that called connect() or listen()", only_for_pids=True),
    Program("io_receive", "tp_btf", "sock_recv_length", 3, ("process.io",), "6.3",
            "the process that called connect() or listen()", only_for_pids=True),
)  # fmt: skip


@dataclass(slots=True)
class Choice:
    """Which programs of the table a kernel gets."""

    on: list[Program]
    why: dict[str, str]
    """Program -> why it is not loaded."""
    off: dict[str, str]
    """Metric -> why."""


def choose(kernel: KernelTypes, *, pids: bool, refused: Mapping[str, str] | None = None) -> Choice:
    """The programs that this kernel can run. refused: those that its verifier did not take, and why."""
    refused = refused or {}
    choice = Choice([], {}, {})
    hooks: dict[str, list[Program]] = {}
    for program in PROGRAMS:
        hooks.setdefault(program.section, []).append(program)
    for variants in hooks.values():
        _choose_variant(kernel, variants, choice, pids, refused)
    given = {metric for program in choice.on for metric in program.metrics}
    choice.off = {metric: why for metric, why in choice.off.items() if metric not in given}
    return choice


def _choose_variant(
    kernel: KernelTypes, variants: Sequence[Program], choice: Choice, pids: bool, refused: Mapping[str, str]
) -> None:
    first = variants[0]
    if first.kind == "iter":
        have = 0 if kernel.has_function(f"bpf_iter_{first.hook}") else None
    else:
        have = kernel.arguments(first.hook)
    for program in variants:
        if program.only_for_pids and not pids:
            choice.why[program.name] = "only loaded to watch processes (--pid)"
            continue
        if have is None:
            what = "iterator" if first.kind == "iter" else "tracepoint"
            choice.why[program.name] = f"this kernel has no {what} {first.hook} (Linux {first.since})"
        elif program.arguments != have:
            known = " or ".join(str(one.arguments) for one in variants)
            choice.why[program.name] = f"the tracepoint {first.hook} has {have} arguments here, not " + (
                str(program.arguments) if have in {one.arguments for one in variants} else known
            )
        elif program.name in refused:
            choice.why[program.name] = refused[program.name]
        else:
            choice.on.append(program)
            choice.off.update(program.lacks)
            continue
        if not any(one.arguments == have for one in variants) or program.name in refused:
            for metric in program.metrics:
                choice.off.setdefault(metric, choice.why[program.name])
