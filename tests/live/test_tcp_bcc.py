"""The backend of BCC, where it does not do what the others do."""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from engine.errors import OtusError
from engine.tcp.backend import RETRANSMIT_CLASSES, Filters, Limits, Sizes, Triggers
from engine.tcp.bcc import BccBackend
from engine.tcp.namespaces import call_inside
from engine.tcp.snmp import Counters
from tests.live.engines import wait_for
from tests.live.tcp_path import AS_THE_KERNEL_COUNTS, CLIENT, NOBODY, SERVER, path

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Namespace
    from tests.live.tcp_path import Path

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture(scope="module")
def between() -> Iterator[Path]:
    with path() as made:
        yield made


def refused(between: Path, cpu: int, times: int) -> None:
    """Connections to a port where nobody listens, all of it on one CPU."""

    def run() -> None:
        os.sched_setaffinity(0, {cpu})
        for _ in range(times):
            with socket.socket() as made, suppress(ConnectionRefusedError):
                made.connect((CLIENT, 9))

    call_inside(between.client, run)


def begun(where: Namespace, limits: Limits, ports: list[tuple[int, int]] | None = None) -> BccBackend:
    filters = Filters(netns=where.inode, namespaces=(where,), local_ports=ports or [])
    made = BccBackend(filters, Triggers(resets=True), limits, Sizes())
    try:
        made.start()
    except OtusError as error:
        pytest.skip(error.message)
    return made


def test_events_of_all_cpus_arrive_though_their_descriptor_is_polled(between: Path) -> None:
    """The kernel tells a wake-up of a perf buffer to one poll alone."""
    made = begun(between.client, Limits(per_second=1000))
    try:
        poll = select.poll()
        poll.register(made.event_fd(), select.POLLIN)
        told: list[str] = []
        cpus = sorted(os.sched_getaffinity(0))
        for cpu in cpus:
            refused(between, cpu, 5)
            wanted = 10 * (cpus.index(cpu) + 1)
            # A poll that was told nothing is one too many.
            while len(told) < wanted and poll.poll(20_000):
                told += [event.direction for event in made.events() if event.trigger == "reset"]
            assert len(told) == wanted
        refused(between, cpus[0], 5)
        poll.poll(200)
        time.sleep(0.05)
        made.stop()
        told += [event.direction for event in made.events()]
        assert told.count("sent") == told.count("received") == 5 * (len(cpus) + 1)
    finally:
        made.stop()


def test_flows_that_have_ended_leave_their_place(between: Path) -> None:
    """Their sockets were never looked at: the kernel has given them no number before they ended."""
    made = begun(between.client, Limits(per_second=1000, top_flows=1))
    try:
        made.connections()
        told = []
        for _ in range(5):
            refused(between, 0, 1)
            made.closed()
            told += [event.connection for event in made.events() if event.direction == "received"]
        assert len(told) == 5
        assert {one.cookie for one in told} == {0}
    finally:
        made.stop()


def test_one_of_some_flows_is_not_all_or_nothing(between: Path) -> None:
    """Of sockets at one address after another, and of packets that have none."""
    made = begun(between.client, Limits(per_second=1000, sample=4))
    try:
        refused(between, 0, 100)
        told = [event.direction for event in made.events() if event.trigger == "reset"]
        assert 8 <= told.count("received") <= 50
        assert 8 <= told.count("sent") <= 50
        suppressed = made.read().suppressed
        assert suppressed["sample"] + len(told) == sum(suppressed.values()) + len(told) == 200
    finally:
        made.stop()


def test_with_filters_the_classes_are_all_that_was_sent_again(between: Path) -> None:
    """Of half-open connections inet_diag knows nothing: its own sum is not the total."""
    between.listen(8091)
    made = begun(between.server, Limits(), [(8091, 8091)])
    try:
        made.connections()
        between.drop("tcp sport 8091")
        client = between.open()
        client.setblocking(False)
        with suppress(BlockingIOError):
            client.connect((SERVER, 8091))
        wait_for(lambda: made.read().counters["retransmit_synack_segments"] > 0, what="a SYN-ACK sent again")
        made.connections()
        counters = made.read().counters
        total = counters.get("retransmit_segments")
        assert total in (None, counters["retransmit_synack_segments"])
        client.close()
    finally:
        made.stop()
        between.lift()


@AS_THE_KERNEL_COUNTS
def test_timeouts_whose_segment_is_refused_on_its_way_out_count(between: Path) -> None:
    """By a firewall of this host: the kernel counts the timeout all the same."""
    listener = between.listen()
    client, _ = between.pair(listener)
    made = begun(between.client, Limits())
    kernel = Counters(between.client)
    try:
        before = kernel.read()
        between.drop("tcp dport 8080")
        client.sendall(b"q" * 100)
        between.drop("tcp dport 8080", between.client, "output")
        time.sleep(1.5)
        now, counters = kernel.read(), made.read().counters
        timeouts = now["TcpExtTCPTimeouts"] - before["TcpExtTCPTimeouts"]
        if not any(one.name == "retransmit_3" and one.on for one in made.plan().programs):
            pytest.skip("before Linux 6.17 the kernel does not tell of them")
        assert counters["retransmit_rto_events"] == timeouts > 0
        segments = now["TcpRetransSegs"] - before["TcpRetransSegs"]
        assert sum(counters[f"retransmit_{name}_segments"] for name in RETRANSMIT_CLASSES) == segments
    finally:
        between.lift(between.client)
        between.lift()
        kernel.close()
        made.stop()


def test_a_syn_that_waits_for_a_neighbour_who_is_not_there_times_out(between: Path) -> None:
    made = begun(between.client, Limits())
    try:
        if not any(one.name == "retransmit_3" and one.on for one in made.plan().programs):
            pytest.skip("before Linux 6.17 the kernel does not tell of them")
        client = between.open()
        client.setblocking(False)
        client.connect_ex((NOBODY, 8080))
        wait_for(lambda: made.read().counters["retransmit_syn_events"] >= 2)
        client.close()
        assert made.read().counters["retransmit_syn_segments"] == 0
    finally:
        made.stop()
