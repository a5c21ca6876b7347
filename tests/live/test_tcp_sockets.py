"""The libbpf backend on real sockets: times against ss and the wire, filters, owners, limits, memory."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
import tracemalloc
from contextlib import ExitStack, suppress
from ipaddress import ip_network
from pathlib import Path as File
from typing import TYPE_CHECKING

import pytest

from engine.tcp import histogram
from engine.tcp.backend import MOST_TOP_FLOWS, Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend, layout, loader, maps
from tests.live.namespace import own_namespace
from tests.live.tcp_delay import FAR, delay
from tests.live.tcp_path import CLIENT, NEEDS_PROGRAMS, SERVER, Path, watch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

pytestmark = NEEDS_PROGRAMS


@pytest.fixture
def loopback() -> Iterator[int]:
    """Inode of a namespace of one's own, entered."""
    with own_namespace() as name:
        yield os.stat(f"/run/netns/{name}").st_ino


def observer(**filters: object) -> LibbpfBackend:
    made = LibbpfBackend(Filters(**filters), Triggers(), Limits(), Sizes())  # type: ignore[arg-type]
    made.start()
    return made


def visit(listener: socket.socket, requests: int = 1, address: str = "127.0.0.1") -> int:
    """A short connection; its client's port."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as client:
        client.connect((address, listener.getsockname()[1]))
        server, _ = listener.accept()
        with server:
            for _ in range(requests):
                client.sendall(b"q" * 1000)
                server.recv(1000)
                server.sendall(b"a" * 10)
                client.recv(10)
        port: int = client.getsockname()[1]
    return port


def test_times_of_a_slow_path(between: Path) -> None:
    with delay(between, 0.01) as slow, watch(between.client) as near, watch(between.server) as far:
        listener = between.listen()
        pairs = []
        for _ in range(5):
            client = between.open()
            client.connect((FAR, 8080))
            server, _ = listener.accept()
            pairs.append((client, server))
        for _ in range(8):
            for client, server in pairs:
                client.sendall(b"q" * 100)
                server.recv(100)
                server.sendall(b"a")
                client.recv(1)
        text = between.run(between.client, "ss", "-tin", "dst", FAR)
        truth = [float(one) * 1000 for one in re.findall(r" rtt:([\d.]+)/", text)]
        rows = [row for row in near.backend.connections() if row.remote == FAR]
        assert len(rows) == len(truth) == 5
        for row, rtt in zip(sorted(row.srtt_us or 0 for row in rows), sorted(truth), strict=True):
            assert abs(row - rtt) <= rtt * 0.02
        reading, _ = near.read()
        middle = histogram.quantile(reading.histograms["rtt_us"].buckets, 0.5, 3)
        assert middle is not None
        assert abs(middle - sum(truth) / 5) <= sum(truth) / 5 * (0.1 + histogram.error(3))
        wire = sum(slow.handshakes) / 5 * 1e6
        took = reading.histograms["handshake_client_us"]
        assert sum(took.buckets) == 5
        assert abs(took.total / 5 - wire) <= wire * 0.2
        server_side, _ = far.read()
        took = server_side.histograms["handshake_server_us"]
        assert sum(took.buckets) == 5
        assert abs(took.total / 5 - wire) <= wire * 0.2
        for client, server in pairs:
            client.close()
            server.close()


def test_octets_of_ended_connections_are_whole(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        backend = observer(netns=loopback)
        try:
            ports = [visit(listener, 50) for _ in range(20)]
            ended = backend.closed()
            assert len(ended) == 2 * len(ports)
            # The SYN and the FIN count as one octet each in what was acknowledged.
            sent = [one for one in ended if one.bytes_received < one.bytes_acked]
            assert all(50_000 <= one.bytes_acked <= 50_002 for one in sent)
            assert all(500 <= one.bytes_received <= 501 for one in sent)
        finally:
            backend.stop()


def counted(loopback: int, listener: socket.socket, **filters: object) -> tuple[int, int]:
    """Transitions into ESTABLISHED and RTT samples of one visit, with a filter."""
    backend = observer(netns=loopback, **filters)
    try:
        visit(listener, 5)
        reading = backend.read()
        return (
            sum(count for (_, new), count in reading.transitions.items() if new == "ESTABLISHED"),
            reading.counters["rtt_samples"],
        )
    finally:
        backend.stop()


def test_filters_of_ports_prefixes_and_interface(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        both, samples = counted(loopback, listener)
        assert both == 2
        assert samples >= 10
        server = counted(loopback, listener, local_ports=[(port, port)])
        assert server[0] == 1
        assert 0 < server[1] < samples
        assert counted(loopback, listener, remote_ports=[(port - 1, port + 1)])[0] == 1
        assert counted(loopback, listener, local_ports=[(1, port - 1)], remote_ports=[(1, 2)]) == (0, 0)
        assert counted(loopback, listener, local_networks=[ip_network("127.0.0.0/8")])[0] == 2
        assert counted(loopback, listener, remote_networks=[ip_network("10.0.0.0/8")]) == (0, 0)
        wanted = [ip_network("2001:db8::/32"), ip_network("127.0.0.1/32")]
        assert counted(loopback, listener, remote_networks=wanted)[0] == 2
        assert counted(loopback, listener, interface="lo")[0] == 2


def test_a_client_is_counted_from_its_first_state_by_its_own_port(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        backend = observer(netns=loopback, local_ports=[(31_007, 31_007)])
        try:
            with socket.socket() as client:
                client.bind(("127.0.0.1", 31_007))
                client.connect(listener.getsockname())
                listener.accept()[0].close()
                client.recv(1)
            visit(listener)
            transitions = backend.read().transitions
            assert transitions["CLOSE", "SYN_SENT"] == transitions["SYN_SENT", "ESTABLISHED"] == 1
            assert sum(backend.read().histograms["handshake_client_us"].buckets) == 1
            # The kernel takes a port back before it tells of CLOSE: the end of another one counts no more.
            assert sum(n for (_, new), n in transitions.items() if new == "CLOSE") == 1
            assert len(backend.closed()) == 1
        finally:
            backend.stop()


def test_mapped_addresses_are_those_of_ipv4(loopback: int) -> None:
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        backend = observer(netns=loopback, local_networks=[ip_network("127.0.0.1/32")])
        try:
            with socket.create_connection(("127.0.0.1", listener.getsockname()[1])):
                server, _ = listener.accept()
                rows = backend.connections()
                assert {(row.local, row.remote) for row in rows} == {("127.0.0.1", "127.0.0.1")}
                assert len(rows) == 2
                server.close()
            visit(listener, 1, "::1")
            assert sum(n for (_, new), n in backend.read().transitions.items() if new == "ESTABLISHED") == 2
        finally:
            backend.stop()


def test_other_namespaces_do_not_count(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        backend = observer(netns=loopback + 1)
        try:
            visit(listener)
            with suppress(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", 1))
            reading = backend.read()
            assert not reading.transitions
            assert not reading.drops
            assert not any(value for name, value in reading.counters.items() if name != "sockets_evicted")
        finally:
            backend.stop()


def test_every_namespace_is_visited(between: Path) -> None:
    listener = between.listen()
    client, server = between.pair(listener)
    backend = observer(namespaces=(between.client, between.server))
    try:
        rows = {(row.netns, row.local): row for row in backend.connections()}
        assert (between.client.inode, CLIENT) in rows
        assert (between.server.inode, SERVER) in rows
        assert {one.netns for one in backend.listeners()} == {between.server.inode}
        assert len({row.cookie for row in rows.values()}) == len(rows)
        backend.set_namespaces((between.client,))
        assert {row.netns for row in backend.connections()} == {between.client.inode}
    finally:
        backend.stop()
        client.close()
        server.close()


def test_a_cgroup_and_what_is_below_it(loopback: int) -> None:
    mounts = File("/proc/mounts").read_text("ascii").splitlines()
    mount = next((line.split()[1] for line in mounts if " cgroup2 " in line), "")
    if not mount:
        pytest.skip("no cgroup v2")
    outer = File(mount, f"otus-test-{os.getpid()}")
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
    except OSError:
        pytest.skip("cgroups cannot be made here")
    home = File(mount, File("/proc/self/cgroup").read_text("ascii").split("::", 1)[1].split()[0].lstrip("/"))
    try:
        backend = observer(netns=loopback, cgroup=outer.stat().st_ino)
        try:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                visit(listener)
                assert not backend.read().transitions
                (inner / "cgroup.procs").write_text(str(os.getpid()))
                visit(listener)
                (home / "cgroup.procs").write_text(str(os.getpid()))
            transitions = backend.read().transitions
            # The accepted side is in its listener's cgroup.
            assert transitions["SYN_SENT", "ESTABLISHED"] == 1
            assert ("SYN_RECV", "ESTABLISHED") not in transitions
        finally:
            backend.stop()
    finally:
        (home / "cgroup.procs").write_text(str(os.getpid()))
        inner.rmdir()
        outer.rmdir()


ACCEPTOR = """
import socket, sys
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    sys.stdin.readline()
    one, _ = listener.accept()
    with one:
        one.recv(1)
        one.sendall(b"a")
        sys.stdin.readline()
"""


def test_what_a_watched_process_accepts(loopback: int) -> None:
    with ExitStack() as stack:
        child = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", ACCEPTOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
        assert child.stdin is not None
        assert child.stdout is not None
        port = int(child.stdout.readline())
        backend = observer(netns=loopback, pids=[child.pid])
        stack.callback(backend.stop)
        assert [one.port for one in backend.listeners()] == [port]
        child.stdin.write("accept\n")
        child.stdin.flush()
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"q")
            client.recv(1)
            (row,) = backend.connections()
            assert (row.local_port, row.pid, row.role) == (port, child.pid, "server")
            assert row.pid_source in ("listen", "io")
            assert row.comm.startswith("python")
        child.stdin.write("end\n")
        child.stdin.flush()
        assert child.wait(10) == 0
        assert backend.read().transitions["SYN_RECV", "ESTABLISHED"] == 1


PEER = """
import socket, sys, time
held = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
held.sendall(b"x" * 10)
print("up", flush=True)
for line in sys.stdin:
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as one:
        one.sendall(b"x" * 10)
        one.recv(1)
        held.sendall(b"x")
    print("done", flush=True)
"""


def test_a_process_is_watched_by_its_sockets(loopback: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        port = listener.getsockname()[1]
        child = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-c", PEER, str(port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        old, _ = listener.accept()
        stack.enter_context(old)
        backend = observer(netns=loopback, pids=[child.pid])
        stack.callback(backend.stop)
        # The socket that the process had before the observer began.
        assert [row.remote_port for row in backend.connections()] == [port]
        child.stdin.write("go\n")
        child.stdin.flush()
        new, _ = listener.accept()
        new.recv(10)
        rows = backend.connections()
        assert {row.pid_source for row in rows if row.pid == child.pid} <= {"connect", "io"}
        assert all(row.remote_port == port for row in rows)
        new.close()
        assert child.stdout.readline() == "done\n"
        visit(listener)
        assert backend.read().transitions["SYN_SENT", "ESTABLISHED"] == 1
        child.stdin.close()


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
    # At most two seconds' worth.
    assert 10 <= len(events) <= 20
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
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(socket.create_connection(listener.getsockname()))
            server = stack.enter_context(listener.accept()[0])
            for _ in range(3):
                client.sendall(b"q")
                server.recv(1)
                server.sendall(b"a")
                client.recv(1)
        backend.stop()
    events, reading = backend.events(), backend.read()
    assert len(events) == reading.counters["events_emitted"] == 3
    assert reading.suppressed["rate"] == 3
    assert reading.suppressed["first"] == 0
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
        assert [one.connection.remote_port for one in backend.events()] == [pairs[0][0].getsockname()[1]]
        assert backend.read().suppressed["flow"] == 1
        time.sleep(1.1)
        asks_and_answers(*pairs[1])
        assert [one.connection.remote_port for one in backend.events()] == [pairs[1][0].getsockname()[1]]
        backend.stop()


def test_as_many_top_flows_as_may_be_load_at_once(loopback: int) -> None:
    """The verifier follows each way through a loop that branches: that took it minutes."""
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(), Limits(top_flows=MOST_TOP_FLOWS), Sizes())
    begun = time.process_time()
    backend.start()
    try:
        assert backend.off == {}
        assert time.process_time() - begun < 5
    finally:
        backend.stop()


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


def test_segments_can_be_sampled_by_flow(loopback: int) -> None:
    backend = observer(netns=loopback)
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            for _ in range(20):
                visit(listener, 5)
            whole = backend.read().counters["rtt_samples"]
            backend.set_sampling(8)
            for _ in range(20):
                visit(listener, 5)
            thin = backend.read().counters["rtt_samples"] - whole
            assert thin < whole / 2
            backend.set_sampling(1)
            before = backend.read()
            visit(listener, 5)
            assert backend.read().counters["rtt_samples"] - before.counters["rtt_samples"] >= 10
            # Rarer things stay exact.
            assert backend.read().transitions["SYN_SENT", "ESTABLISHED"] == 41
    finally:
        backend.stop()


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


def test_costs_are_the_kernels(loopback: int) -> None:
    backend = observer(netns=loopback)
    try:
        assert backend.costs() == []
        backend.count_costs()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            visit(listener, 20)
        costs = {one.program: one for one in backend.costs()}
        assert costs["segment"].runs >= 40
        assert costs["segment"].ns > 0
    finally:
        backend.stop()
    assert {one.program for one in backend.costs()} == set(costs)


def test_buckets_of_the_kernel_are_those_of_this_side(loopback: int) -> None:
    backend = LibbpfBackend(Filters(netns=loopback), Triggers(), Limits(), Sizes(sub_bits=4))
    backend.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            visit(listener, 50)
            with socket.create_connection(listener.getsockname()):
                backend.connections()
        reading = backend.read()
        for name, one in reading.histograms.items():
            assert len(one.buckets) == histogram.bucket_count(4)
            if any(one.buckets):
                highest = max(index for index, count in enumerate(one.buckets) if count)
                assert highest == histogram.bucket(one.largest, 4), name
                low = sum(histogram.lower_bound(i, 4) * n for i, n in enumerate(one.buckets))
                high = sum(histogram.upper_bound(i, 4) * n for i, n in enumerate(one.buckets))
                assert low <= one.total <= high, name
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
