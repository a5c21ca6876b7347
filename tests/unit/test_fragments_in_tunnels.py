"""Fragments in tunnels, tunnels in fragments, and both within each other: decoded, bounded and booked."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest

from engine.shm import counters as layout
from engine.shm import records
from tests.builds import Build
from tests.packet_road import ALICE, BOB, Road, frame, sdp, sip

MESSAGE = sip(body=sdp() + "a=x:" + "y" * 3000 + "\r\n")
VTEPS = ("192.0.2.1", "192.0.2.2")
GRE = 47


class Tunnels(Road):
    """A road that takes every tunnel off."""

    def __init__(self, build: Build, **options: Any) -> None:
        super().__init__(build)
        words = self.counters.words
        self.pipeline = build.module("engine.pipeline.loop").Pipeline(
            self.counters,
            self.flows,
            self.streams,
            self.ring.RingWriter(self.send),
            self.ring.RingWriter(self.evidence),
            build.module("engine.decode.fragments").Reassembly(words),
            build.module("engine.decode.classifier").Decoder(words, (1 << len(records.TUNNELS)) - 1),
            options,
        )

    def books(self) -> dict[str, int]:
        """Where the packets ended; every fragment is in the books once."""
        values = self.counters.as_dict()
        fates = ("fragments_merged", "fragments_held", "fragments_duplicate", *layout.FRAGMENT_LOSSES)
        assert values["ip_fragments"] == sum(values[name] for name in fates)
        assert self.counters.balance() == 0
        return {name: values[name] for name in layout.OUTCOMES if values[name]}


def cut(whole: bytes, size: int, number: int) -> list[bytes]:
    """An Ethernet frame with IPv4 in fragments of `size` octets, a multiple of 8."""
    data, found = whole[34:], []
    for start in range(0, len(data), size):
        more = 0x2000 if start + size < len(data) else 0
        header = bytearray(whole[:34])
        part = data[start : start + size]
        struct.pack_into("!HHH", header, 16, 20 + len(part), number, more | start // 8)
        found.append(bytes(header) + part)
    return found


def vxlan(inner: bytes, vni: int = 7) -> bytes:
    """A frame in VXLAN."""
    return frame(struct.pack("!II", 0x08000000, vni << 8) + inner, VTEPS[0], 49152, VTEPS[1], 4789)


def gre(inner: bytes, key: int = 7) -> bytes:
    """The IP packet of a frame in GRE with a key."""
    return frame(struct.pack("!HHI", 0x2000, 0x0800, key) + inner[14:], VTEPS[0], 0, VTEPS[1], 0, GRE)


def invite() -> bytes:
    return frame(MESSAGE, ALICE, 5060, BOB, 5060)


@pytest.mark.parametrize("wrap", [vxlan, gre])
def test_fragments_in_a_tunnel(build: Build, wrap: Any) -> None:
    road = Tunnels(build)
    parts = [wrap(part) for part in cut(invite(), 1400, 5)]
    for part in reversed(parts):
        road.give(part)
    assert road.books() == {"output": 1, "fragments": len(parts) - 1}
    record = records.sip_record(road.sent()[0][1])
    assert record.message == MESSAGE
    network = record.header.network()
    assert network.tunnel is not None
    assert (network.tunnel.type, network.tunnel.vni) == ("vxlan" if wrap is vxlan else "gre", 7)
    assert (str(network.tunnel.outer_src_ip), str(network.tunnel.outer_dst_ip)) == VTEPS


@pytest.mark.parametrize("wrap", [vxlan, gre])
def test_a_tunnel_in_fragments(build: Build, wrap: Any) -> None:
    road = Tunnels(build)
    parts = cut(wrap(invite()), 1480, 6)
    for part in parts:
        road.give(part)
    assert road.books() == {"output": 1, "fragments": len(parts) - 1}
    record = records.sip_record(road.sent()[0][1])
    assert record.message == MESSAGE
    assert (record.header.sport, record.header.dport) == (5060, 5060)
    assert record.header.network().tunnel is not None


def test_tenants_are_apart(build: Build) -> None:
    """The same addresses and identifications in two overlays make two datagrams."""
    road = Tunnels(build)
    first, *rest = cut(invite(), 1400, 5)
    road.give(vxlan(first, 1))
    for part in rest:
        road.give(vxlan(part, 2))
    assert road.books() == {"fragments": len(rest) + 1}
    assert road.pipeline.reassembly.datagrams == 2
    road.give(vxlan(first, 2))
    assert road.books() == {"fragments": len(rest) + 1, "output": 1}


def nested(levels: int) -> list[bytes]:
    """What is on the wire of an INVITE in two fragments, each in VXLAN, and so on: `levels` times cut."""
    packets = [invite()]
    for level in range(levels):
        found = []
        for number, packet in enumerate(packets):
            half = (len(packet) - 34) // 2 // 8 * 8 + 8
            found += cut(vxlan(packet, level) if level else packet, half + 40, 16 * number + level)
        packets = found
    return packets


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("seed", [None, 1, 2])
def test_fragments_in_tunnels_in_fragments(build: Build, levels: int, seed: int | None) -> None:
    road = Tunnels(build)
    packets = nested(levels)
    if seed is not None:
        random.Random(seed).shuffle(packets)
    for packet in packets:
        road.give(packet, gap_ms=0.1)
    assert road.books() == {"output": 1, "fragments": len(packets) - 1}
    assert records.sip_record(road.sent()[0][1]).message == MESSAGE
    assert road.counted("fragments_held", "reassembled") == (0, 2**levels - 1)
    # Behind it the road looks at the driver's buffer again.
    road.say(sip())
    assert road.counted("sip_messages") == (2,)


def test_too_many_levels_are_counted(build: Build) -> None:
    road = Tunnels(build)
    packets = nested(5)
    for packet in packets:
        road.give(packet, gap_ms=0.1)
    assert road.books() == {"malformed": 1, "fragments": len(packets) - 1}
    assert road.counted("tunnel_depth_exceeded", "sip_messages") == (1, 0)


def test_a_filter_speaks_of_the_packet_around(build: Build) -> None:
    """Fragments in a tunnel passed it already; a tunnel in fragments meets it when it is whole."""
    from engine.capture.filters import live_program

    module = build.module("engine.capture.packet_filter")
    inside, around = [vxlan(part) for part in cut(invite(), 1400, 5)], cut(vxlan(invite()), 1480, 6)
    for port, parts, outcome in (
        (4789, inside, "output"),
        (4789, around, "output"),
        (4790, around, "filtered"),
    ):
        one = module.PacketFilter(live_program({"bpf": f"udp port {port}"}))
        road = Tunnels(build, filters={1: one, 101: one})
        for part in parts:
            road.give(part)
        assert road.books() == {outcome: 1, "fragments": len(parts) - 1}
        assert road.counted("filter_rechecked") == (int(parts is around),)


def test_what_a_tunnel_loses_is_booked(build: Build) -> None:
    """Half of each level: every packet that is held is one, whatever it stands for."""
    for levels in (2, 3, 4):
        road = Tunnels(build)
        packets = nested(levels)
        kept = packets[:-1]
        for packet in kept:
            road.give(packet, gap_ms=0.1)
        assert road.books() == {"fragments": len(kept)}
        (held,) = road.counted("fragments_held")
        assert held == levels
        assert road.pipeline.reassembly.finish() == levels
        assert road.books() == {"fragments": len(kept)}
        assert layout.drops(road.counters.as_dict())["fragments_unfinished"] == held


def ipv6(following: int, payload: bytes) -> bytes:
    """An IPv6 packet."""
    addresses = bytes(15) + b"\1" + bytes(15) + b"\2"
    return struct.pack("!IHBB", 6 << 28, len(payload), following, 64) + addresses + payload


def geneve(inner: bytes) -> bytes:
    """An IPv6 packet in Geneve with 248 octets of options, as UDP in IPv6."""
    options = struct.pack("!HBB", 1, 1, 31) + bytes(124) + struct.pack("!HBB", 1, 1, 29) + bytes(116)
    header = struct.pack("!BBHI", len(options) // 4, 0, 0x6558, 7 << 8) + options
    payload = header + bytes(12) + b"\x86\xdd" + inner
    return ipv6(17, struct.pack("!HHHH", 49152, 6081, 8 + len(payload), 0) + payload)


def test_the_largest_ipv6_datagram_behind_long_headers(build: Build) -> None:
    """65,535 octets behind the IPv6 header, and in front of it more than what is kept of headers."""
    road = Tunnels(build)
    total, step, packets = 65_535, 1400, []
    for offset in range(0, total, step):
        size = min(step, total - offset)
        more = offset + size < total
        part = struct.pack("!BBHI", 17, 0, offset | more, 77)
        part += struct.pack("!HHHH", 5060, 5060, 0, 0) + bytes(size - 8) if not offset else bytes(size)
        packets.append(bytes(12) + b"\x86\xdd" + geneve(geneve(ipv6(44, part))))
    for packet in packets:
        road.give(packet, gap_ms=0.1)
    assert road.counted("reassembled", "udp") == (1, 1)
    assert road.books() == {"unmatched": 1, "fragments": len(packets) - 1}
