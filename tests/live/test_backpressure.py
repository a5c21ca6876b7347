"""Back-pressure: every layer drops, counts and never waits, to the packet."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.live.engines import MESSAGE, Engine, Traffic, lines_of, own_engine, wait_for
from tests.live.namespace import ip, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NODE = """
otus:
  metrics: {listen: "127.0.0.1:9091"}
  backpressure:
    send_buffer: {capacity: %(capacity)d, high_watermark: 0.8, low_watermark: 0.3}
    reporter: {send_timeout: 1s, max_retries: 1}
    sampling: {enabled: %(sampling)s, lowest_rate: 0.1, in_kernel: %(kernel)s}
"""
PLUGIN = '''
import time

from engine.plugin import Reporter


class Bad(Reporter):
    """Does what its configuration says."""

    name = "bad"

    def init(self, config):
        self.config = config

    def report(self, batch):
        how = self.config["how"]
        if how == "hang":
            time.sleep(3600)
        if how == "raise":
            raise RuntimeError("a fault of the plugin")
        if how == "refuse":
            raise ConnectionRefusedError(111, "Connection refused")
        time.sleep(self.config.get("pause", 0.01))
        return min(len(batch), self.config.get("most", 512))
'''


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    (tmp_path / "bad_reporter.py").write_text(PLUGIN)
    metadata = tmp_path / "bad_reporter-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: bad-reporter\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[otus.reporter]\nbad = bad_reporter:Bad\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with own_namespace(), own_engine(tmp_path) as found:
        yield found


def begin(
    engine: Engine,
    tmp_path: Path,
    capacity: int = 1024,
    sampling: bool = False,
    kernel: bool = False,
    **task: Any,
) -> None:
    """Start the engine with a node file, and a task."""
    node = tmp_path / "otus.yml"
    values = {"capacity": capacity, "sampling": str(sampling).lower(), "kernel": str(kernel).lower()}
    node.write_text(NODE % values)
    engine.start("--config", str(node))
    engine.create(**task)


def bad(how: str, **config: Any) -> dict[str, Any]:
    return {"type": "bad", "config": {"how": how, **config}}


def metric(name: str, /, **labels: str) -> float:
    """One sample of the engine's endpoint."""
    with urllib.request.urlopen("http://127.0.0.1:9091/metrics", timeout=5) as answer:
        text = answer.read().decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError(f"no {name} {labels}")


def finished(engine: Engine, sent: int) -> dict[str, Any]:
    """Stop the task once all is captured; its books, which balance to the packet."""
    wait_for(lambda: engine.task()["books"]["captured"] >= sent, 20.0, f"{sent} packets captured")
    books: dict[str, Any] = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert books["captured"] == books["received"] == sent, books
    lost = {layer: sum(names.values()) for layer, names in books["dropped"].items()}
    assert lost["ring"] == lost["worker"] == 0, books
    assert sent == books["reported"] + books["handled"] + sum(lost.values()), books
    return books


def test_a_reporter_that_hangs(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    path = tmp_path / "good.jsonl"
    begin(
        engine,
        tmp_path,
        reporters=[bad("hang", queue=100), {"type": "file", "config": {"path": str(path)}}],
    )
    traffic.send(10)
    time.sleep(0.3)
    traffic.send(390)
    wait_for(lambda: "hangs" in engine.task()["reporters"][0]["problem"], 20.0, "it is told")
    hanging = engine.task()["reporters"][0]
    assert 1 <= hanging["report_timeout"] <= 100
    assert hanging["queue_full"] == 400 - 100 - hanging["report_timeout"]
    assert engine.task()["reporters"][0]["sender_pid"] == engine.child("engine.reporters.sender")
    assert metric("otus_reporter_queue_usage_ratio", reporter="bad") == 1.0
    assert metric("otus_plugin_health", name="bad", status="failing") == 1
    traffic.send(100)
    books = finished(engine, 500)
    assert books["reported"] == 500, "the other reporter has them all"
    assert books["partly"] == {"bad": 500, "file": 0}
    assert len(lines_of(path)) == 500


@pytest.mark.parametrize("how", ["raise", "refuse"])
def test_a_reporter_that_fails(engine: Engine, traffic: Traffic, tmp_path: Path, how: str) -> None:
    begin(engine, tmp_path, reporter=bad(how))
    traffic.send(300)
    wait_for(lambda: engine.task()["books"]["dropped"]["report"]["report_error"] == 300)
    assert metric("otus_reporter_error_drops_total", task="test") == 300
    books = finished(engine, 300)
    assert books["dropped"]["report"]["report_error"] == 300
    assert books["reported"] == 0


def test_a_reporter_that_is_slow_loses_the_oldest(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    begin(engine, tmp_path, capacity=4096, reporter=bad("slow", pause=0.5, queue=200))
    traffic.send(20)
    time.sleep(0.2)
    traffic.send(2000)
    wait_for(lambda: engine.received() == 2020)
    assert engine.task()["books"]["reported"] < 1000, "the capture does not wait"
    wait_for(lambda: engine.task()["books"]["reported"] >= 200, 20.0, "what the queue kept is reported")
    books = finished(engine, 2020)
    assert books["dropped"]["report"]["queue_full"] >= 1000


def test_a_sender_that_is_stopped(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    begin(engine, tmp_path, capacity=64, reporter={"type": "file", "config": {"path": str(path)}})
    traffic.send(50)
    wait_for(lambda: engine.task()["books"]["reported"] == 50)
    sender = engine.child("engine.reporters.sender")
    os.kill(sender, signal.SIGSTOP)
    traffic.send(1000)
    # For as long as it is not replaced.
    wait_for(
        lambda: (
            engine.task()["send_buffer"]["usage"] > 0.8
            and metric("otus_sender_buffer_usage_ratio", task="test") > 0.8
        )
    )
    wait_for(lambda: engine.received() == 1050, 20.0, "the capture does not wait")
    wait_for(lambda: engine.task()["reporters"][0]["restarts"] == 1, 20.0, "it is replaced")
    wait_for(lambda: not engine.task()["books"]["in_flight"], 20.0, "its successor sends the rest")
    drops = metric("otus_sender_buffer_drops_total", task="test")
    traffic.send(10)
    books = finished(engine, 1060)
    assert books["dropped"]["buffer"]["send_ring"] == drops > 800
    numbers = [int(line["labels"]["sip.call-id"].split("@")[0][5:]) for line in lines_of(path)]
    assert numbers == sorted(numbers)
    assert set(range(1, 51)) | set(range(1051, 1061)) <= set(numbers), "what goes is the oldest"
    assert 1050 in numbers


def test_a_full_disk(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    begin(engine, tmp_path, reporter={"type": "file", "config": {"path": "/dev/full"}})
    traffic.send(400)
    wait_for(lambda: engine.task()["books"]["dropped"]["report"]["report_error"] == 400)
    wait_for(lambda: "No space left" in engine.task()["reporters"][0]["problem"])
    finished(engine, 400)


# ---- over a veth pair ----


def frame(source: int, sport: int, dport: int, payload: bytes) -> bytes:
    """An Ethernet frame of UDP from 10.77.0.`source`."""
    datagram = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    addresses = bytes([10, 77, 0, source, 10, 77, 1, 1])
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(datagram), 1, 0, 64, 17, 0) + addresses
    return bytes.fromhex("0200000000020200000000a10800") + header + datagram


def invite(number: int) -> bytes:
    """Offers media at 10.77.0.`number`, port 4000."""
    sdp = f"v=0\r\nc=IN IP4 10.77.0.{number}\r\nt=0 0\r\nm=audio 4000 RTP/AVP 8\r\n"
    head = MESSAGE.format(method="INVITE", number=number, sport=5060)
    head = head.replace("Content-Length: 0\r\n\r\n", f"Content-Length: {len(sdp)}\r\n\r\n{sdp}")
    return head.replace("Content-Length", "Content-Type: application/sdp\r\nContent-Length").encode()


def rtp(stream: int, number: int) -> bytes:
    head = struct.pack("!BBHII", 0x80, 8, number & 0xFFFF, 160 * number, stream)
    return frame(stream, 4000, 6000, head + bytes(160))


def signalled(engine: Engine) -> int:
    """SIP messages that became records."""
    return sum(int(worker["counters"]["output_sip"]) for worker in engine.task()["workers"])


class Wire:
    """One end of a veth pair; the engine captures at the other one."""

    def __init__(self) -> None:
        ip("link", "add", "otb0", "type", "veth", "peer", "name", "otb1")
        for name in ("otb0", "otb1"):
            with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w", encoding="ascii") as file:
                file.write("1")
            ip("link", "set", name, "up")
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind(("otb0", 0))
        self.sent = 0

    def close(self) -> None:
        self.socket.close()

    def send(self, octets: bytes) -> None:
        self.socket.send(octets)
        self.sent += 1

    def calls(self, engine: Engine, count: int) -> None:
        """Signalling of so many calls, each announcing one stream, until all workers may know of it."""
        before = signalled(engine)
        for number in range(1, count + 1):
            self.send(frame(200, 5060, 5060, invite(number)))
        wait_for(lambda: signalled(engine) == before + count, 20.0, "the calls are known")

    def media(self, streams: int, count: int, seconds: float) -> None:
        """`count` packets over all streams in turn, spread over `seconds`."""
        begun = time.monotonic()
        for number in range(count):
            self.send(rtp(1 + number % streams, number // streams))
            if not number % 50:
                time.sleep(max(0.0, begun + seconds * number / count - time.monotonic()))


@pytest.fixture
def wire(engine: Engine) -> Iterator[Wire]:
    found = Wire()
    yield found
    found.close()


def veth_task(reporter: dict[str, Any], report: str) -> dict[str, Any]:
    return {
        "capture": {"driver": "af_packet_v3", "interface": "otb1", "workers": 2, "config": {"ring_mb": 8}},
        "filter": {"bpf": "udp"},
        "parsers": [{"plugin": "sip"}, {"plugin": "rtp", "config": {"report": report}}],
        "reporter": reporter,
    }


def test_a_burst_of_ten_times_the_rate_loses_nothing(engine: Engine, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    begin(
        engine,
        tmp_path,
        capacity=16384,
        **veth_task({"type": "file", "config": {"path": str(path)}}, "every"),
    )
    wire.calls(engine, 20)
    wire.media(20, 1000, 1.0)
    wire.media(20, 10_000, 1.0)
    wire.media(20, 1000, 1.0)
    wait_for(lambda: engine.task()["books"]["reported"] == wire.sent, 20.0, "all of it is out")
    books = finished(engine, wire.sent)
    assert sum(sum(names.values()) for names in books["dropped"].values()) == 0
    with path.open("rb") as file:
        assert sum(1 for _ in file) == wire.sent


def test_one_record_a_stream_and_interval_by_default(engine: Engine, wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    begin(engine, tmp_path, **veth_task({"type": "file", "config": {"path": str(path)}}, ""))
    wire.calls(engine, 5)
    wire.media(5, 1000, 0.5)
    wait_for(lambda: engine.received() == wire.sent)
    books = finished(engine, wire.sent)
    lines = [line for line in lines_of(path) if line["protocol"] == "rtp"]
    assert len(lines) == 10, "the first packet and the newest one of each stream"
    assert books["handled"] == 1000 - 10
    last = [line["payload"] for line in lines if line["payload"]["last"]]
    assert [one["stream"]["packets"] for one in last] == [200] * 5
    assert all(one["stream"]["mos"] > 4 and one["stream"]["burst_lost"] == 0 for one in last)
    assert all(line["labels"]["call-id"].endswith("@test") for line in lines)
    assert {line["labels"]["codec"] for line in lines} == {"PCMA"}


def test_sampling_above_the_high_watermark(engine: Engine, wire: Wire, tmp_path: Path) -> None:
    slow = bad("slow", pause=0.4, queue=4000)
    begin(engine, tmp_path, capacity=4096, sampling=True, **veth_task(slow, "every"))
    wire.calls(engine, 100)
    assert engine.task()["send_buffer"]["sample_rate"] == 1.0

    def sampled() -> bool:
        wire.media(100, 1500, 0.15)
        return bool(engine.task()["send_buffer"]["sample_rate"] < 0.3)

    wait_for(sampled, 20.0, "media is sampled")
    assert metric("otus_backpressure_sample_rate", task="test") < 0.3
    wire.media(100, 1500, 0.15)
    wire.calls(engine, 100)
    wait_for(lambda: engine.received() == wire.sent)
    figures = engine.task()
    assert figures["books"]["dropped"]["left_out"]["sampled"] > 200
    assert signalled(engine) == 200, "signalling never"
    wait_for(lambda: engine.task()["send_buffer"]["sample_rate"] == 1.0, 20.0, "all of it again")
    finished(engine, wire.sent)
    log = [json.loads(line) for line in engine.log.read_text().splitlines() if line.startswith("{")]
    said = [line["msg"] for line in log if line["component"] == "sampling"]
    assert "is reported" in said[0]
    assert said[-1] == "media of 100% of all conversations is reported"


def test_a_port_of_the_metrics_that_is_taken(engine: Engine, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 9091)):
        begin(engine, tmp_path)
    lines = [line for line in engine.log.read_text().splitlines() if '"metrics"' in line]
    assert len(lines) == 1
    assert "no metrics at 127.0.0.1:9091: " in lines[0]
    assert engine.answers()


def at_rest(engine: Engine) -> dict[str, Any]:
    """The task once its workers have all that was captured, and no more comes."""
    seen: list[tuple[int, int]] = []

    def rests() -> dict[str, Any] | None:
        figures = engine.task()
        seen.append((figures["books"]["captured"], figures["books"]["received"]))
        time.sleep(0.05)
        return figures if len(seen) > 3 and len({*seen[-4:]}) == 1 and seen[-1][0] == seen[-1][1] else None

    return dict(wait_for(rests, what="rest"))


def test_sampling_in_the_kernel(engine: Engine, wire: Wire, tmp_path: Path) -> None:
    slow = bad("slow", pause=0.4, queue=4000)
    begin(engine, tmp_path, capacity=4096, sampling=True, kernel=True, **veth_task(slow, "every"))
    wire.calls(engine, 100)

    def passed() -> int:
        """Of 1500 packets of 100 conversations, those that came to the workers at one rate; else -1."""
        rate, before = engine.task()["send_buffer"]["sample_rate"], engine.received()
        wire.media(100, 1500, 0.15)
        figures = at_rest(engine)
        same = figures["send_buffer"]["sample_rate"] == rate < 1
        return int(figures["books"]["received"]) - before if same else -1

    found = wait_for(lambda: (count := passed()) >= 0 and (count,), 20.0, "a steady rate")[0]
    assert found < 1000, "much of it does not come to the workers"
    assert found % 15 == 0, "conversations are whole or absent"
    wire.calls(engine, 100)
    wait_for(lambda: signalled(engine) == 200)
    wait_for(lambda: engine.task()["send_buffer"]["sample_rate"] == 1.0, 20.0, "all of it again")
    before = engine.received()
    wire.media(100, 1500, 0.15)
    wait_for(lambda: engine.received() == before + 1500)
    books = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
