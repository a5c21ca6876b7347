"""The libbpf backend on real sockets: times against ss and the wire, octets, samples, costs."""

from __future__ import annotations

import re
import socket
import time

from engine.tcp import histogram
from engine.tcp.backend import Filters, Limits, Sizes, Triggers
from engine.tcp.libbpf import LibbpfBackend
from tests.live.tcp_delay import FAR, delay
from tests.live.tcp_loopback import observer, visit
from tests.live.tcp_path import NEEDS_PROGRAMS, Path, watch

pytestmark = NEEDS_PROGRAMS


def test_times_of_a_slow_path(between: Path) -> None:
    connects, accepts, rounds = [], [], []
    with delay(between, 0.01) as slow, watch(between.client) as near, watch(between.server) as far:
        listener = between.listen()
        pairs = []
        for _ in range(5):
            client = between.open()
            begun = time.monotonic()
            client.connect((FAR, 8080))
            connects.append(time.monotonic() - begun)
            server, _ = listener.accept()
            accepts.append(time.monotonic() - begun)
            pairs.append((client, server))
        for _ in range(8):
            for client, server in pairs:
                begun = time.monotonic()
                client.sendall(b"q" * 100)
                server.recv(100)
                server.sendall(b"a")
                client.recv(1)
                rounds.append(time.monotonic() - begun)
        text = between.run(between.client, "ss", "-tin", "dst", FAR)
        truth = [float(one) * 1000 for one in re.findall(r" rtt:([\d.]+)/", text)]
        rows = [row for row in near.backend.connections() if row.remote == FAR]
        assert len(rows) == len(truth) == 5
        for row, rtt in zip(sorted(row.srtt_us or 0 for row in rows), sorted(truth), strict=True):
            assert abs(row - rtt) <= rtt * 0.02
        reading, _ = near.read()
        middle = histogram.quantile(reading.histograms["rtt_us"].buckets, 0.5, 3)
        assert middle is not None
        # Longer than the path, and not longer than what a program waits, however long that is.
        error = 1 + histogram.error(3)
        assert 20_000 / error <= middle <= max(*connects, *rounds) * 1e6 * error
        took = reading.histograms["handshake_client_us"]
        assert sum(took.buckets) == len(slow.handshakes) == 5
        assert sum(slow.handshakes) * 1e6 - 10 <= took.total <= sum(connects) * 1e6
        server_side, _ = far.read()
        took = server_side.histograms["handshake_server_us"]
        assert sum(took.buckets) == len(slow.answers) == 5
        assert sum(slow.answers) * 1e6 - 10 <= took.total <= sum(accepts) * 1e6
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
