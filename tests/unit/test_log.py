"""The log of a detached engine: appended to, and renamed before it is too long."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import OtusError
from engine.log import Log
from otus_tui.control_client import start_engine

if TYPE_CHECKING:
    from pathlib import Path

WRITER = """
import os, sys
from engine import log as module
from engine.log import log
module.MAX_OCTETS = 2000
fd = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)
os.dup2(fd, 2)
log.keep(sys.argv[1])
for number in range(int(sys.argv[2])):
    log.info("test", f"line {number:03}")
print("said", flush=True)
os.write(1, b"end\\n")
"""


def test_a_kept_log_is_renamed_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("before\n")
    subprocess.run([sys.executable, "-c", WRITER, str(path), "100"], check=True, stdout=subprocess.DEVNULL)
    found = sorted(one.name for one in tmp_path.iterdir())
    assert found == ["engine.log", "engine.log.1", "engine.log.2", "engine.log.3"]
    assert all(one.stat().st_size < 2200 for one in tmp_path.iterdir())
    newest = path.read_text() + (tmp_path / "engine.log.1").read_text()
    assert "line 099" in newest
    lines = "".join(one.read_text() for one in tmp_path.iterdir()).count("line ")
    assert 60 <= lines < 100, "the oldest lines made room, and only those"


def test_a_short_log_stays(tmp_path: Path) -> None:
    path = tmp_path / "engine.log"
    path.write_text("before\n")
    subprocess.run([sys.executable, "-c", WRITER, str(path), "5"], check=True, stdout=subprocess.DEVNULL)
    assert path.read_text().startswith("before\n")
    assert [one.name for one in tmp_path.iterdir()] == ["engine.log"]


def test_an_engine_that_does_not_start_leaves_the_log_of_the_one_that_runs(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    log.write_text("otus: an old error\nan old hint\n")
    with pytest.raises(OtusError) as caught:
        start_engine(["--interface=lo", "--filter=udp and prot 5"], str(tmp_path / "otus.sock"))
    assert "'prot'" in caught.value.message
    assert log.read_text().startswith("otus: an old error\n")


@pytest.mark.parametrize(
    ("lines", "message", "more"),
    [
        (["otus: no namespace web", "ip netns list"], "no namespace web", {"hint": "ip netns list"}),
        (["otus: no memory"], "no memory", {}),
        (["Traceback", "KeyError: 1"], "KeyError: 1", {"output": ["Traceback", "KeyError: 1"]}),
        (['{"level": "info"}', "otus: no right", "as root"], "no right", {"hint": "as root"}),
    ],
)
def test_what_a_child_says_last(
    lines: list[str], message: str, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str, str, dict[str, Any]]] = []
    one = Log()
    monkeypatch.setattr(Log, "write", lambda _, *words, **fields: told.append((*words, fields)))
    monkeypatch.setattr(Log, "_out", lambda *_: None)
    one.pass_on(lines, "tcp observer")
    assert told == [("error", "tcp observer", message, more)]
