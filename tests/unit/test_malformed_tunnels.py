"""What is no tunnel or a broken one: refused and counted, whatever the octets, the same in both builds."""

from __future__ import annotations

import struct
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP
from scapy.packet import Raw

from engine.shm import records
from tests.builds import COMPILED, PURE, Build
from tests.tunnel_packets import FORMS, INNER, OUTER, V4, Form, erspan2, erspan3, udp
from tests.unit.tunnel_bench import (
    ALL,
    BODY,
    FRAGMENT,
    MALFORMED,
    NON_IP,
    OTHER,
    SIMPLE,
    UDP_,
    Bench,
    each_form,
    inner,
    nest,
)

VXLAN_OK = bytes.fromhex("0800000000000500") + bytes(INNER / inner(4))
UNUSUAL = [
    bytes.fromhex(octets)
    for octets in (
        "0c00000000000500",
        "0840000000000500",
        "0800000100000500",
        "8801000000000500",
        "0800000000000501",
    )
]
"""VXLAN headers with bits that RFC 7348 reserves."""
GENEVE_OK = bytes.fromhex("0000655800000500") + bytes(INNER / inner(4))
G_PDU = b"\x30\xff" + struct.pack(">HI", len(inner(4)), 9) + bytes(inner(4))


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


# ---- what is no tunnel ----


@pytest.mark.parametrize(
    ("port", "octets"),
    [
        (4789, b"\x00" + VXLAN_OK[1:]),
        *((4789, front + bytes(60)) for front in UNUSUAL),
        (4790, bytes.fromhex("0c00000100000500") + bytes(60)),
        (4790, bytes.fromhex("0c00000200000500") + bytes(inner(4))),
        (4790, bytes.fromhex("0c00000100000500")),
        (4789, b"OPTIONS sip:a SIP/2.0\r\n\r\n"),
        (4789, BODY.load),
        (4789, b""),
        (4789, b"\x08\x00\x00"),
        (6081, b"\x40" + GENEVE_OK[1:]),
        (6081, b"\x00\x80" + GENEVE_OK[2:]),
        (6081, b"\x00\x00\x08\x06" + GENEVE_OK[4:]),
        (6081, b"\x00\x01\x00\x58" + GENEVE_OK[4:]),
        (6081, b"\x00\x00\x65"),
        (2152, b"\x10" + G_PDU[1:]),
        (2152, b"\x20" + G_PDU[1:]),
        (2152, b"\x50" + G_PDU[1:]),
        (2152, b"\x32\x01\x00\x04\0\0\0\0\0\0\0\0"),
        (2152, b"\x30\xfe" + G_PDU[2:]),
        (2152, b"\x30\xff\x00"),
    ],
)
def test_another_protocol_on_a_tunnel_port_is_udp(bench: Bench, port: int, octets: bytes) -> None:
    assert bench.decode(bytes(OUTER / V4 / udp(port) / Raw(octets))) == UDP_
    assert bench.payload() == octets
    assert (bench.decoder.depth, bench.decoder.domain, bench.decoder.dport) == (0, 0, port)
    assert bench.counted() == {"ipv4": 1, "udp": 1}


@pytest.mark.parametrize("header", [*UNUSUAL, bytes.fromhex("0c00000300000500")])
def test_reserved_bits_of_vxlan_are_ignored_before_a_frame(bench: Bench, header: bytes) -> None:
    assert bench.decode(bytes(OUTER / V4 / udp(4789) / Raw(header + VXLAN_OK[8:]))) == UDP_
    assert (bench.decoder.depth, bench.decoder.vni) == (1, 5)
    assert bench.payload() == BODY.load


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", ["08", "0c", "0e"])
def test_vxlan_gpe_with_ip(bench: Bench, version: int, flags: str) -> None:
    header = bytes.fromhex(flags + ("00000100000500" if version == 4 else "00000200000500"))
    assert bench.decode(bytes(OUTER / V4 / udp(4790) / Raw(header) / inner(version))) == UDP_
    assert (bench.decoder.depth, bench.decoder.vni) == (1, 5)
    assert bench.payload() == BODY.load


def over(octets: bytes, port: int = 0) -> bytes:
    """A frame with these octets in UDP to `port`, or in GRE."""
    if port:
        return bytes(OUTER / V4 / udp(port) / Raw(octets))
    return bytes(OUTER / IP(src=V4.src, dst=V4.dst, proto=47) / Raw(octets))


@pytest.mark.parametrize(
    "frame",
    [
        over(VXLAN_OK[:4], 4789),
        over(VXLAN_OK[:7], 4789),
        over(GENEVE_OK[:7], 6081),
        over(b"\x01" + GENEVE_OK[1:8], 6081),
        over(b"\x3f" + GENEVE_OK[1:], 6081),
        over(b"\x02" + GENEVE_OK[1:8] + b"\0\0\0\x02" + bytes(4) + GENEVE_OK[8:], 6081),
        over(b"\x02" + GENEVE_OK[1:8] + b"\0\0\0\x1f" + bytes(4) + GENEVE_OK[8:], 6081),
        over(G_PDU[:7], 2152),
        over(G_PDU[:2] + b"\xff\xff" + G_PDU[4:], 2152),
        over(b"\x34" + G_PDU[1:2] + b"\0\x03" + G_PDU[4:], 2152),
        over(b"\x34\xff\0\x04\0\0\0\x01" + b"\0\0\0\x85", 2152),
        over(b"\x34\xff\0\x08\0\0\0\x01" + b"\0\0\0\x85" + b"\0\0\0\0", 2152),
        over(b"\x34\xff\0\x08\0\0\0\x01" + b"\0\0\0\x85" + b"\x02\0\0\0", 2152),
        over(b"\x34\xff\0\x08\0\0\0\x01" + b"\0\0\0\x85" + b"\x01\0\0\x85", 2152),
        over(b"\0\0\x08"),
        over(bytes.fromhex("40000800") + bytes(60)),
        over(bytes.fromhex("08000800") + bytes(60)),
        over(bytes.fromhex("04000800") + bytes(60)),
        over(bytes.fromhex("00020800") + bytes(60)),
        over(bytes.fromhex("80000800") + bytes(3)),
        over(bytes.fromhex("20000800") + bytes(3)),
        over(bytes.fromhex("10000800") + bytes(3)),
        over(bytes.fromhex("b0000800") + bytes(11)),
        over(bytes.fromhex("20006558") + bytes(3)),
        over(bytes.fromhex("100088be") + bytes(4) + b"\x10" + bytes(6)),
        over(bytes.fromhex("100088be") + bytes(4) + b"\x30" + bytes(60)),
        over(bytes.fromhex("100022eb") + bytes(4) + b"\x20" + bytes(10)),
        over(bytes.fromhex("100022eb") + bytes(4) + b"\x20" + bytes(10) + b"\x01" + bytes(7)),
        over(bytes.fromhex("100022eb") + bytes(4) + b"\x10" + bytes(60)),
        over(bytes.fromhex("0001880b") + bytes(60)),
        over(bytes.fromhex("2000880b") + bytes(60)),
        over(bytes.fromhex("a001880b") + bytes(60)),
        over(bytes.fromhex("3001880b") + bytes(3)),
        over(bytes.fromhex("3001880b") + bytes(4) + bytes(3)),
        over(bytes.fromhex("3001880b") + b"\0\x21\0\x01" + bytes(4) + bytes(32)),
    ],
)
def test_malformed_headers(bench: Bench, frame: bytes) -> None:
    assert bench.decode(frame) == MALFORMED
    assert bench.counted("malformed_tunnel", "tunnels", "udp") == {"malformed_tunnel": 1}
    # The same octets cut by the snap length are no fault of the sender's.
    if len(frame) < 60:
        assert bench.decode(frame, len(frame) + 100) in (OTHER, MALFORMED)


def test_what_is_in_a_tunnel_can_be_malformed(bench: Bench) -> None:
    assert bench.decode(over(VXLAN_OK[:8], 4789)) == MALFORMED
    assert bench.decode(over(VXLAN_OK[:21], 4789)) == MALFORMED
    assert bench.counted("malformed_link", "malformed_tunnel") == {"malformed_link": 2}
    assert bench.decode(over(VXLAN_OK[:40], 4789)) == MALFORMED
    assert bench.decode(over(b"\0\0\x08\0")) == MALFORMED
    assert bench.decode(bytes(OUTER / IP(proto=4) / inner(6))) == MALFORMED
    assert bench.counted("malformed_ipv4") == {"malformed_ipv4": 3}
    assert bench.decode(over(b"\x30\xff\0\0\0\0\0\1", 2152)) == MALFORMED
    assert bench.decode(over(b"\x30\xff\0\1\0\0\0\1\x00", 2152)) == NON_IP


def test_gtp_u_ends_where_its_length_says(bench: Bench) -> None:
    assert bench.decode(over(G_PDU + b"more", 2152)) == UDP_
    assert bench.payload() == BODY.load
    short = b"\x30\xff" + struct.pack(">HI", len(inner(4)) - 1, 9) + bytes(inner(4))
    assert bench.decode(over(short, 2152)) == MALFORMED
    assert bench.counted("malformed_ipv4") == {"malformed_ipv4": 1}


def test_a_mirror_that_cut_the_frame(bench: Bench) -> None:
    cut = bytes(INNER / inner(4))[:-10]
    for header in (erspan2(t=1), erspan3(t=1)):
        assert bench.decode(Form("erspan", header, 0, 47).wrap(Raw(cut))) == UDP_
        assert bench.payload() == BODY.load[:-10]
        assert bench.decoder.flags == records.P_ETHERNET | records.P_SNAPPED
        assert bench.decoder.clipped
    assert bench.decode(Form("erspan", erspan2(), 0, 47).wrap(Raw(cut))) == MALFORMED


# ---- any octets ----


@cache
def pair() -> tuple[Bench, Bench]:
    """A decoder of each build."""
    return Bench(COMPILED), Bench(PURE)


def both(octets: bytes, wire: int, link: int = 1, vlan: int = 0) -> int:
    """Decode in both builds, which must agree in everything; whatever comes out is inside the frame."""
    found = []
    for bench in pair():
        verdict = bench.decode(octets, wire, link, vlan)
        found.append((verdict, bench.state()))
        decoder = bench.decoder
        assert decoder.frame <= decoder.network <= decoder.frame_end
        assert decoder.frame <= decoder.payload <= decoder.payload_end <= decoder.frame_end
        assert decoder.depth <= 8
        assert (decoder.tunnel_type > 0) == (decoder.depth > 0)
        assert decoder.active == decoder.tunnels == ALL
        if decoder.flags & records.P_ETHERNET:
            assert decoder.frame <= decoder.mac <= decoder.frame_end - 12
        if verdict == FRAGMENT:
            assert decoder.network < decoder.fragment_start < decoder.fragment_end <= decoder.frame_end
        assert 0 <= verdict < 8
    assert found[0] == found[1]
    return found[0][0]


@each_form
def test_every_cut(name: str) -> None:
    octets = SIMPLE[name]
    bench = pair()[0]
    for cut in range(len(octets)):
        both(octets[:cut], cut)
        bench.clear()
        pair()[1].clear()
        verdict = both(octets[:cut], len(octets))
        assert verdict in (UDP_, OTHER)
        assert not [counter for counter in bench.counted() if counter.startswith("malformed")]
        if bench.decoder.depth and verdict == UDP_:
            assert bench.decoder.sport == 4000


@each_form
def test_every_octet_0_1_and_most(name: str) -> None:
    octets = SIMPLE[name]
    for place in range(12, len(octets) - 30):
        for new in (b"\0", b"\x01", b"\xff", b"\0\0", b"\0\x01", b"\xff\xff"):
            both((octets[:place] + new + octets[place + len(new) :])[: len(octets)], len(octets))


@given(data=st.data())
@settings(max_examples=400, deadline=None)
def test_changed_packets(data: Any) -> None:
    octets = bytearray(SIMPLE[data.draw(st.sampled_from(sorted(SIMPLE)))])
    for _ in range(data.draw(st.integers(0, 5))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(octets), len(octets) + data.draw(st.integers(0, 1)))


@given(
    octets=st.binary(max_size=120),
    front=st.sampled_from([over(b"", 4789), over(b"", 6081), over(b"", 2152), over(b"")]),
    more=st.integers(0, 1),
)
@settings(max_examples=400, deadline=None)
def test_any_octets(octets: bytes, front: bytes, more: int) -> None:
    head = bytearray(front)
    struct.pack_into(">H", head, 16, len(front) - 14 + len(octets))
    if head[23] == 17:
        struct.pack_into(">H", head, 38, 8 + len(octets))
    both(bytes(head) + octets, len(head + octets) + more)


@given(names=st.lists(st.sampled_from([n for n in FORMS if 4 in FORMS[n].versions]), min_size=1, max_size=7))
@settings(max_examples=60, deadline=None)
def test_any_tunnels_in_each_other(names: list[str]) -> None:
    outers = [4 if isinstance(FORMS[name].outer, IP) else 6 for name in names[1:]]
    if any(outer not in FORMS[name].versions for outer, name in zip(outers, names, strict=False)):
        return
    octets = nest(names, inner(4))
    assert both(octets, len(octets)) == UDP_
    decoder = pair()[0].decoder
    assert (decoder.depth, decoder.sport) == (len(names), 4000)
    assert decoder.vni == FORMS[names[-1]].vni
