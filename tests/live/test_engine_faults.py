"""What is killed comes back on the same rings, is counted, and the books stay exact."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.books import balance
from otus_tui.client import Client
from tests.live.engines import Engine, Traffic, alive, lines_of, wait_for

if TYPE_CHECKING:
    from collections.abc import Callable


def settled(engine: Engine, sent: int) -> dict[str, Any]:
    """Stop the task once all that was sent has arrived; its books, which must be even."""
    wait_for(lambda: engine.task()["books"]["captured"] >= sent, 20.0, f"{sent} packets captured")
    books: dict[str, Any] = engine.call("stop_task", task_id="test")["books"]
    assert books["even"], books
    assert books["captured"] == sent, books
    layers = sum(sum(names.values()) for layer, names in books["dropped"].items() if layer != "ring")
    assert books["received"] == books["reported"] + books["handled"] + layers, books
    return books


def replaced(engine: Engine, module: str, pid: int) -> None:
    """Wait until another process runs `module` instead of `pid`."""

    def another() -> bool:
        try:
            return engine.child(module) != pid and not alive(pid)
        except AssertionError:
            return False

    wait_for(another, what=f"a successor of {module}")


def test_killed_workers(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    path = tmp_path / "packets.jsonl"
    engine.create(reporter={"type": "file", "config": {"path": str(path)}})
    for _ in range(3):
        traffic.send(700)
        for pid in [worker["pid"] for worker in engine.task()["workers"]]:
            if pid:
                os.kill(pid, signal.SIGKILL)
        traffic.send(700)
        wait_for(lambda: {w["state"] for w in engine.task()["workers"]} == {"running"})
    traffic.send(300)
    books = settled(engine, traffic.sent)
    workers = engine.task()["workers"]
    assert sum(worker["restarts"] for worker in workers) >= 5
    lost = books["dropped"]["worker"]["worker_lost"]
    assert lost <= 6
    assert books["reported"] == traffic.sent - lost - books["dropped"]["ring"]["kernel_ring"]
    assert len(lines_of(path)) == books["reported"]


def test_hung_worker_is_replaced(engine: Engine, traffic: Traffic) -> None:
    engine.create(reporters=[])
    worker = engine.task()["workers"][0]
    os.kill(worker["pid"], signal.SIGSTOP)
    traffic.send(500)
    wait_for(lambda: engine.task()["workers"][0]["restarts"] == 1)
    wait_for(lambda: engine.task()["workers"][0]["state"] == "running")
    assert not alive(worker["pid"])
    books = settled(engine, 500)
    assert books["handled"] == 500


def test_killed_sender(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    path = tmp_path / "packets.jsonl"
    engine.create(reporter={"type": "file", "config": {"path": str(path)}})
    for last in (False, False, True):
        pid = engine.child("engine.reporters.sender")
        traffic.send(1500)
        os.kill(pid, signal.SIGKILL)
        replaced(engine, "engine.reporters.sender", pid)
        if not last:
            wait_for(lambda: engine.task()["reporters"][0]["sender_state"] == "running")
        traffic.send(500)
    books = settled(engine, traffic.sent)
    assert engine.task()["reporters"][0]["restarts"] == 3
    lost = books["dropped"]["report"]["lost_with_sender"]
    unsent = books["dropped"]["buffer"]["unsent"]
    dropped = books["dropped"]["buffer"]["send_ring"] + unsent + books["dropped"]["report"]["queue_full"]
    assert books["reported"] == traffic.sent - lost - dropped, books
    # The last successor has half a second for what waits, behind everybody else who wants the CPU.
    assert unsent < 1500
    # A killed sender may have written a batch that it did not come to count: never half a line, never less.
    assert books["reported"] <= len(lines_of(path)) <= books["reported"] + lost


def test_killed_calls_process(engine: Engine, traffic: Traffic) -> None:
    engine.create()
    traffic.send(50)
    wait_for(lambda: (engine.call("stats")["sip"] or {}).get("calls") == 50)
    pid = engine.child("engine.calls.process")
    os.kill(pid, signal.SIGKILL)
    replaced(engine, "engine.calls.process", pid)
    traffic.send(20)
    sip = wait_for(lambda: (found := engine.call("stats")["sip"]) and found["calls"] == 20 and found)
    assert sip["lost_calls"] == 50
    assert sip["restarts"] == 1
    settled(engine, 70)


def test_killed_controller(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    path = tmp_path / "packets.jsonl"
    engine.create(reporter={"type": "file", "config": {"path": str(path)}})
    traffic.send(200)
    assert len(engine.children()) == 4
    children = engine.all_children()
    assert len(children) == 5
    assert engine.process is not None
    engine.process.kill()
    engine.process.wait()
    wait_for(lambda: not any(alive(pid) for pid in children), 20.0, "the children are gone")
    wait_for(lambda: not os.path.exists(engine.path), 20.0, "the socket is gone")
    engine.start()
    engine.create()
    assert engine.task()["state"] == "running"
    lines_of(path)


def test_killed_front_end(engine: Engine, traffic: Traffic) -> None:
    engine.create()
    script = (
        "import socket,sys,time; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        's.sendall(b\'{"id":1,"method":"subscribe","params":{"hz":10}}\\n\');'
        "print(s.recv(10)); time.sleep(60)"
    )
    front = subprocess.Popen(["python3", "-c", script, engine.path], stdout=subprocess.PIPE)
    assert front.stdout is not None
    wait_for(lambda: engine.call("stats")["engine"]["clients"] == 2)
    traffic.send(20)
    front.kill()
    traffic.send(20)
    front.wait()
    front.stdout.close()
    wait_for(lambda: engine.call("stats")["engine"]["clients"] == 1)
    assert engine.task()["state"] == "running"
    traffic.send(20)
    settled(engine, 60)


def test_front_end_that_does_not_read(engine: Engine) -> None:
    engine.create()
    with socket.socket(socket.AF_UNIX) as lazy:
        lazy.connect(engine.path)
        lazy.sendall(
            b'{"id":1,"method":"subscribe","params":{"hz":10}}\n' + b'{"id":2,"method":"stats"}\n' * 2000
        )
        # Each of these would wait for what the front end does not read.
        for _ in range(20):
            engine.call("status")


async def until(condition: Callable[[], bool]) -> None:
    """Let the connection be read until something holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.02)


async def test_snapshots(engine: Engine, traffic: Traffic) -> None:
    engine.create()
    client = await Client.connect(engine.path)
    snapshots: list[Any] = []
    lost: list[str] = []
    client.on_snapshot(snapshots.append)
    client.on_lost(lost.append)
    assert await client.call("subscribe", sections=["tasks"], hz=50) == {"sections": ["tasks"], "hz": 10.0}
    begun = time.monotonic()
    traffic.send(100)

    def received() -> int:
        return int(snapshots[-1]["tasks"][0]["books"]["received"]) if snapshots else 0

    await until(lambda: time.monotonic() - begun > 1 and len(snapshots) >= 5 and received() == 100)
    assert len(snapshots) <= 10 * (time.monotonic() - begun) + 2
    assert set(snapshots[-1]) == {"sequence", "time_ns", "tasks"}
    assert snapshots[-1]["tasks"][0]["books"]["received"] == 100
    assert [one["sequence"] for one in snapshots] == sorted({one["sequence"] for one in snapshots})
    engine.end()
    await until(lambda: bool(lost))
    assert lost == ["the engine closed the connection"]
    await client.close()


def test_full_disk(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(small)], check=True)
    try:
        path = small / "packets.jsonl"
        engine.create(reporter={"type": "file", "config": {"path": str(path)}})
        traffic.send(400)
        wait_for(lambda: engine.task()["books"]["dropped"]["report"]["report_error"] > 0)
        section = engine.task()
        assert section["state"] == "running"
        assert section["books"]["received"] == 400
        wait_for(lambda: "space" in engine.task()["reporters"][0]["problem"])
        written = len(lines_of(path))
        path.write_bytes(b"")
        traffic.send(20)
        wait_for(lambda: len(lines_of(path)) >= 20)
        wait_for(lambda: engine.task()["reporters"][0]["problem"] == "")
        books = settled(engine, 420)
        assert books["reported"] == written + 20
        assert books["dropped"]["report"]["report_error"] == 400 - written
    finally:
        engine.end()
        subprocess.run(["umount", str(small)], check=True)


def test_console_whose_reader_left(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    engine.end()
    task = tmp_path / "task.yml"
    task.write_text(
        "task:\n  id: test\n  capture: {interface: lo, workers: 1}\n  filter: {bpf: udp dst port 5060}\n"
        "  reporter: {type: console}\n"
    )
    command = ["python3", "-c", "import sys; print(sys.stdin.readline())"]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdin is not None
    engine.output = Path(f"/proc/self/fd/{reader.stdin.fileno()}")
    engine.start("--task", str(task))
    reader.stdin.close()
    traffic.send(1)
    assert reader.stdout is not None
    assert json.loads(reader.stdout.readline())["labels"]["sip.call-id"] == "call-1@test"
    reader.wait(5)
    reader.stdout.close()
    traffic.send(50)
    wait_for(lambda: engine.task()["books"]["dropped"]["report"]["report_error"] == 50)
    wait_for(lambda: engine.task()["reporters"][0]["problem"] == "Broken pipe")
    settled(engine, 51)


def test_books_are_even_at_every_moment(engine: Engine, traffic: Traffic, tmp_path: Path) -> None:
    engine.create(
        reporter={"type": "file", "config": {"path": str(tmp_path / "packets.jsonl"), "queue": 200}}
    )
    enough = threading.Event()

    def talk() -> None:
        traffic.send(15_000)
        while not enough.is_set():
            traffic.send(500)

    thread = threading.Thread(target=talk)
    thread.start()
    seen = []
    while thread.is_alive():
        seen.append(engine.task()["books"])
        if len(seen) > 5:
            enough.set()
    thread.join()
    assert [books for books in seen if not books["even"]] == []
    assert all(balance(books) == 0 for books in seen)
    assert all(old["received"] <= new["received"] for old, new in itertools.pairwise(seen))
    settled(engine, traffic.sent)


def test_tasks_leave_nothing_behind(engine: Engine, traffic: Traffic) -> None:
    shared = sorted(os.listdir("/dev/shm"))

    def used() -> tuple[int, int]:
        assert engine.process is not None
        with open(f"/proc/{engine.process.pid}/maps", encoding="ascii") as file:
            maps = sum("memfd:otus" in line for line in file)
        return len(os.listdir(f"/proc/{engine.process.pid}/fd")), maps

    def cycle() -> None:
        engine.create(reporter={"type": "file", "config": {"path": "/dev/null"}})
        traffic.send(10)
        engine.call("stop_task", task_id="test")

    cycle()
    cycle()
    before, children = used(), len(engine.children())
    for _ in range(4):
        cycle()
    after = used()
    assert after[0] <= before[0] + 1
    assert after[1] <= before[1] + 2
    # No process, no zombie, and nothing that has a name.
    wait_for(lambda: [pid for pid in engine.children() if alive(pid)] == engine.children(), 20.0, "no zombie")
    assert len(engine.children()) == children
    assert sorted(os.listdir("/dev/shm")) == shared
    assert len(engine.call("list_tasks")["tasks"]) == 6


def test_reporter_that_hangs_delays_neither_capture_nor_the_end(
    engine: Engine, traffic: Traffic, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    engine.create(reporter={"type": "file", "config": {"path": str(fifo), "queue": 500}})
    traffic.send(3000)
    wait_for(lambda: engine.received() == 3000)
    wait_for(lambda: engine.task()["books"]["dropped"]["report"]["queue_full"] > 0)
    assert engine.end() < 2.5
