"""`otus-tui tcp` against iperf3, `ss -ti` and `nstat`, with every backend that runs here."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time

import pytest

from tests.live.engines import wait_for
from tests.live.tcp_command import (
    THERE,
    Hosts,
    acknowledged,
    final_of,
    finish,
    observing,
    start,
    until,
    windows,
)
from tests.live.tcp_path import AS_THE_KERNEL_COUNTS


def test_throughput_is_what_iperf3_says(hosts: Hosts, backend: str) -> None:
    server = subprocess.Popen(
        ["ip", "netns", "exec", hosts.b, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    wait_for(lambda: hosts.run(hosts.b, "ss", "-tlnH", "sport", "=", ":5201"), what="iperf3 listens")
    process = start(hosts, "--backend", backend, "--format", "jsonl", "--interval", "0.5")
    observing(process)
    words = ("iperf3", "-c", THERE, "-t", "3", "-b", "40M", "-P", "2", "-J")
    told = json.loads(hosts.run(hosts.a, *words))["end"]["sum_received"]
    server.wait(60)
    windows(process)
    last = final_of(process)
    sent = last["throughput_bps"]["send_total"] * last["window_s"] / 8
    assert sent == pytest.approx(told["bytes"], rel=0.02)
    assert last["sampling"]["send_bytes"] == pytest.approx(told["bytes"], rel=0.02)
    # Of each of the two streams.
    assert last["throughput_bps"]["send"]["p50"] == pytest.approx(told["bits_per_second"] / 2, rel=0.3)


def test_rtt_is_what_ss_says(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    words = ("--backend", backend, "--format", "jsonl", "--rport", "7000", "--interval", "0.3")
    process = start(hosts, *words)
    observing(process)
    for _ in range(200):
        client.sendall(b"q" * 100)
        peer.sendall(peer.recv(100))
        client.recv(100)
        time.sleep(0.002)
    acknowledged(client)
    shown = hosts.run(hosts.a, "ss", "-tinHO", "dport", "=", ":7000")
    rtt = float(shown.split(" rtt:")[1].split("/")[0]) * 1000
    windows(process)
    last = final_of(process)
    # The smoothed RTT moves while there is traffic: what ss saw at the end lies in what was counted.
    bounds = [bound for bound, _ in last["rtt_us"]["buckets"]]
    assert min(bounds) * 0.85 <= rtt <= last["rtt_us"]["max"] * 1.1
    assert last["rtt_us"]["count"] >= 1


def test_rtt_of_one_connection_within_a_tenth(hosts: Hosts) -> None:
    """Over a connection that rests, inet_diag says what ss says."""
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    for _ in range(50):
        client.sendall(b"q")
        peer.recv(1)
    acknowledged(client)
    shown = hosts.run(hosts.a, "ss", "-tinHO", "dport", "=", ":7000")
    rtt, variation = (float(part) * 1000 for part in shown.split(" rtt:")[1].split()[0].split("/"))
    words = ("--backend", "netlink", "--format", "jsonl", "--duration", "0.3", "--interval", "0.1")
    last = finish(start(hosts, *words))[-1]
    assert last["rtt_us"]["count"] == 1
    assert last["rtt_us"]["p50"] == pytest.approx(rtt, rel=0.1)
    assert last["rttvar_us"]["p50"] == pytest.approx(variation, rel=0.1, abs=2)
    assert last["cwnd"]["p50"] == float(shown.split(" cwnd:")[1].split()[0])


@AS_THE_KERNEL_COUNTS
@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_timeouts_and_probes_are_what_nstat_says(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    client = hosts.connect(hosts.a, THERE, 7000)
    peer = hosts.accept(server)
    words = ("--backend", backend, "--format", "jsonl", "--mode", "both", "--retrans-burst", "1/s")
    process = start(hosts, *words, "--interval", "0.5")
    observing(process)
    before = hosts.nstat(hosts.a)
    client.sendall(b"q" * 1000)
    peer.recv(1000)
    hosts.run(hosts.b, "nft", "add", "table", "ip", "hole")
    hosts.run(hosts.b, "nft", "add chain ip hole in { type filter hook input priority 0; }")
    hosts.run(hosts.b, "nft", "add", "rule", "ip", "hole", "in", "tcp", "dport", "7000", "drop")
    client.sendall(b"q" * 1000)
    timeouts = before["TcpExtTCPTimeouts"]
    wait_for(lambda: hosts.nstat(hosts.a)["TcpExtTCPTimeouts"] > timeouts, what="a timeout")
    until(process, lambda text: '"retransmit_burst"' in text)
    hosts.run(hosts.b, "nft", "delete", "table", "ip", "hole")
    peer.recv(1000)
    acknowledged(client)
    windows(process)
    after = hosts.nstat(hosts.a)
    moved = {name: value - before.get(name, 0) for name, value in after.items()}
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    last = next(line for line in reversed(lines) if "final" in line)
    classes = last["retransmits"]["by_class"]
    assert moved["TcpExtTCPTimeouts"] >= 1
    assert classes["rto"]["events"] == moved["TcpExtTCPTimeouts"]
    tlp = (classes["tlp"]["events"] or 0) + (last["retransmits"]["tlp_new_data"] or 0)
    assert tlp == moved["TcpExtTCPLossProbes"]
    assert last["retransmits"]["segments"] == moved["TcpRetransSegs"]
    assert last["kernel"]["TcpRetransSegs"] == moved["TcpRetransSegs"]
    found = [line for line in lines if line.get("event_type") == "tcp"]
    assert {one["trigger"]["name"] for one in found} >= {"rto", "retransmit_burst"}
    assert all(one["dest_ip"] == THERE and one["dest_port"] == 7000 for one in found)
    assert all(one["role"] == "client" and one["community_id"].startswith("1:") for one in found)
    assert lines[-1]["event_type"] == "tcp_end"
    assert lines[-1]["emitted"] == len(found)


def storm(hosts: Hosts, count: int) -> None:
    """So many connections at once, that are kept open."""

    def connect() -> None:
        for _ in range(count):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex((THERE, 7000))
            hosts.kept.append(one)

    hosts.inside(hosts.a, connect)


def test_listen_drops_are_what_nstat_says(hosts: Hosts, backend: str) -> None:
    hosts.listen(hosts.b, THERE, 7000, backlog=1)
    words = ("--backend", backend, "--format", "jsonl", "--mode", "both", "--interval", "0.5")
    process = start(hosts, *words, where=hosts.b)
    observing(process)
    before = hosts.nstat(hosts.b)

    storm(hosts, 12)
    # A SYN that was dropped comes again after a second.
    windows(process, 4)
    after = hosts.nstat(hosts.b)
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    last = next(line for line in reversed(lines) if "final" in line)
    drops = after["TcpExtListenDrops"] - before["TcpExtListenDrops"]
    assert drops > 0
    [row] = [row for row in last["listen"] if row["port"] == 7000]
    # More SYNs may have come between nstat and the end: then the kernel has counted them, too.
    later = hosts.nstat(hosts.b)["TcpExtListenDrops"] - before["TcpExtListenDrops"]
    assert drops <= row["drops"] <= later
    assert row["accept_drops"] == row["drops"]
    assert row["syn_drops"] == 0
    assert row["limit"] == 1
    overflow = [line for line in lines if line.get("trigger", {}).get("name") == "backlog_overflow"]
    assert overflow
    assert overflow[0]["src_port"] == 7000


def test_a_server_that_is_gone_stands_in_the_summary_of_the_run(hosts: Hosts, backend: str) -> None:
    """With what it dropped; a window in which it was gone already does not have it."""
    server = hosts.listen(hosts.b, THERE, 7000, backlog=1)
    words = ("--backend", backend, "--format", "jsonl", "--interval", "0.3")
    process = start(hosts, *words, where=hosts.b)
    observing(process)

    storm(hosts, 9)
    windows(process)
    server.close()
    for one in hosts.kept:
        one.close()
    windows(process, 3)
    drops = hosts.nstat(hosts.b)["TcpExtListenDrops"]
    process.send_signal(signal.SIGINT)
    lines = finish(process, 130)
    [row] = lines[-1]["listen"]
    assert (row["port"], row["limit"], row["open"]) == (7000, 1, False)
    assert row["drops"] == row["accept_drops"] == drops > 0
    assert lines[-2]["listen"] == []
    assert any(one["open"] for line in lines[:-1] for one in line["listen"])


def test_two_observers_at_once_are_both_right(hosts: Hosts, backend: str) -> None:
    server = hosts.listen(hosts.b, THERE, 7000)
    words = ("--backend", backend, "--format", "jsonl", "--rport", "7000")
    observers = [start(hosts, *words) for _ in range(2)]
    for process in observers:
        observing(process)
    for _ in range(20):
        client = hosts.connect(hosts.a, THERE, 7000)
        peer = hosts.accept(server)
        client.sendall(b"q" * 1000)
        client.close()
        while peer.recv(4096):
            pass
        peer.close()
    for process in observers:
        windows(process)
    for process in observers:
        # Two octets of sequence space each, for SYN and FIN, as the kernel counts them.
        assert 20_000 <= final_of(process)["sampling"]["send_bytes"] <= 20_040
    server.close()
