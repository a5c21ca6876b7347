"""The verb in the foreground: what was counted is told however it ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import OtusError
from engine.tcp import namespaces, observer, options, run
from tests.builds import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def test_the_summary_of_the_run_is_told_when_it_breaks_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    look = observer.Observer._look

    def fails(self: Any) -> None:
        looks.append(1)
        if len(looks) > 2:
            raise OtusError("the namespace is gone")
        look(self)

    monkeypatch.setattr(observer.Observer, "_look", fails)
    path, events = tmp_path / "out", tmp_path / "events"
    made = options.make(
        backend="netlink", format="jsonl", output=str(path), events=str(events), mode="both",
        interval="0.1", duration="60",
    )  # fmt: skip
    begun = time.monotonic()
    with pytest.raises(OtusError, match="the namespace is gone"):
        run.run(made)
    assert time.monotonic() - begun < 50
    last = json.loads(path.read_text().splitlines()[-1])
    assert last["final"] is True
    assert json.loads(events.read_text().splitlines()[-1])["event_type"] == "tcp_end"


def test_the_file_has_its_end_when_the_reader_of_the_other_output_is_gone(tmp_path: Path) -> None:
    path = tmp_path / "out"
    words = ["--backend", "netlink", "--mode", "both", "--format", "jsonl", "--output", str(path)]
    words += ["--rtt-above", "1us", "--interval", "0.1", "--duration", "60"]
    command = [sys.executable, "-m", "otus_tui", "tcp", *words]
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
        listener.accept()[0] as server,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT) as process,
    ):
        assert process.stdout is not None
        process.stdout.close()
        ends = time.monotonic() + 50
        while process.poll() is None and time.monotonic() < ends:
            client.sendall(b"x")
            server.sendall(server.recv(10))
            time.sleep(0.02)
        assert process.wait(5) == 0
        assert process.stderr is not None
        assert b"Traceback" not in process.stderr.read()
    assert json.loads(path.read_text().splitlines()[-1])["final"] is True


def test_a_namespace_is_held_as_long_as_it_is_needed() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        before = len(os.listdir("/proc/self/fd"))
        [found] = namespaces.resolve(str(sleeper.pid))
        sleeper.kill()
    assert os.stat(found.path).st_ino == found.inode
    del found
    assert len(os.listdir("/proc/self/fd")) <= before
