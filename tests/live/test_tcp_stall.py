"""A peer that does not read, from before the observer came until after it has gone."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from engine.errors import OtusError
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.bcc import BccBackend
from engine.tcp.libbpf import LibbpfBackend
from engine.tcp.netlink import NetlinkBackend
from tests.live.tcp_path import path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Namespace
    from tests.live.tcp_path import Path

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
KINDS: dict[str, type[LibbpfBackend | BccBackend | NetlinkBackend]] = {
    "libbpf": LibbpfBackend,
    "bcc": BccBackend,
    "netlink": NetlinkBackend,
}


@pytest.fixture
def stalled() -> Iterator[Path]:
    """A path with a connection whose server has closed its window."""
    with path() as made:
        listener = made.listen(receive_buffer=4096)
        client, _ = made.pair(listener)
        client.setblocking(False)
        try:
            while True:
                client.send(b"w" * 4096)
        except BlockingIOError:
            pass
        time.sleep(0.3)
        yield made


def begun(kind: str, where: Namespace) -> LibbpfBackend | BccBackend | NetlinkBackend:
    filters = Filters(netns=where.inode, namespaces=(where,))
    made = KINDS[kind](filters, Triggers(), Limits(), Sizes())
    try:
        made.start()
    except OtusError as error:
        pytest.skip(error.message)
    return made


@pytest.mark.parametrize("kind", ["libbpf", "netlink"])
@pytest.mark.parametrize("side", ["received", "sent"])
def test_a_window_that_stays_closed_counts_while_it_does(stalled: Path, kind: str, side: str) -> None:
    """Its time is booked at each look, not when it opens, which may be never; and it is an event."""
    made = begun(kind, stalled.client if side == "received" else stalled.server)
    try:
        at = time.monotonic()
        made.connections()
        time.sleep(0.4)
        made.connections()
        counters = made.read().counters
        took = time.monotonic() - at
        assert 0.39 <= counters[f"zero_window_{side}_ns"] / 1e9 <= took
        # With netlink those sent are the kernel's count, which was before.
        assert counters[f"zero_window_{side}"] == (0 if (kind, side) == ("netlink", "sent") else 1)
        time.sleep(0.1)
        made.connections()
        assert made.read().counters[f"zero_window_{side}_ns"] > counters[f"zero_window_{side}_ns"]
        assert [event.direction for event in made.events() if event.trigger == "zero_window"] == [side]
    finally:
        made.stop()


@pytest.mark.parametrize("side", ["received", "sent"])
def test_a_window_that_opens_where_no_program_sees_it_counts_no_longer(side: str) -> None:
    """Its segments are not sampled, or its connection ends: looks see that it is open."""
    with path() as where:
        client, server = where.pair(where.listen(receive_buffer=4096))
        client.setblocking(False)
        made = begun("libbpf", where.client if side == "received" else where.server)
        try:
            made.connections()
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(b"w" * 4096)
            time.sleep(0.3)
            made.connections()
            assert made.read().counters[f"zero_window_{side}"] == 1
            if side == "received":
                made.set_sampling(1024)
            else:
                server.shutdown(socket.SHUT_WR)
            server.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while server.recv(1 << 16):
                    pass
            made.connections()
            before = made.read().counters
            time.sleep(0.2)
            made.connections()
            after = made.read().counters
            assert after[f"zero_window_{side}_ns"] == before[f"zero_window_{side}_ns"]
            assert after[f"zero_window_{side}"] == 1
        finally:
            made.stop()


def test_bcc_does_not_count_a_window_as_closed_that_opened_unseen() -> None:
    with path() as where:
        client, server = where.pair(where.listen(receive_buffer=4096))
        client.setblocking(False)
        made = begun("bcc", where.client)
        try:
            with contextlib.suppress(BlockingIOError):
                while True:
                    client.send(b"w" * 4096)
            time.sleep(0.3)
            assert made.read().counters["zero_window_received"] == 1
            made.set_sampling(1024)
            server.settimeout(0.5)
            with contextlib.suppress(TimeoutError):
                while server.recv(1 << 16):
                    pass
            before = made.read().counters["zero_window_received_ns"]
            time.sleep(0.5)
            client.close()
            server.close()
            time.sleep(0.1)
            assert made.read().counters["zero_window_received_ns"] == before
        finally:
            made.stop()


def test_programs_of_bcc_tell_of_the_peers_windows_and_looks_of_our_own(stalled: Path) -> None:
    """One event of each, and none twice."""
    for side, where in (("received", stalled.client), ("sent", stalled.server)):
        made = begun("bcc", where)
        try:
            told: list[str] = []
            deadline = time.monotonic() + 8
            while not told and time.monotonic() < deadline:
                made.connections()
                time.sleep(0.1)
                told += [event.direction for event in made.events() if event.trigger == "zero_window"]
            assert told == [side]
        finally:
            made.stop()


def test_without_looks_the_answers_to_probes_tell_of_it(stalled: Path) -> None:
    """Programs of BCC see segments alone."""
    made = begun("bcc", stalled.client)
    try:
        deadline = time.monotonic() + 8
        while not made.read().counters["zero_window_received_ns"] and time.monotonic() < deadline:
            time.sleep(0.1)
        counters = made.read().counters
        assert counters["zero_window_received"] == 1
        assert counters["zero_window_received_ns"] > 0
    finally:
        made.stop()
