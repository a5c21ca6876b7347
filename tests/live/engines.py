"""An engine of one's own in a namespace of one's own, and SIP over `lo` for it to see."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from otus_tui.control_client import ControlClient, OtusError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PORT = 5060
MESSAGE = (
    "{method} sip:bob@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:{sport};branch=z9hG4bK{number}\r\n"
    "From: <sip:alice@127.0.0.1>;tag=a{number}\r\nTo: <sip:bob@127.0.0.1>\r\nCall-ID: call-{number}@test\r\n"
    "CSeq: 1 {method}\r\nContent-Length: 0\r\n\r\n"
)


def wait_for(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Poll until `condition()` is true; its value. Fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what or condition}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Traffic:
    """Sends SIP requests over `lo`, numbered from 1."""

    def __init__(self) -> None:
        self.sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sink.bind(("127.0.0.1", PORT))
        self.source = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.source.bind(("127.0.0.1", 0))
        self.sent = 0

    def send(self, count: int, method: str = "INVITE", pause: float = 0.0) -> None:
        """Send `count` more requests, each of a call of its own."""
        sport = self.source.getsockname()[1]
        for _ in range(count):
            self.sent += 1
            text = MESSAGE.format(method=method, number=self.sent, sport=sport)
            self.source.sendto(text.encode(), ("127.0.0.1", PORT))
            if pause:
                time.sleep(pause)

    def close(self) -> None:
        self.sink.close()
        self.source.close()


def is_guard(pid: int) -> bool:
    """Whether a process is the one that removes the socket of a killed engine."""
    with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return b"otus-socket-guard" in file.read()
    return False


class Engine:
    """A controller that was started here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = str(folder / "run" / "otus.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "engine.log"
        self.output = folder / "stdout"

    def start(
        self, *arguments: str, wait: bool = True, prefix: Sequence[str] = ()
    ) -> subprocess.Popen[bytes]:
        """Start it in the foreground; wait until it answers."""
        command = [*prefix, sys.executable, "-m", "otus_tui", "--headless", "--socket", self.path, *arguments]
        with self.log.open("ab") as log, self.output.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=log, stdin=subprocess.DEVNULL)
        if wait:
            wait_for(self.answers, 10.0, "the engine answers")
        return self.process

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            ControlClient(self.path, 2.0).close()
        except OtusError:
            return False
        return True

    def call(self, method: str, /, **params: Any) -> Any:
        """One call over a connection of its own."""
        with ControlClient(self.path, 30.0) as client:
            return client.call(method, **params)

    def task(self) -> dict[str, Any]:
        """The current task's section of the snapshot."""
        tasks: list[dict[str, Any]] = self.call("stats")["tasks"]
        return tasks[0]

    def create(self, **changes: Any) -> None:
        """Run a task on `lo` for PORT, with the changes on top."""
        config = {
            "id": "test",
            "capture": {"driver": "af_packet_v3", "interface": "lo", "workers": 2, "config": {"ring_mb": 4}},
            "filter": {"bpf": f"udp dst port {PORT}"},
            **changes,
        }
        self.call("create_task", config=config)

    def received(self) -> int:
        return int(self.task()["books"]["received"])

    def children(self) -> list[int]:
        """Pids of its processes, without the guard of its socket."""
        return [pid for pid in self.all_children() if not is_guard(pid)]

    def all_children(self) -> list[int]:
        """Pids of its processes."""
        assert self.process is not None
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            return [int(pid) for pid in file.read().split()]

    def child(self, module: str) -> int:
        """Pid of the child that runs a module, the first of several."""
        for pid in self.children():
            with contextlib.suppress(FileNotFoundError), open(f"/proc/{pid}/cmdline", "rb") as file:
                if module.encode() in file.read():
                    return pid
        raise AssertionError(f"no {module} among the children")

    def end(self, number: int = signal.SIGTERM) -> float:
        """End it by a signal; seconds that it took."""
        assert self.process is not None
        begun = time.monotonic()
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        self.process.wait(10)
        return time.monotonic() - begun


@contextmanager
def own_engine(folder: Path) -> Iterator[Engine]:
    """An engine that is killed at the end, whatever happened."""
    engine = Engine(folder)
    try:
        yield engine
    finally:
        if engine.process is not None and engine.process.poll() is None:
            children = engine.children()
            engine.process.kill()
            engine.process.wait()
            wait_for(lambda: not any(alive(pid) for pid in children), 5.0, "its children are gone")
    if engine.log.exists():
        assert "Traceback" not in engine.log.read_text(), engine.log.read_text()


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A JSON Lines file; fails on a line that is none."""
    text = path.read_bytes()
    assert text.endswith(b"\n") or not text
    return [json.loads(line) for line in text.splitlines()]
