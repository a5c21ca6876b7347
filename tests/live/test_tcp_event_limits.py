"""Events of the libbpf backend: rate, sample, first and last of a flow, top flows; none goes uncounted."""

from __future__ import annotations

import os
import socket
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.tcp.backend import MOST_TOP_FLOWS, Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend
from tests.live.tcp_loopback import visit
from tests.live.tcp_path import NEEDS_PROGRAMS

if TYPE_CHECKING:
    from engine.tcp.backend import Event

pytestmark = NEEDS_PROGRAMS
SECOND = 1_000_000_000


def most_in_a_second(events: list[Event]) -> int:
    """The rate is that of each full second of the kernel's clock."""
    return max(Counter(event.time_ns // SECOND for event in events).values())


def flood(triggers: Triggers, limits: Limits, loopback: int, connections: int = 4) -> LibbpfBackend:
    """An observer that saw some connections of many segments, all above a threshold; stopped."""
    backend = LibbpfBackend(Filters(netns=loopback), triggers, limits, Sizes())
    backend.start()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(connections):
            visit(listener, 3)
    for _ in range(30):
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 1)).close()
    backend.stop()
    return backend


def test_events_above_the_rate_are_counted_not_given(loopback: int) -> None:
    backend = flood(Triggers(resets=True), Limits(per_second=10), loopback)
    events = backend.events()
    reading = backend.read()
    assert most_in_a_second(events) == 10
    assert reading.suppressed["rate"] > 0
    assert reading.counters["events_emitted"] == len(events)
    assert reading.counters["events_emitted"] + reading.suppressed["rate"] == 60
    assert reading.counters["events_lost"] == 0
    assert [event.time_ns for event in events] == sorted(event.time_ns for event in events)


def test_one_of_n_flows(loopback: int) -> None:
    backend = flood(Triggers(resets=True), Limits(per_second=1000, sample=4), loopback)
    given, kept = len(backend.events()), backend.read().suppressed["sample"]
    assert given + kept == 60
    assert 2 <= given <= 35


def test_a_ring_that_is_full_loses_and_counts(loopback: int) -> None:
    backend = LibbpfBackend(
        Filters(netns=loopback), Triggers(resets=True), Limits(per_second=100_000), Sizes(ring_bytes=4096)
    )
    backend.start()
    for _ in range(60):
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", 1)).close()
    backend.stop()
    given, reading = backend.events(), backend.read()
    assert reading.counters["events_lost"] > 0
    assert len(given) == reading.counters["events_emitted"]
    assert len(given) + reading.counters["events_lost"] == 120
    assert reading.counters["resets_sent"] == reading.counters["resets_received"] == 60


@pytest.mark.parametrize(("first", "last"), [(1, 0), (1, 2), (0, 2)])
def test_first_and_last_of_a_flow(loopback: int, first: int, last: int) -> None:
    backend = LibbpfBackend(
        Filters(netns=loopback),
        Triggers(rtt_above_us=1, drops=False, tlp=False),
        Limits(first=first, last=last, per_second=1000),
        Sizes(),
    )
    backend.start()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as client,
    ):
        server, _ = listener.accept()
        # One event a second and side: the trigger holds for as long as the connection lives.
        for _ in range(4):
            for _ in range(3):
                client.sendall(b"q")
                server.recv(1)
                server.sendall(b"a")
                client.recv(1)
            time.sleep(1.01)
        server.close()
        client.recv(1)
    time.sleep(0.1)
    backend.stop()
    events, reading = backend.events(), backend.read()
    flows: dict[int, int] = {}
    for event in events:
        flows[event.connection.cookie] = flows.get(event.connection.cookie, 0) + 1
    assert set(flows.values()) == {first + last}
    assert len(flows) == 2
    assert reading.suppressed["first"] >= 2
    assert reading.suppressed["repeat"] > 0
    assert reading.counters["events_emitted"] == len(events)


def test_what_is_held_back_of_flows_that_go_on_comes_at_the_end(loopback: int) -> None:
    """As far as the rate allows it; all that was triggered is accounted for."""
    backend = LibbpfBackend(
        Filters(netns=loopback), Triggers(rtt_above_us=1, tlp=False), Limits(last=2, per_second=3), Sizes()
    )
    backend.start()
    begun = time.monotonic_ns()
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            server = stack.enter_context(listener.accept()[0])
            for _ in range(3):
                client.sendall(b"q")
                server.recv(1)
                server.sendall(b"a")
                client.recv(1)
        stopped = time.monotonic_ns()
        backend.stop()
        ended = time.monotonic_ns()
    events, reading = backend.events(), backend.read()
    assert reading.counters["events_emitted"] == len(events)
    assert 3 <= len(events) <= 3 * (ended // SECOND - stopped // SECOND + 1)
    # One of each socket, and one more for each second that it lasted.
    triggered = len(events) + reading.suppressed["rate"] + reading.suppressed["first"]
    assert 6 <= triggered <= 6 * (1 + (stopped - begun) // SECOND)
    assert all(event.trigger == "rtt_above" and event.connection.local == "127.0.0.1" for event in events)
    assert [event.time_ns for event in events] == sorted(event.time_ns for event in events)


def test_what_cannot_be_taken_from_the_ring_is_lost_and_counted(
    loopback: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(resets=True), Limits(), Sizes())
    backend.start()

    def breaks(_: bytes) -> None:
        raise ValueError("a mistake of ours")

    monkeypatch.setattr(backend._records, "event", breaks)
    with suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 1)).close()
    assert backend.events() == []
    counters = backend.read().counters
    assert counters["events_emitted"] == 0
    assert counters["events_lost"] >= 1
    lost = counters["events_lost"]
    monkeypatch.undo()
    with suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 1)).close()
    given = len(backend.events())
    backend.stop()
    assert backend.read().counters["events_lost"] == lost
    assert backend.read().counters["events_emitted"] == given > 0
    assert capfd.readouterr().err == ""


def asks_and_answers(client: socket.socket, server: socket.socket) -> None:
    for _ in range(2):
        client.sendall(b"q")
        server.recv(1)
        server.sendall(b"a")
        client.recv(1)


def test_top_flows_give_way_to_those_with_more(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        backend = LibbpfBackend(
            Filters(netns=loopback, local_ports=[(port, port)]),
            Triggers(rtt_above_us=1, tlp=False), Limits(top_flows=1, per_second=1000), Sizes(),
        )  # fmt: skip
        backend.start()
        pairs = []
        for _ in range(2):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            pairs.append((client, stack.enter_context(listener.accept()[0])))
            asks_and_answers(*pairs[-1])
        assert {one.connection.remote_port for one in backend.events()} == {pairs[0][0].getsockname()[1]}
        assert backend.read().suppressed["flow"] >= 1
        told: set[int] = set()
        # One event a second of each flow: until the second one has more than the first.
        for _ in range(5):
            time.sleep(1.1)
            asks_and_answers(*pairs[1])
            if told := {one.connection.remote_port for one in backend.events()}:
                break
        assert told == {pairs[1][0].getsockname()[1]}
        backend.stop()


def verified(loopback: int, top_flows: int) -> int:
    """Instructions that the verifier looks at until the programs are loaded; 0 before Linux 5.16."""
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(), Limits(top_flows=top_flows), Sizes())
    backend.start()
    try:
        assert backend.off == {}
        found = 0
        for descriptor in os.listdir("/proc/self/fdinfo"):
            with suppress(FileNotFoundError):
                lines = Path("/proc/self/fdinfo", descriptor).read_text().splitlines()
                found += sum(int(line.split()[1]) for line in lines if line.startswith("verified_insns:"))
        return found
    finally:
        backend.stop()


def test_as_many_top_flows_as_may_be_load_at_once(loopback: int) -> None:
    """The verifier follows each way through a loop that branches: that took it minutes."""
    assert verified(loopback, MOST_TOP_FLOWS) <= 5 * verified(loopback, 0)


def test_a_flow_that_has_ended_leaves_its_place_among_the_top(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        backend = LibbpfBackend(
            Filters(netns=loopback, remote_ports=[(port, port)]),
            Triggers(resets=True), Limits(top_flows=1, per_second=1000), Sizes(),
        )  # fmt: skip
        backend.start()
        for _ in range(5):
            with socket.create_connection(listener.getsockname()) as client:
                server, _ = listener.accept()
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0" + bytes(4))
                server.close()
                with suppress(ConnectionResetError):
                    client.recv(1)
        backend.stop()
        reading = backend.read()
        assert reading.suppressed["flow"] == 0
        assert [one.trigger for one in backend.events()] == ["reset"] * 5


def test_the_p99_is_told_to_the_kernel(loopback: int) -> None:
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(rtt_p99=True), Limits(), Sizes())
    backend.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            visit(listener, 5)
            assert backend.events() == []
            backend.set_rtt_p99(1)
            visit(listener, 5)
        events = backend.events()
        assert {event.trigger for event in events} == {"rtt_p99"}
        assert all(event.value > event.threshold == 1 for event in events)
    finally:
        backend.stop()
