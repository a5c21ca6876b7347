"""The observer as a whole, over a path of its own: what it books of a look, and which events it gives out."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from engine.tcp import options
from engine.tcp.backend import Namespace
from engine.tcp.observer import Observer
from tests.builds import ROOT
from tests.live.tcp_path import NEEDS_PROGRAMS, SERVER, Path, needs

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [*NEEDS_PROGRAMS, needs("nft")]


class Run:
    """A sink that keeps what it gets, and its observer."""

    def __init__(self, where: Namespace, **words: Any) -> None:
        self.summaries: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        words = {"mode": "both", "backend": "libbpf", "netns": where.name, "interval": 0.2, **words}
        self.observer = Observer(options.make(**words), self)

    def summary(self, document: dict[str, Any], observer: Observer) -> None:
        self.summaries.append(document)

    def event(self, document: dict[str, Any]) -> None:
        self.events.append(document)

    def turn(self, seconds: float) -> None:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            self.observer.turn()
            time.sleep(0.02)

    def of(self, trigger: str) -> list[dict[str, Any]]:
        lines = [line for line in self.events if line["event_type"] == "tcp"]
        return [line for line in lines if line["trigger"]["name"] == trigger]

    @property
    def final(self) -> dict[str, Any]:
        return self.summaries[-1]

    @property
    def end(self) -> dict[str, Any]:
        return self.events[-1]


@contextmanager
def observing(where: Namespace, **words: Any) -> Iterator[Run]:
    """From its start to its end."""
    run = Run(where, **words)
    try:
        run.observer.start()
        yield run
        run.observer.stop()
    finally:
        run.observer.close()


def connect(between: Path, count: int) -> list[socket.socket]:
    """Connections that are begun, not waited for."""
    clients = [between.open() for _ in range(count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex((SERVER, 8080))
    return clients


@pytest.mark.parametrize("backend", ["libbpf", "netlink"])
def test_a_repeated_syn_is_no_drop_of_the_listening_socket(between: Path, backend: str) -> None:
    """The kernel adds it to sk_drops, and not to ListenDrops."""
    listener = between.listen()
    with observing(between.server, backend=backend) as run:
        between.drop("tcp sport 8080 tcp flags & (syn | ack) == syn | ack")
        connect(between, 4)
        run.turn(1.6)
    [row] = [row for row in run.final["listen"] if row["port"] == 8080]
    assert run.final["kernel"]["TcpExtListenDrops"] == 0
    assert between.dropped() >= 8
    assert (row["drops"], row["syn_drops"], row["accept_drops"]) == (0, 0, 0)
    assert run.of("backlog_overflow") == []
    listener.close()


@pytest.mark.parametrize("backend", ["libbpf", "netlink"])
def test_every_drop_of_a_full_queue_is_told_once(between: Path, backend: str) -> None:
    listener = between.listen(backlog=1)
    with observing(between.server, backend=backend) as run:
        connect(between, 8)
        run.turn(1.5)
    [row] = [row for row in run.final["listen"] if row["port"] == 8080]
    drops = run.final["kernel"]["TcpExtListenDrops"]
    assert row["drops"] == drops >= 6
    found = [line for line in run.of("backlog_overflow") if line["tcp_state"] == "LISTEN"]
    assert sum(line["trigger"]["value"] for line in found) == drops
    assert {line["src_port"] for line in found} == {8080}
    listener.close()


def test_events_that_a_look_finds_pass_the_same_stages(between: Path) -> None:
    listener = between.listen(backlog=1)
    words = {"rto": False, "tlp": False, "reset_rate": 1}
    with (
        observing(between.server, sample=1_000_000, **words) as sampled,
        observing(between.server, first=1, max_events=1000, **words) as first,
    ):
        for _ in range(3):
            connect(between, 4)
            for run in (sampled, first):
                run.turn(0.5)
    assert sampled.of("backlog_overflow") == []
    assert sampled.end["suppressed"]["sample"] >= 3
    looked = [line for line in first.of("backlog_overflow") if line["tcp_state"] == "LISTEN"]
    assert len(looked) == 1
    assert first.end["suppressed"]["first"] >= 2
    for run in (sampled, first):
        assert run.end["emitted"] == len(run.events) - 1
    listener.close()


def test_the_rate_of_resets_is_held_by_the_rate_of_events(between: Path) -> None:
    with observing(between.server, reset_rate=1, resets=True, max_events=2) as run:
        begun = time.monotonic()
        while time.monotonic() < begun + 1.5:
            for client in connect(between, 3):
                client.close()
            run.turn(0.1)
    given = len(run.events) - 1
    assert given == run.end["emitted"] <= 2 * (2 + int(time.monotonic() - begun))
    assert run.end["suppressed"]["rate"] > 10


def test_events_before_the_first_reading_are_counted(between: Path) -> None:
    run = Run(between.server, resets=True)
    start = run.observer._open_kernels

    def late(namespaces: Any) -> int:
        # The programs are attached, and nothing was read yet.
        for client in connect(between, 5):
            client.close()
        time.sleep(0.2)
        return start(namespaces)

    run.observer._open_kernels = late  # type: ignore[method-assign]
    try:
        run.observer.start()
        run.turn(0.3)
        run.observer.stop()
    finally:
        run.observer.close()
    assert len(run.of("reset")) == 5 == run.end["emitted"] == run.final["events"]["emitted"]


def test_a_namespace_that_is_gone_by_now_is_none_that_may_not_be_entered(between: Path) -> None:
    """Those of others come and go, also between the list and the look."""
    run = Run(between.server, netns="all", backend="netlink")
    gone = Namespace(1, "/run/netns/otus-gone", "otus-gone")
    run.observer.options.filters.namespaces = (*run.observer.options.filters.namespaces, gone)
    try:
        run.observer.start()
        assert not [note for note in run.observer.notes if "may not be entered" in note]
    finally:
        run.observer.close()


def test_no_events_without_somebody_to_take_them(between: Path) -> None:
    with observing(between.client, mode="summary") as run:
        between.drop("tcp flags syn")
        for client in connect(between, 3):
            del client
        run.turn(1.4)
    assert run.final["retransmits"]["by_class"]["syn"]["events"] == 3
    assert run.final["events"] == {
        "emitted": 0,
        "suppressed": dict.fromkeys(("repeat", "sample", "flow", "first", "rate"), 0),
        "lost": 0,
    }


def test_who_closes_a_connection_with_a_reset(between: Path) -> None:
    """Accepted before anything was watched: neither a listen() nor a look has told of the process."""
    listener = between.listen()
    pairs = [between.pair(listener) for _ in range(6)]
    with observing(between.server, resets=True) as run:
        run.observer.owners.fill = lambda rows: None  # type: ignore[method-assign]
        for number, (client, server) in enumerate(pairs):
            if number % 2:
                linger = struct.pack("ii", 1, 0)
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            else:
                client.sendall(b"never read")
                time.sleep(0.05)
            server.close()
        run.turn(0.3)
    found = run.of("reset")
    assert len(found) == 6
    assert {one["direction"] for one in found} == {"sent"}
    assert {(one["pid"], one["pid_source"]) for one in found} == {(os.getpid(), "io")}
    listener.close()


def test_events_say_which_way(between: Path) -> None:
    listener = between.listen(receive_buffer=65536)
    with observing(between.client, resets=True) as near, observing(between.server, resets=True) as far:
        client, server = between.pair(listener)
        client.setblocking(False)
        ends = time.monotonic() + 1.5
        while time.monotonic() < ends:
            try:
                client.send(b"z" * 65536)
            except BlockingIOError:
                near.turn(0.05)
                far.turn(0.05)
        server.close()
        for run in (near, far):
            run.turn(0.3)
    for run, way, back in ((near, "received", "received"), (far, "sent", "sent")):
        assert {one["direction"] for one in run.of("zero_window")} == {way}
        assert back in {one["direction"] for one in run.of("reset")}
        assert all(one["direction"] is None for one in run.of("rto") + run.of("tlp"))
    listener.close()


@pytest.mark.parametrize("rights", [(), ("setpriv", "--inh-caps=-all", "--bounding-set=-all")])
def test_namespaces_that_may_not_be_entered_are_told(between: Path, rights: tuple[str, ...]) -> None:
    server = between.listen()
    command = [sys.executable, "-m", "otus_tui", "tcp", "--netns", "all", "--backend", "netlink"]
    done = subprocess.run(
        [*rights, *command, "--duration", "0.3", "--format", "jsonl"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    final = json.loads(done.stdout.splitlines()[-1])
    places = {row["netns"] for row in final["listen"] if row["port"] == 8080}
    if rights:
        assert re.search(
            r"netns all: (one namespace|\d+ namespaces) may not be entered.*CAP_SYS_ADMIN", done.stderr
        )
        assert between.server.inode not in places
    else:
        # A process that even root may not look at is another matter.
        assert "may not be entered" not in done.stderr
        assert between.server.inode in places
    server.close()
