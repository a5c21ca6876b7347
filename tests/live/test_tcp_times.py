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
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import TYPE_CHECKING, Any

import pytest

from engine.tcp import histogram
from tests.live.engines import wait_for
from tests.live.tcp_delay import FAR, delay
from tests.live.tcp_path import NEEDS_PROGRAMS, SERVER, Path, needs
from tests.live.tcp_run import watching

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.tcp.backend import Namespace

pytestmark = [*NEEDS_PROGRAMS, needs("tcpdump")]
CONNECTIONS = 10
FLAGS = re.compile(r"^([\d.]+) IP6? \S+\.(\d+) > \S+\.(\d+): Flags \[(S|S\.|\.)\]", re.MULTILINE)
ERROR = histogram.error(3) + 0.01
"""Of a quantile of a histogram with as many buckets as there are by default."""


@contextmanager
def tcpdump(where: Namespace, device: str, file: File, first: str, second: str) -> Iterator[list[float]]:
    """Seconds from one step of a handshake (S, S. or .) to the next one, on a device; whole afterwards."""
    command = ["ip", "netns", "exec", where.name, "tcpdump", "-nn", "-tt", "-l", "-i", device]
    command += ["tcp[tcpflags] & tcp-syn != 0 or tcp[tcpflags] = tcp-ack"]
    with file.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while "listening" not in (line := process.stderr.readline()):
        assert line, "tcpdump does not start"
    found: list[float] = []

    def whole() -> bool:
        begun: dict[frozenset[str], float] = {}
        found.clear()
        for at, sport, dport, flags in FLAGS.findall(file.read_text()):
            ends = frozenset((sport, dport))
            if flags == first:
                begun.setdefault(ends, float(at))
            elif flags == second and ends in begun:
                found.append(float(at) - begun.pop(ends))
        return len(found) == CONNECTIONS

    try:
        yield found
        wait_for(whole, what=f"{CONNECTIONS} handshakes")
    finally:
        process.terminate()
        process.communicate()


def shown(where: Namespace, peer: str) -> list[float]:
    """RTTs in us, as `ss -ti` shows them."""
    text = Path.run(where, "ss", "-tin", "dst", peer)
    return [float(one) * 1000 for one in re.findall(r" rtt:([\d.]+)/", text)]


@dataclass
class Truth:
    """What others say of the same connections."""

    rtts: list[float] = field(default_factory=list)
    """us: what `ss` shows after each round."""
    wires: tuple[list[float], list[float]] = ([], [])
    """Seconds: SYN to SYN-ACK at the client, SYN-ACK to ACK at the server, as tcpdump sees them."""
    connects: list[float] = field(default_factory=list)
    """Seconds that connect() took."""
    accepts: list[float] = field(default_factory=list)
    """Seconds from before connect() until after accept()."""


def converse(between: Path, listener: socket.socket, peer: str, times: int) -> Truth:
    """Connections on which a few requests are answered; they stay open."""
    truth = Truth()
    pairs = []
    for _ in range(CONNECTIONS):
        client = between.open()
        begun = time.monotonic()
        client.connect((peer, 8080))
        truth.connects.append(time.monotonic() - begun)
        server, _ = listener.accept()
        truth.accepts.append(time.monotonic() - begun)
        between.sockets.append(server)
        pairs.append((client, server))
        time.sleep(0.01)
    for _ in range(times):
        for client, server in pairs:
            client.sendall(b"q" * 100)
            server.recv(100)
            server.sendall(b"a")
            client.recv(1)
        truth.rtts += shown(between.client, peer)
    return truth


def measured(
    between: Path, folder: File, device: str, peer: str
) -> tuple[dict[str, Any], dict[str, Any], Truth]:
    """The summaries of client and server, and what others say."""
    listener = between.listen()
    for side in ("near", "far"):
        (folder / side).mkdir()
    with ExitStack() as stack:
        here = stack.enter_context(tcpdump(between.client, device, folder / "here", "S", "S."))
        there = stack.enter_context(tcpdump(between.server, device, folder / "there", "S.", "."))
        far = stack.enter_context(watching(between.server, folder / "far", "--interval", "0.5"))
        near = stack.enter_context(watching(between.client, folder / "near", "--interval", "0.5"))
        truth = converse(between, listener, peer, 12)
    truth.wires = here, there
    assert len(truth.rtts) == CONNECTIONS * 12
    return near.final, far.final, truth


def check_handshakes(near: dict[str, Any], far: dict[str, Any], truth: Truth) -> None:
    """Each is a little longer than on the wire, and shorter than what a program waits: on any machine.

    tcpdump sees the SYN after connect() has changed the state, and the SYN-ACK before it is taken in; and in
    the same way what the server sends and gets.
    """
    client, server = near["handshake_us"]["client"], far["handshake_us"]["server"]
    assert client["count"] == server["count"] == CONNECTIONS
    here, there = truth.wires
    exact = 3 * CONNECTIONS
    assert sum(here) * 1e6 - exact <= client["sum"] <= sum(truth.connects) * 1e6
    assert sum(there) * 1e6 - exact <= server["sum"] <= sum(truth.accepts) * 1e6


def check_rtt(near: dict[str, Any], truth: Truth) -> None:
    """The middle one is among those in the middle of what ss shows."""
    low, _, high = statistics.quantiles(truth.rtts, n=4)
    assert low * (1 - ERROR) <= near["rtt_us"]["p50"] <= high * (1 + ERROR)


def test_a_path_of_20_ms(between: Path, tmp_path: File) -> None:
    with delay(between, 0.01):
        near, far, truth = measured(between, tmp_path, "slow0", FAR)
    # A busy machine adds to what the path takes.
    assert min(truth.rtts) >= 20_000
    assert far["handshake_us"]["server"]["sum"] >= 20_000 * CONNECTIONS
    check_rtt(near, truth)
    check_handshakes(near, far, truth)
    here, there = truth.wires
    assert near["handshake_us"]["client"]["sum"] == pytest.approx(sum(here) * 1e6, rel=0.2)
    assert far["handshake_us"]["server"]["sum"] == pytest.approx(sum(there) * 1e6, rel=0.2)


def test_a_path_without_delay(between: Path, tmp_path: File) -> None:
    near, far, truth = measured(between, tmp_path, "otus0", SERVER)
    check_rtt(near, truth)
    check_handshakes(near, far, truth)


@pytest.mark.skipif(shutil.which("iperf3") is None, reason="needs iperf3")
@pytest.mark.parametrize("words", [(), ("-P", "4"), ("-R",), ("-b", "20M", "-P", "2")])
def test_throughput_is_what_iperf3_reports(between: Path, tmp_path: File, words: tuple[str, ...]) -> None:
    """What iperf3 itself prints, at full speed, in both directions."""
    server = subprocess.Popen(
        ["ip", "netns", "exec", between.server.name, "iperf3", "-s", "-1"], stdout=subprocess.DEVNULL
    )
    try:
        listening = ("ss", "-tlnH", "sport", "=", ":5201")
        wait_for(lambda: Path.run(between.server, *listening), what="iperf3 listens")
        with watching(between.client, tmp_path, "--interval", "0.5") as run:
            command = ("iperf3", "-c", SERVER, "-t", "3", "-J", *words)
            report = json.loads(Path.run(between.client, *command))["end"]
            run.windows()
        server.wait(60)
    finally:
        server.kill()
        server.wait()
    way = "receive" if "-R" in words else "send"
    sent, told = report["sum_sent"], report["sum_received"]
    # When its time is over iperf3 does not count what was sent and is not read yet; it is acknowledged later.
    assert told["bytes"] * 0.98 <= run.final["sampling"][f"{way}_bytes"] <= sent["bytes"] * 1.02
    if "-b" in words:
        assert run.final["sampling"][f"{way}_bytes"] == pytest.approx(told["bytes"], rel=0.02)
    # However the load was spread over the windows: their rates add up to it.
    windows = [line for line in run.lines if not line["final"]]
    octets = sum(line["throughput_bps"][f"{way}_total"] * line["window_s"] / 8 for line in windows)
    assert octets == pytest.approx(run.final["sampling"][f"{way}_bytes"], rel=0.02)
    assert max(line["throughput_bps"][f"{way}_total"] for line in windows) >= told["bits_per_second"] / 2
