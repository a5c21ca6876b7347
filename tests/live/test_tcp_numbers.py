"""Counters that are easily wrong: resets and windows, listeners and filters, what counts twice or never."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from engine.errors import OtusError
from engine.tcp import options, prometheus
from engine.tcp.addresses import Addresses
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.bcc import BccBackend
from engine.tcp.namespaces import call_inside
from engine.tcp.netlink import NetlinkBackend
from engine.tcp.observer import Observer
from tests.live.engines import wait_for
from tests.live.tcp_path import CLIENT, NEEDS_PROGRAMS, SERVER, TCP_REPAIR, Path, watch

if TYPE_CHECKING:
    from engine.tcp.backend import Event

pytestmark = NEEDS_PROGRAMS


def test_a_reset_closes_no_window(between: Path) -> None:
    """A RST carries a window of 0, which nobody announced."""
    listener = between.listen()
    with watch(between.client) as observer:
        for number in range(3):
            client, server = between.pair(listener)
            client.sendall(b"q")
            server.recv(1)
            # Forgotten without a word: what comes for it finds no socket.
            server.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            server.close()
            client.sendall(b"q")
            wait_for(lambda so_far=number: observer.read()[0].counters["resets_received"] > so_far)
            client.close()
        reading, _ = observer.read()
        assert reading.counters["resets_received"] == 3
        assert reading.counters["zero_window_received"] == 0
        assert [event.trigger for event in observer.backend.events()] == []


def send(client: socket.socket, server: socket.socket, octets: int) -> None:
    """One end to the other, as fast as that reads."""
    client.setblocking(False)
    server.setblocking(False)
    left = octets
    while left > 0:
        try:
            client.send(b"x" * 65536)
        except BlockingIOError:
            time.sleep(0.0005)
        try:
            while data := server.recv(1 << 20):
                left -= len(data)
        except BlockingIOError:
            pass


def test_a_large_window_that_is_halved_after_a_small_loss(between: Path) -> None:
    """The largest congestion window of the period is not that of its first loss."""
    listener = between.listen()
    triggers = Triggers(rto=False, tlp=False, zero_window=False, cwnd_halved_s=60.0)
    with watch(between.client, triggers=triggers, limits=Limits(per_second=1000)) as observer:
        client, server = between.pair(listener)
        # CUBIC gives way by three tenths, which is no half; Reno by a half.
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
        # So many at once that it is not held back by what there is to send.
        between.drop("tcp dport 8080 ip length > 1000 numgen inc mod 1000 == 2")
        client.send(b"x" * 60 * 1448)
        time.sleep(0.02)
        between.lift()
        grown = 0

        def grows() -> bool:
            """CUBIC's window grows with the time, not with what is sent."""
            nonlocal grown
            send(client, server, 1_000_000)
            (row,) = [one for one in observer.backend.connections() if one.remote_port == 8080]
            grown = row.cwnd or 0
            return grown > 30

        wait_for(grows)
        assert observer.backend.events() == []
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
        between.drop("tcp dport 8080 ip length > 1000 numgen inc mod 300 == 299")
        send(client, server, 4_000_000)
        between.lift()
        events = [one for one in observer.backend.events() if one.trigger == "cwnd_drop"]
        assert len(events) == 1
        assert events[0].value * 2 <= (events[0].threshold or 0) * 2
        assert (events[0].threshold or 0) >= grown // 2


@pytest.mark.parametrize(
    "filters",
    [
        {"interface": "otus0"},
        {"local_networks": [ip_network("10.98.2.0/24")]},
        {"remote_networks": [ip_network("10.98.1.0/24")]},
        {"remote_ports": [(1, 65535)]},
        {"local_ports": [(8080, 8080)]},
        {},
    ],
    ids=lambda filters: next(iter(filters), "none"),
)
def test_states_of_a_server_balance_with_every_filter(between: Path, filters: dict[str, object]) -> None:
    """Who listens is judged by its own side alone, what it accepts from its first state on."""
    with watch(between.server, filters=filters, triggers=Triggers(rto=False)) as observer:
        listener = between.listen()
        client, server = between.pair(listener)
        client.close()
        wait_for(lambda: ("ESTABLISHED", "CLOSE_WAIT") in observer.read()[0].transitions)
        (row,) = [one for one in observer.backend.connections() if one.local_port == 8080]
        assert (row.role, row.pid, row.pid_source) == ("server", os.getpid(), "listen")
        assert [one.port for one in observer.backend.listeners()] == [8080]
        server.close()
        listener.close()
        wait_for(lambda: ("LAST_ACK", "CLOSE") in observer.read()[0].transitions)
        reading, _ = observer.read()
    found = reading.transitions
    assert found["CLOSE", "LISTEN"] == found["LISTEN", "CLOSE"] == 1
    assert found["LISTEN", "SYN_RECV"] == found["SYN_RECV", "ESTABLISHED"] == 1
    assert found["ESTABLISHED", "CLOSE_WAIT"] == found["LAST_ACK", "CLOSE"] == 1
    assert sum(reading.dwell["SYN_RECV"].buckets) == 1


def test_a_listener_lets_no_stranger_pass(between: Path) -> None:
    """What comes to a listening socket is judged by its other end, too."""
    listener = between.listen(backlog=0)
    other = {"remote_networks": [ip_network("192.0.2.0/24")]}
    with watch(between.server, filters=other) as observer:
        between.drop("tcp sport 8080 tcp flags & (syn | ack) == syn | ack")
        client = between.open()
        client.setblocking(False)
        client.connect_ex((SERVER, 8080))
        wait_for(lambda: observer.read()[1]("TcpExtTCPSynRetrans") >= 1)
        reading, gained = observer.read()
        assert gained("TcpExtTCPSynRetrans") >= 1
        assert reading.counters["retransmit_synack_events"] == 0
        assert not reading.transitions
        between.lift()
    listener.close()


def test_connections_to_be_are_flows_of_their_own(between: Path) -> None:
    """SYN-ACKs that are sent again because the accept queue is full: each connection is sampled by itself."""
    listener = between.listen(backlog=8)
    with ExitStack() as stack:
        triggers = Triggers(rto=False)
        all_of_them = stack.enter_context(watch(between.server, triggers=triggers))
        sampled = stack.enter_context(watch(between.server, triggers=triggers, limits=Limits(sample=1 << 30)))
        between.drop("tcp sport 8080 tcp flags & (syn | ack) == syn | ack")
        for _ in range(3):
            client = between.open()
            client.setblocking(False)
            client.connect_ex((SERVER, 8080))
        between.lift()
        for _ in range(9):
            between.open().connect((SERVER, 8080))
        told: list[Event] = []

        def again() -> bool:
            events = all_of_them.backend.events()
            told.extend(one for one in events if one.connection.state == "NEW_SYN_RECV")
            return len(told) >= 3

        wait_for(again, what="SYN-ACKs that are sent again")
        assert [one for one in sampled.backend.events() if one.connection.state == "NEW_SYN_RECV"] == []
        reading, _ = sampled.read()
        assert reading.suppressed["sample"] >= len(told)
    listener.close()


def overflow(between: Path, clients: int) -> None:
    """Handshakes whose last packets come all at once, when there is not room for all of them."""
    for _ in range(5):
        between.open().connect((SERVER, 8080))
    between.drop("tcp dport 8080 tcp flags & (syn | ack | rst) == ack")
    waiting = [between.open() for _ in range(clients)]
    for client in waiting:
        client.connect((SERVER, 8080))
    between.lift()
    for client in waiting:
        client.send(b"q")


def test_a_drop_of_a_full_queue_is_told_once(between: Path) -> None:
    """By the programs, or by a look that finds more of them: the events add up to what the kernel counts."""
    # With fewer it would answer with SYN cookies.
    listener = between.listen(backlog=8)
    sink = Sink()
    words = {"netns": between.server.name, "backend": "libbpf", "mode": "both", "max_events": "1000/s"}
    made = Observer(options.make(**words), sink)
    made.start()
    try:
        overflow(between, 8)
        time.sleep(0.7)
        made.turn()
        time.sleep(0.5)
        made.look()
        time.sleep(0.1)
        made.stop()
    finally:
        made.close()
    listener.close()
    told = [one for one in sink.events if one.get("trigger", {}).get("name") == "backlog_overflow"]
    values = [one["trigger"]["value"] for one in told if one["tcp_state"] == "LISTEN"]
    final = sink.documents[-1]
    # The kernel's own counters are read at the very end, when the programs are gone.
    assert 4 <= final["listen_drops"]["drops"] <= sum(values) <= final["kernel"]["TcpExtListenDrops"]


def test_addresses_of_an_interface_are_all_of_them_and_those_of_now(between: Path) -> None:
    """--iface of the backends that know interfaces by their addresses alone."""
    known = call_inside(between.server, lambda: Addresses("otus0"))
    try:
        assert {SERVER, "fd98:2::2"} <= known.read()
        assert CLIENT not in known.read()
        between.run(between.server, "ip", "addr", "add", "10.98.2.77/24", "dev", "otus0")
        assert "10.98.2.77" in known.read()
        between.run(between.server, "ip", "addr", "del", "10.98.2.77/24", "dev", "otus0")
        assert "10.98.2.77" not in known.read()
    finally:
        known.close()


def closing(between: Path, *, times: int) -> int:
    """Short connections, one after another; octets that the client sent."""
    listener = between.listen()
    for _ in range(times):
        client = call_inside(between.client, socket.socket)
        client.connect((SERVER, 8080))
        server, _ = listener.accept()
        client.sendall(b"q" * 100)
        server.recv(100)
        client.close()
        server.close()
    listener.close()
    return times * 100


@pytest.mark.parametrize("backend", ["libbpf", "bcc", "netlink"])
def test_connections_that_end_between_rare_looks_count_in_full(between: Path, backend: str) -> None:
    """More of them than the ring holds, and tables that are as small as they may be."""
    sink = Sink()
    name = between.client.name
    made = Observer(options.make(netns=name, backend=backend, sockets="512", interval="1s"), sink)
    try:
        made.start()
    except OtusError as error:
        pytest.skip(error.message)
    try:
        made._next_look = made._next_report = time.monotonic() + 3600
        octets = 0
        for _ in range(12):
            octets += closing(between, times=250)
            made.turn()
        made.stop()
    finally:
        made.close()
    final = sink.documents[-1]
    assert final["tables"]["closed_lost"] == 0
    # A SYN and a FIN count as an octet each.
    sent = final["sampling"]["send_bytes"]
    assert octets <= sent <= octets + 2 * 12 * 250


class Sink:
    def __init__(self) -> None:
        self.documents: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []

    def summary(self, document: dict[str, Any], _: Observer) -> None:
        self.documents.append(document)

    def event(self, document: dict[str, Any]) -> None:
        self.events.append(document)


def test_an_interface_has_more_than_one_address(between: Path) -> None:
    """--iface without programs: also an address that came after the start."""
    listener = between.listen()
    filters = Filters(netns=between.server.inode, namespaces=(between.server,), interface="otus0")
    made = NetlinkBackend(filters, Triggers(), Limits(), Sizes())
    made.start()
    try:
        assert made.connections() == []
        between.run(between.server, "ip", "addr", "add", "10.98.2.77/24", "dev", "otus0")
        client = between.open()
        client.connect(("10.98.2.77", 8080))
        assert [one.local for one in made.connections()] == ["10.98.2.77"]
        client.close()
    finally:
        made.stop()
    listener.close()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def test_flows_are_sampled_by_their_address_too(between: Path, family: socket.AddressFamily) -> None:
    """Connections of one local port to one remote port, which differ in the peer's address alone."""
    wide = "127.1.0.0/16" if family == socket.AF_INET else "fd99::/64"
    between.run(between.client, "ip", "route", "add", "local", wide, "dev", "lo")
    base = "127.1.0.{}" if family == socket.AF_INET else "fd99::{:x}"
    source = ("127.0.0.1", 40_001) if family == socket.AF_INET else ("::1", 40_001)

    def opened(address: str) -> socket.socket:
        made = socket.socket(family)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(source)
        made.connect((address, 443))
        return made

    any_address = "0.0.0.0" if family == socket.AF_INET else "::"
    listener = call_inside(between.client, lambda: socket.create_server((any_address, 443), family=family))
    with (
        listener,
        ExitStack() as stack,
        watch(between.client, filters={"remote_ports": [(443, 443)]}) as thin,
    ):
        thin.backend.set_sampling(2)
        seen = []
        for at in range(1, 41):
            address = base.format(at)
            client = stack.enter_context(call_inside(between.client, lambda to=address: opened(to)))
            server = stack.enter_context(listener.accept()[0])
            before = thin.backend.read().counters["rtt_samples"]
            for _ in range(3):
                client.sendall(b"q")
                server.sendall(server.recv(1))
                client.recv(1)
            seen.append(thin.backend.read().counters["rtt_samples"] > before)
        assert 8 <= sum(seen) <= 32


def test_drops_without_a_place_in_the_table_are_of_their_kind(between: Path) -> None:
    """A table of one entry: what it has no room for counts as a drop, or as a benign one, as it is."""
    listener = between.listen()
    with watch(between.server, sizes=Sizes(stacks=1), triggers=Triggers(rto=False)) as observer:
        client, server = between.pair(listener)
        between.drop("tcp dport 8080", between.server, "input")
        client.setblocking(False)
        client.send(b"x")
        time.sleep(0.3)
        between.lift(between.server)
        # A keepalive is a segment from before the window.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        wait_for(lambda: observer.read()[0].counters["drops_benign"] >= 1)
        client.close()
        server.close()
        reading, _ = observer.read()
        counters = reading.counters
        assert sum(reading.drops.values()) == counters["drops"] >= 1
        assert sum(reading.benign.values()) == counters["drops_benign"] >= 1
    listener.close()


@pytest.mark.parametrize("backend", ["libbpf", "netlink"])
def test_sockets_that_share_a_port_drop_once(between: Path, backend: str) -> None:
    """SO_REUSEPORT: one row for all, and a counter that stays when they are closed."""

    def shared() -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(("", 8080))
        made.listen(0)
        return made

    sink = Sink()
    words = {"netns": between.server.name, "backend": backend, "interval": "200ms"}
    made = Observer(options.make(**words), sink)
    made.start()
    try:
        listeners = [call_inside(between.server, shared) for _ in range(4)]
        time.sleep(0.2)
        made.turn()
        for _ in range(24):
            client = between.open()
            client.setblocking(False)
            client.connect_ex((SERVER, 8080))

        def full() -> bool:
            made.turn()
            return any(row["backlog"] == 4 for row in sink.documents[-1]["listen"])

        wait_for(full, what="a queue that is full")
        [row] = sink.documents[-1]["listen"]
        assert (row["sockets"], row["backlog"], row["limit"]) == (4, 4, 0)
        for one in listeners:
            one.close()
        made.stop()
    finally:
        made.close()
    final = sink.documents[-1]
    assert final["kernel"]["TcpExtListenDrops"] >= 20
    counter = [line for line in prometheus.text(final).splitlines() if "listen_drops_total{" in line]
    assert sum(float(line.split()[-1]) for line in counter) == final["listen_drops"]["drops"]
    if backend == "libbpf":
        assert final["listen_drops"]["drops"] == final["kernel"]["TcpExtListenDrops"]
    else:
        assert 20 <= final["listen_drops"]["drops"] <= final["kernel"]["TcpExtListenDrops"]


@pytest.mark.parametrize(
    "filters", [{"interface": "otus0"}, {"remote_ports": [(1, 65535)]}], ids=["iface", "rport"]
)
def test_bcc_counts_the_same(between: Path, filters: dict[str, Any]) -> None:
    """States that balance with a filter, and resets that close no window."""
    wanted = Filters(netns=between.server.inode, namespaces=(between.server,), **filters)
    made = BccBackend(wanted, Triggers(rto=False), Limits(), Sizes())
    try:
        made.start()
    except OtusError as error:
        pytest.skip(error.message)
    try:
        listener = between.listen()
        client, server = between.pair(listener)
        server.sendall(b"q")
        client.recv(1)
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        client.close()
        server.sendall(b"q")
        wait_for(lambda: made.read().counters["resets_received"] == 1)
        server.close()
        listener.close()
        wait_for(lambda: ("LISTEN", "CLOSE") in made.read().transitions)
        reading = made.read()
    finally:
        made.stop()
    found = reading.transitions
    assert found["CLOSE", "LISTEN"] == found["LISTEN", "CLOSE"] == 1
    assert found["LISTEN", "SYN_RECV"] == found["SYN_RECV", "ESTABLISHED"] == 1
    assert reading.counters["resets_received"] == 1
    assert reading.counters["zero_window_received"] == 0


def test_packets_without_a_socket_are_sampled_by_their_address_too(between: Path) -> None:
    """Of one port to one port: a firewall drops them before a socket is looked for."""
    between.run(between.client, "ip", "route", "add", "local", "10.98.1.128/25", "dev", "lo")
    between.drop("tcp dport 8080", between.server, "input")

    def opened(address: str) -> socket.socket:
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, 40_001))
        made.setblocking(False)
        made.connect_ex((SERVER, 8080))
        return made

    triggers, limits = Triggers(drops=True), Limits(sample=2, per_second=1000)
    with watch(between.server, triggers=triggers, limits=limits) as observer, ExitStack() as stack:
        for at in range(40):
            address = f"10.98.1.{130 + at}"
            stack.enter_context(call_inside(between.client, lambda it=address: opened(it)))
        wait_for(lambda: observer.read()[0].counters["drops"] >= 40)
        told = {one.connection.remote for one in observer.backend.events() if one.trigger == "drop"}
        reading, _ = observer.read()
        assert reading.counters["drops"] >= 40
        assert 8 <= len(told) <= 32
        assert reading.suppressed["sample"] >= 8
