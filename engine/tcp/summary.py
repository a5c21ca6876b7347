"""The summary of a window as one JSON object; what is unknown is null, and `off` says why.

Schema: docs/schemas/tcp-summary.json. Text and Prometheus are made of this object, so that all three say the
same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from engine.tcp import histogram
from engine.tcp.backend import RETRANSMIT_CLASSES
from engine.tcp.events import timestamp
from engine.tcp.listen import parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.tcp.backend import Histogram, Listener, Reading
    from engine.tcp.mask import Mask
    from engine.tcp.windows import Window

OCTET = 8
_QUANTILES = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
KERNEL = (
    "TcpRetransSegs", "TcpExtTCPTimeouts", "TcpExtTCPLossProbes", "TcpExtTCPFastRetrans",
    "TcpExtTCPSlowStartRetrans", "TcpExtTCPSynRetrans", "TcpExtListenDrops", "TcpExtListenOverflows",
    "TcpExtTCPToZeroWindowAdv", "TcpOutRsts",
)  # fmt: skip
"""The kernel's own counters that stand beside: those of the namespaces as a whole, whatever the filters."""


def document(
    window: Window,
    *,
    backend: str,
    netns: int | str,
    off: Mapping[str, str],
    listeners: Sequence[Listener],
    sub_bits: int,
    mask: Mask,
    final: bool = False,
    sampling: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The object of one window. listeners: those of its end, and those that were closed in it."""
    reading = window.reading
    counters = reading.counters

    def hist(name: str, metric: str, scale: int = 1) -> dict[str, Any] | None:
        one = None if metric in off else reading.histograms.get(name)
        return None if one is None else histogram_object(one, sub_bits, scale)

    def count(name: str, metric: str) -> int | None:
        return None if metric in off else counters.get(name)

    return {
        "since": timestamp(window.since_ns),
        "until": timestamp(window.until_ns),
        "window_s": round(window.seconds, 6),
        "final": final,
        "backend": backend,
        "netns": netns,
        "off": dict(off),
        "rtt_us": hist("rtt_us", "rtt"),
        "rttvar_us": hist("rttvar_us", "rttvar"),
        "handshake_us": {
            "client": hist("handshake_client_us", "handshake_client"),
            "server": hist("handshake_server_us", "handshake_server"),
            "failed": count("handshake_client_failed", "handshake_client"),
            "unsampled": count("handshake_server_unsampled", "handshake_server"),
        },
        "retransmits": _retransmits(reading, off, hist, count),
        "throughput_bps": {
            "send": hist("send_bps", "throughput"),
            "receive": hist("receive_bps", "throughput"),
            "send_total": _rate(count("send_bytes", "throughput"), counters.get("throughput_ns")),
            "receive_total": _rate(count("receive_bytes", "throughput"), counters.get("throughput_ns")),
        },
        "cwnd": hist("cwnd", "cwnd"),
        "ssthresh": hist("ssthresh", "ssthresh"),
        "pacing_bps": hist("pacing_bps", "pacing", OCTET),
        "queues": {
            "send_bytes": hist("send_queue_bytes", "send_queue"),
            "unsent_bytes": hist("unsent_queue_bytes", "unsent_queue"),
            "receive_bytes": hist("receive_queue_bytes", "receive_queue"),
        },
        "states": _states(reading, off, sub_bits),
        "zero_window": {
            side: {
                "episodes": count(f"zero_window_{side}", f"zero_window_{side}"),
                "seconds": _seconds(count(f"zero_window_{side}_ns", f"zero_window_{side}")),
            }
            for side in ("received", "sent")
        },
        "listen": None if "listen" in off else [_listener(one, reading, mask) for one in listeners],
        "listen_drops": {
            name: count(f"listen_{name}", "listen") for name in ("drops", "syn_drops", "accept_drops")
        },
        "resets": {
            "sent": count("resets_sent", "resets"),
            "received": count("resets_received", "resets"),
            "by_reason": None if {"resets", "reset_reasons"} & off.keys() else nonzero(reading.resets),
        },
        "drops": _drops(reading, off),
        "events": {
            "emitted": count("events_emitted", "events"),
            "suppressed": None if "events" in off else dict(reading.suppressed),
            "lost": count("events_lost", "events"),
        },
        "tables": {name: counters.get(name) for name in ("sockets_evicted", "closed_lost", "runs_missed")},
        "kernel": {name: reading.kernel[name] for name in KERNEL if name in reading.kernel},
        "sampling": dict(sampling or {}),
        "quantile_error": histogram.error(sub_bits),
    }


def histogram_object(one: Histogram, sub_bits: int, scale: int = 1) -> dict[str, Any]:
    """HIST: count, sum, quantiles, and the buckets that hold something as [upper bound, count]."""
    count = sum(one.buckets)
    buckets = [
        [(histogram.upper_bound(index, sub_bits) + 1) * scale - 1, held]
        for index, held in enumerate(one.buckets)
        if held
    ]
    top = min(buckets[-1][0], one.largest * scale) if buckets else None
    found: dict[str, Any] = {"count": count, "sum": one.total * scale}
    for name, share in _QUANTILES:
        value = histogram.quantile(one.buckets, share, sub_bits, one.largest)
        found[name] = None if value is None else round(value * scale, 1)
    return {**found, "max": top, "buckets": buckets}


def nonzero(counts: Mapping[str, int]) -> dict[str, int]:
    """What happened, the most frequent first."""
    return dict(sorted(((name, n) for name, n in counts.items() if n), key=lambda pair: -pair[1]))


def _retransmits(reading: Reading, off: Mapping[str, str], hist: Any, count: Any) -> dict[str, Any]:
    classes = {
        name: {unit: count(f"retransmit_{name}_{unit}", "retransmits") for unit in ("events", "segments")}
        for name in RETRANSMIT_CLASSES
    }
    totals = {}
    for unit in ("events", "segments"):
        total = count(f"retransmit_{unit}", "retransmits")
        known = [values[unit] for values in classes.values() if values[unit] is not None]
        if total is None and "retransmits.events" not in off and known:
            total = sum(known)
        totals[unit] = total
    return {
        **totals,
        "tlp_new_data": count("tlp_new_data", "tlp_new_data"),
        "by_class": classes,
        "per_connection": hist("retransmits_per_connection", "retransmits"),
        "tlp_per_connection": hist("tlp_per_connection", "retransmits"),
    }


def _states(reading: Reading, off: Mapping[str, str], sub_bits: int) -> dict[str, Any]:
    transitions = {f"{old}>{new}": n for (old, new), n in reading.transitions.items()}
    dwell = {name: histogram_object(one, sub_bits) for name, one in reading.dwell.items() if any(one.buckets)}
    return {
        "transitions": None if "transitions" in off else nonzero(transitions),
        "dwell_us": None if "dwell" in off else dwell,
    }


def _drops(reading: Reading, off: Mapping[str, str]) -> dict[str, Any]:
    if "drops" in off:
        return dict.fromkeys(("total", "by_reason", "by_function", "benign"))
    reasons: dict[str, int] = {}
    functions: dict[str, int] = {}
    for (reason, function), n in reading.drops.items():
        reasons[reason] = reasons.get(reason, 0) + n
        functions[function] = functions.get(function, 0) + n
    named = "drop_reasons" not in off
    return {
        "total": reading.counters.get("drops"),
        "by_reason": nonzero(reasons) if named else None,
        "by_function": nonzero(functions),
        "benign": nonzero(reading.benign) if named else None,
    }


def _listener(one: Listener, reading: Reading, mask: Mask) -> dict[str, Any]:
    drops, syn, accept = parts(reading.listen_drops.get((one.netns, one.local, one.port)))
    return {
        "port": mask.port(one.port),
        "backlog": one.backlog,
        "limit": one.limit,
        "syn_drops": syn,
        "accept_drops": accept,
        "drops": drops,
        "address": mask.address(one.local),
        "netns": one.netns or None,
        "open": not one.closed,
        "sockets": one.sockets,
        "fullest": round(one.fullest, 4),
    }


def _rate(octets: int | None, covered_ns: int | None) -> float | None:
    """Bits a second; unknown where no two looks lie in the window."""
    return None if octets is None or not covered_ns else round(octets * OCTET * 1e9 / covered_ns, 1)


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e9, 6)
