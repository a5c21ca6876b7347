"""A path with a delay, of two TUN devices and a thread: netem is no part of every kernel."""

from __future__ import annotations

import fcntl
import heapq
import os
import select
import struct
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from engine.tcp.namespaces import call_inside
from tests.live.namespace import ip

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from tests.live.tcp_path import Path

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
NEAR, FAR = "10.97.0.1", "10.97.0.2"
SYN, ACK = 2, 16


def tun() -> int:
    """A new TUN device of the namespace that this is called in."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"slow0", IFF_TUN | IFF_NO_PI))
    return descriptor


class Delay:
    """Carries packets between both ends, each one so many seconds late, and notes when handshakes pass."""

    def __init__(self, between: Path, seconds: float) -> None:
        self.seconds = seconds
        self.ends = [call_inside(where, tun) for where in (between.client, between.server)]
        for where, address, peer in ((between.client, NEAR, FAR), (between.server, FAR, NEAR)):
            ip("-n", where.name, "addr", "add", address, "peer", peer, "dev", "slow0")
            ip("-n", where.name, "link", "set", "slow0", "up")
        self.handshakes: list[float] = []
        """Seconds from SYN to SYN-ACK, as the near end of the wire sees them."""
        self.answers: list[float] = []
        """Seconds from SYN-ACK to ACK, as the far end of the wire sees them."""
        self._syn: dict[bytes, float] = {}
        self._syn_ack: dict[bytes, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        waiting: list[tuple[float, int, int, bytes]] = []
        number = 0
        while not self._stop.is_set():
            wait = max(0.0, min(0.05, waiting[0][0] - time.monotonic())) if waiting else 0.05
            ready, _, _ = select.select(self.ends, [], [], wait)
            now = time.monotonic()
            for descriptor in ready:
                packet = os.read(descriptor, 65536)
                side = self.ends.index(descriptor)
                if side == 0 and self._flags(packet) == SYN:
                    self._syn[packet[20:22]] = now
                elif side == 1 and self._flags(packet) == SYN | ACK:
                    self._syn_ack[packet[22:24]] = now
                number += 1
                heapq.heappush(waiting, (now + self.seconds, number, 1 - side, packet))
            while waiting and waiting[0][0] <= time.monotonic():
                _, _, side, packet = heapq.heappop(waiting)
                if side == 0 and self._flags(packet) == SYN | ACK and packet[22:24] in self._syn:
                    self.handshakes.append(time.monotonic() - self._syn.pop(packet[22:24]))
                elif side == 1 and self._flags(packet) == ACK and packet[20:22] in self._syn_ack:
                    self.answers.append(time.monotonic() - self._syn_ack.pop(packet[20:22]))
                os.write(self.ends[side], packet)

    @staticmethod
    def _flags(packet: bytes) -> int:
        return packet[33] & 0x3F if packet[0] == 0x45 and packet[9] == 6 else 0

    def close(self) -> None:
        """Take the devices away."""
        self._stop.set()
        self._thread.join()
        for descriptor in self.ends:
            os.close(descriptor)


@contextmanager
def delay(between: Path, seconds: float) -> Iterator[Delay]:
    """The slow path beside the quick one, for a while."""
    made = Delay(between, seconds)
    try:
        yield made
    finally:
        made.close()


def far_pair(between: Path) -> tuple[socket.socket, socket.socket]:
    """A connection over the slow path: the client's end and the server's."""
    listener = between.listen()
    client = between.open()
    client.connect((FAR, 8080))
    server, _ = listener.accept()
    between.sockets.append(server)
    return client, server


def exchange(client: socket.socket, server: socket.socket, times: int) -> None:
    """Requests of an octet, each answered by one before the next is sent."""
    for _ in range(times):
        client.sendall(b"q")
        server.recv(1)
        server.sendall(b"a")
        client.recv(1)
