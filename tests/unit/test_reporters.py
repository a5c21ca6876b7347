"""The sender: whole lines whatever happens, packets that stay as they are, exact figures over a kill."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import UsageError
from engine.packet import DictPayload, seal
from engine.reporters.console import ConsoleReporter
from engine.reporters.figures import SenderFigures
from engine.reporters.file import LINK_HINT, FileReporter
from engine.reporters.lines import json_lines
from engine.shm import records, ring
from tests.output_records import packet, sip_body

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# ---- file ----


def file_reporter(path: Path, **options: Any) -> FileReporter:
    reporter = FileReporter()
    reporter.init({"path": str(path), **options})
    reporter.start()
    return reporter


def numbers(path: Path) -> list[int]:
    return [int(json.loads(line)["labels"]["sip.call-id"]) for line in path.read_bytes().splitlines()]


def test_file_rotates(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    reporter = file_reporter(path, max_size=1000, max_backups=2)
    for number in range(12):
        assert reporter.report([packet(number)]) == 1
    reporter.stop()
    names = sorted(found.name for found in tmp_path.iterdir())
    assert names == ["p.jsonl", "p.jsonl.1", "p.jsonl.2"]
    kept = [*numbers(tmp_path / "p.jsonl.2"), *numbers(tmp_path / "p.jsonl.1"), *numbers(path)]
    assert kept == list(range(kept[0], 12))


def test_file_takes_half_a_line_of_a_killed_predecessor_back(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(b'{"a":1}\n{"b":')
    reporter = file_reporter(path)
    reporter.report([packet(3)])
    reporter.stop()
    first, second = path.read_bytes().splitlines()
    assert first == b'{"a":1}'
    assert json.loads(second)["labels"]["sip.call-id"] == "3"


@contextmanager
def small_files() -> Iterator[None]:
    """No file of this process grows above 2,000 octets: a disk that is full, without being root.

    Only around what is tried: the output of the tests may be a file, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def test_full_disk_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    reporter = file_reporter(path)
    with small_files():
        accepted = reporter.report([packet(number) for number in range(20)])
    assert 0 < accepted < 20
    assert numbers(path) == list(range(accepted))
    with small_files(), pytest.raises(OSError, match="File too large"):
        reporter.report([packet(20, "x" * 2000)])
    assert numbers(path) == list(range(accepted))
    os.truncate(path, 0)
    reporter._size = 0
    assert reporter.report([packet(21)]) == 1
    assert numbers(path) == [21]


def test_file_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file or directory") as caught:
        file_reporter(tmp_path / "no" / "p.jsonl")
    assert caught.value.hint == f"mkdir -p {tmp_path / 'no'}"
    with pytest.raises(UsageError, match="Is a directory") as caught:
        file_reporter(tmp_path)
    assert caught.value.hint == "name a file in a folder that may be written"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_root_gives_only_files_of_its_own_making_to_the_owner_of_the_folder(tmp_path: Path) -> None:
    """Who owns the folder may have put there what leads to a file of root's."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"root's\n")
    folder = tmp_path / "of another"
    folder.mkdir()
    os.chown(folder, 1234, 1234)
    for name in ("secret", "new"):
        (folder / f"link to {name}").symlink_to(tmp_path / name)
        with pytest.raises(UsageError, match="cannot write") as caught:
            file_reporter(folder / f"link to {name}")
        assert caught.value.hint == LINK_HINT
    os.link(secret, folder / "hard.jsonl")
    for name in ("hard.jsonl", "made.jsonl"):
        reporter = file_reporter(folder / name)
        assert reporter.report([packet()]) == 1
        reporter.stop()
    assert (secret.stat().st_uid, (folder / "made.jsonl").stat().st_uid) == (0, 1234)
    assert not (tmp_path / "new").exists()
    (tmp_path / "link").symlink_to(secret)
    file_reporter(tmp_path / "link").stop()


def test_device_is_never_renamed() -> None:
    reporter = FileReporter()
    reporter.init({"path": "/dev/full", "max_size": 1, "max_backups": 1})
    reporter.start()
    for _ in range(3):
        with pytest.raises(OSError, match="No space left") as caught:
            reporter.report([packet()])
        assert caught.value.errno == errno.ENOSPC
    assert os.path.exists("/dev/full")


# ---- console ----


def test_console_keeps_lines_whole_when_nobody_reads() -> None:
    read_end, write_end = os.pipe()
    reporter = ConsoleReporter(write_end)
    reporter.init({"send_timeout": 0.05})
    sent = reporter.report([packet(number, "x" * 500) for number in range(200)])
    assert 0 < sent < 200
    with pytest.raises(TimeoutError):
        reporter.report([packet(999)])
    data = os.read(read_end, 1 << 20)
    assert reporter.report([packet(1000)]) == 1
    data += os.read(read_end, 1 << 20)
    found = [int(json.loads(line)["labels"]["sip.call-id"]) for line in data.splitlines()]
    assert found == [*range(sent), 1000]
    os.close(read_end)
    with pytest.raises(BrokenPipeError):
        reporter.report([packet(1001)])
    os.close(write_end)


# ---- packets ----


def test_reporters_get_packets_that_they_cannot_change() -> None:
    """What parsers and processors may touch is in test_processors.py."""
    sealed = seal(packet(3))
    for field in ("timestamp_ns", "protocol", "flow_id", "network", "task", "labels", "payload", "raw_bytes"):
        with pytest.raises(TypeError, match="read-only"):
            setattr(sealed, field, None)
        with pytest.raises(TypeError, match="read-only"):
            delattr(sealed, field)
    for change in (
        lambda labels: labels.update(a="b"),
        lambda labels: labels.pop("text"),
        lambda labels: labels.setdefault("a", "b"),
        lambda labels: labels.clear(),
        lambda labels: labels.__setitem__("a", "b"),
        lambda labels: labels.__delitem__("text"),
    ):
        with pytest.raises(TypeError, match="read-only"):
            change(sealed.labels)
    with pytest.raises(AttributeError):
        sealed.flow_id.src_port = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        sealed.network.src_port = 1  # type: ignore[misc]
    payload = DictPayload("sip", {"method": "INVITE"})
    payload.as_dict()["method"] = "BYE"
    assert payload.as_dict() == {"method": "INVITE"}
    assert json.loads(json_lines([sealed])[0])["labels"] == {"sip.call-id": "3", "text": ""}


# ---- the process ----


class SenderProcess:
    def __init__(self, path: Path, region: Any, figures: SenderFigures) -> None:
        ours, theirs = socket.socketpair()
        config = {
            "task": "t", "parent": os.getpid(), "rings": [region.fd], "figures": figures.region.fd,
            "flows": None,
            "reporters": [{"type": "file", "config": {"path": str(path)}}],
            "processors": [], "node": {}, "send_timeout": 1.0, "max_retries": 1,
        }  # fmt: skip
        self.process = subprocess.Popen(
            [sys.executable, "-m", "engine.reporters.sender", str(theirs.fileno())],
            pass_fds=(theirs.fileno(), region.fd, figures.region.fd),
        )
        theirs.close()
        ours.sendall(json.dumps(config).encode() + b"\n")
        self.channel = ours

    def end(self) -> None:
        self.channel.close()
        assert self.process.wait(30) == 0


def test_process_goes_on_where_a_killed_one_stopped(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    region = ring.create("t", 0, 1 << 22, 16384)
    writer, figures = ring.RingWriter(region), SenderFigures.create("t")
    body = sip_body(method=b"INVITE", call_id=b"c1")
    sent = 0
    for _ in range(2):
        process = SenderProcess(path, region, figures)
        for _ in range(1500):
            writer.write(records.SIP, 0, sent, body)
            sent += 1
        while figures.as_dict()["reported"] < sent - 1400:
            time.sleep(0.005)
        process.process.kill()
        process.process.wait()
        process.channel.close()
    process = SenderProcess(path, region, figures)
    while ring.figures(region)["unread"]:
        time.sleep(0.005)
    process.end()
    found = figures.as_dict()
    assert figures.settled() + ring.figures(region)["lost"] == sent == ring.figures(region)["written"]
    lines = path.read_bytes().splitlines()
    assert all(json.loads(line)["labels"]["sip.call-id"] == "c1" for line in lines)
    assert found["reported"] <= len(lines) <= found["reported"] + found["lost_with_sender"]
