"""The Prometheus endpoint: the required names, the format, hostile clients, a port in use."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.shm import counters as layout
from engine.telemetry import collector
from engine.telemetry.endpoint import MOST_HEADER, MOST_WAITING, MetricsEndpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from engine.snapshot import Snapshot

REQUIRED = {
    "otus_packets_captured_total": {"task", "interface"},
    "otus_packets_dropped_total": {"task", "interface"},
    "otus_bytes_captured_total": {"task", "interface"},
    "otus_packets_parsed_total": {"task", "parser"},
    "otus_packets_filtered_total": {"task", "reason"},
    "otus_packets_reported_total": {"task", "reporter"},
    "otus_processing_latency_seconds": {"task", "quantile"},
    "otus_cpu_usage_ratio": set(),
    "otus_memory_usage_bytes": set(),
    "otus_plugin_loaded": {"name", "type"},
    "otus_plugin_health": {"name", "status"},
    "otus_capture_kernel_drops_total": {"interface"},
    "otus_pipeline_channel_drops_total": {"task", "pipeline"},
    "otus_sender_buffer_drops_total": {"task"},
    "otus_reporter_timeout_drops_total": {"task"},
    "otus_reporter_error_drops_total": {"task"},
    "otus_backpressure_sample_rate": {"task"},
    "otus_pipeline_channel_usage_ratio": {"task", "pipeline"},
    "otus_sender_buffer_usage_ratio": {"task"},
}
"""Requirements 8.1 and 5.4.5: names and labels."""


def snapshot() -> Any:
    """A task with two workers, two file reporters and something in every place."""
    counters = dict.fromkeys(layout.NAMES, 0) | {
        "received": 500, "sip_messages": 20, "rtp_packets": 300, "skipped": 4, "wire_bytes": 100_000,
        "plugin_errors": 1,
    }  # fmt: skip
    buckets = [0] * layout.LATENCY_BUCKETS
    buckets[60] = 90
    buckets[80] = 10
    worker = {
        "state": "running", "restarts": 1, "heartbeat_age_s": 0.1, "cpu_s": 1.5, "counters": counters,
        "latency_buckets": buckets,
    }  # fmt: skip
    reporter = {
        "type": "file", "accepted": 700, "queued": 4, "capacity": 8, "queue_full": 5, "report_error": 6,
        "report_timeout": 7, "batches": 3, "failures": 1, "problem": "No space left", "labels_refused": 2,
    }  # fmt: skip
    books = {
        "received": 1000, "captured": 1010, "output": 800, "reported": 700, "handled": 100, "in_flight": 3,
        "difference": 0, "even": True, "partly": {},
        "dropped": {
            "ring": {"kernel_ring": 10}, "worker": {"malformed": 2, "skipped": 8},
            "buffer": {"send_ring": 11, "unsent": 0},
            "report": {"queue_full": 5, "report_error": 6, "report_timeout": 7},
            "left_out": {"unmatched": 40, "sampled": 9},
        },
    }  # fmt: skip
    ring = {"interface": "eth0", "ring_drops": 5, "blocks_waiting": 32, "blocks_total": 128}
    task = {
        "task_id": "voip", "interface": "eth0", "books": books, "workers": [
            {**worker, "index": 0}, {**worker, "index": 1}], "capture": [ring, ring],
        "reporters": [reporter, {**reporter, "problem": ""}],
        "rules": [{"rule": "pings", "packets": 12}], "lost_before": {"softnet": 3, "rx_missed": None},
        "plugins": [{"type": "parser", "name": "sip"}],
        "send_buffer": {"usage": 0.5, "sample_rate": 0.25},
    }  # fmt: skip
    engine = {
        "version": "1", "compiled": True, "uptime_s": 10.0, "cpu_s": 5.0, "memory_bytes": 1 << 20,
        "clients": 1,
    }  # fmt: skip
    return {"engine": engine, "tasks": [task], "sip": {"calls": 3, "active": 1}, "media": None}


async def a_snapshot() -> Snapshot:
    return snapshot()  # type: ignore[no-any-return]


def http(target: str = "/metrics", method: str = "GET", accept: str = "") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\n\r\n".encode()


async def ask(port: int, request: bytes) -> tuple[str, bytes]:
    """(status line and headers, body)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body


def served(work: Callable[[int], Awaitable[Any]], **options: Any) -> Any:
    """Run `work(port)` against an endpoint."""

    async def run() -> Any:
        endpoint = MetricsEndpoint(
            "127.0.0.1:0", options.get("snapshot", a_snapshot), options.get("sources", (collector.collect,))
        )
        assert await endpoint.start()
        try:
            return await work(endpoint.port)
        finally:
            await endpoint.close()

    return asyncio.run(run())


def page() -> str:
    head, body = served(lambda port: ask(port, http()))
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(body)}" in head
    return str(body.decode())


def test_every_required_name_with_its_labels() -> None:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(page()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    assert {name: found.get(name) for name in REQUIRED} == REQUIRED


def test_values() -> None:
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(page())
        for sample in family.samples
    }
    assert values["otus_packets_captured_total", "eth0", "voip"] == 1010
    assert values["otus_packets_dropped_total", "eth0", "voip"] == 10 + 10 + 11 + 18
    assert values["otus_packets_filtered_total", "pings", "voip"] == 12
    assert values["otus_packets_parsed_total", "sip", "voip"] == 40
    assert values["otus_capture_kernel_drops_total", "eth0"] == 10
    assert values["otus_capture_lost_before_total", "softnet", "voip"] == 3
    assert ("otus_capture_lost_before_total", "rx_missed", "voip") not in values
    assert values["otus_pipeline_channel_drops_total", "1", "voip"] == 4
    assert values["otus_pipeline_channel_usage_ratio", "0", "voip"] == 0.25
    assert values["otus_sender_buffer_drops_total", "voip"] == 16
    assert values["otus_reporter_timeout_drops_total", "voip"] == 7
    assert values["otus_reporter_queue_usage_ratio", "file 2", "voip"] == 0.5
    assert values["otus_plugin_health", "failing", "file"] == 1
    assert values["otus_plugin_health", "file 2", "healthy"] == 1
    assert values["otus_backpressure_sample_rate", "voip"] == 0.25
    assert values["otus_labels_refused_total", "voip"] == 2
    assert values["otus_packets_left_out_total", "sampled", "voip"] == 9
    middle, high = (
        values["otus_processing_latency_seconds", quantile, "voip"] for quantile in ("0.5", "0.99")
    )
    assert (middle, high) == (layout.latency_bounds(60) / 1e9, layout.latency_bounds(80) / 1e9)
    assert values["otus_block_latency_seconds_count", "voip"] == 200
    bounds = [
        (float(bound), value)
        for (name, *labels), value in values.items()
        if name == "otus_block_latency_seconds_bucket"
        for bound in labels
        if bound != "voip"
    ]
    assert [value for _, value in sorted(bounds)] == sorted(value for _, value in bounds)


def test_a_task_without_reporters_and_an_engine_without_tasks() -> None:
    quiet = snapshot()
    quiet["tasks"][0].update(reporters=[], send_buffer=None, rules=[], capture=[])
    quiet["tasks"][0]["books"]["captured"] = None
    names = {metric.name for metric in collector.collect(quiet)}
    assert "otus_backpressure_sample_rate" in names
    assert "otus_sender_buffer_usage_ratio" not in names
    assert list(collector.collect({**quiet, "tasks": []}))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian package prometheus)")
def test_promtool_has_nothing_to_say() -> None:
    tool = subprocess.run(
        ["promtool", "check", "metrics"], check=False, input=page(), text=True, capture_output=True
    )
    assert (tool.returncode, tool.stdout, tool.stderr) == (0, "", "")


def test_no_label_of_the_wire() -> None:
    assert not re.search(r'"[^"]*(\d+\.\d+\.\d+\.\d+|@)[^"]*"', page())


def test_openmetrics_where_it_is_asked_for() -> None:
    head, body = served(lambda port: ask(port, http(accept="application/openmetrics-text; version=1.0.0")))
    assert "openmetrics-text" in head
    assert body.endswith(b"# EOF\n")


@pytest.mark.parametrize("kind", ["application/openmetrics-text", "text/plain"])
@pytest.mark.parametrize(
    "version", ["x", "1.x.0", "2.\nSet-Cookie: a", "9" * 5000, "", "=", "\xe9", "0.0.4", "1.0.0; version=x"]
)
def test_any_version_is_answered_in_one_that_there_is(
    capfd: pytest.CaptureFixture[str], kind: str, version: str
) -> None:
    head, _ = served(lambda port: ask(port, http(accept=f"{kind}; version={version}")))
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert len(head.splitlines()) == 4
    assert ("openmetrics" in head) == (kind == "application/openmetrics-text" and "1.0.0" in version)
    assert "TypeError" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (http("/"), "200"),
        (http("/metrics?x=1"), "200"),
        (http(method="HEAD"), "200"),
        (http("/other"), "404"),
        (http(method="POST"), "405"),
        (b"nonsense\r\n\r\n", "400"),
        (b"\xff\x00\r\n\r\n", "400"),
    ],
)
def test_requests(request_: bytes, status: str) -> None:
    head, body = served(lambda port: ask(port, request_))
    assert head.split(" ")[1] == status
    assert (body == b"") is request_.startswith(b"HEAD")


def test_a_client_that_says_too_much_or_leaves() -> None:
    async def work(port: int) -> None:
        head, _ = await ask(port, b"GET /metrics HTTP/1.1\r\n" + b"x" * (2 * MOST_HEADER))
        assert head == ""
        for _ in range(20):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /metr")
            writer.close()
        head, _ = await ask(port, http())
        assert "200 OK" in head

    served(work)


def test_clients_that_say_nothing_are_no_more_than_so_many() -> None:
    async def work(port: int) -> None:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST_WAITING)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        for _, other in [*silent, (reader, writer)]:
            other.close()
        for _ in range(400):
            # Until the server has seen that they have gone.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                head, _ = await ask(port, http())
                if head:
                    break
            await asyncio.sleep(0.05)
        assert "200 OK" in head

    served(work)


def test_a_source_that_fails_is_left_out(capfd: pytest.CaptureFixture[str]) -> None:
    def broken(_: Snapshot) -> Iterator[Any]:
        raise RuntimeError("broken")
        yield

    head, body = served(lambda port: ask(port, http()), sources=(broken, collector.collect))
    assert "200 OK" in head
    assert b"otus_uptime_seconds" in body
    assert "RuntimeError: broken" in capfd.readouterr().err


def test_a_snapshot_that_fails() -> None:
    async def failing() -> Snapshot:
        raise RuntimeError("no")

    head, _ = served(lambda port: ask(port, http()), snapshot=failing)
    assert "500" in head


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:{port}", "192.0.2.1:9091", "no-such-host.invalid:1", "127.0.0.1:99999"]
)
def test_a_port_that_cannot_be_had_is_one_line(listen: str, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = MetricsEndpoint(listen.format(port=other.getsockname()[1]), a_snapshot, ())
        assert not asyncio.run(endpoint.start())
    line = capfd.readouterr().err
    assert line.count("\n") == 1
    assert "no metrics at" in line
    assert "otus.metrics.listen" in line
