"""Traps of AF_PACKET that others fell into (docs/traps.md), on real interfaces in a namespace."""

from __future__ import annotations

import os
import statistics
import struct
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from engine.capture import af_packet, filters
from engine.capture.pcap_file import PcapFile
from engine.capture.sink import PacketSink
from engine.decode.classifier import Decoder
from engine.shm.counters import Counters
from tests.live.capture import ALL, SIP, Reader, Wire, capturing, frame, gather, links, own_peer, sending
from tests.live.engines import wait_for
from tests.live.namespace import ip

if TYPE_CHECKING:
    from pathlib import Path

MS = 1_000_000
PAIRS = 24
LOSING = 4
pytestmark = pytest.mark.usefixtures("namespace")


# ---- retire time, idle links, time stamps ----


@pytest.mark.parametrize("retire_ms", [1, 8, 50])
def test_a_lone_packet_is_handed_over_within_the_retire_time(retire_ms: int) -> None:
    # The kernel looks once a retire time; a block may just have been opened at its last look.
    bound, waits = 2 * retire_ms + 4, []
    with capturing("va", SIP, config={"retire_ms": retire_ms}) as (_, (reader,)), sending() as wire:
        for number in range(1, 101):
            wire.send(frame(4000))
            while len(reader.rows) < number:
                if not reader.walk.run(8):
                    assert reader.poll.wait(1000)
            waits.append((time.time_ns() - reader.rows[-1][2]) / MS)
            # On a busy machine this process may come late to some of them.
            if sum(wait < bound for wait in waits) > 3:
                break
            time.sleep(0.013)
    assert statistics.median(sorted(waits)[:7]) < bound


def test_an_idle_link_gives_no_blocks_and_poll_comes_back() -> None:
    with capturing("va", SIP, config={"retire_ms": 1}) as (_, (reader,)):
        begun, busy = time.monotonic(), time.process_time()
        for _ in range(10):
            assert reader.walk.run(8) == 0
            assert not reader.poll.wait(40)
        took = time.monotonic() - begun
        assert took > 0.3
        assert time.process_time() - busy < 0.3 * took
        assert reader.counters.get("blocks") == 0


def test_a_packet_has_its_own_time_and_not_its_blocks() -> None:
    """The block's first time stamp is that of its opening, which on an idle link is long ago."""
    with capturing("va", SIP, config={"retire_ms": 1}) as (_, (reader,)), sending() as wire:
        for _ in range(2):
            time.sleep(0.3)
            before = time.time_ns()
            wire.send(frame(4000))
            stamp = reader.read(len(reader.rows) + 1)[-1][2]
            assert before - 5 * MS <= stamp <= time.time_ns()


# ---- status bits, cut packets ----


def test_losing_is_no_state_of_a_packet() -> None:
    """The kernel marks blocks as long as the loss is unread; they are walked like any other."""
    config = {"ring_mb": 1, "block_kb": 64, "retire_ms": 1}
    with capturing("va", SIP, config=config) as (rings, (reader,)), sending() as wire:
        big = frame(4000, body=b"z" * 1400)
        for _ in range(30):
            wire.send(*[big] * 50)
        wait_for(lambda: len(reader.ready()) == rings[0].block_count, what="a ring that is full")
        reader.settle()
        wire.send(*[frame(n) for n in range(20)])
        wait_for(lambda: any(state & LOSING for state in reader.ready()), what="a loss that is told")
        lost = rings[0].statistics()["drops"]
        assert lost
        assert len(reader.read(1520 - lost)) == 1520 - lost


class Decode(PacketSink):
    """Decodes, and keeps the VLAN tags."""

    def __init__(self) -> None:
        self.counters = Counters.create("test", 0)
        self.decoder = Decoder(self.counters.words)
        self.tags: list[tuple[int, int, int]] = []

    def attach(self, buf: memoryview) -> None:
        self.decoder.attach(buf)

    def packet(self, start: int, end: int, *facts: int) -> int:
        wire, _, _, link, vlan, _ = facts
        self.decoder.decode(start, end, wire, link, vlan)
        self.tags.append((self.decoder.vlan_count, self.decoder.outer_vlan, self.decoder.inner_vlan))
        return 0

    def rows(self, rows: list[tuple[Any, ...]]) -> None:
        """The same from what a reader kept."""
        for octets, *facts in rows:
            self.attach(memoryview(octets))
            self.packet(0, len(octets), *facts)


def test_a_packet_that_its_block_has_no_room_for_is_snapped() -> None:
    """Cut without a flag: length on the wire and in the ring differ. Never malformed, and counted."""
    ip("addr", "add", "10.1.0.1/24", "dev", "va")
    program = filters.live_program({"protocol": "tcp"})
    with own_peer(), capturing("va", program, config={"block_kb": 16}) as (rings, (reader,)):
        assert rings[0].block_size == 16384
        rows = reader.read_until(lambda: any(len(row[0]) < row[1] for row in reader.rows[-100:]))
    cut = sum(len(row[0]) < row[1] for row in rows)
    assert cut, "nothing was merged, so this shows nothing"
    sink = Decode()
    sink.rows(rows)
    values = sink.counters.as_dict()
    assert values["snapped"] == cut
    assert [name for name in values if name.startswith("malformed") and values[name]] == []
    os.close(sink.counters.region.fd)


# ---- who gets what: fragments, directions, groups ----


def udp4(src: str, dst: str, sport: int, dport: int, body: bytes = b"x" * 20) -> bytes:
    """An IPv4 packet."""
    data = struct.pack("!HHHH", sport, dport, 8 + len(body), 0) + body
    return packet4(src, dst, 17, data)


def packet4(src: str, dst: str, protocol: int, data: bytes, identification: int = 1, field: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), identification, field, 64, protocol, 0)
    return head + ip_address(src).packed + ip_address(dst).packed + data


def udp6(src: str, dst: str, sport: int, dport: int) -> bytes:
    """An IPv6 packet."""
    data = struct.pack("!HHHH", sport, dport, 28, 0) + b"x" * 20
    return (
        struct.pack("!IHBB", 0x60000000, 28, 17, 64) + ip_address(src).packed + ip_address(dst).packed + data
    )


def ethernet(packet: bytes, tags: bytes = b"") -> bytes:
    kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
    return b"\2\0\0\0\0\1\2\0\0\0\0\2" + tags + kind + packet


def there_and_back(kind: str, number: int) -> list[bytes]:
    """One packet of each direction of a flow."""
    found = []
    for back in (False, True):
        ends = [(f"10.2.{number}.1", 4000 + number), (f"10.3.{number}.2", 5060)]
        (src, sport), (dst, dport) = reversed(ends) if back else ends
        inner = udp4(src, dst, sport, dport)
        hosts = ("10.1.0.9", "10.1.0.8") if back else ("10.1.0.8", "10.1.0.9")
        if kind == "ipv6":
            octets = ethernet(
                udp6(f"fd00::{src[5:]}".replace(".", ":"), f"fd00::{dst[5:]}".replace(".", ":"), sport, dport)
            )
        elif kind == "gre":
            octets = ethernet(packet4(*hosts, 47, b"\0\0\x08\x00" + inner))
        elif kind == "vxlan":
            # Each end draws a source port of its own from the inner flow (RFC 7348 section 5).
            entropy = 49152 + (7 * number + 5000 * back)
            octets = ethernet(
                udp4(*hosts, entropy, 4789, struct.pack("!II", 1 << 27, 7 << 8) + ethernet(inner))
            )
        else:
            tags = {"ipv4": b"", "vlan": b"\x81\x00\x00\x64", "qinq": b"\x88\xa8\x00\xc8\x81\x00\x00\x64"}
            octets = ethernet(inner, tags[kind])
        found.append(octets)
    return found


@pytest.mark.parametrize("kind", ["ipv4", "ipv6", "vlan", "qinq", "gre", "vxlan"])
def test_both_directions_of_a_flow_meet_on_one_ring(kind: str) -> None:
    """The kernel's hash is symmetric; only VXLAN's is not, which is why flows are in shared memory."""
    together, rings_used = 0, set()
    with capturing("va", ALL, 4, config={"ring_mb": 1, "block_kb": 64}) as (_, readers), sending() as wire:
        for number in range(PAIRS):
            wire.send(*there_and_back(kind, number))
        rows = gather(readers, 2 * PAIRS)
        assert sum(map(len, rows)) == 2 * PAIRS
        owner = {row[0]: index for index, mine in enumerate(rows) for row in mine}
        for number in range(PAIRS):
            # The ring has the frame without its outer tag.
            first, second = (
                next(owner[octets] for octets in owner if octets[-40:] == one[-40:])
                for one in there_and_back(kind, number)
            )
            together += first == second
            rings_used |= {first, second}
    assert len(rings_used) > 1
    assert together == PAIRS if kind != "vxlan" else together < PAIRS


def test_all_fragments_of_a_datagram_meet_on_one_ring() -> None:
    with capturing("va", ALL, 4, config={"ring_mb": 1, "block_kb": 64}) as (_, readers), sending() as wire:
        for number in range(PAIRS):
            data = udp4("10.2.0.1", "10.3.0.1", 5060, 5060, b"y" * 3000)[20:]
            for start in range(0, len(data), 1480):
                field = start // 8 | (0x2000 if start + 1480 < len(data) else 0)
                part = data[start : start + 1480]
                wire.send(ethernet(packet4(f"10.2.{number}.1", "10.3.0.1", 17, part, number, field)))
        owners: dict[bytes, set[int]] = {}
        for index, rows in enumerate(gather(readers, 3 * PAIRS)):
            for row in rows:
                owners.setdefault(row[0][26:30], set()).add(index)
    assert len(owners) == PAIRS
    assert all(len(mine) == 1 for mine in owners.values())
    assert len(set().union(*owners.values())) > 1


def test_two_captures_have_two_groups() -> None:
    """Each sees every packet once: no number of a group is shared unless it is asked for."""
    config = {"ring_mb": 1, "block_kb": 64}
    with (
        capturing("va", SIP, 2, config=config) as (_, one),
        capturing("va", SIP, 3, config=config) as (_, other),
        sending() as wire,
    ):
        wire.send(*[frame(4000 + number) for number in range(100)])
        for readers in (one, other):
            ports = [row[0][34:36] for mine in gather(readers, 100) for row in mine]
            assert len(ports) == len(set(ports)) == 100


# ---- VLAN ----


def test_tags_are_the_same_live_and_from_a_file(tmp_path: Path) -> None:
    """The kernel takes the outer tag off and tells it beside the packet; a file has it in the packet."""
    tags = [
        b"",
        b"\x81\x00\x00\x64",
        b"\x81\x00\xa0\x00",
        b"\x88\xa8\x00\xc8\x81\x00\x00\x64",
        b"\x81\x00\x00\x01\x81\x00\x00\x02\x81\x00\x00\x03",
        b"\x91\x00\x00\x05\x81\x00\x00\x06",
    ]
    frames = [frame(4000, tags=one) for one in tags]
    with capturing("va", SIP) as (_, (reader,)), sending() as wire:
        wire.send(*frames)
        rows = reader.read(len(frames))
    live, filed = Decode(), Decode()
    live.rows(rows)
    records = [struct.pack("<IIII", 1, 0, len(octets), len(octets)) + octets for octets in frames]
    path = tmp_path / "tagged.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1) + b"".join(records))
    file = PcapFile(str(path), filed)
    while file.run(100):
        pass
    file.close()
    assert live.tags == filed.tags
    assert [count for count, _, _ in live.tags] == [0, 1, 1, 2, 3, 2]
    for one in (live, filed):
        os.close(one.counters.region.fd)


# ---- interfaces that go, memory that goes ----


@pytest.mark.parametrize("gone", [False, True])
def test_a_reader_does_not_spin_while_the_interface_is_away(gone: bool) -> None:
    with capturing("va", SIP) as (rings, (reader,)):
        ip(*("link", "del", "va") if gone else ("link", "set", "va", "down"))
        assert links(rings, "gone" if gone else "down")
        begun, busy = time.monotonic(), time.process_time()
        for _ in range(10):
            assert reader.walk.run(8) == 0
            reader.poll.wait(30)
        took = time.monotonic() - begun
        assert took > 0.2
        assert time.process_time() - busy < 0.3 * took
        # One error a socket, taken off once.
        assert reader.poll.errors <= 2


def test_the_supervisor_closes_its_socket_under_a_reader() -> None:
    """Only who mapped a ring unmaps it: what is in it can still be read when the socket is closed."""
    config = {"interface": "va", "config": {"ring_mb": 1, "block_kb": 64, "retire_ms": 1}}
    rings = af_packet.open_rings(config, 1, SIP)
    reader = Reader(rings[0])
    wire = Wire()
    wire.send(*[frame(4000 + number) for number in range(50)])
    wait_for(lambda: reader.waiting() == 50)
    rings[0].close()
    assert len(reader.read(50)) == 50
    reader.close()
    wire.socket.close()
