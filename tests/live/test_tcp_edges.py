"""Where counting goes wrong by one: tables that are read in parts, SYN and FIN, networks around networks,
clients that meet each other."""

from __future__ import annotations

import ctypes
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from typing import Any

import pytest

from engine.errors import OtusError
from engine.tcp.backend import Filters, Limits, Namespace, Sizes, Triggers
from engine.tcp.bcc import BccBackend
from engine.tcp.bcc import backend as bcc
from engine.tcp.libbpf import LibbpfBackend
from engine.tcp.namespaces import call_inside
from engine.tcp.netlink import NetlinkBackend
from engine.tcp.throughput import Throughput
from tests.live.engines import wait_for
from tests.live.tcp_delay import delay, exchange, far_pair
from tests.live.tcp_path import CLIENT, CLIENT6, NEEDS_PROGRAMS, SERVER, SERVER6, Path, needs

pytestmark = [*NEEDS_PROGRAMS, needs("nft")]
BACKENDS: dict[str, type[Any]] = {"libbpf": LibbpfBackend, "bcc": BccBackend, "netlink": NetlinkBackend}
with_every_backend = pytest.mark.parametrize("kind", BACKENDS)
with_programs = pytest.mark.parametrize("kind", ["libbpf", "bcc"])
PR_SET_NAME = 15


@contextmanager
def started(kind: str, where: Namespace, triggers: Triggers | None = None, **filters: Any) -> Iterator[Any]:
    """A backend, for a while."""
    wanted = Filters(netns=where.inode, namespaces=(where,), **filters)
    made = BACKENDS[kind](wanted, triggers or Triggers(), Limits(), Sizes())
    try:
        made.start()
    except OtusError as error:
        if kind != "bcc":
            raise
        pytest.skip(error.message)
    try:
        yield made
    finally:
        made.stop()


@with_every_backend
def test_each_look_counts_a_socket_once(between: Path, kind: str) -> None:
    """The kernel gives the sockets out in parts; one that has no place in a part comes with the next."""
    listener = between.listen(backlog=500)
    for _ in range(400):
        between.pair(listener)
    with started(kind, between.server) as made:
        before = made.read().histograms
        assert len(made.connections()) == 400
        after = made.read().histograms
    for name in ("cwnd", "send_queue_bytes", "unsent_queue_bytes", "receive_queue_bytes", "pacing_bps"):
        assert sum(after[name].buckets) - sum(before[name].buckets) == 400, name


@with_every_backend
def test_a_network_of_ipv6_has_no_ipv4_in_it(between: Path, kind: str) -> None:
    """The programs compare mapped addresses, and ::/0 is around them."""
    listener = between.listen(family=socket.AF_INET6)
    for network, passing in (("::/0", {CLIENT6}), ("::/64", set()), ("0.0.0.0/0", {CLIENT})):
        with started(kind, between.server, remote_networks=[ip_network(network)]) as made:
            for family, address in ((socket.AF_INET, SERVER), (socket.AF_INET6, SERVER6)):
                between.open(family).connect((address, 8080))
                between.sockets.append(listener.accept()[0])
            assert {one.remote for one in made.connections()} == passing
            if kind != "netlink":
                found = made.read().transitions
                assert found.get(("SYN_RECV", "ESTABLISHED"), 0) == len(passing), network


@with_every_backend
def test_connections_that_carry_nothing_have_no_rate(between: Path, kind: str) -> None:
    """As health checks do: the kernel counts a SYN and a FIN as an octet each."""
    listener = between.listen()
    older = between.pair(listener)
    for where in (between.client, between.server):
        with started(kind, where) as made:
            throughput = Throughput(3)
            throughput.look(made.connections(), made.closed(), time.monotonic_ns())
            client, server = between.pair(listener)
            busy, other = between.pair(listener)
            busy.sendall(b"q" * 100)
            assert other.recv(200) == b"q" * 100
            time.sleep(0.06)
            throughput.look(made.connections(), made.closed(), time.monotonic_ns())
            moved = throughput.send_bytes, throughput.receive_bytes
            assert moved == ((100, 0) if where is between.client else (0, 100))
            for one, its in ((client, server), (busy, other)):
                one.close()
                assert its.recv(1) == b""
                its.close()
            closed: list[Any] = []
            wait_for(lambda found=closed, by=made: found.extend(by.closed()) or len(found) >= 2)
            assert len(closed) == 2
            throughput.look(made.connections(), closed, time.monotonic_ns())
            assert (throughput.send_bytes, throughput.receive_bytes) == moved
            assert sum(throughput.send.buckets) + sum(throughput.receive.buckets) == 1
    assert all(one.fileno() >= 0 for one in older)


@with_programs
def test_a_handshake_of_two_clients_has_no_time(between: Path, kind: str) -> None:
    """Both send a SYN: what follows the second one is a part of the time alone."""

    def bound(address: str) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, 7001))
        made.setblocking(False)
        between.sockets.append(made)
        return made

    one = call_inside(between.client, lambda: bound(CLIENT))
    other = call_inside(between.server, lambda: bound(SERVER))
    with started(kind, between.client) as made:
        between.drop("tcp dport 7001")
        one.connect_ex((SERVER, 7001))
        other.connect_ex((CLIENT, 7001))
        between.lift()
        ends = time.monotonic() + 5
        while ("SYN_RECV", "ESTABLISHED") not in made.read().transitions and time.monotonic() < ends:
            time.sleep(0.05)
        reading = made.read()
    assert reading.transitions["SYN_SENT", "SYN_RECV"] == reading.transitions["SYN_RECV", "ESTABLISHED"] == 1
    assert sum(reading.histograms["handshake_client_us"].buckets) == 0
    assert reading.counters["handshake_server_unsampled"] == 1


@with_programs
def test_a_process_is_called_by_its_own_name(between: Path, kind: str) -> None:
    """Not by that of the thread that connects."""
    listener = between.listen()
    with started(kind, between.client, Triggers(resets=True)) as made:

        def work() -> None:
            ctypes.CDLL(None).prctl(PR_SET_NAME, b"a-thread", 0, 0, 0)
            between.open().connect((SERVER, 8080))

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        server.close()
        events: list[Any] = []
        wait_for(lambda: events.extend(made.events()) or events)
        [event] = [event for event in events if event.trigger == "reset"]
    with open("/proc/self/comm", encoding="ascii") as file:
        name = file.read().strip()
    assert (event.connection.pid, event.connection.comm) == (os.getpid(), name)


def test_a_sample_that_stands_still_jumps_once(between: Path) -> None:
    """Where the peer alone sends there is no new one, for however long."""
    triggers = Triggers(rtt_jump=3.0, rto=False, tlp=False)
    # So long that nothing is late by as much where the machine is busy; and no timeout.
    with delay(between, 0.02) as slow, started("libbpf", between.client, triggers) as made:
        client, server = far_pair(between)
        exchange(client, server, 30)
        made.events()
        slow.seconds = 0.09
        exchange(client, server, 1)
        slow.seconds = 0.02
        for _ in range(15):
            server.sendall(b"z")
            client.recv(1)
            time.sleep(0.1)
        told = [event.value for event in made.events() if event.trigger == "rtt_jump"]
        assert 1 <= len(told) <= 2
        assert len(set(told)) == len(told)
        assert made.read().suppressed["repeat"] <= 1


@with_programs
def test_resets_of_what_has_no_route_are_of_the_interface_of_their_packet(between: Path, kind: str) -> None:
    """A client that goes on after the server has closed: what is left of the socket there sends the reset."""
    listener = between.listen()
    for interface, resets in (("otus0", 3), ("lo", 0)):
        with started(kind, between.server, interface=interface) as made:
            for _ in range(3):
                client, server = between.pair(listener)
                server.close()
                time.sleep(0.02)
                client.sendall(b"late")
                time.sleep(0.02)
                client.close()
            reading = made.read()
        assert reading.counters["resets_sent"] == resets


@with_programs
def test_runs_that_the_kernel_left_out_are_counted(
    between: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interrupt that meets the program which it interrupted has no run: the kernel counts them."""
    with started(kind, between.server) as made:
        assert made.read().counters["runs_missed"] >= 0
        if kind == "bcc":
            monkeypatch.setattr(bcc, "_figures", lambda _: {"recursion_misses": 2})
            programs = len(made._attached)
        else:
            told = {"segment": (1, 1, 2), "destroy": (1, 1, None)}
            monkeypatch.setattr(made._object, "costs", lambda: told)
            programs = 1
        assert made.read().counters["runs_missed"] == 2 * programs
    assert made.read().counters["runs_missed"] == 2 * programs
