"""The decoder, in both builds, against scapy where the packet is well formed and against itself where not."""

from __future__ import annotations

import ipaddress
import struct
from array import array
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import ARP, CookedLinux, CookedLinuxV2, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.layers.sctp import SCTP
from scapy.packet import Packet, Raw

from engine.decode import classifier as names
from engine.shm import counters, records
from tests.builds import COMPILED, PURE, Build

MALFORMED, UDP_, TCP_, ICMP_, OTHER, NON_IP, FRAGMENT, UNKNOWN_LINK = range(8)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
IPV4 = {"src": "192.0.2.1", "dst": "198.51.100.7", "tos": 0xB8, "ttl": 61}
V4 = IP(**IPV4)
V6 = IPv6(src="2001:db8::1:2", dst="fe80::9", tc=0xB8, hlim=61)
PORTS = {"sport": 5060, "dport": 16384}
BODY = Raw(b"OPTIONS sip:a SIP/2.0\r\n\r\n")
LINKS = (1, 113, 276, 101, 12, 14, 228, 229, 0, 108, 9, 105)
HIDDEN = {"buf", "size", "counters", "ports"}
FIELDS = sorted(vars(PURE.module("engine.decode.classifier").Decoder(memoryview(array("Q")))).keys() - HIDDEN)


class Bench:
    """A decoder with its counters."""

    def __init__(self, build: Build) -> None:
        self.words = memoryview(array("Q", bytes(8 * 1024)))
        self.decoder = build.module("engine.decode.classifier").Decoder(self.words)

    def decode(self, octets: bytes, wire: int | None = None, link: int = 1, vlan: int = 0) -> int:
        """Decode a frame that does not stand at the front of its buffer."""
        self.octets = b"\xff" * 5 + octets + b"\xff" * 3
        self.decoder.attach(memoryview(self.octets))
        wire = len(octets) if wire is None else wire
        verdict: int = self.decoder.decode(5, 5 + len(octets), wire, link, vlan)
        return verdict

    def counted(self) -> dict[str, int]:
        """Counters that are not 0."""
        found = {name: self.words[counters.index(name)] for name in counters.NAMES}
        return {name: value for name, value in found.items() if value}

    def state(self) -> tuple[Any, ...]:
        """All results; the same for both builds."""
        return *(getattr(self.decoder, field) for field in FIELDS), bytes(self.words)

    def payload(self) -> bytes:
        """What the transport carries."""
        return self.octets[self.decoder.payload : self.decoder.payload_end]

    def addresses(self) -> tuple[str, str]:
        """Source and destination as text, from the words as they stand in a record."""
        decoder = self.decoder
        both = struct.pack("<4Q", decoder.src0, decoder.src1, decoder.dst0, decoder.dst1)
        pair = (ipaddress.IPv6Address(both[:16]), ipaddress.IPv6Address(both[16:]))
        return str(pair[0].ipv4_mapped or pair[0]), str(pair[1].ipv4_mapped or pair[1])


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


def check(bench: Bench, packet: Packet, verdict: int, **fields: int) -> None:
    """The decoder's result equals what scapy wrote."""
    octets = bytes(packet)
    ether = packet.getlayer(Ether)
    link = 1 if ether is not None and packet.firstlayer() is ether else fields.pop("link", 1)
    assert bench.decode(octets, link=link, vlan=fields.pop("vlan", 0)) == verdict
    ip = packet.getlayer(IP) or packet.getlayer(IPv6)
    assert ip is not None
    assert bench.addresses() == (ip.src, ip.dst)
    assert bench.decoder.tos == 0xB8
    assert bench.decoder.ttl == 61
    for name, value in fields.items():
        assert getattr(bench.decoder, name) == value, name
    assert bench.counted()["ipv4" if packet.getlayer(IP) else "ipv6"] == 1
    assert not [name for name in bench.counted() if name.startswith("malformed")]


def test_the_verdicts_are_visible_from_python() -> None:
    assert (names.MALFORMED, names.UDP, names.TCP, names.ICMP) == (MALFORMED, UDP_, TCP_, ICMP_)
    assert (names.OTHER, names.NON_IP, names.FRAGMENT, names.UNKNOWN_LINK) == (4, 5, 6, 7)


@pytest.mark.parametrize("network", [V4, V6], ids=["ipv4", "ipv6"])
def test_udp_tcp_and_icmp(bench: Bench, network: Packet) -> None:
    check(bench, ETHER / network / UDP(**PORTS) / BODY, UDP_, protocol=17, **PORTS)
    assert bench.payload() == BODY.load
    assert bench.decoder.flags == records.P_ETHERNET
    assert bench.octets[bench.decoder.frame :][:6] == b"\x02\0\0\0\0\x02"
    assert bench.decoder.network == 5 + 14
    assert bench.counted()["udp"] == 1

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    tcp = TCP(**PORTS, flags="PA", options=[("MSS", 1460), ("NOP", None), ("WScale", 7)])
    check(bench, ETHER / network / tcp / BODY, TCP_, protocol=6, tcp_flags=0x18, **PORTS)
    assert bench.payload() == BODY.load

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    icmp = ICMP(type=8) if network is V4 else ICMPv6EchoRequest()
    check(bench, ETHER / network / icmp / BODY, ICMP_, sport=0, dport=0)
    assert bench.payload() == bytes(ETHER / network / icmp / BODY)[14 + (20 if network is V4 else 40) :]
    assert bench.counted()["icmp"] == 1

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    check(bench, ETHER / network / SCTP(**PORTS), OTHER, protocol=132, sport=0)
    assert bench.counted()["other_transport"] == 1


def test_ethernet_padding_is_cut(bench: Bench) -> None:
    octets = bytes(ETHER / V4 / UDP(**PORTS) / b"hi") + bytes(16)
    assert bench.decode(octets) == UDP_
    assert bench.payload() == b"hi"
    octets = bytes(ETHER / V6 / TCP(**PORTS)) + bytes(16)
    assert bench.decode(octets) == TCP_
    assert bench.payload() == b""


def test_udp_shorter_than_its_packet(bench: Bench) -> None:
    assert bench.decode(bytes(ETHER / V4 / UDP(**PORTS, len=10) / b"hi there")) == UDP_
    assert bench.payload() == b"hi"


def test_ipv4_options(bench: Bench) -> None:
    options = [IPOption_Router_Alert(), IPOption_NOP()]
    check(bench, ETHER / IP(**IPV4, options=options) / UDP(**PORTS) / BODY, UDP_, **PORTS)
    assert bench.payload() == BODY.load


@pytest.mark.parametrize(
    "extensions",
    [
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrRouting(addresses=["::1", "::2"]),
        IPv6ExtHdrDestOpt(),
        AH(nh=17, payloadlen=4, icv=b"0123456789ab"),
        IPv6ExtHdrFragment(offset=0, m=0, id=7),
        IPv6ExtHdrHopByHop()
        / IPv6ExtHdrDestOpt()
        / IPv6ExtHdrRouting()
        / IPv6ExtHdrFragment()
        / AH(nh=17, payloadlen=2, icv=b"1234"),
    ],
)
def test_ipv6_extension_headers(bench: Bench, extensions: Packet) -> None:
    check(bench, ETHER / V6 / extensions / UDP(**PORTS) / BODY, UDP_, protocol=17, **PORTS)
    assert bench.payload() == BODY.load
    check_bound = ETHER / V6
    for _ in range(9):
        check_bound = check_bound / IPv6ExtHdrDestOpt()
    assert bench.decode(bytes(check_bound / UDP(**PORTS))) == MALFORMED
    assert bench.counted()["malformed_ipv6"] == 1


def test_vlan_tags(bench: Bench) -> None:
    inner = V4 / UDP(**PORTS) / BODY
    check(bench, ETHER / Dot1Q(vlan=7, prio=5) / inner, UDP_, vlan_count=1, outer_vlan=7, inner_vlan=0)
    tagged = bench.decoder.domain
    assert bench.counted()["vlan_tagged"] == 1

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    check(bench, ETHER / inner, UDP_, vlan=0x8100A007, vlan_count=1, outer_vlan=7, domain=tagged)
    assert bench.counted()["vlan_tagged"] == 1

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    check(bench, ETHER / Dot1AD(vlan=200) / Dot1Q(vlan=100) / inner, UDP_, outer_vlan=200, inner_vlan=100)
    stacked = bench.decoder.domain
    assert bench.counted()["vlan_tagged"] == 1

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    check(bench, ETHER / Dot1Q(vlan=100) / inner, UDP_, vlan=0x88A800C8, vlan_count=2, domain=stacked)
    assert stacked == 200 << 12 | 100

    bench.words[:] = memoryview(array("Q", bytes(8 * 1024)))
    check(bench, ETHER / inner, UDP_, vlan=0x8100A000, vlan_count=1, outer_vlan=0, domain=0)
    old = bytes(ETHER / Dot1Q(vlan=9) / inner)
    assert bench.decode(old[:12] + b"\x91\0" + old[14:]) == UDP_
    assert bench.decoder.outer_vlan == 9
    bomb = old[:12] + b"\x81\0\0\x01" * 9 + old[16:]
    assert bench.decode(bomb) == MALFORMED
    assert bench.counted()["malformed_link"] == 1


@pytest.mark.parametrize("network", [V4, V6], ids=["ipv4", "ipv6"])
def test_link_types(bench: Bench, network: Packet) -> None:
    inner = network / UDP(**PORTS) / BODY
    kind = 0x0800 if network is V4 else 0x86DD
    family = 2 if network is V4 else 30
    frames = {
        113: [CookedLinux(proto=kind) / inner, CookedLinux(proto=0x8100) / Dot1Q(vlan=3) / inner],
        276: [CookedLinuxV2(proto=kind) / inner],
        101: [inner],
        12: [inner],
        14: [inner],
        228 if network is V4 else 229: [inner],
        0: [struct.pack("<I", family) + bytes(inner), struct.pack(">I", family) + bytes(inner)],
        108: [struct.pack(">I", family) + bytes(inner)],
        9: [PPP() / inner, b"\xff\x03" + bytes(PPP() / inner), bytes(PPP() / inner)[1:]],
        1: [
            ETHER / PPPoE(sessionid=4) / PPP() / inner,
            bytes(ETHER / PPPoE(sessionid=4) / PPP() / inner) + bytes(30),
            ETHER / MPLS(label=5, s=0) / MPLS(label=6, s=1) / inner,
        ],
    }
    for link, forms in frames.items():
        for form in forms:
            assert bench.decode(bytes(form), link=link) == UDP_, (link, form)
            assert bench.payload() == BODY.load
            assert bench.addresses() == (network.src, network.dst)
            assert bench.decoder.link_type == link
            assert bench.decoder.flags == (records.P_ETHERNET if link == 1 else 0)
    assert bench.decoder.ether_type == kind


def test_what_is_no_ip(bench: Bench) -> None:
    assert bench.decode(bytes(ETHER / ARP())) == NON_IP
    assert bench.decode(bytes(CookedLinux(proto=4)), link=113) == NON_IP
    assert bench.decode(struct.pack("<I", 7) + bytes(9), link=0) == NON_IP
    assert bench.decode(bytes(ETHER / PPPoE() / PPP(proto=0xC021))) == NON_IP
    assert bench.decode(b"whatever", link=147) == UNKNOWN_LINK
    assert bench.decode(b"", link=1) == MALFORMED
    assert bench.decode(b"\x12", link=101) == MALFORMED
    assert bench.counted() == {"non_ip": 4, "link_unknown": 1, "malformed_link": 2}


def test_offsets_outside_the_buffer_are_refused(bench: Bench) -> None:
    bench.decoder.attach(memoryview(b"12345"))
    for start, end in ((-1, 3), (0, 6), (4, 3), (6, 7)):
        assert bench.decoder.decode(start, end, 9, 1, 0) == MALFORMED
        assert bench.decoder.decode_network(start, end) == MALFORMED
        assert bench.decoder.frame == bench.decoder.frame_end == 0
    assert bench.decoder.octets(-1, 3) == bench.decoder.octets(0, 6) == bench.decoder.octets(3, 3) == b""
    assert bench.decoder.octets(1, 3) == b"23"


@pytest.mark.parametrize(
    ("packet", "counter"),
    [
        (ETHER / IP(ihl=4) / UDP(), "malformed_ipv4"),
        (ETHER / IP(version=6) / UDP(), "malformed_ipv4"),
        (ETHER / IP(len=19) / UDP(), "malformed_ipv4"),
        (ETHER / IP(len=29) / UDP(), "malformed_ipv4"),
        (ETHER / IP(ihl=15) / UDP(), "malformed_ipv4"),
        (ETHER / IP(flags="MF", len=20) / UDP(), "malformed_ipv4"),
        (ETHER / IPv6(version=4) / UDP(), "malformed_ipv6"),
        (ETHER / IPv6(plen=9) / UDP(), "malformed_ipv6"),
        (ETHER / IPv6(nh=0) / Raw(b"\x11\xff" + bytes(20)), "malformed_ipv6"),
        (ETHER / IPv6(nh=44) / Raw(b"\x11\0\0\x01" + bytes(9)), "malformed_ipv6"),
        (ETHER / IPv6(nh=44) / Raw(b"\x11\0\0\x01" + bytes(4)), "malformed_ipv6"),
        (ETHER / IPv6(nh=44) / Raw(b"\x11\0\0"), "malformed_ipv6"),
        (ETHER / IP(proto=17) / b"1234567", "malformed_udp"),
        (ETHER / IP() / UDP(len=7), "malformed_udp"),
        (ETHER / IP() / UDP(len=9), "malformed_udp"),
        (ETHER / IPv6(plen=0, nh=17) / UDP(), "malformed_udp"),
        (ETHER / IP(proto=6) / bytes(19), "malformed_tcp"),
        (ETHER / IP() / TCP(dataofs=4), "malformed_tcp"),
        (ETHER / IP() / TCP(dataofs=6), "malformed_tcp"),
        (ETHER / PPPoE(len=900) / PPP() / IP() / UDP(), "malformed_link"),
        (ETHER / PPPoE(version=2) / PPP() / IP() / UDP(), "malformed_link"),
        (ETHER / MPLS(s=0) / MPLS(s=0), "malformed_link"),
        (Raw(bytes(13)), "malformed_link"),
    ],
)
def test_malformed(bench: Bench, packet: Packet, counter: str) -> None:
    assert bench.decode(bytes(packet)) == MALFORMED
    assert bench.counted()[counter] == 1


def test_lengths_of_segmentation_offload(bench: Bench) -> None:
    big = bytes(60_000)
    assert bench.decode(bytes(ETHER / IP(len=0) / UDP(len=0, **PORTS) / big)) == UDP_
    assert len(bench.payload()) == 60_000
    assert bench.decode(bytes(ETHER / IPv6(plen=0, nh=6) / TCP(**PORTS) / big / big)) == TCP_
    assert len(bench.payload()) == 120_000
    jumbo = IPv6(plen=0, nh=0) / Raw(struct.pack(">BBBBI", 17, 0, 0xC2, 4, 120_016))
    assert bench.decode(bytes(ETHER / jumbo / UDP(len=0, **PORTS) / big / big)) == UDP_
    assert len(bench.payload()) == 120_000
    assert bench.decode(bytes(ETHER / IP() / TCP(**PORTS) / big)) == TCP_
    assert bench.decode(bytes(ETHER / IP() / UDP(len=0, **PORTS) / b"small")) == UDP_
    assert bench.payload() == b"small"
    assert bench.decode(bytes(ETHER / IP(len=0) / UDP(len=0, **PORTS) / b"small")) == UDP_
    assert bench.decode(bytes(ETHER / IPv6(nh=17) / UDP(len=0, **PORTS) / b"small")) == UDP_
    assert bench.counted()["gro"] == 7, "each packet once, whichever of its headers tells"


SEEDS = {
    "udp4": (1, ETHER / V4 / UDP(**PORTS) / BODY),
    "tcp6": (1, ETHER / V6 / TCP(**PORTS, options=[("MSS", 1460)]) / BODY),
    "qinq": (
        1,
        ETHER
        / Dot1AD(vlan=5)
        / Dot1Q(vlan=6)
        / V6
        / IPv6ExtHdrHopByHop()
        / AH(nh=17, payloadlen=3, icv=b"12345678")
        / UDP(),
    ),
    "fragment4": (1, ETHER / IP(**IPV4, flags="MF", frag=3, id=77, proto=17) / Raw(bytes(24))),
    "fragment6": (1, ETHER / V6 / IPv6ExtHdrFragment(m=1, offset=2, id=1 << 31, nh=17) / Raw(bytes(24))),
    "pppoe": (1, ETHER / PPPoE(sessionid=1) / PPP() / V4 / ICMP() / BODY),
    "mpls": (1, ETHER / MPLS(s=0) / MPLS(s=1) / V4 / UDP() / BODY),
    "cooked": (113, CookedLinux(proto=0x0800) / V4 / UDP(**PORTS) / BODY),
    "cooked2": (276, CookedLinuxV2(proto=0x86DD) / V6 / UDP(**PORTS) / BODY),
    "raw": (101, V6 / UDP(**PORTS) / BODY),
    "null": (0, Raw(b"\x02\0\0\0" + bytes(V4 / UDP(**PORTS) / BODY))),
    "ppp": (9, Raw(b"\xff\x03" + bytes(PPP() / V4 / UDP(**PORTS) / BODY))),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_snapped_packet_is_not_malformed(bench: Bench, seed: str) -> None:
    link, packet = SEEDS[seed]
    octets = bytes(packet)
    whole = bench.decode(octets, link=link)
    assert whole in (UDP_, TCP_, ICMP_, FRAGMENT)
    for cut in range(len(octets)):
        verdict = bench.decode(octets[:cut], len(octets), link)
        assert verdict in (whole, OTHER)
        assert bench.decoder.flags & records.P_SNAPPED
        assert bench.decoder.payload <= bench.decoder.payload_end <= bench.decoder.frame_end == 5 + cut
        assert bench.decoder.clipped
        if verdict == whole and verdict in (UDP_, TCP_):
            sport, dport = (PORTS["sport"], PORTS["dport"]) if seed not in ("qinq", "mpls") else (53, 53)
            assert (bench.decoder.sport, bench.decoder.dport) == (sport, dport)
    assert bench.counted()["snapped"] == len(octets)
    assert not [name for name in bench.counted() if name.startswith("malformed")]


def test_a_cut_behind_the_payload_cuts_nothing(bench: Bench) -> None:
    octets = bytes(ETHER / V4 / UDP(**PORTS) / b"hi") + bytes(16)
    assert bench.decode(octets[:-5], len(octets)) == UDP_
    assert bench.decoder.flags & records.P_SNAPPED
    assert not bench.decoder.clipped
    assert bench.decode(octets[:-17], len(octets)) == UDP_
    assert bench.decoder.clipped
    assert bench.payload() == b"h"


@cache
def pair() -> tuple[Bench, Bench]:
    """A decoder of each build."""
    return Bench(COMPILED), Bench(PURE)


def both(octets: bytes, wire: int, link: int, vlan: int = 0, network: bool = False) -> int:
    """Decode in both builds, which must agree in everything; whatever comes out is inside the frame."""
    found = []
    for bench in pair():
        verdict = bench.decode(octets, wire, link, vlan)
        if network:
            verdict = bench.decoder.decode_network(5, 5 + len(octets))
        found.append((verdict, bench.state()))
        decoder = bench.decoder
        assert decoder.frame <= decoder.network <= decoder.frame_end
        assert decoder.frame <= decoder.payload <= decoder.payload_end <= decoder.frame_end
        assert decoder.vlan_count <= 9
        if verdict == FRAGMENT:
            assert decoder.network < decoder.fragment_start < decoder.fragment_end <= decoder.frame_end
            assert not network
        assert 0 <= verdict < 8
    assert found[0] == found[1]
    return found[0][0]


@pytest.mark.parametrize("seed", SEEDS)
def test_every_cut_is_equal_in_both_builds(seed: str) -> None:
    link, packet = SEEDS[seed]
    octets = bytes(packet)
    for cut in range(len(octets)):
        both(octets[:cut], cut, link)
        both(octets[:cut], len(octets), link)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_octet_0_1_and_most(seed: str) -> None:
    link, packet = SEEDS[seed]
    octets = bytes(packet)
    for place in range(min(len(octets), 110)):
        for new in (b"\0", b"\x01", b"\xff", b"\0\0", b"\0\x01", b"\xff\xff"):
            both((octets[:place] + new + octets[place + len(new) :])[: len(octets)], len(octets), link)


@given(
    octets=st.binary(max_size=120),
    front=st.sampled_from(
        [b"", bytes(12) + b"\x08\0", bytes(12) + b"\x86\xdd", bytes(12) + b"\x81\0", b"\x45\0\0\x40"]
    ),
    link=st.sampled_from(LINKS),
    more=st.integers(-3, 3),
    vlan=st.sampled_from([0, 0x81000001, 0x88A80FFF, 0xFFFFFFFF]),
    network=st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_any_octets(octets: bytes, front: bytes, link: int, more: int, vlan: int, network: bool) -> None:
    both(front + octets, max(0, len(front + octets) + more), link, vlan, network)


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_changed_packets(data: Any) -> None:
    link, packet = SEEDS[data.draw(st.sampled_from(sorted(SEEDS)))]
    octets = bytearray(bytes(packet))
    for _ in range(data.draw(st.integers(0, 5))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    both(bytes(octets), len(octets) + data.draw(st.integers(0, 1)), link, 0, data.draw(st.booleans()))


@given(
    network=st.sampled_from([V4, V6]),
    tags=st.lists(st.integers(0, 4095), max_size=3),
    ports=st.tuples(st.integers(0, 65535), st.integers(0, 65535)),
    body=st.binary(max_size=40),
    tcp=st.booleans(),
    padding=st.integers(0, 20),
)
@settings(max_examples=100, deadline=None)
def test_well_formed_packets_as_scapy_sees_them(
    network: Packet, tags: list[int], ports: tuple[int, int], body: bytes, tcp: bool, padding: int
) -> None:
    packet = ETHER
    for tag in tags:
        packet = packet / Dot1Q(vlan=tag)
    transport = (TCP if tcp else UDP)(sport=ports[0], dport=ports[1])
    octets = bytes(packet / network / transport / Raw(body)) + bytes(padding)
    seen = Ether(octets)
    bench = Bench(COMPILED)
    assert bench.decode(octets) == (TCP_ if tcp else UDP_)
    layer = seen[TCP if tcp else UDP]
    assert (bench.decoder.sport, bench.decoder.dport) == (layer.sport, layer.dport)
    assert bench.payload() == body
    assert bench.decoder.vlan_count == len(tags)
    assert (bench.decoder.outer_vlan, bench.decoder.inner_vlan) == (
        tags[0] if tags else 0,
        tags[-1] if len(tags) > 1 else 0,
    )


def test_fragments_are_reported(bench: Bench) -> None:
    assert bench.decode(bytes(SEEDS["fragment4"][1]) + bytes(6)) == FRAGMENT
    decoder = bench.decoder
    assert (decoder.fragment_id, decoder.fragment_offset, decoder.fragment_more) == (77, 24, True)
    assert decoder.fragment_end - decoder.fragment_start == 24
    assert decoder.protocol == 17
    assert bench.decode(bytes(SEEDS["fragment6"][1])) == FRAGMENT
    assert (decoder.fragment_id, decoder.fragment_offset, decoder.fragment_more) == (1 << 31, 16, True)
    assert decoder.fragment_end - decoder.fragment_start == 24
    assert decoder.fragment_start - decoder.network == 48
    assert bench.counted()["ip_fragments"] == 2
    # Before the last one the kernel cuts an odd length to a multiple of 8.
    assert bench.decode(bytes(ETHER / IP(**IPV4, flags="MF", proto=17) / Raw(bytes(23)))) == FRAGMENT
    assert decoder.fragment_end - decoder.fragment_start == 16


def test_a_reassembled_packet_keeps_its_link_layer(bench: Bench) -> None:
    first = bytes(ETHER / Dot1Q(vlan=9) / IP(**IPV4, flags="MF", proto=17) / Raw(bytes(8)))
    assert bench.decode(first) == FRAGMENT
    link = first[:18]
    whole = bytes(V4 / UDP(**PORTS) / Raw(bytes(20_000)))
    bench.decoder.attach(memoryview(link + whole))
    assert bench.decoder.decode_network(len(link), len(link + whole)) == UDP_
    decoder = bench.decoder
    assert (decoder.outer_vlan, decoder.vlan_count, decoder.sport) == (9, 1, 5060)
    assert decoder.flags == records.P_ETHERNET | records.P_REASSEMBLED
    assert (decoder.frame, decoder.network) == (0, 18)
    assert bench.counted() == {"vlan_tagged": 1, "ipv4": 1, "ip_fragments": 1, "udp": 1}
    # Without the link header in front there are no MAC addresses.
    bench.decoder.attach(memoryview(whole))
    assert bench.decoder.decode_network(0, len(whole)) == UDP_
    assert decoder.flags == records.P_REASSEMBLED
    again = bytes(IP(**IPV4, flags="MF", proto=17) / Raw(bytes(8)))
    bench.decoder.attach(memoryview(again))
    assert bench.decoder.decode_network(0, len(again)) == MALFORMED
