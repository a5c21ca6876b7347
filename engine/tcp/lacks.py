"""What looks with inet_diag and the kernel's own counters cannot see: metric -> why, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.tcp.filters import narrows
from engine.tcp.inet_diag import told

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.tcp.backend import Filters, Triggers

_EVENTS = {
    "rtt_above": ("rtt_above_us", "rtt"), "rtt_jump": ("rtt_jump", "rtt"), "rtt_p99": ("rtt_p99", "rtt"),
    "retransmit_burst": ("retransmit_burst", "retransmits"), "rto": ("rto", "retransmits"),
    "tlp": ("tlp", "retransmits"), "cwnd_drop": ("cwnd_halved_s", "cwnd"),
    "pacing_zero": ("pacing_zero", "pacing"), "zero_window": ("zero_window", "zero_window_received"),
    "backlog_overflow": ("backlog_overflow", "listen"), "reset": ("resets", "resets.received"),
    "reset_rate": ("reset_rate", "resets"), "drop": ("drops", "drops"),
}  # fmt: skip
"""Trigger -> its field in Triggers, and the metric without which there are none."""

_POLLED = "inet_diag is asked now and then: "
_ALWAYS = {
    "handshake_client": _POLLED + "handshakes are not seen (the libbpf backend has them)",
    "handshake_server": _POLLED + "handshakes are not seen (the libbpf backend has them)",
    "tlp_new_data": "the kernel counts loss probes with and without new data together",
    "transitions": _POLLED + "changes of state in between are not seen",
    "dwell": _POLLED + "changes of state in between are not seen",
    "resets.received": "the kernel has no counter of them",
    "reset_reasons": "the kernel has no counters of them",
    "drops": "the kernel's kfree_skb tracepoint is needed (libbpf backend, Linux 5.17)",
    "drop_reasons": "the kernel's kfree_skb tracepoint is needed (libbpf backend, Linux 5.17)",
    "retransmits.events": "the kernel counts segments, not events",
    "retransmits.synack": "counted with syn: the kernel has one counter of both",
    "retransmits.window_probe": "the kernel has no counter of them",
    "retransmits.other": "the kernel has no counter of them",
    "retransmits.tlp_per_connection": "inet_diag does not tell loss probes of a connection",
    "zero_window_received.short": _POLLED + "a window that closes and opens in between is not seen",
    "zero_window_sent.seconds": _POLLED + "only the time of closures that a look has met",
}
_FILTERED = dict.fromkeys(
    ("retransmits.syn", "retransmits.tlp", "retransmits.fast", "retransmits.slow_start", "resets"),
    "with a filter the kernel's counters, which are those of the whole namespace, cannot be used",
)
_OWNER_UNKNOWN = (
    "of a socket that is gone neither process nor cgroup is told: with --pid or --cgroup a connection that "
    "no look has met is not seen"
)
_UNFILTERED = {
    "retransmits.rto.servers": "a SYN-ACK that is sent again for a repeated SYN is taken for one that timed "
    "out: so many rto fewer are told than there were",
}
_NO_TIMEOUTS = "struct tcp_info has no count of timeouts (it does since Linux 6.7)"
NO_WINDOW = "struct tcp_info does not tell this side's window (it does since Linux 6.2)"
_NO_EVENTS = {
    "tlp": "inet_diag does not tell loss probes",
    "reset": "inet_diag does not tell resets",
    "drop": "inet_diag does not tell drops",
}
"""Trigger -> why looks find none."""


def of_looks(filters: Filters, triggers: Triggers) -> dict[str, str]:
    """What is off, by what is asked for and what this kernel's tcp_info has."""
    narrowed, known = narrows(filters), told()
    found = {**_ALWAYS, **(_FILTERED if narrowed else _UNFILTERED)}
    if filters.pids or filters.cgroup:
        found["throughput.short"] = _OWNER_UNKNOWN
    if "total_rto" not in known:
        # Without a filter the namespace's own counter has them.
        if narrowed:
            found["retransmits.rto"] = _NO_TIMEOUTS
        if triggers.rto:
            found["events.rto"] = _NO_TIMEOUTS
    if "rcv_wnd" not in known:
        found["zero_window_sent.seconds"] = NO_WINDOW
        if narrowed:
            found["zero_window_sent"] = NO_WINDOW
    for name, asked in (("tlp", triggers.tlp), ("reset", triggers.resets), ("drop", triggers.drops)):
        if asked:
            found[f"events.{name}"] = _NO_EVENTS[name]
    return found


def events(triggers: Triggers, off: Mapping[str, str]) -> list[str]:
    """Of the triggers that are asked for, those that nothing will set off here: a line each."""
    found = []
    for name, (field, metric) in _EVENTS.items():
        why = off.get(f"events.{name}") or off.get(metric)
        if why and getattr(triggers, field) not in (None, False):
            found.append(f"no events of {name}: {why}")
    return found
