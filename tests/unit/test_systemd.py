"""Telling the service manager, and the log that it collects."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING

from engine import systemd
from engine.log import Log

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert systemd.notify("READY=1")
        assert manager.recv(100) == b"READY=1"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0otus-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@otus-test-{os.getpid()}")
        assert systemd.notify("STOPPING=1")
        assert manager.recv(100) == b"STOPPING=1"
    assert not systemd.notify("READY=1"), "nobody listens any more"
    monkeypatch.delenv("NOTIFY_SOCKET")
    assert not systemd.notify("READY=1")


def test_log(capfd: pytest.CaptureFixture[str]) -> None:
    journal = Log()
    journal.fields = {"node": "n"}
    journal.debug("x", "unseen")
    journal.info("capture", "a\nb", task="t")
    journal.pass_on(['{"ts":1}', "Traceback", "ValueError: x"], "worker 0")
    journal.configure("debug", "text")
    journal.debug("x", "seen", n=1)
    lines = capfd.readouterr().err.splitlines()
    first = json.loads(lines[0])
    assert first["ts"].endswith("Z")
    assert {key: first[key] for key in ("level", "component", "msg", "node", "task")} == {
        "level": "info",
        "component": "capture",
        "msg": "a\nb",
        "node": "n",
        "task": "t",
    }
    assert lines[1] == '{"ts":1}'
    assert json.loads(lines[2])["output"] == ["Traceback", "ValueError: x"]
    assert lines[3].endswith("debug x: seen node=n n=1")
    assert len(lines) == 4
