"""A Snapshot as Prometheus metrics.

Units are base units. No label holds an address, a port or a
Call-ID: labels are tasks, workers, interfaces, plugins, reasons, and names from the configuration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from engine.shm.counters import latency_bounds

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from engine.snapshot import Snapshot, TaskSection

PARSED = {
    "sip": ("sip_messages",),
    "rtp": ("rtp_packets",),
    "rtcp": ("rtcp_packets",),
    "plugin": ("output_plugin",),
}
"""Parser -> the counters of a worker that say what it parsed."""
REPORTER_DROPS = ("queue_full", "report_timeout", "report_error")
QUANTILES = (0.5, 0.9, 0.99)
LEAST_BOUND, MOST_BOUND = 1_000, 20_000_000_000
"""Nanoseconds: bounds of the histogram's buckets."""
LOST = ("ring", "worker", "buffer", "report")
"""Layers of the books that are losses."""


class Families:
    """Metric families by name, each made when its first sample comes."""

    def __init__(self) -> None:
        self.found: dict[str, Any] = {}

    def add(self, kind: type[Any], name: str, about: str, labels: Mapping[str, str], value: Any) -> None:
        """One sample; None is unknown and left out."""
        if value is None:
            return
        family = self.found.get(name)
        if family is None:
            family = self.found[name] = kind(name, about, labels=list(labels))
        family.add_metric(list(labels.values()), value)

    def counter(self, name: str, about: str, value: Any, **labels: str) -> None:
        """A count since the task began; `name` without `_total`."""
        self.add(CounterMetricFamily, name, about, labels, value)

    def gauge(self, name: str, about: str, value: Any, **labels: str) -> None:
        """A value now."""
        self.add(GaugeMetricFamily, name, about, labels, value)


def collect(snapshot: Snapshot) -> Iterator[Metric]:
    """All metrics of an engine and its tasks."""
    families = Families()
    engine_metrics(families, snapshot)
    for task in snapshot.get("tasks", []):
        capture_metrics(families, task)
        books_metrics(families, task)
        worker_metrics(families, task)
        pressure_metrics(families, task)
        reporter_metrics(families, task)
        plugin_metrics(families, task)
        latency_metrics(families, task)
    yield from families.found.values()


def engine_metrics(families: Families, snapshot: Snapshot) -> None:
    """The process and its children."""
    engine = snapshot["engine"]
    families.gauge(
        "otus_build_info", "The engine that runs.", 1,
        version=engine["version"], compiled=str(engine["compiled"]).lower(),
    )  # fmt: skip
    families.gauge("otus_uptime_seconds", "Since the engine began.", engine["uptime_s"])
    families.counter("otus_cpu_seconds", "CPU time of the engine and its processes.", engine["cpu_s"])
    ratio = engine["cpu_s"] / engine["uptime_s"] if engine["uptime_s"] > 0 else 0.0
    families.gauge(
        "otus_cpu_usage_ratio",
        "CPU time by time since the engine began, 1 is one CPU; for now: rate(otus_cpu_seconds_total[1m]).",
        ratio,
    )
    if engine["memory_bytes"] is not None:
        families.gauge(
            "otus_memory_usage_bytes",
            "Resident memory of the engine and its processes; what they share counts once (PSS).",
            engine["memory_bytes"],
        )
    families.gauge("otus_clients", "Connections to the control socket.", engine["clients"])
    sip, media = snapshot.get("sip"), snapshot.get("media")
    if sip:
        families.gauge("otus_calls", "Calls that are held.", sip["calls"])
        families.gauge("otus_calls_active", "Calls that have not ended.", sip["active"])
    if media:
        families.gauge("otus_media_streams", "Media streams that are held.", media["streams"])
        families.gauge("otus_media_streams_active", "Media streams with packets now.", media["active"])


def capture_metrics(families: Families, task: TaskSection) -> None:
    """The packets of a task, and what its interface lost."""
    name, interface = task["task_id"], task["interface"] or "file"
    labels = {"task": name, "interface": interface}
    books, workers = task["books"], task["workers"]
    captured = books["received"] if books["captured"] is None else books["captured"]
    families.counter(
        "otus_packets_captured", "Packets that matched the filter, lost ones included.", captured, **labels
    )
    families.counter("otus_packets_received", "Packets delivered to workers.", books["received"], **labels)
    lost = sum(sum(books["dropped"].get(layer, {}).values()) for layer in LOST)
    families.counter(
        "otus_packets_dropped", "Packets lost in any layer, none of it on purpose.", lost, **labels
    )
    octets = sum(worker["counters"].get("wire_bytes", 0) for worker in workers)
    families.counter("otus_bytes_captured", "Octets of the packets delivered to workers.", octets, **labels)
    by_interface: dict[str, int] = {}
    for ring in task["capture"]:
        if ring["ring_drops"] is not None:
            by_interface[ring["interface"]] = by_interface.get(ring["interface"], 0) + ring["ring_drops"]
    for interface, drops in by_interface.items():
        families.counter(
            "otus_capture_kernel_drops",
            "Packets that found the kernel's ring full.",
            drops,
            interface=interface,
        )
    before = task.get("lost_before") or {}
    for reason, missed in before.items():
        families.counter(
            "otus_capture_lost_before", "Lost before any ring since the task began.", missed,
            task=name, reason=reason,
        )  # fmt: skip


def books_metrics(families: Families, task: TaskSection) -> None:
    """Where the packets ended."""
    name, books = task["task_id"], task["books"]
    for layer, reasons in books["dropped"].items():
        if layer in LOST:
            for reason, packets in reasons.items():
                families.counter(
                    "otus_packets_lost", "Packets lost, by layer and reason.", packets,
                    task=name, layer=layer, reason=reason,
                )  # fmt: skip
        else:
            for reason, packets in reasons.items():
                families.counter(
                    "otus_packets_left_out", "Packets not reported on purpose.", packets,
                    task=name, reason=reason,
                )  # fmt: skip
    for rule in task["rules"]:
        families.counter(
            "otus_packets_filtered", "Packets that a rule of the processors decided, to drop or to pass.",
            rule["packets"], task=name, reason=rule["rule"],
        )  # fmt: skip
    families.counter(
        "otus_packets_handled", "Packets used for calls, media and figures, without output.",
        books["handled"], task=name,
    )  # fmt: skip
    families.gauge("otus_packets_in_flight", "Packets in send buffers.", books["in_flight"], task=name)
    families.gauge(
        "otus_books_difference",
        "Packets by which the books are off; always 0.",
        books["difference"],
        task=name,
    )


def worker_metrics(families: Families, task: TaskSection) -> None:
    """What the workers made of the packets, and how they are."""
    name = task["task_id"]
    for parser, counters in PARSED.items():
        packets = sum(
            worker["counters"].get(counter, 0) for worker in task["workers"] for counter in counters
        )
        families.counter("otus_packets_parsed", "Packets by parser.", packets, task=name, parser=parser)
    for reason in ("plugin_errors", "labels_refused"):
        count = sum(worker["counters"].get(reason, 0) for worker in task["workers"])
        # Those of the sender's processors stand beside each of its reporters.
        count += max((one.get(reason, 0) for one in task["reporters"]), default=0)
        families.counter(
            f"otus_{reason}",
            "Exceptions of plugins." if reason == "plugin_errors" else "Labels of plugins with a bad key.",
            count,
            task=name,
        )
    for worker in task["workers"]:
        labels = {"task": name, "pipeline": str(worker["index"])}
        families.counter("otus_worker_restarts", "Times that it was replaced.", worker["restarts"], **labels)
        families.counter("otus_worker_cpu_seconds", "CPU time of a worker.", worker["cpu_s"], **labels)
        families.gauge(
            "otus_worker_heartbeat_age_seconds", "Since its last sign of life.",
            worker["heartbeat_age_s"], **labels,
        )  # fmt: skip
        families.counter(
            "otus_pipeline_channel_drops", "Packets in ring blocks that a lagging worker skipped.",
            worker["counters"].get("skipped"), **labels,
        )  # fmt: skip
    for number, ring in enumerate(task["capture"]):
        if ring["blocks_waiting"] is not None and ring["blocks_total"]:
            families.gauge(
                "otus_pipeline_channel_usage_ratio", "Ring blocks that wait for the worker, by all of them.",
                ring["blocks_waiting"] / ring["blocks_total"], task=name, pipeline=str(number),
            )  # fmt: skip


def pressure_metrics(families: Families, task: TaskSection) -> None:
    """The send buffer and what reporters lost."""
    name, dropped, buffer = task["task_id"], task["books"]["dropped"], task["send_buffer"]
    report = dropped.get("report", {})
    heads = dropped.get("buffer", {}).get("send_ring", 0) + report.get("queue_full", 0)
    families.counter(
        "otus_sender_buffer_drops", "The oldest packets in a full send ring or reporter's queue.",
        heads, task=name,
    )  # fmt: skip
    families.counter(
        "otus_reporter_timeout_drops", "Packets that no reporter took in time.",
        report.get("report_timeout", 0), task=name,
    )  # fmt: skip
    families.counter(
        "otus_reporter_error_drops", "Packets that no reporter could send.",
        report.get("report_error", 0), task=name,
    )  # fmt: skip
    rate = buffer["sample_rate"] if buffer else 1.0
    families.gauge(
        "otus_backpressure_sample_rate", "Share of the media conversations that is reported; 1 is all.",
        rate, task=name,
    )  # fmt: skip
    if buffer:
        families.gauge(
            "otus_sender_buffer_usage_ratio", "The fullest of the send rings and reporters' queues.",
            buffer["usage"], task=name,
        )  # fmt: skip


def reporter_metrics(families: Families, task: TaskSection) -> None:
    """Each reporter; several of one type get numbers: file, file 2."""
    seen: dict[str, int] = {}
    for one in task["reporters"]:
        kind = str(one["type"])
        seen[kind] = seen.get(kind, 0) + 1
        reporter = kind if seen[kind] == 1 else f"{kind} {seen[kind]}"
        labels = {"task": task["task_id"], "reporter": reporter}
        families.counter("otus_packets_reported", "Packets that a reporter took.", one["accepted"], **labels)
        for reason in REPORTER_DROPS:
            families.counter(
                "otus_reporter_drops",
                "Packets that this reporter lost.",
                one[reason],
                reason=reason,
                **labels,
            )
        families.counter("otus_reporter_batches", "Calls of a reporter.", one["batches"], **labels)
        families.counter(
            "otus_reporter_failures", "Calls of a reporter that failed.", one["failures"], **labels
        )
        families.gauge("otus_reporter_queue_packets", "Packets that wait for it.", one["queued"], **labels)
        if one.get("capacity"):
            families.gauge(
                "otus_reporter_queue_usage_ratio", "How full its queue is.",
                one["queued"] / one["capacity"], **labels,
            )  # fmt: skip
        status = "failing" if one["problem"] else "healthy"
        health = {"name": reporter, "status": status}
        families.add(GaugeMetricFamily, "otus_plugin_health", "1 where this is how the plugin is.", health, 1)


def plugin_metrics(families: Families, task: TaskSection) -> None:
    """What the task runs."""
    for plugin in task["plugins"]:
        families.add(GaugeMetricFamily, "otus_plugin_loaded", "Plugins of the task.", plugin, 1)


def latency_metrics(families: Families, task: TaskSection) -> None:
    """Block handed to the worker -> records in the send buffer; each block counts once, known within 25 %."""
    columns = zip(*(worker["latency_buckets"] for worker in task["workers"]), strict=True)
    counts = [sum(column) for column in columns]
    total = sum(counts)
    if not total:
        return
    about = "From a block handed to the worker to its records in the send buffer, since the task began."
    summary = families.found.setdefault(
        "otus_processing_latency_seconds", Metric("otus_processing_latency_seconds", about, "summary")
    )
    name = task["task_id"]
    for quantile in QUANTILES:
        labels = {"task": name, "quantile": f"{quantile:g}"}
        summary.add_sample("otus_processing_latency_seconds", labels, quantile_of(counts, quantile))
    histogram = families.found.setdefault(
        "otus_block_latency_seconds",
        HistogramMetricFamily("otus_block_latency_seconds", about, labels=["task"]),
    )
    buckets, seen = [], 0
    for number, count in enumerate(counts):
        seen += count
        if number % 8 == 7 and LEAST_BOUND < latency_bounds(number) < MOST_BOUND:
            buckets.append((f"{latency_bounds(number) / 1e9:.9g}", float(seen)))
    seconds = sum(count * latency_bounds(number) for number, count in enumerate(counts)) / 1e9
    histogram.add_metric([name], [*buckets, ("+Inf", float(total))], sum_value=seconds)


def quantile_of(counts: Sequence[int], quantile: float) -> float:
    """Seconds within which a share of the blocks was done: the upper bound of its bucket."""
    wanted, seen = quantile * sum(counts), 0
    for number, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return latency_bounds(number) / 1e9
    return 0.0
