"""Maps of the libbpf backend: what they hold and evict, what they cost, and what its plan says of it."""

from __future__ import annotations

import os
import socket
import tracemalloc
from contextlib import ExitStack, suppress
from pathlib import Path as File
from typing import TYPE_CHECKING

import pytest

from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend, layout, loader, maps
from tests.live.tcp_loopback import observer, visit
from tests.live.tcp_path import NEEDS_PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterable

pytestmark = NEEDS_PROGRAMS


def test_the_plan_of_a_running_observer_is_what_runs(loopback: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of a program that the verifier refused."""
    load = loader.BpfObject.load

    def refuses(self: loader.BpfObject, names: Iterable[str]) -> None:
        wanted = list(names)
        if "segment" in wanted:
            raise loader.RefusedError("segment", "R1 invalid mem access", [])
        load(self, wanted)

    monkeypatch.setattr(loader.BpfObject, "load", refuses)
    backend = observer(netns=loopback)
    try:
        [segment] = [one for one in backend.plan().programs if one.name == "segment"]
        assert not segment.on
        assert "R1 invalid mem access" in segment.why
        assert "verifier" in backend.off["rtt"]
        backend.plan()
        [on] = [one for one in backend.plan().programs if one.name == "state_change"]
        assert on.on
    finally:
        backend.stop()


def test_plans_cost_no_memory() -> None:
    """The kernel's types are some megabytes."""
    backend = LibbpfBackend(Filters(), Triggers(), Limits(), Sizes())
    backend.plan()
    before = memory_of_this_process()
    for _ in range(10):
        backend.plan()
    assert memory_of_this_process() - before < 12 << 20


def memory_of_this_process() -> int:
    pages = int(File("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_more_sockets_than_the_map_holds_are_evicted_and_counted(loopback: int) -> None:
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(), Limits(), Sizes(sockets=128))
    backend.start()
    try:
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listener, ExitStack() as stack:
            for _ in range(400):
                client = stack.enter_context(socket.create_connection(listener.getsockname()))
                stack.enter_context(listener.accept()[0])
                assert client
            reading = backend.read()
            assert 800 - 128 <= reading.counters["sockets_evicted"] <= 801
            assert reading.transitions["SYN_SENT", "ESTABLISHED"] == 400
            assert len(backend.connections()) == 800
        assert backend.read().transitions["CLOSE", "SYN_SENT"] == 400
    finally:
        backend.stop()


def test_large_tables_are_counted_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """In little memory, and not at each reading."""
    if os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES") < 1 << 30:
        pytest.skip("needs 1 GiB")
    entries = 150_000
    backend = LibbpfBackend(Filters(netns=1), Triggers(), Limits(), Sizes(sockets=entries))
    backend.start()
    try:
        assert backend._object is not None
        descriptor = backend._object.descriptor("sockets")
        state = bytes(layout.SOCKET_STATE_OCTETS)
        for number in range(1, 100_001):
            maps.update(descriptor, number.to_bytes(8, "little"), state)
        counted: list[int | None] = []
        occupancy = maps.occupancy

        def watched(*words: int) -> int | None:
            counted.append(occupancy(*words))
            return counted[-1]

        monkeypatch.setattr(maps, "occupancy", watched)
        tracemalloc.start()
        for _ in range(5):
            assert backend._reader._count_evicted(100_010, 0) == 10
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert counted == [100_000]
        assert most < 4 << 20
        backend._reader.count_now()
        assert backend._reader._count_evicted(100_020, 0) == 20
    finally:
        backend.stop()


def test_many_short_connections_evict_nothing(loopback: int) -> None:
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(), Limits(), Sizes(sockets=512))
    backend.start()
    try:
        ended = 0
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(1500):
                visit(listener, 0)
                ended += len(backend.closed())
        reading = backend.read()
        assert ended == 3000
        assert reading.counters["sockets_evicted"] == reading.counters["closed_lost"] == 0
    finally:
        backend.stop()


def test_memory_of_the_maps_is_what_the_plan_says() -> None:
    backend = LibbpfBackend(Filters(), Triggers(), Limits(), Sizes())
    planned = {one.name: one.octets for one in backend.plan().maps}
    backend.start()
    try:
        for name, octets in planned.items():
            opened = backend._object
            assert opened is not None
            text = File(f"/proc/self/fdinfo/{opened.descriptor(name)}").read_text("ascii")
            held = next(int(line.split()[1]) for line in text.splitlines() if line.startswith("memlock"))
            if held and octets > 65_536:
                assert abs(held - octets) <= octets * 0.25, (name, held, octets)
    finally:
        backend.stop()


def test_keys_of_a_map_end(loopback: int) -> None:
    backend = observer(netns=loopback)
    try:
        opened = backend._object
        assert opened is not None
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 1)).close()
        assert len(list(maps.keys(opened.descriptor("drops"), 16))) >= 1
    finally:
        backend.stop()
