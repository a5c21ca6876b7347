"""The TCP observer as a part of the engine: section, rows, events and history; restarted when it is
killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from otus_tui.control_client import ClientError
from tests.live.engines import Engine, wait_for
from tests.live.tcp_command import HERE, THERE, Hosts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    if made.process is not None and made.process.poll() is None:
        made.end()


def node(tmp_path: Path, hosts: Hosts, **tcp: Any) -> str:
    path = tmp_path / "node.yml"
    options = {"netns": hosts.a, "interval": 0.3, **tcp.pop("options", {})}
    values = {"otus": {"metrics": {"enabled": False}, "tcp": {"options": options, **tcp}}}
    path.write_text(json.dumps(values))
    return str(path)


def open_connections(hosts: Hosts, count: int) -> list[Any]:
    server = hosts.listen(hosts.b, THERE, 7000)
    clients = [hosts.connect(hosts.a, THERE, 7000) for _ in range(count)]
    peers = [hosts.accept(server) for _ in clients]
    for number, (client, peer) in enumerate(zip(clients, peers, strict=True)):
        client.sendall(b"q" * 1000 * (number + 1))
        peer.recv(100_000)
    return clients


@pytest.mark.parametrize("backend", ["netlink", "libbpf"])
def test_rows_events_and_the_section(engine: Engine, hosts: Hosts, tmp_path: Path, backend: str) -> None:
    lines = tmp_path / "events.jsonl"
    clients = open_connections(hosts, 5)
    options = {"backend": backend, "rtt-above": "1us"}
    engine.start("--config", node(tmp_path, hosts, events_file=str(lines), options=options))
    assert engine.call("stats")["tcp"]["state"] == "off"
    found = engine.call("tcp_connections", sort="bytes_acked", descending=True, count=2)
    assert (found["total"], found["matched"], len(found["rows"])) == (5, 5, 2)
    assert found["rows"][0]["bytes_acked"] in (5000, 5001)
    row = found["rows"][0]
    assert (row["remote"], row["remote_port"], row["role"]) == (THERE, 7000, "client")
    assert row["pid"] == os.getpid()
    matched = engine.call(
        "tcp_connections", filter=f"remote_port == 7000 and local_port == {row['local_port']}"
    )
    assert [one["id"] for one in matched["rows"]] == [row["id"]]
    [group] = engine.call("tcp_groups", by="peer")["rows"]
    assert (group["key"], group["connections"]) == (THERE, 5)
    section = wait_for(lambda: _running(engine), 5.0, "figures")
    assert section["backend"] == backend
    assert section["states"] == {"ESTABLISHED": 5}
    assert set(section["windows"]) == {"1", "10", "60", "run"}
    for client in clients:
        client.sendall(b"q" * 500)
    wait_for(lambda: len(engine.call("tcp_history")["points"]) >= 2, 5.0, "two points")
    wait_for(lambda: engine.call("tcp_events")["newest"] > 0, 5.0, "an event")
    one = engine.call("tcp_connection", id=row["id"])
    assert one["history"]["srtt_us"]
    assert {event["socket_cookie"] for event in one["events"]} <= {row["id"]}
    assert one["history"]["send_queue"][-1] == 0
    events = engine.call("tcp_events", count=1000)
    assert events["events"][0]["trigger"]["name"] == "rtt_above"
    later = engine.call("tcp_events", after=events["newest"])
    assert all(event["sequence"] > events["newest"] for event in later["events"])
    engine.end()
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert written[0]["event_type"] == "tcp"
    assert written[-1]["event_type"] == "tcp_end"
    assert written[-1]["emitted"] == len(written) - 1


def _running(engine: Engine) -> dict[str, Any] | None:
    section: dict[str, Any] = engine.call("stats")["tcp"]
    return section if "windows" in section else None


@pytest.mark.parametrize("mask", ["none", "all"])
def test_events_of_a_socket_are_not_those_of_its_predecessor(
    engine: Engine, hosts: Hosts, tmp_path: Path, mask: str
) -> None:
    """The same addresses and ports, one connection after the other."""
    server = hosts.listen(hosts.b, THERE, 7000)
    options = {"backend": "libbpf", "rtt-above": "1us", "mask": mask}
    engine.start("--config", node(tmp_path, hosts, options=options))
    engine.call("tcp_connections")
    ids = []
    for _ in range(2):
        client = hosts.inside(hosts.a, socket.socket)
        hosts.kept.append(client)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.bind((HERE, 45_000))
        client.connect((THERE, 7000))
        peer = hosts.accept(server)
        for _ in range(3):
            client.sendall(b"q" * 100)
            peer.recv(100)
        row = wait_for(lambda: next(iter(engine.call("tcp_connections")["rows"]), None), 5.0, "a row")
        one = wait_for(lambda name=row["id"]: _with_events(engine, name), 5.0, "an event")
        ids.append(row["id"])
        assert {event["socket_cookie"] for event in one["events"]} == {row["id"]}
        client.close()
        wait_for(lambda: not engine.call("tcp_connections")["rows"], 5.0, "its end")
    assert ids[0] != ids[1]


def _with_events(engine: Engine, name: str) -> dict[str, Any] | None:
    one: dict[str, Any] = engine.call("tcp_connection", id=name)
    return one if one["events"] else None


def test_wrong_questions(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    engine.start("--config", node(tmp_path, hosts, options={"backend": "netlink"}))
    for method, params, message in (
        ("tcp_connections", {"filter": "stat == X"}, "no column 'stat'"),
        ("tcp_connections", {"sort": "size"}, "no column 'size'"),
        ("tcp_connections", {"filter": "srtt_us > fast"}, "is a number"),
        ("tcp_connections", {"count": "all"}, "no whole number"),
        ("tcp_connection", {"id": "123"}, "is gone"),
        ("tcp_groups", {"by": "colour"}, "no group"),
        ("tcp_events", {"after": -1}, "no whole number"),
        ("tcp_history", {"count": "x"}, "no whole number"),
    ):
        with pytest.raises(ClientError, match=message):
            engine.call(method, **params)


def test_a_killed_observer_is_replaced_and_leaves_nothing(
    engine: Engine, hosts: Hosts, tmp_path: Path
) -> None:
    before = programs()
    engine.start("--config", node(tmp_path, hosts, start="always"))
    wait_for(lambda: _running(engine), 10.0, "figures")
    pid = engine.child("engine.tcp.process")
    os.kill(pid, signal.SIGKILL)
    wait_for(
        lambda: engine.call("stats")["tcp"].get("restarts") == 1 and _running(engine), 10.0, "a successor"
    )
    assert engine.child("engine.tcp.process") != pid
    engine.end()
    wait_for(lambda: programs() <= before, 5.0, "nothing in the kernel")


def programs() -> set[int]:
    """Ids of the programs of observers that are in the kernel."""
    shown = subprocess.run(["bpftool", "-j", "prog", "show"], capture_output=True, text=True, check=False)
    found = json.loads(shown.stdout or "[]")
    return {one["id"] for one in found if one.get("name") in ("segment", "state_change", "retransmit_3")}


def test_a_namespace_that_is_not_there_is_said(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    engine.start("--config", node(tmp_path, hosts, options={"netns": "no-such"}))
    with pytest.raises(ClientError, match="no network namespace 'no-such'"):
        engine.call("tcp_listeners")
    section = engine.call("stats")["tcp"]
    assert section["state"] == "failed"
    assert "no-such" in section["error"]
    assert section["hint"]


def test_never_means_never(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    engine.start("--config", node(tmp_path, hosts, start="never"))
    with pytest.raises(ClientError, match="switched off"):
        engine.call("tcp_listeners")
    assert engine.call("stats")["tcp"]["state"] == "off"


def test_a_wrong_option_has_its_place(tmp_path: Path) -> None:
    path = tmp_path / "node.yml"
    path.write_text("otus:\n  tcp:\n    options: {rtt-abov: 200ms}\n")
    command = [sys.executable, "-m", "otus_tui", "--headless", "--config", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 2
    assert "rtt-abov" in done.stderr
    assert "node.yml:3" in done.stderr


def test_metrics_of_the_engine(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    path = tmp_path / "node.yml"
    values = {
        "metrics": {"listen": f"127.0.0.1:{port}"},
        "tcp": {"start": "always", "options": {"netns": hosts.a}},
    }
    path.write_text(json.dumps({"otus": values}))
    engine.start("--config", str(path))
    wait_for(lambda: _running(engine), 10.0, "figures")

    def scraped() -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
            text = answer.read().decode()
        return 'otus_tcp_observer{backend="' in text and "otus_tcp_rtt_seconds_bucket" in text

    wait_for(scraped, what="metrics of the observer")


def test_a_scrape_is_a_look(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    """Nobody but Prometheus ever asks an engine without screens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = tmp_path / "node.yml"
    metrics = {"enabled": True, "listen": f"127.0.0.1:{port}"}
    options = {"netns": hosts.a, "backend": "netlink"}
    path.write_text(json.dumps({"otus": {"metrics": metrics, "tcp": {"options": options}}}))
    engine.start("--config", str(path))
    section = engine.call("stats")["tcp"]
    assert section["state"] == "off"
    assert "otus.tcp.start: always" in section["hint"]

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
        return text if "otus_tcp_rtt_seconds_bucket" in text else ""

    wait_for(scraped, 8.0, "metrics of the observer")
    assert engine.call("stats")["tcp"]["state"] == "running"


def test_what_was_mended_needs_no_restart(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    """The namespace that it shall watch is made after it refused to start."""
    name = f"{hosts.a}-later"
    engine.start("--config", node(tmp_path, hosts, options={"netns": name, "backend": "netlink"}))
    with pytest.raises(ClientError, match="no network namespace"):
        engine.call("tcp_listeners")
    refused = engine.call("tcp_retry")
    assert refused["state"] == "failed"
    assert "no network namespace" in refused["error"]
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        assert engine.call("tcp_retry") == {"state": "running", "error": "", "hint": ""}
        assert engine.call("tcp_listeners") == {"total": 0, "rows": []}
        assert engine.call("stats")["tcp"]["error"] == ""
        assert engine.call("tcp_retry")["state"] == "running"
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def test_it_is_tried_again_by_itself(engine: Engine, hosts: Hosts, tmp_path: Path) -> None:
    name = f"{hosts.a}-later"
    engine.start("--config", node(tmp_path, hosts, start="always", options={"netns": name}))
    wait_for(lambda: engine.call("stats")["tcp"]["state"] == "failed", 5.0, "a failure")
    subprocess.run(["ip", "netns", "add", name], check=True)
    try:
        section = wait_for(lambda: _running(engine), 13.0, "figures")
        assert section["error"] == ""
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)
