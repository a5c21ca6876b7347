"""Live capture in a network namespace of its own: rings, fanout, filters, take-over, interfaces that go."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.capture import af_packet, cbpf, filters, interfaces
from engine.capture.ring_walk import RingPoll, RingWalk, map_ring
from engine.capture.sink import PacketSink
from engine.errors import NotPermittedError, OtusError, UsageError
from engine.shm.counters import Counters
from tests.live.namespace import ip, own_namespace

if TYPE_CHECKING:
    from collections.abc import Iterator

ETHERNET, RAW = 1, 101
SIP = filters.live_program({"ports": [5060], "protocol": "udp"})
ALL = filters.live_program({})
HERE = Path(__file__).parent


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
        self.walk = RingWalk(ring_map, ring.block_size, ring.block_count, self.counters, self.sink)
        self.poll = RingPoll(ring.fileno())

    @property
    def rows(self) -> list[tuple[Any, ...]]:
        return self.sink.rows

    def read(self, count: int, timeout: float = 3.0) -> list[tuple[Any, ...]]:
        """Until `count` packets are there, or the time is over; then a little longer for what is too much."""
        end = time.monotonic() + timeout
        while len(self.rows) < count and time.monotonic() < end:
            if not self.walk.run(8):
                self.poll.wait(20)
        settle = time.monotonic() + 0.06
        while time.monotonic() < settle:
            if not self.walk.run(8):
                self.poll.wait(20)
        return self.rows

    def close(self) -> None:
        self.poll.close()
        os.close(self.counters.region.fd)


class Wire:
    """The far end of the veth pair: what is sent here arrives on `va`."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        self.socket.bind(("vb", 0))

    def send(self, *frames: bytes) -> None:
        for frame in frames:
            self.socket.send(frame)


def frame(sport: int, dport: int = 5060, body: bytes = b"x" * 30, tags: bytes = b"") -> bytes:
    udp = struct.pack(">HHHH", sport, dport, 8 + len(body), 0) + body
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 64, 17, 0, b"\x0a\1\0\2", b"\x0a\1\0\1")
    return b"\2\0\0\0\0\1\2\0\0\0\0\2" + tags + b"\x08\x00" + head + udp


@pytest.fixture
def namespace() -> Iterator[str]:
    with own_namespace() as name:
        make_pair()
        yield name


def make_pair() -> None:
    ip("link", "add", "va", "type", "veth", "peer", "name", "vb")
    for name in ("va", "vb"):
        # Without IPv6 the kernel says nothing of its own on these.
        Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
        ip("link", "set", name, "up")


@contextmanager
def capturing(
    interface: str, program: cbpf.Program = ALL, workers: int = 1, **keys: Any
) -> Iterator[tuple[list[af_packet.RingSocket], list[Reader]]]:
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
    wire = Wire()
    try:
        yield wire
    finally:
        wire.socket.close()


@pytest.mark.usefixtures("namespace")
class TestRings:
    def test_what_a_packet_brings(self) -> None:
        with capturing("va") as (rings, (reader,)), sending() as wire:
            before = time.time_ns()
            wire.send(frame(4000))
            (row,) = reader.read(1)
            octets, wire_length, stamp, interface, link_type, vlan, kind = row
            assert octets == frame(4000)
            assert wire_length == len(octets)
            assert abs(stamp - before) < 1_000_000_000
            assert (interface, link_type, vlan) == (interfaces.index_of("va"), ETHERNET, 0)
            assert kind in (0, 3)
            assert rings[0].link == "up"
            assert rings[0].block_size * rings[0].block_count == 4 << 20

    def test_workers_share_flows_and_the_sum_is_exact(self) -> None:
        config = {"retire_ms": 20}
        with capturing("va", SIP, 3, config=config) as (rings, readers), sending() as wire:
            frames = [frame(4000 + n % 60) for n in range(3000)]
            for start in range(0, 3000, 100):
                wire.send(*frames[start : start + 100])
                time.sleep(0.001)
            rows = [reader.read(0) for reader in readers]
            assert [ring.statistics()["drops"] for ring in rings] == [0, 0, 0]
            assert sum(map(len, rows)) == 3000
            assert all(rows)
            owners = [{row[0][34:36] for row in mine} for mine in rows]
            assert sum(map(len, owners)) == 60
            assert sum(ring.statistics()["packets"] for ring in rings) == 3000

    def test_drops_are_in_the_statistics(self) -> None:
        with (
            capturing("va", SIP, config={"ring_mb": 1, "block_kb": 64}) as (rings, (reader,)),
            sending() as wire,
        ):
            big = frame(4000, body=b"z" * 1400)
            for _ in range(30):
                wire.send(*[big] * 50)
            time.sleep(0.05)
            figures = rings[0].statistics()
            assert figures["packets"] == 1500
            assert figures["drops"] > 0
            assert figures["freezes"] >= 1
            assert rings[0].blocks_waiting() == rings[0].block_count
            reader.read(1500, 0.3)
            assert len(reader.rows) == 1500 - figures["drops"]
            assert rings[0].blocks_waiting() == 0
            assert rings[0].statistics() == figures

    def test_mapping_of_the_supervisor_holds_headers_only(self) -> None:
        with capturing("va", config={"ring_mb": 16}) as (rings, _):
            before = resident()
            assert rings[0].blocks_waiting() == 0
            assert resident() - before < 2 << 20

    def test_blocks_too_large_for_the_kernel_get_smaller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        real = socket.socket

        class Poor(real):  # type: ignore[misc, valid-type]
            def setsockopt(self, level: int, option: int, value: Any) -> None:
                if (level, option) == (af_packet.SOL_PACKET, af_packet.PACKET_RX_RING):
                    asked.append(struct.unpack("7I", value)[:2])
                    if asked[-1][0] > 65536 or asked[-1][1] > 32:
                        raise OSError(12, "Cannot allocate memory")
                super().setsockopt(level, option, value)

        monkeypatch.setattr(socket, "socket", Poor)
        with capturing("va") as (rings, _):
            assert (rings[0].block_size, rings[0].block_count) == (65536, 32)
        assert asked == [(262144, 16), (131072, 32), (65536, 64), (65536, 32)]

    def test_super_packets_are_whole(self) -> None:
        ip("addr", "add", "10.1.0.1/24", "dev", "va")
        with own_peer(), capturing("va", filters.live_program({"protocol": "tcp"})) as (_, (reader,)):
            rows = reader.read(10**9, 0.7)
        largest = max(len(row[0]) for row in rows)
        assert largest > 1514, "no segment was merged, so this shows nothing"
        assert all(len(row[0]) == row[1] for row in rows)

    def test_snap_length_is_the_filters(self) -> None:
        with capturing("va", cbpf.accept(96)) as (_, (reader,)), sending() as wire:
            wire.send(frame(1, body=b"y" * 500))
            (row,) = reader.read(1)
            assert len(row[0]) == 96
            assert row[1] == len(frame(1, body=b"y" * 500))


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
                "import socket,time; s=socket.create_connection(('10.1.0.1',7000),5)\n"
                "[(s.send(b'q'*60000), time.sleep(.01)) for _ in range(40)]"
            )
            sender = subprocess.Popen(["ip", "netns", "exec", name, sys.executable, "-S", "-c", code])
            server.settimeout(5)
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


def resident() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    return 0


@pytest.mark.usefixtures("namespace")
class TestTakeOver:
    def test_three_kills_and_the_books_are_exact(self) -> None:
        rings = af_packet.open_rings({"interface": "va", "config": {"ring_mb": 16}}, 1, SIP)
        counters = Counters.create("test", 0)
        words = [rings[0].fileno(), rings[0].block_size, rings[0].block_count, counters.region.fd]
        workers: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            workers.append(
                subprocess.Popen(
                    [sys.executable, str(HERE / "ring_reader.py"), *map(str, words)],
                    pass_fds=(words[0], words[3]),
                    env={**os.environ, "PYTHONPATH": str(HERE.parent.parent)},
                )
            )

        def kill() -> None:
            workers[-1].send_signal(signal.SIGKILL)
            workers[-1].wait()

        try:
            start()
            with sending() as wire:
                for number in range(200):
                    wire.send(*[frame(4000 + number)] * 100)
                    time.sleep(0.002)
                    if number in (40, 100, 160):
                        while counters.get("received") < 100 * number // 2:
                            time.sleep(0.005)
                        kill()
                        start()
            end = time.monotonic() + 10
            while (
                counters.get("received") + rings[0].statistics()["drops"] < 20000 and time.monotonic() < end
            ):
                time.sleep(0.02)
            time.sleep(0.1)
        finally:
            kill()
        figures = rings[0].statistics()
        rings[0].close()
        assert figures["packets"] == 20000
        assert counters.get("received") == 20000 - figures["drops"]
        assert counters.get("handled") + counters.get("worker_lost") == counters.get("received")
        assert counters.get("worker_lost") <= 3
        os.close(counters.region.fd)

    def test_promiscuous_mode_ends_with_the_process(self) -> None:
        assert promiscuity("va") == 0
        code = (
            "import sys; sys.path.insert(0, sys.argv[1])\n"
            "from engine.capture import af_packet, cbpf\n"
            "capture = {'interface': 'va', 'config': {'ring_mb': 1}}\n"
            "rings = af_packet.open_rings(capture, 2, cbpf.accept(100))\n"
            "print('ready', flush=True); sys.stdin.read()"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(HERE.parent.parent)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            assert promiscuity("va") == 2
            process.kill()
        assert promiscuity("va") == 0

    def test_not_promiscuous(self) -> None:
        with capturing("va", config={"promiscuous": False}):
            assert promiscuity("va") == 0


def links(rings: list[af_packet.RingSocket], wanted: str) -> bool:
    """Whether check() finds all rings so within a second: the kernel reports carriers a little late."""
    end = time.monotonic() + 1
    while any(ring.check() != wanted for ring in rings):
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def promiscuity(name: str) -> int:
    words = ip("-d", "link", "show", name).split()
    return int(words[words.index("promiscuity") + 1])


@pytest.mark.usefixtures("namespace")
class TestWhatPasses:
    def test_nothing_foreign_from_the_first_packet(self) -> None:
        code = (
            "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "end = time.time() + 1.5\n"
            "while time.time() < end:\n for p in (9999, 5060) * 20: s.sendto(b'x' * 40, ('127.0.0.1', p))\n"
        )
        noise = subprocess.Popen([sys.executable, "-S", "-c", code])
        try:
            time.sleep(0.2)
            for interface in ("lo", "any"):
                with capturing(interface, SIP, 2) as (_, readers):
                    rows = [row for reader in readers for row in reader.read(200, 0.4)]
                    assert len(rows) > 100
                    assert all(row[0][36:38] == b"\x13\xc4" for row in rows)
        finally:
            noise.kill()
            noise.wait()

    @pytest.mark.parametrize("interface", ["lo", "any", "lo,va"])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_loopback_counts_once(self, interface: str, workers: int) -> None:
        with capturing(interface, SIP, workers) as (_, readers), udp() as sender:
            for number in range(50):
                sender.sendto(b"%d" % number, ("127.0.0.1", 5060))
            rows = [row for reader in readers for row in reader.read(0)]
            assert sorted(int(row[0][42:]) for row in rows) == list(range(50))

    def test_loopback_counts_once_on_kernels_without_the_option(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(af_packet, "PACKET_IGNORE_OUTGOING", 99)
        with capturing("lo", SIP) as (_, (reader,)), udp() as sender:
            sender.sendto(b"1", ("127.0.0.1", 5060))
            assert len(reader.read(1)) == 1

    def test_tags_that_the_kernel_took_off(self) -> None:
        with capturing("va", SIP) as (_, (reader,)), sending() as wire:
            wire.send(
                frame(1, tags=b"\x81\x00\x00\x64"),
                frame(2, tags=b"\x88\xa8\x00\xc8\x81\x00\x00\x64"),
                frame(3, tags=b"\x81\x00\xa0\x00"),
                frame(4),
            )
            rows = reader.read(4)
            assert [row[5] for row in rows] == [0x81000064, 0x88A800C8, 0x8100A000, 0]
            assert rows[0][0] == frame(1)
            assert rows[1][0] == frame(2, tags=b"\x81\x00\x00\x64")

    def test_tags_of_packets_that_leave(self) -> None:
        with capturing("vb", SIP) as (_, (reader,)), sending() as wire:
            wire.send(frame(1, tags=b"\x81\x00\x00\x64"))
            ((octets, *facts),) = reader.read(1)
            assert (octets, facts[4]) in ((frame(1), 0x81000064), (frame(1, tags=b"\x81\x00\x00\x64"), 0))
            assert facts[5] == 4

    def test_fragments_pass_a_filter_of_ports(self) -> None:
        ip("addr", "add", "10.1.0.1/24", "dev", "va")
        ip("neigh", "add", "10.1.0.9", "lladdr", "02:00:00:00:00:09", "dev", "va")
        with capturing("va", filters.compile_filter("udp port 5060")) as (_, (reader,)), udp() as sender:
            sender.sendto(b"f" * 3500, ("10.1.0.9", 5060))
            sender.sendto(b"f" * 500, ("10.1.0.9", 5061))
            assert len(reader.read(3)) == 3

    def test_filter_of_a_running_capture(self) -> None:
        with capturing("va", SIP) as (rings, (reader,)), sending() as wire:
            wire.send(frame(1, 5060), frame(1, 7000))
            assert len(reader.read(1)) == 1
            rings[0].set_filter(filters.structured_filter({"ports": [7000]}))
            wire.send(frame(1, 5060), frame(1, 7000))
            assert [row[0][36:38] for row in reader.read(2)] == [b"\x13\xc4", b"\x1b\x58"]
            rings[0].set_filter(cbpf.REJECT)
            wire.send(frame(1, 5060), frame(1, 7000))
            assert len(reader.read(3, 0.1)) == 2

    def test_a_filter_is_tried_with_what_stands_around_it(self) -> None:
        """Sampling takes instructions, too: a filter without room beside it is refused."""
        most = 4096
        long = [(0, 0, 0, 0)] * (most - 1) + [(6, 0, 0, 0xFFFFFFFF)]
        with capturing("va", SIP) as (rings, (reader,)), sending() as wire:
            ring = rings[0]
            ring.try_filter(long)
            ring.sample(1 << 31, 5)
            with pytest.raises(OtusError, match="takes no filter of"):
                ring.try_filter(long)
            ring.try_filter(long[most // 2 :])
            ring.sample(1 << 32, 5)
            wire.send(frame(1, 5060), frame(1, 7000))
            assert len(reader.read(2, 0.1)) == 1, "the filter is the one before"

    def test_a_list_of_interfaces(self) -> None:
        with capturing("va,lo", SIP) as (_, (reader,)), sending() as wire, udp() as sender:
            wire.send(frame(1))
            sender.sendto(b"lo", ("127.0.0.1", 5060))
            rows = reader.read(2)
            # What arrives on va leaves on vb, which was not asked for.
            assert sorted(row[3] for row in rows) == sorted(map(interfaces.index_of, ("lo", "va")))

    def test_tunnels_have_no_link_header(self) -> None:
        if not Path("/dev/net/tun").exists():
            pytest.skip("no /dev/net/tun here")
        with ExitStack() as stack:
            tunnel = os.open("/dev/net/tun", os.O_RDWR)
            stack.callback(os.close, tunnel)
            fcntl.ioctl(tunnel, 0x400454CA, struct.pack("16sH22x", b"tn", 0x1001))
            ip("link", "set", "tn", "up")
            for interface in ("tn", "any"):
                with capturing(interface, SIP) as (_, (reader,)), udp() as sender:
                    packet = frame(1)[14:]
                    os.write(tunnel, packet)
                    sender.sendto(b"lo", ("127.0.0.1", 5060))
                    rows = reader.read(2 if interface == "any" else 1)
                    (row,) = (row for row in rows if row[3] == interfaces.index_of("tn"))
                    assert row[0] == packet
                    assert (row[1], row[4]) == (len(packet), RAW)
                    assert len(rows) == (2 if interface == "any" else 1)

    @pytest.mark.parametrize("kind", ["ip6gre", "ip6tnl"])
    def test_tunnels_on_any(self, kind: str) -> None:
        ends = ["local", "fd00::1", "remote", "fd00::2", *(["mode", "any"] if kind == "ip6tnl" else [])]
        made = subprocess.run(
            ["ip", "link", "add", "tn", "type", kind, *ends], check=False, capture_output=True
        )
        if made.returncode:
            pytest.skip(f"this kernel has no {kind}")
        Path("/proc/sys/net/ipv6/conf/va/disable_ipv6").write_text("0")
        ip("addr", "add", "fd00::1/64", "dev", "va", "nodad")
        ip("neigh", "add", "fd00::2", "lladdr", "02:00:00:00:00:09", "dev", "va")
        ip("addr", "add", "10.5.0.1/24", "dev", "tn")
        ip("link", "set", "tn", "up")
        for interface in ("any", "tn"):
            with capturing(interface, SIP) as (_, (reader,)), udp() as sender:
                sender.sendto(b"through", ("10.5.0.2", 5060))
                rows = [row for row in reader.read(1) if row[3] == interfaces.index_of("tn")]
                assert [(row[4], row[0][28:], row[1]) for row in rows] == [(RAW, b"through", 35)]


@contextmanager
def udp() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        yield sender


@pytest.mark.usefixtures("namespace")
class TestInterfacesThatGo:
    @pytest.mark.parametrize("workers", [1, 2])
    def test_down_and_up(self, workers: int) -> None:
        with capturing("va", SIP, workers) as (rings, readers):
            assert links(rings, "up")
            ip("link", "set", "va", "down")
            assert links(rings, "down")
            started = time.monotonic()
            for reader in readers:
                reader.poll.wait(100)
                assert not reader.poll.wait(100)
            assert time.monotonic() - started > 0.09 * workers, "poll spins on the socket's error"
            ip("link", "set", "va", "up")
            assert links(rings, "up")
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(40)])
            assert sum(len(reader.read(0)) for reader in readers) == 40
            assert [ring.generation for ring in rings] == [0] * workers

    @pytest.mark.parametrize("workers", [1, 2])
    def test_down_at_the_start(self, workers: int) -> None:
        ip("link", "set", "va", "down")
        with capturing("va", SIP, workers) as (rings, readers):
            assert [ring.link for ring in rings] == ["down"] * workers
            ip("link", "set", "va", "up")
            assert links(rings, "up")
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(40)])
            assert sum(len(reader.read(0)) for reader in readers) == 40

    def test_deleted_and_made_again_on_the_same_ring(self) -> None:
        with capturing("va", SIP) as (rings, (reader,)):
            descriptor = rings[0].fileno()
            for round_ in range(1, 3):
                with sending() as wire:
                    wire.send(frame(1))
                assert len(reader.read(2 * round_ - 1)) == 2 * round_ - 1
                ip("link", "del", "va")
                assert links(rings, "gone")
                assert not reader.poll.wait(20)
                make_pair()
                assert links(rings, "up")
                with sending() as wire:
                    wire.send(frame(2))
                assert len(reader.read(2 * round_)) == 2 * round_
            assert (rings[0].fileno(), rings[0].generation) == (descriptor, 0)
            assert promiscuity("va") == 1

    def test_a_fanout_group_gets_new_sockets(self) -> None:
        with capturing("va", SIP, 2) as (rings, old):
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(20)])
            time.sleep(0.05)
            ip("link", "del", "va")
            assert links(rings, "gone")
            make_pair()
            assert links(rings, "up")
            assert [ring.generation for ring in rings] == [1, 1]
            new = [Reader(ring) for ring in rings]
            with sending() as wire:
                wire.send(*[frame(4000 + n) for n in range(30)])
            assert sum(len(reader.read(0)) for reader in new) == 30
            assert sum(len(reader.read(0)) for reader in old) == 20
            assert sum(ring.statistics()["packets"] for ring in rings) == 50
            for reader in new:
                reader.close()

    def test_a_list_follows_its_interfaces(self) -> None:
        with capturing("va,lo", SIP) as (rings, (reader,)):
            ip("link", "del", "va")
            assert links(rings, "up")
            make_pair()
            assert links(rings, "up")
            with sending() as wire:
                wire.send(frame(2))
            assert [row[3] for row in reader.read(1)] == [interfaces.index_of("va")]

    def test_renamed(self) -> None:
        with capturing("va", SIP) as (rings, (reader,)):
            ip("link", "set", "va", "down")
            ip("link", "set", "va", "name", "other")
            ip("link", "set", "other", "up")
            assert links(rings, "up")
            with sending() as wire:
                wire.send(frame(2))
            assert len(reader.read(1)) == 1

    def test_another_mtu(self) -> None:
        """Packets longer than what the interface took at the start come whole."""
        with capturing("va", SIP) as (rings, (reader,)):
            for name in ("va", "vb"):
                ip("link", "set", name, "mtu", "9000")
            with sending() as wire:
                wire.send(frame(1), frame(2, body=b"x" * 8900))
            assert [len(row[0]) for row in reader.read(2)] == [72, 8942]
            ip("link", "set", "va", "mtu", "600")
            with sending() as wire:
                wire.send(frame(3))
            assert len(reader.read(3)) == 3
            assert links(rings, "up")

    def test_the_other_ends_namespace_is_deleted(self) -> None:
        """With it goes the pair: as an interface that is deleted, and its namespace is not held."""
        with capturing("va", SIP) as (rings, (reader,)):
            other = f"otus-cap-other-{os.getpid()}"
            ip("netns", "add", other)
            ip("link", "set", "vb", "netns", other)
            ip("netns", "del", other)
            assert links(rings, "gone")
            assert not reader.poll.wait(20)
            make_pair()
            assert links(rings, "up")
            with sending() as wire:
                wire.send(frame(2))
            assert len(reader.read(1)) == 1


@pytest.mark.usefixtures("namespace")
class TestRefusals:
    def test_no_such_interface(self) -> None:
        with pytest.raises(UsageError, match="no interface 'vaa' on this host") as caught:
            af_packet.open_rings({"interface": "vaa"}, 1, ALL)
        assert "va" in caught.value.hint
        with pytest.raises(UsageError, match="no interface 'wlan9'") as caught:
            af_packet.open_rings({"interface": "lo,wlan9"}, 1, ALL)
        assert "any" in caught.value.hint
        with pytest.raises(UsageError, match="no interface given"):
            af_packet.open_rings({"interface": " , "}, 1, ALL)

    def test_fanout_group_in_use(self) -> None:
        with (
            capturing("va", fanout_group=42),
            pytest.raises(OtusError, match="fanout group 42 on va is in use with another") as caught,
        ):
            af_packet.open_rings({"interface": "va", "fanout_group": 42, "fanout_mode": "cpu"}, 2, ALL)
        assert "fanout_group: 0" in caught.value.hint

    @pytest.mark.parametrize("mode", ["hash", "cpu", "lb"])
    def test_fanout_modes(self, mode: str) -> None:
        with capturing("va", SIP, 2, fanout_mode=mode) as (_, readers), sending() as wire:
            wire.send(*[frame(4000 + n) for n in range(40)])
            assert sum(len(reader.read(0)) for reader in readers) == 40

    def test_without_the_capability(self) -> None:
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            try:
                af_packet.open_rings({"interface": "va"}, 1, ALL)
            except NotPermittedError as error:
                os._exit(7 if "CAP_NET_RAW" in error.message and "sudo otus-tui" in error.hint else 8)
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.usefixtures("namespace")
def test_losses_of_the_host() -> None:
    drops = interfaces.host_drops("va")
    assert set(drops) == {"rx_dropped", "rx_missed", "rx_fifo", "softnet"}
    with sending() as wire:
        wire.send(*[b"\2\0\0\0\0\1\2\0\0\0\0\2\x7a\x7a" + b"u" * 40] * 5)
    # Nobody takes EtherType 0x7a7a: the kernel counts it as dropped by the device.
    assert interfaces.host_drops("va")["rx_dropped"] - drops["rx_dropped"] == 5
    assert interfaces.host_drops("any")["rx_dropped"] >= 5
