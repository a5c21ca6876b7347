"""The verb in the foreground: what was counted is told however it ends."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import OtusError
from engine.tcp import namespaces, observer, options, run

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


def test_a_namespace_is_held_as_long_as_it_is_needed() -> None:
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        before = len(os.listdir("/proc/self/fd"))
        [found] = namespaces.resolve(str(sleeper.pid))
        sleeper.kill()
    assert os.stat(found.path).st_ino == found.inode
    del found
    assert len(os.listdir("/proc/self/fd")) <= before
