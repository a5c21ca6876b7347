"""Rings on a veth pair that are read in this process, and what is sent to them."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.capture import af_packet, cbpf, filters
from engine.capture.ring_walk import RingPoll, RingWalk, map_ring
from engine.capture.sink import PacketSink
from engine.shm.counters import Counters
from tests.live.namespace import ip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ETHERNET, RAW = 1, 101
SIP = filters.live_program({"ports": [5060], "protocol": "udp"})
ALL = filters.live_program({})


class Sink(PacketSink):
    """Keeps (octets, wire length, time, interface, link type, vlan, packet type)."""

    def __init__(self, counters: Counters) -> None:
        self.counters = counters
        self.rows: list[tuple[Any, ...]] = []

    def attach(self, buf: memoryview) -> None:
        self.buf = buf

    def packet(self, start: int, end: int, *facts: int) -> int:
        self.counters.add("received")
        self.rows.append((bytes(self.buf[start:end]), *facts))
        self.counters.add("handled")
        return 0


class Reader:
    """Reads one ring in this process."""

    def __init__(self, ring: af_packet.RingSocket) -> None:
        self.counters = Counters.create("test", 0)
        self.sink = Sink(self.counters)
        ring_map = map_ring(ring.fileno(), ring.block_size, ring.block_count)
        self._map, self._size, self._count = ring_map, ring.block_size, ring.block_count
        self.walk = RingWalk(ring_map, ring.block_size, ring.block_count, self.counters, self.sink)
        self.poll = RingPoll(ring.fileno())

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return self.sink.rows

    def read(self, count: int, timeout: float = 20.0) -> list[tuple[Any, ...]]:
        """Until `count` packets are there, or the time is over; then a little longer for what is too much."""
        self.read_until(lambda: len(self.rows) >= count, timeout)
        self.settle()
        return self.rows

    def read_until(self, condition: Callable[[], bool], timeout: float = 20.0) -> list[tuple[Any, ...]]:
        """Until something holds, or the time is over."""
        end = time.monotonic() + timeout
        while not condition() and time.monotonic() < end:
            if not self.walk.run(8):
                self.poll.wait(20)
        return self.rows

    def settle(self) -> None:
        """Until nothing has come at some looks, however long they took; not for ever if there is no end."""
        quiet = 0
        for _ in range(100):
            quiet = 0 if self.walk.run(8) else quiet + 1
            if quiet > 3:
                return
            self.poll.wait(20)

    def ready(self) -> list[int]:
        """The states of the blocks that the kernel has handed over."""
        return [state for state, _ in self._blocks() if state & 1]

    def waiting(self) -> int:
        """Packets in the blocks that the kernel has handed over."""
        return sum(packets for state, packets in self._blocks() if state & 1)

    def _blocks(self) -> list[tuple[int, int]]:
        """State and number of packets of each block (struct tpacket_hdr_v1)."""
        size, count = self._size, self._count
        return [struct.unpack_from("=II", self._map, block * size + 8) for block in range(count)]

    def close(self) -> None:
        self.poll.close()
        os.close(self.counters.region.fd)


def gather(readers: list[Reader], count: int, timeout: float = 20.0) -> list[list[tuple[Any, ...]]]:
    """What each has read when all have `count` packets together, or time is over; and what is too much."""
    end = time.monotonic() + timeout
    while sum(len(reader.rows) for reader in readers) < count and time.monotonic() < end:
        if not sum(reader.walk.run(8) for reader in readers):
            readers[0].poll.wait(5)
    for reader in readers:
        reader.settle()
    return [reader.rows for reader in readers]


class Wire:
    """The far end of the veth pair: what is sent here arrives on `va`."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind(("vb", 0))

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.socket.send(frame)


def frame(sport: int, dport: int = 5060, body: bytes = b"x" * 30, tags: bytes = b"") -> bytes:
    """A frame with UDP from 10.1.0.2 to 10.1.0.1."""
    udp = struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, b"\x0a\1\0\2", b"\x0a\1\0\1")
    return b"\2\0\0\0\0\1\2\0\0\0\0\2" + tags + b"\x08\x00" + head + udp


def make_pair() -> None:
    """The veth pair `va` and `vb`, up."""
    ip("link", "add", "va", "type", "veth", "peer", "name", "vb")
    for name in ("va", "vb"):
        # Without IPv6 the kernel says nothing of its own on these.
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        ip("link", "set", name, "up")


@contextmanager
def capturing(
    interface: str, program: cbpf.Program = ALL, workers: int = 1, **keys: Any
) -> Iterator[tuple[list[af_packet.RingSocket], list[Reader]]]:
    """Rings on an interface and a reader for each; `keys` go into the capture's configuration."""
    config = {"ring_mb": 4, "block_kb": 256, "retire_ms": 1, **keys.pop("config", {})}
    rings = af_packet.open_rings({"interface": interface, "config": config, **keys}, workers, program)
    readers = [Reader(ring) for ring in rings]
    try:
        yield rings, readers
    finally:
        for reader in readers:
            reader.close()
        for ring in rings:
            ring.close()


@contextmanager
def sending() -> Iterator[Wire]:
    """The far end of the pair, for a while."""
    wire = Wire()
    try:
        yield wire
    finally:
        wire.socket.close()


@contextmanager
def own_peer() -> Iterator[None]:
    """A sender of TCP in a namespace of its own at the far end, towards a sink on `va`."""
    name = f"otus-peer-{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("link", "set", "vb", "netns", name)
        ip("-n", name, "addr", "add", "10.1.0.2/24", "dev", "vb")
        ip("-n", name, "link", "set", "vb", "up")
        with socket.create_server(("10.1.0.1", 7000)) as server:
            code = (
                "import socket,time; s=socket.create_connection(('10.1.0.1',7000),20)\n"
                "[(s.send(b'q'*60000), time.sleep(.01)) for _ in range(6000)]"
            )
            sender = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-S", "-c", code])
            server.settimeout(20)
            connection, _ = server.accept()
            drain = subprocess.Popen(
                [sys.executable, "-S", "-c", "import os\nwhile os.read(0, 1<<20): pass"],
                stdin=connection.fileno(),
            )
            connection.close()
            yield
            for process in (sender, drain):
                process.kill()
                process.wait()
    finally:
        ip("netns", "del", name)


def links(rings: list[af_packet.RingSocket], wanted: str) -> bool:
    """Whether check() finds all rings so: the kernel reports carriers a little late."""
    end = time.monotonic() + 20
    while any(ring.check() != wanted for ring in rings):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def promiscuity(name: str) -> int:
    """How many have put an interface into promiscuous mode."""
    words = ip("-d", "link", "show", name).split()
    return int(words[words.index("promiscuity") + 1])


@contextmanager
def udp() -> Iterator[socket.socket]:
    """A socket of UDP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        yield sender
