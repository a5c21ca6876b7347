"""The summary since the start as Prometheus metrics `otus_tcp_*`.

Base units, classic histograms of at most 20 buckets, and no label with an address or a port. `families()` is
for a collector (engine.telemetry), `text()` the exposition of one run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client.metrics_core import Metric

MOST_REASONS = 100
"""Values of a label `reason`, `function` or `transition`; the rarest are left out."""
_TIMES = [2**power for power in range(4, 23)]
"""Microseconds: 16 us to 4.2 s."""
_SIZES = [4**power for power in range(4, 17)]
_COUNTS = [2**power for power in range(15)]
_RATES = [4**power for power in range(5, 20)]

_HISTOGRAMS = (
    ("rtt_us", "rtt_seconds", "Smoothed round-trip time.", _TIMES, 1e6),
    ("rttvar_us", "rtt_variation_seconds", "Variation of the round-trip time (RTTVAR).", _TIMES, 1e6),
    ("handshake_us.client", "handshake_client_seconds", "connect() to ESTABLISHED.", _TIMES, 1e6),
    ("handshake_us.server", "handshake_server_seconds", "SYN-ACK to final ACK.", _TIMES, 1e6),
    ("retransmits.per_connection", "connection_retransmitted_segments",
     "Segments sent again by connections that ended.", _COUNTS, 1),
    ("retransmits.tlp_per_connection", "connection_tail_loss_probes",
     "Tail loss probes of connections that ended.", _COUNTS, 1),
    ("throughput_bps.send", "send_bytes_per_second", "Rate of a connection, acknowledged.", _RATES, 8),
    ("throughput_bps.receive", "receive_bytes_per_second", "Rate of a connection, received.", _RATES, 8),
    ("cwnd", "congestion_window_segments", "Congestion window, sampled.", _COUNTS, 1),
    ("ssthresh", "slow_start_threshold_segments", "Slow start threshold, where it is set.", _COUNTS, 1),
    ("pacing_bps", "pacing_bytes_per_second", "Pacing rate, sampled where it is limited.", _RATES, 8),
    ("queues.send_bytes", "send_queue_bytes", "Octets not acknowledged, sampled.", _SIZES, 1),
    ("queues.unsent_bytes", "unsent_queue_bytes", "Octets written and not sent, sampled.", _SIZES, 1),
    ("queues.receive_bytes", "receive_queue_bytes", "Octets received and not read, sampled.", _SIZES, 1),
)  # fmt: skip
"""Place in the summary, name, help, bounds in the metric's unit times the divisor where that is exact."""

_COUNTERS = (
    ("handshake_us.failed", "handshake_client_failures", "Connects that failed."),
    ("handshake_us.unsampled", "handshake_server_unsampled",
     "Handshakes of which no time could be taken, as where a SYN-ACK was sent again."),
    ("retransmits.tlp_new_data", "tail_loss_probes_new_data", "Tail loss probes that carried new data."),
    ("zero_window.received.episodes", "zero_window_received", "Times that a peer closed its window."),
    ("zero_window.received.seconds", "zero_window_received_seconds", "Time with a peer's window closed."),
    ("zero_window.sent.episodes", "zero_window_sent", "Times that this host closed its window."),
    ("zero_window.sent.seconds", "zero_window_sent_seconds", "Time with this host's window closed."),
    ("resets.sent", "resets_sent", "RST segments sent."),
    ("resets.received", "resets_received", "RST segments received."),
    ("events.emitted", "events_emitted", "Detail events given out."),
    ("events.lost", "events_lost", "Detail events lost in the ring."),
    ("tables.sockets_evicted", "sockets_evicted", "Sockets that made room for others in a full table."),
    ("tables.runs_missed", "program_runs_missed", "Runs of eBPF programs that the kernel left out."),
    ("tables.closed_lost", "closed_lost", "Ends of connections for which the ring had no room."),
)  # fmt: skip

_LABELLED = (
    ("states.transitions", "state_transitions", "Changes of state.", "transition"),
    ("resets.by_reason", "resets_by_reason", "Resets by the kernel's reason.", "reason"),
    ("drops.by_reason", "drops", "Packets dropped by the kernel, by its reason.", "reason"),
    ("drops.by_function", "drops_by_function", "Packets dropped by the kernel, by place.", "function"),
    ("drops.benign", "drops_benign", "Drops that are normal life, by reason.", "reason"),
    ("events.suppressed", "events_suppressed", "Detail events that a limit kept back.", "stage"),
    (
        "kernel",
        "kernel_events",
        "The kernel's own counter of the namespaces watched, whatever the filters.",
        "name",
    ),
)


def families(document: dict[str, Any]) -> Iterator[Metric]:
    """Metrics of a summary since the start (`final`, or the section `run` of the snapshot)."""
    info = GaugeMetricFamily("otus_tcp_observer", "The observer runs, with this backend.", labels=["backend"])
    info.add_metric([document["backend"]], 1)
    yield info
    yield from _availability(document["off"])
    for path, name, text, bounds, divisor in _HISTOGRAMS:
        one = _at(document, path)
        if one is not None:
            yield _histogram(name, text, one, bounds, divisor)
    for path, name, text in _COUNTERS:
        value = _at(document, path)
        if value is not None:
            yield CounterMetricFamily(f"otus_tcp_{name}", text, value)
    for path, name, text, label in _LABELLED:
        values = _at(document, path)
        if values is not None:
            family = CounterMetricFamily(f"otus_tcp_{name}", text, labels=[label])
            for key, value in sorted(values.items(), key=lambda pair: -pair[1])[:MOST_REASONS]:
                family.add_metric([key], value)
            yield family
    yield from _classes(document)
    yield from _bytes(document)
    yield from _dwell(document)
    yield from _listen(document)
    sampling = document["sampling"]
    yield GaugeMetricFamily(
        "otus_tcp_look_factor", "Looks at the connections come so many times less often.",
        sampling.get("look_factor", 1),
    )  # fmt: skip
    yield GaugeMetricFamily(
        "otus_tcp_sampling_factor", "Programs of each segment look at one of so many flows.",
        sampling.get("segments_one_of", 1),
    )  # fmt: skip
    share = sampling.get("cpu_percent", 0.0) / 100
    yield GaugeMetricFamily("otus_tcp_observer_cpu_ratio", "Share of one CPU that the observer takes.", share)
    yield GaugeMetricFamily(
        "otus_tcp_observer_start_cpu_seconds", "CPU time of the observer before it began to watch.",
        sampling.get("start_cpu_s", 0.0),
    )  # fmt: skip


def collect(snapshot: Mapping[str, Any]) -> Iterator[Metric]:
    """Metrics of the section `tcp` of a snapshot, while the observer runs."""
    windows = (snapshot.get("tcp") or {}).get("windows")
    if windows:
        yield from families(windows["run"])


def text(document: dict[str, Any]) -> str:
    """The exposition in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(document))
    exposition: bytes = generate_latest(registry)
    return exposition.decode()


class _Collector:
    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        return families(self.document)


def _at(document: dict[str, Any], path: str) -> Any:
    value: Any = document
    for name in path.split("."):
        value = None if value is None else value.get(name)
    return value


def rebucket(buckets: list[list[int]], bounds: list[int], divisor: float) -> list[tuple[str, float]]:
    """Cumulative counts below the bounds and +Inf, out of [upper bound, count] pairs.

    A bound of the metric is `bound / divisor`. Values of the summary are whole numbers: of times and rates
    they are cut off, v stands for v up to v + 1, and so a bucket counts below a bound when all of it does.
    What is whole by nature (divisor 1) has `bound - 1`, because `le` takes in the bound itself.
    """
    found = []
    place = running = 0
    for bound in bounds:
        # Buckets of octets that were turned into bits end at a multiple of eight.
        while place < len(buckets) and buckets[place][0] < bound:
            running += buckets[place][1]
            place += 1
        found.append((repr(float(bound - 1) if divisor == 1 else bound / divisor), float(running)))
    total = running + sum(count for _, count in buckets[place:])
    return [*found, ("+Inf", float(total))]


def _histogram(
    name: str, about: str, one: dict[str, Any], bounds: list[int], divisor: float
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(f"otus_tcp_{name}", about)
    family.add_metric([], rebucket(one["buckets"], bounds, divisor), sum_value=one["sum"] / divisor)
    return family


def _availability(off: dict[str, str]) -> Iterator[Metric]:
    from engine.tcp.backend import METRICS

    family = GaugeMetricFamily(
        "otus_tcp_metric_available", "Whether a metric is measured; if not, why.", labels=["metric", "reason"]
    )
    for metric in (*METRICS, *(name for name in off if name not in METRICS)):
        reason = off.get(metric, "")
        family.add_metric([metric, reason], 0 if reason else 1)
    yield family


def _classes(document: dict[str, Any]) -> Iterator[Metric]:
    for unit in ("events", "segments"):
        family = CounterMetricFamily(
            f"otus_tcp_retransmit_{unit}", f"Retransmitted {unit} by class.", labels=["class"]
        )
        for name, values in document["retransmits"]["by_class"].items():
            if values[unit] is not None:
                family.add_metric([name], values[unit])
        yield family
        total = document["retransmits"][unit]
        if total is not None:
            yield CounterMetricFamily(
                f"otus_tcp_retransmit_all_{unit}", f"Retransmitted {unit} of all classes.", total
            )


def _bytes(document: dict[str, Any]) -> Iterator[Metric]:
    for direction in ("send", "receive"):
        one = document["throughput_bps"][direction]
        octets = document["sampling"].get(f"{direction}_bytes")
        if one is not None and octets is not None:
            yield CounterMetricFamily(
                f"otus_tcp_{direction}_bytes", f"Octets, direction {direction}.", octets
            )


def _dwell(document: dict[str, Any]) -> Iterator[Metric]:
    states = document["states"]["dwell_us"]
    if states is not None:
        family = HistogramMetricFamily("otus_tcp_state_seconds", "Time spent in a state.", labels=["state"])
        for name, one in states.items():
            family.add_metric([name], rebucket(one["buckets"], _DWELL, 1e6), sum_value=one["sum"] / 1e6)
        yield family


_DWELL = [4**power for power in range(2, 20)]


def _listen(document: dict[str, Any]) -> Iterator[Metric]:
    if document["listen"] is None:
        return
    # What is remembered of those that were closed is no state of now.
    rows = [row for row in document["listen"] if row["open"]]
    yield GaugeMetricFamily(
        "otus_tcp_listen_backlog", "Connections that wait to be accepted, all listening sockets.",
        sum(row["backlog"] for row in rows),
    )  # fmt: skip
    fullest = max((row["fullest"] for row in rows), default=0.0)
    yield GaugeMetricFamily(
        "otus_tcp_listen_backlog_ratio", "The fullest accept queue, as a share of its limit.", fullest
    )
    drops = CounterMetricFamily(
        "otus_tcp_listen_drops",
        "Turned away by listening sockets: SYNs, or no room to accept; any where that is not known.",
        labels=["kind"],
    )
    found = document["listen_drops"]
    if found["drops"] is not None:
        drops.add_metric(["syn"], found["syn_drops"])
        drops.add_metric(["accept"], found["accept_drops"])
        drops.add_metric(["any"], found["drops"] - found["syn_drops"] - found["accept_drops"])
    yield drops
