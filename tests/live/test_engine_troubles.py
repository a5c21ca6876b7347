"""What goes wrong is told where a person looks; signals to the whole process group are the controller's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.live.engines import Engine, Traffic, alive, lines_of, own_engine, wait_for
from tests.live.namespace import own_namespace

if TYPE_CHECKING:
    from pathlib import Path


def verb(engine: Engine, *words: str) -> str:
    """What a verb prints; it must succeed."""
    command = [sys.executable, "-m", "otus_tui", *words, "--socket", engine.path]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def lines_with(engine: Engine, level: str) -> list[dict[str, object]]:
    """The engine's log lines of a level."""
    found = [json.loads(line) for line in engine.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if line["level"] == level]


def test_full_disk_of_one_of_two_reporters(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(small)], check=True)
    try:
        paths = (small / "packets.jsonl", tmp_path / "all.jsonl")
        engine.create(reporters=[{"type": "file", "config": {"path": str(path)}} for path in paths])
        traffic.send(400)
        wait_for(lambda: len(lines_of(paths[1])) == 400)
        wait_for(lambda: engine.task()["books"]["in_flight"] == 0)
        kept = len(lines_of(paths[0]))
        books = engine.task()["books"]
        assert books["even"]
        assert books["reported"] == 400
        assert not any(books["dropped"]["report"].values())
        assert books["partly"] == {"file": 400 - kept, "file 2": 0}
        words = f"▲ {400 - kept} by file"
        assert words in verb(engine, "stats")
        assert words in verb(engine, "task", "status", "--id", "test")
        stopped = verb(engine, "task", "stop", "--id", "test")
        assert words in stopped
        assert "task test is stopped\n" in stopped
        assert "task test is stopped already\n" in verb(engine, "task", "stop", "--id", "test")
        engine.create(id="next")
        again = verb(engine, "task", "stop", "--id", "test")
        assert "task test is stopped already\n" in again
        assert words in again
        assert engine.task()["state"] == "running"
    finally:
        engine.end()
        subprocess.run(["umount", str(small)], check=True)


def test_lost_calls_are_told(engine: Engine, traffic: Traffic) -> None:
    engine.create()
    traffic.send(30)
    wait_for(lambda: engine.received() == 30)
    # Nobody has asked for the calls before: what is lost is known all the same.
    pid = engine.child("engine.calls.process")
    wait_for(lambda: (engine.call("query", store="calls", count=1))["total"] == 30)
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: engine.call("status")["tasks"][0]["calls_restarts"] == 1)
    wait_for(lambda: (engine.call("stats")["sip"] or {}).get("lost_calls") == 30)
    words = "▲ 30 calls were lost when the calls process was restarted at 2"
    assert words in verb(engine, "status")
    assert words in verb(engine, "stats")
    assert words in verb(engine, "task", "status", "--id", "test")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_is_the_controllers(tmp_path: Path, number: signal.Signals) -> None:
    with own_namespace(), own_engine(tmp_path) as engine:
        process = engine.start(prefix=["setsid"])
        engine.create(reporter={"type": "file", "config": {"path": str(tmp_path / "packets.jsonl")}})
        traffic = Traffic()
        traffic.send(100)
        traffic.close()
        wait_for(lambda: engine.received() == 100)
        children = engine.children()
        assert len(children) == 4
        os.killpg(process.pid, number)
        assert process.wait(2) == 0
        assert not any(alive(pid) for pid in children)
        assert not lines_with(engine, "error")
        assert "is restarted" not in engine.log.read_text()
        assert len(lines_of(tmp_path / "packets.jsonl")) == 100


def test_signals_of_the_group_leave_children_alone(engine: Engine, traffic: Traffic) -> None:
    engine.create(reporter={"type": "file", "config": {"path": "/dev/null"}})
    children = engine.children()
    for pid in children:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    traffic.send(20)
    wait_for(lambda: engine.task()["books"]["reported"] == 20)
    assert engine.children() == children


def test_a_group_signal_while_children_start(tmp_path: Path) -> None:
    task = tmp_path / "task.yml"
    task.write_text("task: {id: t, capture: {interface: lo, workers: 2, config: {ring_mb: 4}}}\n")
    with own_namespace(), own_engine(tmp_path) as engine:
        process = engine.start("--task", str(task), wait=False, prefix=["setsid"])
        wait_for(engine.children)
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(3) in (0, 130)
        assert not lines_with(engine, "error")


def test_interface_that_goes_down(engine: Engine) -> None:
    subprocess.run(["ip", "link", "add", "otus0", "type", "veth", "peer", "otus1"], check=True)
    for name in ("otus0", "otus1"):
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
    engine.create(
        capture={"driver": "af_packet_v3", "interface": "otus0", "workers": 1, "config": {"ring_mb": 4}}
    )
    assert "otus0 is" not in verb(engine, "status")
    subprocess.run(["ip", "link", "set", "otus0", "down"], check=True)
    wait_for(lambda: engine.call("status")["tasks"][0]["link"] == "down")
    assert "▲ otus0 is down" in verb(engine, "status")
    subprocess.run(["ip", "link", "del", "otus0"], check=True)
    wait_for(lambda: engine.call("status")["tasks"][0]["link"] == "gone")
    assert "▲ otus0 is gone" in verb(engine, "task", "status", "--id", "test")


def test_filter_errors_have_their_place(engine: Engine, tmp_path: Path) -> None:
    task = tmp_path / "t.yml"
    task.write_text("task:\n  id: t\n  capture: {interface: lo}\n  filter:\n    port_range: '9-5'\n")
    command = [sys.executable, "-m", "otus_tui", "task", "create", "--file", str(task)]
    done = subprocess.run([*command, "--socket", engine.path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{task}:5:5: task.filter.port_range: '9-5' is no range" in done.stderr


def test_a_socket_that_is_no_engines(tmp_path: Path) -> None:
    with own_namespace(), own_engine(tmp_path) as engine, socket.socket(socket.AF_UNIX) as other:
        (tmp_path / "run").mkdir()
        other.bind(engine.path)
        other.listen()
        assert engine.start(wait=False).wait(10) == 1
        assert f"something that is no engine listens at {engine.path}" in engine.log.read_text()
