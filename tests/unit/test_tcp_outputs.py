"""Where summaries and events go: files that others share, names that anybody may give."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from engine.errors import OtusError, UsageError
from engine.tcp import events, text
from engine.tcp.backend import Connection, Event
from engine.tcp.events_file import EventsFile
from engine.tcp.mask import Mask
from engine.tcp.outputs import Output

TITLE = "\x1b]0;pwn\x07\x1b[31m"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def document(comm: str) -> dict[str, Any]:
    one = Connection(1, "ESTABLISHED", "10.0.0.1", 40_000, "10.0.0.2", 443)
    one.pid, one.comm = 5, comm
    return events.document(Event(1, "rto", 1, None, one), 1, Mask("none"))


@pytest.mark.parametrize("comm", [TITLE, "a\x7fb", "\x9b31m", "x\u202ey", "two\nlines"])
def test_names_of_processes_command_no_terminal(comm: str, tmp_path: Path) -> None:
    shown = text.recent([document(comm)], 1)
    assert shown.removesuffix("\n").isprintable()
    line = events.line(document(comm)).decode()
    assert json.loads(line)["comm"] == comm
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) <= 0x9F for c in line.removesuffix("\n"))
    file = EventsFile(str(tmp_path / "events"))
    file.open()
    file.write(document(comm))
    file.close()
    assert (tmp_path / "events").read_text("utf-8") == line


def test_a_name_that_can_be_read_is_shown_as_it_is() -> None:
    assert "  naïve 日本/5" in text.recent([document("naïve 日本")], 1)


def test_an_event_says_whose_it_is_however_long_its_ends_are() -> None:
    local, remote = "2001:db8:1234:5678:9abc:def0:1234:5678", "2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff"
    one = Connection(1, "SYN_SENT", local, 40_000, remote, 65_535)
    one.pid, one.comm = 4_194_304, "fifteen-letters"
    event = Event(1, "rto", 1, None, one)
    event.retransmit_class = "syn"
    lines = text.recent([events.document(event, 1, Mask("none"))], 1).splitlines()
    assert max(map(len, lines)) <= text.WIDTH
    assert " ".join(" ".join(lines).split()) == (
        f"▲ 00:00:00.000 rto syn 1 [{local}]:40000 > [{remote}]:65535 fifteen-letters/4194304"
    )


def test_an_event_says_why() -> None:
    found = document("nginx")
    assert "  rto 1  10.0.0.1:40000 > 10.0.0.2:443  nginx/5\n" in text.recent([found], 1)
    found["retrans_reason"] = "rto"
    assert "  rto 1  " in text.recent([found], 1)
    found = {**found, "trigger": {**found["trigger"], "name": "reset"}, "retrans_reason": None}
    found |= {"direction": "sent", "reset_reason": "NO_SOCKET"}
    assert "  reset sent NO_SOCKET 1  " in text.recent([found], 1)


def test_events_in_a_terminal_without_utf_8_are_ascii() -> None:
    nobody = {**document("naïve"), "src_ip": None, "src_port": None}
    shown = text.recent([document("naïve"), nobody], 9, plain=True)
    assert shown.isascii()
    assert shown.startswith("! ")
    assert "na?ve/5" in shown


@pytest.mark.parametrize("name", ["x.prom.part", "x.prom"])
def test_what_others_put_beside_a_file_is_not_written_to(name: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / f".{name}.part").symlink_to(victim)
    (tmp_path / "x.prom.part").symlink_to(victim)
    made = Output(str(tmp_path / "x.prom"), "--output", whole=True)
    made.replace(b"a 1\n")
    made.replace(b"a 2\n")
    made.close()
    assert victim.read_text() == "mine"
    assert (tmp_path / "x.prom").read_text() == "a 2\n"
    assert not (tmp_path / "x.prom").is_symlink()
    assert {one.name for one in tmp_path.iterdir()} == {"victim", f".{name}.part", "x.prom.part", "x.prom"}


def test_metrics_that_are_there_stay_until_there_are_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.prom"
    path.write_text("old 1\n")
    path.chmod(0o604)
    made = Output(str(path), "--output", whole=True)
    assert path.read_text() == "old 1\n"
    made.replace(b"new 1\n")
    assert (path.read_text(), mode(path)) == ("new 1\n", 0o604)
    made.close()
    none = tmp_path / "none.prom"
    made = Output(str(none), "--output", whole=True)
    assert not none.exists()
    made.replace(b"new 1\n")
    assert mode(none) == 0o644


def test_a_link_to_the_file_is_followed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "x.prom").symlink_to(real / "y.prom")
    made = Output(str(tmp_path / "x.prom"), "--output", whole=True)
    made.replace(b"a 1\n")
    assert (real / "y.prom").read_text() == "a 1\n"
    assert (tmp_path / "x.prom").is_symlink()


def test_files_with_addresses_are_not_for_everybody(tmp_path: Path) -> None:
    made = Output(str(tmp_path / "x.jsonl"), "--output")
    made.write(b"{}\n")
    made.close()
    assert mode(tmp_path / "x.jsonl") == 0o640
    made = Output(str(tmp_path / "x.jsonl"), "--output")
    made.write(b"[]\n")
    made.close()
    assert (tmp_path / "x.jsonl").read_text() == "[]\n"


@pytest.mark.parametrize("whole", [False, True])
def test_what_cannot_be_written_is_said_at_the_start(whole: bool, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(UsageError, match="--output"):
            Output(str(path), "--output", whole=whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_devices_are_written_to() -> None:
    made = Output("/dev/full", "--output", whole=True)
    with pytest.raises(OtusError, match="No space left"):
        made.replace(b"a 1\n")
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    made.close()
