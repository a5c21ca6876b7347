"""The observer's counters against the kernel's own (nstat of the namespace), under real loss."""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether

from engine.tcp.backend import Limits, Triggers
from engine.tcp.namespaces import call_inside
from tests.live.engines import wait_for
from tests.live.tcp_path import (
    AS_THE_KERNEL_COUNTS,
    CLIENT,
    NEEDS_PROGRAMS,
    NOBODY,
    SERVER,
    TCP_REPAIR,
    needs,
    watch,
)
from tests.live.tcp_traffic import Echo, asks, near, refused_by_a_firewall

if TYPE_CHECKING:
    from engine.tcp.backend import Closed, Reading
    from tests.live.tcp_path import Path

pytestmark = [*NEEDS_PROGRAMS, needs("nft"), AS_THE_KERNEL_COUNTS]
CLASSES = ("syn", "synack", "rto", "window_probe", "tlp", "fast", "slow_start", "other")


def segments(reading: Reading) -> int:
    return sum(reading.counters[f"retransmit_{name}_segments"] for name in CLASSES)


def compare(reading: Reading, gained: object) -> None:
    """Each class against nstat."""
    counters = reading.counters
    assert callable(gained)
    timeouts = sum(counters[f"retransmit_{name}_events"] for name in ("rto", "syn"))
    # A SYN-ACK is sent again by its timer, which counts, and for a repeated SYN, which does not.
    synacks = counters["retransmit_synack_events"]
    assert timeouts <= gained("TcpExtTCPTimeouts") <= timeouts + synacks, counters
    assert near(segments(reading), gained("TcpRetransSegs")), counters
    probes = counters["retransmit_tlp_events"] + counters["tlp_new_data"]
    assert near(probes, gained("TcpExtTCPLossProbes")), counters
    assert near(counters["retransmit_fast_segments"], gained("TcpExtTCPFastRetrans")), counters
    assert near(counters["retransmit_slow_start_segments"], gained("TcpExtTCPSlowStartRetrans")), counters
    syns = counters["retransmit_syn_events"] + counters["retransmit_synack_events"]
    assert syns == gained("TcpExtTCPSynRetrans"), counters


def test_timeouts_of_a_path_that_goes_dark(between: Path) -> None:
    Echo(between.listen(), 6000)
    with watch(between.client) as observer:
        thread = threading.Thread(target=asks, args=(between, 4, 6000, 6.0))
        thread.start()
        for _ in range(2):
            time.sleep(0.8)
            between.drop("meta l4proto tcp")
            time.sleep(1.4)
            between.lift()
        thread.join()
        reading, gained = observer.read()
        compare(reading, gained)
        assert reading.counters["retransmit_rto_events"] >= 8
        assert reading.counters["retransmit_slow_start_segments"] > 0
        events = observer.backend.events()
        rto = [event for event in events if event.trigger == "rto"]
        assert len(rto) == reading.counters["retransmit_rto_events"]
        assert {event.connection.remote_port for event in rto} == {8080}
        assert all(event.retransmit_class == "rto" for event in rto)
        assert all((event.connection.pid, event.connection.role) == (os.getpid(), "client") for event in rto)


def test_tail_loss_probes(between: Path) -> None:
    Echo(between.listen(), 4 * 1448 + 777)
    with watch(between.client) as observer:
        # The last segment of every second request: 777 octets, 20 of IP, 32 of TCP with its timestamps.
        between.drop("tcp dport 8080 ip length 829 numgen inc mod 2 == 0")
        asks(between, 1, 4 * 1448 + 777, 5.0, 0.1)
        reading, gained = observer.read()
        compare(reading, gained)
        assert reading.counters["retransmit_tlp_events"] >= 10
        assert sum(1 for event in observer.backend.events() if event.trigger == "tlp") >= 10


@pytest.mark.parametrize("load", ["requests", "bulk"])
def test_fast_retransmits_under_random_loss(between: Path, load: str) -> None:
    Echo(between.listen(), 6000)
    with watch(between.client) as observer:
        between.drop("tcp dport 8080 ip length > 100 numgen random mod 1000 < 15")
        if load == "requests":
            asks(between, 6, 6000, 5.0)
        else:
            asks(between, 3, 120_000, 5.0, 0)
        reading, gained = observer.read()
        compare(reading, gained)
        counters = reading.counters
        # A busy machine asks less often in its five seconds, and so loses less.
        assert counters["retransmit_fast_segments"] > 3
        assert counters["retransmit_fast_events"] <= counters["retransmit_fast_segments"]


def test_syn_that_nobody_answers(between: Path) -> None:
    with watch(between.client) as observer:
        between.drop("tcp flags syn")
        for _ in range(3):
            client = between.open()
            client.setblocking(False)
            client.connect_ex((SERVER, 8080))
        wait_for(lambda: observer.read()[0].counters["retransmit_syn_events"] >= 6)
        for client in between.sockets:
            client.close()
        reading, gained = observer.read()
        compare(reading, gained)
        assert reading.counters["retransmit_syn_events"] == gained("TcpExtTCPSynRetrans") >= 6
        assert reading.counters["handshake_client_failed"] == 3
        assert reading.transitions["SYN_SENT", "CLOSE"] == 3


def test_syn_ack_that_is_lost(between: Path) -> None:
    listener = between.listen()
    with watch(between.server) as observer:
        between.drop("tcp sport 8080 tcp flags & (syn | ack) == syn | ack")
        clients = storm(between, 3)
        wait_for(lambda: observer.read()[0].counters["retransmit_synack_events"] >= 3)
        between.lift()
        for _ in clients:
            listener.accept()[0].close()
        reading, gained = observer.read()
        compare(reading, gained)
        assert reading.counters["retransmit_synack_events"] >= 3
        # Timestamps give a first RTT all the same: that of the last SYN-ACK alone.
        assert sum(reading.histograms["handshake_server_us"].buckets) == 0
        assert reading.counters["handshake_server_unsampled"] == gained("TcpPassiveOpens") == 3
        for client in clients:
            client.close()


def test_windows_that_close(between: Path) -> None:
    listener = between.listen(receive_buffer=65536)
    with ExitStack() as stack:
        sender = stack.enter_context(watch(between.client))
        receiver = stack.enter_context(watch(between.server))
        begun = time.monotonic()
        client, server = between.pair(listener)
        server.setblocking(False)
        client.settimeout(0.2)
        for _ in range(3):
            fill(client, 1.2)
            while drain(server):
                time.sleep(0.02)
        time.sleep(0.2)
        client.close()
        server.close()
        sent, _ = sender.read()
        received, gained = receiver.read()
        took = (time.monotonic() - begun) * 1e9
        episodes = gained("TcpExtTCPToZeroWindowAdv")
        assert episodes >= 3
        assert sent.counters["zero_window_received"] == episodes
        assert received.counters["zero_window_sent"] == episodes
        for counters, name in ((sent.counters, "received"), (received.counters, "sent")):
            assert 1.5e9 < counters[f"zero_window_{name}_ns"] < took
        assert any(event.trigger == "zero_window" for event in sender.backend.events())


def fill(client: socket.socket, seconds: float) -> None:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        try:
            client.send(b"z" * 65536)
        except OSError:
            time.sleep(0.05)


def drain(server: socket.socket) -> int:
    try:
        return len(server.recv(1 << 20))
    except BlockingIOError:
        return 0


def storm(between: Path, count: int) -> list[socket.socket]:
    """So many clients that connect at once."""
    clients = [between.open() for _ in range(count)]
    for client in clients:
        client.setblocking(False)
        client.connect_ex((SERVER, 8080))
    return clients


def test_accept_queue_that_is_full(between: Path) -> None:
    listener = between.listen(backlog=1)
    with watch(between.server) as observer:
        observer.backend.connections()
        clients = storm(between, 10)
        # What was dropped comes again after a second, and then after more.
        wait_for(lambda: observer.read()[1]("TcpExtListenDrops") >= 16)
        observer.backend.connections()
        _, before = observer.read()
        (row,) = [one for one in observer.backend.listeners() if one.port == 8080]
        reading, gained = observer.read()
        compare(reading, gained)
        assert 16 <= before("TcpExtListenDrops") <= row.drops <= gained("TcpExtListenDrops")
        assert (row.backlog, row.limit) == (2, 1)
        for client in clients:
            client.close()
    listener.close()


def test_a_listener_that_is_closed_tells_its_last_drops(between: Path) -> None:
    """Between two looks: full, and gone."""
    listener = between.listen(backlog=1)
    with watch(between.server) as observer:
        observer.backend.connections()
        clients = storm(between, 8)
        wait_for(lambda: observer.read()[1]("TcpExtListenDrops") >= 6)
        listener.close()
        _, gained = observer.read()
        [ended] = observer.backend.closed_listeners()
        assert (ended.port, ended.backlog, ended.limit) == (8080, 2, 1)
        assert ended.drops == gained("TcpExtListenDrops") >= 6
        assert ended.netns == between.server.inode
        assert ended.cookie
        assert observer.backend.closed_listeners() == []
        for client in clients:
            client.close()


def test_resets(between: Path) -> None:
    listener = between.listen()
    with ExitStack() as stack:
        near_end = stack.enter_context(watch(between.client, triggers=Triggers(resets=True)))
        far_end = stack.enter_context(watch(between.server))
        for _ in range(7):
            with between.open() as client, pytest.raises(ConnectionRefusedError):
                client.connect((SERVER, 81))
        # Closed with unread data: a reset after CLOSE.
        client, server = between.pair(listener)
        client.sendall(b"unread")
        wait_for(lambda: server.recv(100, socket.MSG_PEEK))
        server.close()
        wait_for(lambda: near_end.read()[0].counters["resets_received"] == 8)
        client.close()
        far, far_gained = far_end.read()
        near_reading, near_gained = near_end.read()
        assert far.counters["resets_sent"] == far_gained("TcpOutRsts") == 8
        assert far.resets["NO_SOCKET"] == 7
        assert sum(far.resets.values()) == 8
        assert near_reading.counters["resets_received"] == 8
        assert near_gained("TcpAttemptFails") == near_reading.transitions["SYN_SENT", "RESET"] == 7
        assert near_reading.transitions["ESTABLISHED", "RESET"] == 1
        assert far.transitions["ESTABLISHED", "RESET"] == 1
        assert near_gained("TcpEstabResets") == 1
        assert sum(1 for event in near_end.backend.events() if event.trigger == "reset") == 8
    listener.close()


def test_drops_by_a_firewall(between: Path) -> None:
    with watch(between.server, triggers=Triggers(drops=True), limits=Limits(per_second=1000)) as observer:
        packets = refused_by_a_firewall(between, 5)
        reading, _ = observer.read()
        found = {reason: count for (reason, _), count in reading.drops.items()}
        assert found["NETFILTER_DROP"] == packets >= 5
        places = {place for reason, place in reading.drops if reason == "NETFILTER_DROP"}
        assert places <= {"nf_hook_slow", "nft_do_chain", "ip_local_deliver", "nf_hook_slow_list", "?"}, (
            places
        )
        drops = [event for event in observer.backend.events() if event.trigger == "drop"]
        assert len([event for event in drops if event.drop_reason == "NETFILTER_DROP"]) == packets
        one = next(event for event in drops if event.drop_reason == "NETFILTER_DROP").connection
        assert (one.local, one.local_port, one.remote) == (SERVER, 8080, CLIENT)


def test_nothing_is_wrong(between: Path) -> None:
    Echo(between.listen(), 6000)
    with watch(between.client) as observer:
        asks(between, 4, 6000, 2.0)
        ended: list[Closed] = []
        wait_for(lambda: ended.extend(observer.backend.closed()) or len(ended) >= 4)
        reading, gained = observer.read()
        compare(reading, gained)
        # Where the machine is busy, something is sent again for an answer that is late; nothing is lost.
        assert segments(reading) == gained("TcpRetransSegs")
        assert reading.counters["retransmit_fast_segments"] == 0
        assert not reading.drops
        assert reading.counters["resets_sent"] == reading.counters["zero_window_received"] == 0
        assert sum(reading.histograms["handshake_client_us"].buckets) == 4
        assert reading.transitions["SYN_SENT", "ESTABLISHED"] == gained("TcpActiveOpens") == 4
        assert len(ended) == 4
        assert {event.trigger for event in observer.backend.events()} <= {"tlp", "rto"}


def test_segments_that_this_host_itself_drops(between: Path) -> None:
    """A firewall in the way out: the kernel counts what it tried to send again, and so does the observer."""
    listener = between.listen()
    with watch(between.client) as observer:
        if not any(one.name == "retransmit_3" and one.on for one in observer.backend.plan().programs):
            pytest.skip("before Linux 6.17 the kernel does not tell of them")
        client, _ = between.pair(listener)
        between.drop("tcp dport 8080")
        client.send(b"x" * 1000)
        between.drop("tcp dport 8080", between.client, "output")
        wait_for(lambda: observer.read()[0].counters["retransmit_rto_events"] >= 3)
        # A reset: no timer runs out between the two readings.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        reading, gained = observer.read()
        between.lift(between.client)
        compare(reading, gained)
        assert reading.counters["retransmit_rto_events"] == gained("TcpExtTCPTimeouts") >= 3
        assert segments(reading) == gained("TcpRetransSegs") >= 3


def test_a_syn_to_a_host_that_is_not_there(between: Path) -> None:
    """The first one still waits for its neighbour's address when the timer runs out: none is sent again."""
    with watch(between.client) as observer:
        if not any(one.name == "retransmit_3" and one.on for one in observer.backend.plan().programs):
            pytest.skip("before Linux 6.17 the kernel does not tell of them")
        client = between.open()
        client.setblocking(False)
        client.connect_ex((NOBODY, 8080))
        wait_for(lambda: observer.read()[1]("TcpExtTCPTimeouts") >= 2)
        client.close()
        reading, gained = observer.read()
        counters = reading.counters
        assert counters["retransmit_syn_events"] == gained("TcpExtTCPTimeouts")
        assert counters["retransmit_syn_segments"] == gained("TcpExtTCPSynRetrans") == 0
        events = [event for event in observer.backend.events() if event.trigger == "rto"]
        assert [event.retransmit_class for event in events] == ["syn"] * len(events)
        assert len(events) == counters["retransmit_syn_events"]
        assert {event.connection.remote for event in events} == {NOBODY}


class Silent:
    """A peer that is made up: it accepts connections, acknowledges no data and closes its window."""

    address = "10.98.2.99"

    def __init__(self, between: Path) -> None:
        mac = between.run(between.server, "cat", "/sys/class/net/otus0/address").strip()
        words = ("neigh", "replace", self.address, "lladdr", mac, "dev", "otus-b")
        between.run(between.middle, "ip", *words)
        self.wire = call_inside(between.server, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0))
        self.wire.bind(("otus0", 0x0800))
        self.wire.settimeout(0.2)
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        acknowledged = 0
        while not self.ends.is_set():
            try:
                frame = Ether(self.wire.recv(4096))
            except TimeoutError:
                continue
            if TCP not in frame or frame[IP].dst != self.address:
                continue
            asked = frame[TCP]
            answer = TCP(sport=asked.dport, dport=asked.sport)
            if asked.flags.S:
                acknowledged = asked.seq + 1
                answer.flags, answer.seq, answer.window = "SA", 1000, 8000
            elif asked.payload:
                answer.flags, answer.seq, answer.window = "A", 1001, 0
            else:
                continue
            answer.ack = acknowledged
            packet = IP(src=self.address, dst=frame[IP].src) / answer
            self.wire.send(bytes(Ether(src=frame.dst, dst=frame.src) / packet))

    def close(self) -> None:
        self.ends.set()
        self.thread.join()
        self.wire.close()


def test_timeouts_against_a_closed_window_are_no_timeouts_of_nstat(between: Path) -> None:
    with closing(Silent(between)), watch(between.client) as observer:
        client = between.open()
        client.connect((Silent.address, 80))
        client.sendall(b"x" * 3000)
        wait_for(lambda: observer.read()[0].counters["retransmit_window_probe_events"] >= 2)
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        client.close()
        reading, gained = observer.read()
        compare(reading, gained)
        assert reading.counters["retransmit_window_probe_segments"] == gained("TcpRetransSegs")
        assert gained("TcpExtTCPTimeouts") == reading.counters["retransmit_rto_events"] == 0
        assert reading.counters["zero_window_received"] == 1
        reasons = {event.retransmit_class for event in observer.backend.events() if event.trigger == "rto"}
        assert reasons == {"window_probe"}
