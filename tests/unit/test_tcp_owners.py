"""Who holds a socket: what /proc says now, not what it once said."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.tcp import owners
from engine.tcp.backend import Connection, Listener

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def owner(known: owners.Owners, server: socket.socket) -> tuple[int | None, str]:
    row = Listener("127.0.0.1", 1, 0, 1, 0, inode=os.fstat(server.fileno()).st_ino)
    known.fill([row])
    return row.pid, row.comm


def test_a_process_that_has_ended_owns_nothing(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owners, "SECONDS", 30.0)
    known = owners.Owners()
    with subprocess.Popen(["sleep", "60"], pass_fds=[server.fileno()]) as child:
        try:
            assert owner(known, server) == (child.pid, "sleep")
            # The look is young: nobody is asked again.
            assert owner(known, server)[0] == child.pid
        finally:
            child.kill()
    monkeypatch.setattr(owners, "PAUSE_S", 0.0)
    monkeypatch.setattr(owners, "STALE_S", 0.0)
    assert owner(known, server)[0] == os.getpid()


def test_who_accepts_need_not_be_who_listens(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that forks: one listens, another has the connection."""
    monkeypatch.setattr(owners, "SECONDS", 30.0)
    rows = []
    with socket.create_connection(server.getsockname()) as client, server.accept()[0] as accepted:
        inode = os.fstat(accepted.fileno()).st_ino
        with subprocess.Popen(["sleep", "60"], pass_fds=[accepted.fileno()]) as child:
            accepted.close()
            for state, number in (("ESTABLISHED", inode), ("LISTEN", inode), ("ESTABLISHED", 1 << 40)):
                row = Connection(1, state, "127.0.0.1", 1, "127.0.0.1", client.getsockname()[1])
                row.pid, row.comm, row.pid_source, row.inode = os.getpid(), "listens", "listen", number
                rows.append(row)
            owners.Owners().fill(rows)
            child.kill()
    listens = (os.getpid(), "listens", "listen")
    assert [(row.pid, row.comm, row.pid_source) for row in rows] == [
        (child.pid, "sleep", "proc"), listens, listens,
    ]  # fmt: skip


def test_the_youngest_is_the_one_that_was_started_last(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the one with the highest number: after the last number comes a low one again."""
    monkeypatch.setattr(owners, "SECONDS", 30.0)
    last = Path("/proc/sys/kernel/ns_last_pid")
    if not os.access(last, os.W_OK):
        pytest.skip("only root may choose the next process number")
    for _ in range(50):
        last.write_text("310")
        with subprocess.Popen(["sleep", "60"], pass_fds=[server.fileno()]) as child:
            try:
                if child.pid < os.getpid():
                    assert owner(owners.Owners(), server) == (child.pid, "sleep")
                    return
            finally:
                child.kill()
    pytest.skip("no number below that of the test itself is free")


def test_another_name_is_seen(server: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owners, "SECONDS", 30.0)
    monkeypatch.setattr(owners, "PAUSE_S", 0.0)
    monkeypatch.setattr(owners, "STALE_S", 0.0)
    known = owners.Owners()
    name = Path("/proc/self/comm")
    before = name.read_text()
    try:
        name.write_text("one")
        assert owner(known, server) == (os.getpid(), "one")
        name.write_text("two")
        assert owner(known, server) == (os.getpid(), "two")
    finally:
        name.write_text(before.rstrip("\n"))


def test_a_look_in_parts_forgets_nobody_before_its_end(
    server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of /proc each time: who was known stays so until the whole was seen."""
    known = owners.Owners()
    monkeypatch.setattr(owners, "SECONDS", 30.0)
    assert owner(known, server)[0] == os.getpid()
    monkeypatch.setattr(owners, "PAUSE_S", 0.0)
    monkeypatch.setattr(owners, "STALE_S", 0.0)
    monkeypatch.setattr(owners, "SECONDS", 1e-9)
    for _ in range(5):
        assert owner(known, server)[0] == os.getpid()
