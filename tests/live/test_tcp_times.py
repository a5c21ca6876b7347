"""Times and rates against other programs: `ss -ti`, tcpdump, iperf3; over a path of 20 ms and one without
delay."""

from __future__ import annotations

import json
import re
import shutil
import socket
import statistics
import subprocess
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

import pytest

from tests.live.tcp_delay import FAR, delay
from tests.live.tcp_path import NEEDS_PROGRAMS, SERVER, Path, needs
from tests.live.tcp_run import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Namespace

pytestmark = [*NEEDS_PROGRAMS, needs("tcpdump")]
CONNECTIONS = 10
FLAGS = re.compile(r"^([\d.]+) IP6? (\S+)\.(\d+) > (\S+)\.(\d+): Flags \[(S|S\.)\]", re.MULTILINE)


@contextmanager
def tcpdump(where: Namespace, device: str) -> Iterator[list[float]]:
    """Seconds from SYN to SYN-ACK of what passes a device, in the order of the SYNs; whole afterwards."""
    command = ["ip", "netns", "exec", where.name, "tcpdump", "-nn", "-tt", "-l", "-i", device]
    command += ["tcp[tcpflags] & tcp-syn != 0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "listening" not in (line := process.stderr.readline()):
        assert line, "tcpdump does not start"
    found: list[float] = []
    try:
        yield found
        time.sleep(0.3)
    finally:
        process.terminate()
        text, _ = process.communicate()
    begun: dict[str, float] = {}
    for at, _, sport, _, dport, flags in FLAGS.findall(text):
        if flags == "S":
            begun.setdefault(sport, float(at))
        elif dport in begun:
            found.append(float(at) - begun.pop(dport))


def shown(where: Namespace, peer: str) -> list[float]:
    """RTTs in us, as `ss -ti` shows them."""
    text = Path.run(where, "ss", "-tin", "dst", peer)
    return [float(one) * 1000 for one in re.findall(r" rtt:([\d.]+)/", text)]


def converse(between: Path, listener: socket.socket, peer: str, times: int) -> list[float]:
    """Connections on which a few requests are answered; they stay open. What `ss` shows after each round."""
    rtts: list[float] = []
    pairs = []
    for _ in range(CONNECTIONS):
        client = between.open()
        client.connect((peer, 8080))
        server, _ = listener.accept()
        between.sockets.append(server)
        pairs.append((client, server))
        time.sleep(0.01)
    for _ in range(times):
        for client, server in pairs:
            client.sendall(b"q" * 100)
            server.recv(100)
            server.sendall(b"a")
            client.recv(1)
        rtts += shown(between.client, peer)
    return rtts


def measured(between: Path, folder: File, device: str, peer: str) -> tuple[dict[str, Any], ...]:
    """The summaries of client and server, and what `ss` and tcpdump say."""
    listener = between.listen()
    for side in ("near", "far"):
        (folder / side).mkdir()
    with ExitStack() as stack:
        wire = stack.enter_context(tcpdump(between.client, device))
        far = stack.enter_context(watching(between.server, folder / "far", "--interval", "0.5"))
        near = stack.enter_context(watching(between.client, folder / "near", "--interval", "0.5"))
        rtts = converse(between, listener, peer, 12)
    assert len(wire) == CONNECTIONS
    assert len(rtts) == CONNECTIONS * 12
    truth = {"rtt": statistics.median(rtts), "handshake": statistics.mean(wire) * 1e6}
    return near.final, far.final, truth


def mean(one: dict[str, Any]) -> float:
    assert one["count"] == CONNECTIONS
    return float(one["sum"] / one["count"])


def test_a_path_of_20_ms(between: Path, tmp_path: File) -> None:
    with delay(between, 0.01):
        near, far, truth = measured(between, tmp_path, "slow0", FAR)
    # A busy machine adds to what the path takes.
    assert truth["rtt"] >= 20_000
    assert near["rtt_us"]["p50"] == pytest.approx(truth["rtt"], rel=0.1)
    assert mean(near["handshake_us"]["client"]) == pytest.approx(truth["handshake"], rel=0.2)
    assert mean(far["handshake_us"]["server"]) == pytest.approx(truth["handshake"], rel=0.2)


def test_a_path_without_delay(between: Path, tmp_path: File) -> None:
    near, far, truth = measured(between, tmp_path, "otus0", SERVER)
    assert near["rtt_us"]["p50"] == pytest.approx(truth["rtt"], abs=50)
    # tcpdump sees the SYN after connect() has changed the state, and the SYN-ACK before it is taken in.
    assert mean(near["handshake_us"]["client"]) == pytest.approx(truth["handshake"], abs=50)
    assert mean(far["handshake_us"]["server"]) == pytest.approx(truth["handshake"], abs=50)


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="needs iperf3")
@pytest.mark.parametrize("words", [(), ("-P", "4"), ("-R",), ("-b", "20M", "-P", "2")])
def test_throughput_is_what_iperf3_reports(between: Path, tmp_path: File, words: tuple[str, ...]) -> None:
    """What iperf3 itself prints, at full speed, in both directions."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", between.server.name, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    try:
        time.sleep(0.4)
        with watching(between.client, tmp_path, "--interval", "0.5") as run:
            command = ("iperf3", "-c", SERVER, "-t", "3", "-J", *words)
            report = json.loads(Path.run(between.client, *command))["end"]
            time.sleep(0.2)
        server.wait(10)
    finally:
        server.kill()
        server.wait()
    way = "receive" if "-R" in words else "send"
    sent, told = report["sum_sent"], report["sum_received"]
    # When its time is over iperf3 does not count what was sent and is not read yet; it is acknowledged later.
    assert told["bytes"] * 0.98 <= run.final["sampling"][f"{way}_bytes"] <= sent["bytes"] * 1.02
    if "-b" in words:
        assert run.final["sampling"][f"{way}_bytes"] == pytest.approx(told["bytes"], rel=0.02)
    rates = [line["throughput_bps"][f"{way}_total"] for line in run.lines if not line["final"]]
    assert statistics.median(rates) == pytest.approx(told["bits_per_second"], rel=0.25)
