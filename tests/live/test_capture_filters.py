"""Live capture: what passes a filter, once each, with its tags, from every kind of interface."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.capture import af_packet, cbpf, filters, interfaces
from engine.errors import OtusError
from tests.live.capture import RAW, SIP, capturing, frame, gather, sending, udp
from tests.live.namespace import ip


@pytest.mark.usefixtures("namespace")
class TestWhatPasses:
    def test_nothing_foreign_from_the_first_packet(self) -> None:
        code = (
            "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            "end = time.time() + 60\n"
            "while time.time() < end:\n for p in (9999, 5060) * 20: s.sendto(b'x' * 40, ('127.0.0.1', p))\n"
        )
        heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        heard.bind(("127.0.0.1", 9999))
        heard.settimeout(20)
        noise = subprocess.Popen([sys.executable, "-S", "-c", code])
        try:
            heard.recv(100)
            for interface in ("lo", "any"):
                with capturing(interface, SIP, 2) as (_, readers):
                    rows = [row for mine in gather(readers, 200) for row in mine]
                    assert len(rows) > 100
                    assert all(row[0][36:38] == b"\x13\xc4" for row in rows)
        finally:
            noise.kill()
            noise.wait()
            heard.close()

    @pytest.mark.parametrize("interface", ["lo", "any", "lo,va"])
    @pytest.mark.parametrize("workers", [1, 2])
    def test_loopback_counts_once(self, interface: str, workers: int) -> None:
        with capturing(interface, SIP, workers) as (_, readers), udp() as sender:
            for number in range(50):
                sender.sendto(b"%d" % number, ("127.0.0.1", 5060))
            rows = [row for mine in gather(readers, 50) for row in mine]
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
            assert len(reader.read(1)) == 1, "the filter is the one before"

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
