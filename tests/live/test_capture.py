"""Live capture in a network namespace of its own: rings, fanout, take-over, what is refused."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.capture import af_packet, cbpf, filters, interfaces
from engine.errors import NotPermittedError, OtusError, UsageError
from engine.shm.counters import Counters
from tests.live.capture import ALL, ETHERNET, SIP, capturing, frame, gather, own_peer, promiscuity, sending
from tests.live.engines import wait_for
from tests.live.namespace import ip

HERE = Path(__file__).parent


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
            rows = gather(readers, 3000)
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
            wait_for(lambda: rings[0].statistics()["packets"] >= 1500)
            wait_for(lambda: rings[0].blocks_waiting() == rings[0].block_count)
            figures = rings[0].statistics()
            assert figures["packets"] == 1500
            assert figures["drops"] > 0
            assert figures["freezes"] >= 1
            reader.read(1500 - figures["drops"])
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
            rows = reader.read_until(lambda: any(len(row[0]) > 1514 for row in reader.rows[-100:]))
        largest = max(len(row[0]) for row in rows)
        assert largest > 1514, "no segment was merged, so this shows nothing"
        assert all(len(row[0]) == row[1] for row in rows)

    def test_snap_length_is_the_filters(self) -> None:
        with capturing("va", cbpf.accept(96)) as (_, (reader,)), sending() as wire:
            wire.send(frame(1, body=b"y" * 500))
            (row,) = reader.read(1)
            assert len(row[0]) == 96
            assert row[1] == len(frame(1, body=b"y" * 500))


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
            wait_for(lambda: counters.get("received") + rings[0].statistics()["drops"] >= 20000, 60.0)
            wait_for(
                lambda: counters.get("handled") + counters.get("worker_lost") >= counters.get("received")
            )
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
            assert sum(map(len, gather(readers, 40))) == 40

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
