"""Requests and answers over the path between two hosts, and packets that it loses."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from tests.live.engines import wait_for
from tests.live.tcp_path import SERVER, TCP_REPAIR

if TYPE_CHECKING:
    from tests.live.tcp_path import Path


class Echo:
    """A server that answers each request of a known size with a few octets."""

    def __init__(self, listener: socket.socket, request: int) -> None:
        self.listener, self.request = listener, request
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(peer,), daemon=True).start()

    def _answer(self, peer: socket.socket) -> None:
        arrived = 0
        with peer:
            while True:
                try:
                    data = peer.recv(1 << 16)
                    arrived += len(data)
                    while arrived >= self.request:
                        arrived -= self.request
                        peer.sendall(b"y" * 16)
                except OSError:
                    return
                if not data:
                    return


def asks(between: Path, connections: int, request: int, seconds: float, pause: float = 0.005) -> None:
    """Requests and answers on some connections at once."""

    def run() -> None:
        client = between.open()
        client.settimeout(4)
        with client:
            client.connect((SERVER, 8080))
            ends = time.monotonic() + seconds
            # A request that is stuck in backed-off timeouts ends the load, not the test.
            with suppress(TimeoutError):
                while time.monotonic() < ends:
                    client.sendall(b"q" * request)
                    client.recv(16)
                    time.sleep(pause)

    threads = [threading.Thread(target=run) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def near(found: int, truth: int) -> bool:
    """Within 1 %, or one."""
    return abs(found - truth) <= max(1, round(truth * 0.01))


def refused_by_a_firewall(between: Path, segments: int) -> int:
    """A connection whose segments the server's firewall drops; how many packets it dropped."""
    client, _ = between.pair(between.listen())
    between.drop("tcp dport 8080", between.server, "input")
    client.setblocking(False)
    for _ in range(segments):
        client.send(b"x" * 100)
        time.sleep(0.05)
    wait_for(lambda: between.dropped(between.server) > segments, what="a retransmission")
    # Forgotten without a word: nothing comes while the drops are read and lifted.
    client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    client.close()
    packets = between.dropped(between.server)
    between.lift(between.server)
    return packets
