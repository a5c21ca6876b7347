"""What the libbpf backend counts: by address, port, interface, namespace, cgroup and process."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from ipaddress import ip_network

from tests.live.cgroup import enter, own_cgroup
from tests.live.tcp_loopback import observer, visit
from tests.live.tcp_path import CLIENT, NEEDS_PROGRAMS, SERVER, Path

pytestmark = NEEDS_PROGRAMS


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
    with own_cgroup("inner") as (outer, home):
        backend = observer(netns=loopback, cgroup=outer.stat().st_ino)
        try:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                visit(listener)
                assert not backend.read().transitions
                enter(outer / "inner")
                visit(listener)
                enter(home)
            transitions = backend.read().transitions
            # The accepted side is in its listener's cgroup.
            assert transitions["SYN_SENT", "ESTABLISHED"] == 1
            assert ("SYN_RECV", "ESTABLISHED") not in transitions
        finally:
            backend.stop()


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
