"""Tunnels: each type taken off, each bad header refused, in both builds; tshark and scapy are the measure."""

from __future__ import annotations

import ipaddress
import shutil
import struct
import subprocess
from array import array
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q, Ether
from scapy.layers.ppp import PPP, PPPoE
from scapy.packet import Packet, Raw
from scapy.utils import PcapWriter

from engine.config import Tunnels
from engine.shm import counters, records
from tests.builds import COMPILED, PURE, Build
from tests.tunnel_packets import (
    FORMS,
    INNER,
    OUTER,
    V4,
    Form,
    erspan2,
    erspan3,
    geneve,
    gre,
    gtp,
    pptp,
    udp,
    vxlan,
)

if TYPE_CHECKING:
    from pathlib import Path

MALFORMED, UDP_, TCP_, ICMP_, OTHER, NON_IP, FRAGMENT = range(7)
ALL = (1 << len(records.TUNNELS)) - 2
"""A bit for each type."""
TYPES = records.TUNNELS[1:]
IN4 = IP(src="10.0.0.1", dst="10.0.0.2", tos=0xB8, ttl=17)
IN6 = IPv6(src="fd00::1", dst="fd00::2", tc=0xB8, hlim=17)
PORTS = {"sport": 4000, "dport": 5000}
BODY = Raw(b"\x80\x08" + bytes(range(30)))
HIDDEN = {"buf", "size", "counters", "ports"}
FIELDS = sorted(vars(PURE.module("engine.decode.classifier").Decoder(memoryview(array("Q")))).keys() - HIDDEN)


class Bench:
    """A decoder with its counters."""

    def __init__(self, build: Build, tunnels: int = ALL, **more: Any) -> None:
        self.words = memoryview(array("Q", bytes(8 * 1024)))
        self.decoder = build.module("engine.decode.classifier").Decoder(self.words, tunnels, **more)
        self.reassembly = build.module("engine.decode.fragments").Reassembly(self.words, seed=bytes(16))

    def decode(self, octets: bytes, wire: int | None = None, link: int = 1, vlan: int = 0) -> int:
        """Decode a frame that does not stand at the front of its buffer."""
        self.octets = b"\xff" * 5 + bytes(octets) + b"\xff" * 3
        self.decoder.attach(memoryview(self.octets))
        wire = len(octets) if wire is None else wire
        verdict: int = self.decoder.decode(5, 5 + len(octets), wire, link, vlan)
        return verdict

    def whole(self, octets: bytes, now: int = 10**9) -> int:
        """Decode, and with a fragment that completes a datagram go on, as the pipeline does."""
        verdict = self.decode(octets)
        while verdict == FRAGMENT:
            packet = self.reassembly.add(self.decoder, now)
            if packet is None:
                return FRAGMENT
            self.octets = packet
            self.decoder.attach(memoryview(packet))
            verdict = self.decoder.decode_network(self.reassembly.network, len(packet))
        return verdict

    def counted(self, *only: str) -> dict[str, int]:
        """Counters that are not 0."""
        names = only or counters.NAMES
        found = {name: self.words[counters.index(name)] for name in names}
        return {name: value for name, value in found.items() if value}

    def clear(self) -> None:
        """All counters 0."""
        self.words[:] = memoryview(array("Q", bytes(8 * 1024)))

    def state(self) -> tuple[Any, ...]:
        """All results; the same for both builds."""
        return *(getattr(self.decoder, field) for field in FIELDS), bytes(self.words)

    def payload(self) -> bytes:
        """What the transport carries."""
        return self.octets[self.decoder.payload : self.decoder.payload_end]

    def addresses(self, which: str = "") -> tuple[str, str]:
        """Source and destination as text, from the words as they stand in a record."""
        words = [getattr(self.decoder, f"{which}{end}{word}") for end in ("src", "dst") for word in (0, 1)]
        both = struct.pack("<4Q", *words)
        pair = (ipaddress.IPv6Address(both[:16]), ipaddress.IPv6Address(both[16:]))
        return str(pair[0].ipv4_mapped or pair[0]), str(pair[1].ipv4_mapped or pair[1])


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


def inner(version: int, transport: Packet | None = None) -> Packet:
    """The packet that is in the tunnels here."""
    return (IN4 if version == 4 else IN6) / (transport or UDP(**PORTS) / BODY)


def of(form: Form) -> Packet:
    """An inner packet that this form can carry."""
    return inner(form.versions[0])


SIMPLE = {name: form.wrap(of(form)) for name, form in FORMS.items()}
each_form = pytest.mark.parametrize("name", FORMS)


def test_the_types_are_those_of_counters_and_configuration() -> None:
    names = [name.replace("-", "_") for name in TYPES]
    first = counters.index("tunnels_vxlan")
    assert [counters.index(f"tunnels_{name}") - first for name in names] == [*range(len(names))]
    assert set(Tunnels.model_fields) == {*names, "vxlan_ports"}
    assert {form.type for form in FORMS.values()} == {*TYPES}
    classifier = PURE.module("engine.decode.classifier")
    assert tuple(Tunnels().vxlan_ports) == classifier.VXLAN_PORTS
    assert ALL == classifier.ALL_TUNNELS


@each_form
def test_a_tunnel_is_taken_off(bench: Bench, name: str) -> None:
    form = FORMS[name]
    number = records.TUNNELS.index(form.type)
    for version in form.versions:
        packet = inner(version)
        bench.clear()
        assert bench.decode(form.wrap(packet)) == UDP_
        decoder = bench.decoder
        assert bench.addresses() == (packet.src, packet.dst)
        assert bench.addresses("outer_") == (form.outer.src, form.outer.dst)
        assert (decoder.sport, decoder.dport, decoder.protocol) == (4000, 5000, 17)
        assert (decoder.tos, decoder.ttl) == (0xB8, 17)
        assert bench.payload() == BODY.load
        assert (decoder.depth, decoder.tunnel_type, decoder.vni) == (1, number, form.vni)
        assert decoder.domain == number << 28 | (form.vni << 32 if form.separates else 0)
        assert decoder.flags == records.P_ETHERNET
        macs = INNER if form.frame else OUTER
        assert bench.octets[decoder.mac :][:12] == bytes(macs)[:12]
        assert (decoder.frame, decoder.link_type) == (5, 1)
        outer = 4 if isinstance(form.outer, IP) else 6
        headers = {f"ipv{outer}": 1}
        headers[f"ipv{version}"] = headers.get(f"ipv{version}", 0) + 1
        kind = f"tunnels_{form.type.replace('-', '_')}"
        assert bench.counted() == {**headers, "udp": 1, "tunnels": 1, kind: 1}
    # What comes next has nothing of it.
    bench.clear()
    assert bench.decode(bytes(OUTER / V4 / UDP(**PORTS) / BODY)) == UDP_
    assert (bench.decoder.depth, bench.decoder.tunnel_type, bench.decoder.vni, bench.decoder.domain) == (
        0,
    ) * 4
    assert bench.addresses("outer_") == ("::", "::")
    assert bench.counted() == {"ipv4": 1, "udp": 1}


@each_form
def test_a_type_that_is_off_is_left_as_it_is(build: Build, name: str) -> None:
    form = FORMS[name]
    number = records.TUNNELS.index(form.type)
    others = ALL & ~(1 << number)
    if form.type == "nvgre":
        # Without it, the same octets are GRE with a key.
        others &= ~(1 << records.TUNNELS.index("gre"))
    for tunnels in (0, 1, others):
        bench = Bench(build, tunnels)
        assert bench.decode(SIMPLE[name]) == (UDP_ if form.protocol == 17 else OTHER)
        assert bench.addresses() == (form.outer.src, form.outer.dst)
        assert (bench.decoder.depth, bench.decoder.domain, bench.decoder.protocol) == (0, 0, form.protocol)
        assert not bench.counted("tunnels", "malformed_tunnel")
    bench = Bench(build, 1 << number)
    assert bench.decode(SIMPLE[name]) == UDP_
    assert bench.decoder.tunnel_type == number


def test_ports_of_vxlan(build: Build) -> None:
    frame = FORMS["vxlan"].wrap(inner(4))
    assert Bench(build, vxlan_ports=[14_789]).decode(frame) == UDP_
    bench = Bench(build, vxlan_ports=[8472, 4789, 65_535])
    for port in (8472, 4789, 65_535):
        bench.decode(Form("vxlan", vxlan(3, port), frame=True).wrap(inner(4)))
        assert (bench.decoder.depth, bench.decoder.vni) == (1, 3)
    # Only the destination says so: an answer goes to the same port.
    bench.decode(bytes(OUTER / V4 / UDP(sport=4789, dport=9) / Raw(frame[42:])))
    assert bench.decoder.depth == 0


@pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark")
def test_tshark_sees_the_same(tmp_path: Path) -> None:
    path = tmp_path / "forms.pcap"
    with PcapWriter(str(path), linktype=1) as writer:
        for frame in SIMPLE.values():
            writer.write(frame)
    fields = [arg for name in ("ip.src", "ipv6.src", "udp.dstport", "eth.src") for arg in ("-e", name)]
    command = ["tshark", "-n", "-r", str(path), "-d", "udp.port==8472,vxlan", "-T", "fields", *fields]
    seen = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    bench = Bench(COMPILED)
    for (name, frame), line in zip(SIMPLE.items(), seen, strict=True):
        four, six, port, mac = (column.split(",") for column in line.split("\t"))
        bench.decode(frame)
        if name == "erspan-3-ip":
            continue  # tshark 4.0 looks only for frames there
        version = 4 if bench.addresses()[0] == IN4.src else 6
        assert (four if version == 4 else six)[-1] == bench.addresses()[0], name
        assert port[-1] == "5000", name
        assert mac[-1] == (INNER if FORMS[name].frame else OUTER).src, name


# ---- domains ----


def domain(bench: Bench, frame: bytes) -> int:
    """The domain of a frame, which has an inner packet."""
    assert bench.decode(frame) == UDP_
    assert bench.decoder.depth
    found: int = bench.decoder.domain
    return found


def both_ways(form: Form, back: Form | None = None, **links: Packet) -> tuple[bytes, bytes]:
    """A packet and its answer: other outer addresses, MAC addresses and, with `back`, another header."""
    there = of(form)
    answer = there.copy()
    answer.src, answer.dst = there.dst, there.src
    outer = form.outer.copy()
    outer.src, outer.dst = form.outer.dst, form.outer.src
    return form.wrap(there, links.get("link", OUTER)), (back or form).wrap(
        answer, links.get("link_back", OUTER), outer
    )


@each_form
def test_both_directions_have_one_domain(bench: Bench, name: str) -> None:
    one, other = both_ways(FORMS[name])
    assert domain(bench, one) == domain(bench, other)


@pytest.mark.parametrize(
    ("form", "back"),
    [
        (Form("gtp-u", gtp(teid=1)), Form("gtp-u", gtp(0x34, b"\0\0\0\0", teid=2))),
        (Form("erspan", erspan2(1), 0, 47, True), Form("erspan", erspan2(2, vlan=7), 0, 47, True)),
        (Form("erspan", erspan3(1), 0, 47, True), Form("erspan", erspan2(2), 0, 47, True)),
        (FORMS["ppp-gre"], Form("ppp-gre", pptp(b"\0\x21", call=9, ack=True), 0, 47)),
        (FORMS["nvgre"], Form("nvgre", gre(0x6558, 0x12345601), 0, 47, True)),
    ],
)
def test_what_differs_by_direction_is_not_in_the_domain(bench: Bench, form: Form, back: Form) -> None:
    one, other = both_ways(form, back)
    first = domain(bench, one)
    vni = bench.decoder.vni
    assert first == domain(bench, other)
    assert form.type == "nvgre" or bench.decoder.vni != vni


@pytest.mark.parametrize(
    ("form", "other"),
    [
        (Form("vxlan", vxlan(1), frame=True), Form("vxlan", vxlan(2), frame=True)),
        (Form("geneve", geneve(1), frame=True), Form("geneve", geneve(1 << 23), frame=True)),
        (Form("gre", gre(0x800, 1), 0, 47), Form("gre", gre(0x800, 2), 0, 47)),
        (Form("gre", gre(0x6558, 1), 0, 47, True), Form("gre", gre(0x6558, 2), 0, 47, True)),
        (Form("nvgre", gre(0x6558, 1 << 20), 0, 47, True), Form("nvgre", gre(0x6558, 3 << 20), 0, 47, True)),
        (Form("vxlan", vxlan(1), frame=True), Form("geneve", geneve(1), frame=True)),
    ],
)  # fmt: skip
def test_tenants_with_the_same_addresses_are_apart(bench: Bench, form: Form, other: Form) -> None:
    assert domain(bench, form.wrap(inner(4))) != domain(bench, other.wrap(inner(4)))


def test_vlans(bench: Bench) -> None:
    tagged = INNER / Dot1AD(vlan=200) / Dot1Q(vlan=100) / inner(4)
    under = OUTER / Dot1Q(vlan=11)
    form = FORMS["vxlan"]
    number = 1 << 28 | form.vni << 32
    # Of a frame in a tunnel, its own tags; those of the network below say nothing of the tenant.
    assert domain(bench, form.wrap(tagged)) == number | 200 << 12 | 100
    assert (bench.decoder.vlan_count, bench.decoder.outer_vlan, bench.decoder.inner_vlan) == (2, 200, 100)
    assert domain(bench, form.wrap(inner(4), under)) == number
    assert bench.decoder.vlan_count == 0
    assert domain(bench, form.wrap(tagged, under)) == number | 200 << 12 | 100
    assert domain(bench, form.wrap(INNER / Dot1Q(vlan=0, prio=5) / inner(4))) == number
    # Of bare IP in a tunnel, the tags of the frame.
    assert domain(bench, FORMS["4in4"].wrap(inner(4), under)) == 5 << 28 | 11 << 12
    assert bench.decoder.vlan_count == 1
    assert bench.decode(FORMS["4in4"].wrap(inner(4)), vlan=0x8100_000B) == UDP_
    assert bench.decoder.domain == 5 << 28 | 11 << 12


# ---- what can be in a tunnel ----


def test_transports(bench: Bench) -> None:
    form = FORMS["vxlan"]
    tcp = TCP(**PORTS, flags="PA")
    assert bench.decode(form.wrap(inner(4, tcp / b"hi"))) == TCP_
    assert (bench.decoder.tcp_flags, bench.payload()) == (0x18, b"hi")
    assert bench.decode(form.wrap(inner(4, ICMP(type=3) / V4 / UDP()))) == ICMP_
    assert bench.counted("udp", "tcp", "icmp") == {"tcp": 1, "icmp": 1}
    assert bench.decode(form.wrap(ARP())) == NON_IP
    assert bench.addresses() == ("::", "::")
    assert bench.addresses("outer_") == (V4.src, V4.dst)
    assert bench.decoder.ether_type == 0x0806
    assert bench.decode(form.wrap(inner(4) / Raw(b"")) + bytes(20)) == UDP_
    assert bench.payload() == BODY.load


def test_pppoe_and_mpls(bench: Bench) -> None:
    form = FORMS["geneve"]
    session = PPPoE(sessionid=3) / PPP() / inner(6)
    assert bench.decode(form.wrap(session)) == UDP_
    assert bench.addresses() == (IN6.src, IN6.dst)
    labels = MPLS(label=16, s=0) / MPLS(label=17, s=1)
    assert bench.decode(form.wrap(labels / inner(4))) == UDP_
    assert bench.decode(form.wrap(inner(4), OUTER / labels)) == UDP_
    assert bench.decode(form.wrap(inner(4), OUTER / PPPoE(sessionid=1) / PPP())) == UDP_
    assert bench.payload() == BODY.load
    # 4 octets of labels less than the outer length says: cut by PPPoE's own length, not by the frame's end.
    assert bench.decode(form.wrap(session) + bytes(9)) == UDP_
    assert bench.payload() == BODY.load
    assert not bench.counted("malformed_link", "malformed_tunnel", "malformed_ipv4")


def test_other_links(bench: Bench) -> None:
    frame = FORMS["vxlan"].wrap(inner(4))
    assert bench.decode(frame[14:], link=101) == UDP_
    assert bench.decoder.flags == records.P_ETHERNET
    assert bench.octets[bench.decoder.mac :][:12] == bytes(INNER)[:12]
    assert bench.decode(FORMS["4in4"].wrap(inner(4))[14:], link=101) == UDP_
    assert bench.decoder.flags == 0


@pytest.mark.parametrize(
    ("content", "verdict"),
    [
        (pptp(b"\xc0\x21")(b"") / Raw(b"\1\1\0\4"), NON_IP),
        (bytes.fromhex("2081880b00000077") + bytes(4), OTHER),
        (bytes.fromhex("3001880b0000007700000001"), OTHER),
        (gre(0xFEFE)(b"") / Raw(bytes(20)), OTHER),
        (GRE(proto=0, version=0), OTHER),
        (erspan3(ft=1)(b"") / Raw(bytes(60)), OTHER),
    ],
)
def test_gre_without_ip(bench: Bench, content: Any, verdict: int) -> None:
    assert bench.decode(bytes(OUTER / IP(src=V4.src, dst=V4.dst, proto=47) / Raw(bytes(content)))) == verdict
    assert not bench.counted("malformed_tunnel")


# ---- tunnels in tunnels ----


def nest(names: list[str], packet: Packet) -> bytes:
    """`packet` in the innermost, the last of these tunnels."""
    link = Ether(src=INNER.src, dst=INNER.dst)
    for number, name in enumerate(reversed(names)):
        form = FORMS[name]
        frame = form.wrap(packet, OUTER if number == len(names) - 1 else link)
        packet = Ether(frame).payload if number < len(names) - 1 else Raw(frame)
        packet = Raw(bytes(packet)) if number == len(names) - 1 else packet
    return bytes(packet)


def test_a_tunnel_in_a_tunnel(bench: Bench) -> None:
    assert bench.decode(nest(["4in4", "vxlan"], inner(4))) == UDP_
    assert (bench.decoder.depth, bench.decoder.tunnel_type, bench.decoder.vni) == (2, 1, 0xABCDE)
    assert bench.decoder.domain == 1 << 28 | 0xABCDE << 32
    assert bench.counted("tunnels", "tunnels_ipip", "tunnels_vxlan", "udp", "ipv4") == {
        "tunnels": 2, "tunnels_ipip": 1, "tunnels_vxlan": 1, "udp": 1, "ipv4": 3,
    }  # fmt: skip
    # An inner tunnel without an identifier does not merge the tenants of the outer one.
    assert bench.decode(nest(["vxlan", "4in4"], inner(4))) == UDP_
    assert (bench.decoder.tunnel_type, bench.decoder.vni) == (5, 0)
    assert bench.decoder.domain == 5 << 28 | 0xABCDE << 32
    one = domain(bench, nest(["vxlan", "geneve"], inner(4)))
    other = domain(bench, nest(["vxlan-8472", "geneve"], inner(4)))
    assert one != other
    assert one & 0xFFFFFFFF == other & 0xFFFFFFFF == 4 << 28 | 1 << 24
    assert records.domain_tunnel(one) == "geneve"


def test_the_tunnel_in_a_domain_as_text(bench: Bench) -> None:
    names = {name: records.domain_tunnel(domain(bench, SIMPLE[name])) for name in FORMS}
    assert names["vxlan"] == "vxlan 703710"
    assert names["gre-all"] == "gre 3735928559"
    assert (names["gre"], names["gtp-u"], names["4in6"], names["nvgre"]) == (
        "gre",
        "gtp-u",
        "ipip",
        "nvgre 1193046",
    )
    assert records.domain_tunnel(7 << 12) is records.domain_tunnel(0) is None
    assert records.domain_tunnel(15 << 28) == "15"


def test_depth(bench: Bench) -> None:
    assert bench.decode(nest(["4in4"] * 8, inner(4))) == UDP_
    assert (bench.decoder.depth, bench.decoder.sport) == (8, 4000)
    assert bench.counted("tunnel_depth_exceeded", "tunnels") == {"tunnels": 8}
    for names in (["4in4"] * 9, ["vxlan"] * 9, ["gre"] * 30, ["vxlan", "4in4"] * 10):
        bench.clear()
        frame = nest(names, inner(4))
        verdict = bench.decode(frame, vlan=0x8100_0007)
        counted = bench.counted()
        assert counted.pop("tunnel_depth_exceeded") == 1
        assert (
            counted.pop("tunnels")
            == sum(counted.pop(f"tunnels_{n}", 0) for n in ("ipip", "vxlan", "gre"))
            == 8
        )
        off = Bench(COMPILED, 0)
        assert off.decode(frame, vlan=0x8100_0007) == verdict
        left_out = {"tunnels", "active"}
        for field in FIELDS:
            if field not in left_out and not field.startswith(
                ("next_", "inner_s", "inner_e", "inner_t", "separate")
            ):
                assert getattr(bench.decoder, field) == getattr(off.decoder, field), field
        assert counted.pop("ipv4") == 9
        expected = off.counted()
        del expected["ipv4"]
        assert counted == expected
        # And the next packet is whole again.
        assert bench.decode(SIMPLE["vxlan"]) == UDP_
        assert bench.decoder.depth == 1


# ---- fragments ----


def pieces(packet: Packet, size: int) -> list[Packet]:
    return [IP(bytes(one)) for one in fragment(packet, size)]


def test_fragments_in_a_tunnel(bench: Bench) -> None:
    big = IN4 / UDP(**PORTS) / Raw(bytes(range(256)) * 12)
    form = FORMS["vxlan"]
    frames = [form.wrap(INNER / Dot1Q(vlan=5) / one) for one in pieces(big, 1400)]
    assert [bench.whole(frame) for frame in reversed(frames)] == [FRAGMENT, FRAGMENT, UDP_]
    decoder = bench.decoder
    assert bench.payload() == bytes(range(256)) * 12
    assert (decoder.vni, decoder.domain) == (form.vni, 1 << 28 | form.vni << 32 | 5 << 12)
    assert (decoder.tunnel_type, decoder.depth, decoder.outer_vlan) == (1, 1, 5)
    assert bench.addresses() == (IN4.src, IN4.dst)
    assert bench.addresses("outer_") == (V4.src, V4.dst)
    assert decoder.flags == records.P_ETHERNET | records.P_REASSEMBLED
    assert bench.octets[decoder.mac :][:12] == bytes(INNER)[:12]
    assert bench.counted("ipv4", "udp", "tunnels", "reassembled", "ip_fragments") == {
        "ipv4": 6, "udp": 1, "tunnels": 3, "reassembled": 1, "ip_fragments": 3,
    }  # fmt: skip


def test_fragments_of_two_tenants_do_not_meet(bench: Bench) -> None:
    big = IN4 / UDP(**PORTS) / Raw(bytes(2000))
    first, last = pieces(big, 1400)
    assert bench.whole(Form("vxlan", vxlan(1), frame=True).wrap(first)) == FRAGMENT
    assert bench.whole(Form("vxlan", vxlan(2), frame=True).wrap(last)) == FRAGMENT
    assert bench.whole(bytes(OUTER / last)) == FRAGMENT
    assert bench.whole(Form("vxlan", vxlan(1), frame=True).wrap(last)) == UDP_


@pytest.mark.parametrize("name", ["vxlan", "gre-all", "geneve-options", "erspan-2", "4in4", "gtp-u"])
def test_a_tunnel_in_fragments(bench: Bench, name: str) -> None:
    form = FORMS[name]
    outer = IP(src=V4.src, dst=V4.dst, id=77)
    big = inner(form.versions[0], UDP(**PORTS) / Raw(bytes(range(250)) * 8))
    whole = Ether(form.wrap(big, outer=outer)).payload
    frames = [bytes(OUTER / Dot1Q(vlan=9) / one) for one in pieces(IP(bytes(whole)), 1000)]
    assert [bench.whole(frame) for frame in frames] == [FRAGMENT, FRAGMENT, UDP_]
    decoder = bench.decoder
    assert bench.payload() == bytes(range(250)) * 8
    assert (decoder.depth, decoder.vni) == (1, form.vni)
    assert bench.addresses("outer_") == (V4.src, V4.dst)
    assert decoder.flags == records.P_ETHERNET | records.P_REASSEMBLED
    macs = INNER if form.frame else OUTER
    assert bench.octets[decoder.mac :][:12] == bytes(macs)[:12]
    assert decoder.outer_vlan == (0 if form.frame else 9)


def test_fragments_in_a_tunnel_in_fragments(bench: Bench) -> None:
    big = IN4 / UDP(**PORTS) / Raw(bytes(range(250)) * 12)
    form = FORMS["vxlan"]
    frames = []
    for number, one in enumerate(pieces(big, 1400)):
        around = IP(src=V4.src, dst=V4.dst, id=900 + number)
        whole = IP(bytes(Ether(form.wrap(one, outer=around)).payload))
        frames += [bytes(OUTER / piece) for piece in pieces(whole, 600)]
    verdicts = [bench.whole(frame) for frame in frames]
    assert verdicts == [FRAGMENT] * (len(frames) - 1) + [UDP_]
    assert bench.payload() == bytes(range(250)) * 12
    assert (bench.decoder.depth, bench.decoder.vni) == (1, form.vni)
    assert bench.counted("reassembled") == {"reassembled": 3}


def test_depth_goes_on_behind_the_reassembly(bench: Bench) -> None:
    packet: Packet = inner(4, UDP(**PORTS) / Raw(bytes(1200)))
    for _ in range(5):
        packet = IP(bytes(Ether(FORMS["4in4"].wrap(packet)).payload))
    frames = []
    for one in pieces(packet, 800):
        nested: Packet = one
        for _ in range(4):
            nested = IP(bytes(Ether(FORMS["gre"].wrap(nested)).payload))
        frames.append(bytes(OUTER / Dot1Q(vlan=3) / nested))
    assert [bench.whole(frame) for frame in frames] == [FRAGMENT, OTHER]
    decoder = bench.decoder
    assert bench.counted("tunnel_depth_exceeded") == {"tunnel_depth_exceeded": 1}
    # What was put together is the outermost that is left.
    assert (decoder.depth, decoder.tunnel_type, decoder.protocol) == (4, 2, 4)
    assert (decoder.domain, decoder.outer_vlan) == (2 << 28 | 3 << 12, 3)
    assert bench.addresses() == bench.addresses("outer_") == (V4.src, V4.dst)
    assert decoder.flags & records.P_REASSEMBLED
    assert bench.whole(SIMPLE["vxlan"]) == UDP_
    assert decoder.depth == 1


def test_a_fragment_in_what_was_put_together_is_malformed(bench: Bench) -> None:
    one = bytes(IP(src=V4.src, dst=V4.dst, flags="MF", proto=17) / Raw(bytes(16)))
    bench.decode(FORMS["4in4"].wrap(Raw(one)))
    assert bench.decoder.depth == 1
    bench.decoder.attach(memoryview(one))
    assert bench.decoder.decode_network(0, len(one)) == MALFORMED


# ---- what is no tunnel ----


VXLAN_OK = bytes.fromhex("0800000000000500") + bytes(INNER / inner(4))
GENEVE_OK = bytes.fromhex("0000655800000500") + bytes(INNER / inner(4))
G_PDU = b"\x30\xff" + struct.pack(">HI", len(inner(4)), 9) + bytes(inner(4))


@pytest.mark.parametrize(
    ("port", "octets"),
    [
        (4789, b"\x00" + VXLAN_OK[1:]),
        (4789, b"\x0c" + VXLAN_OK[1:]),
        (4789, b"\x08\x40" + VXLAN_OK[2:]),
        (4789, b"\x08\x00\x00\x01" + VXLAN_OK[4:]),
        (4789, b"\x88\x01" + VXLAN_OK[2:]),
        (4789, VXLAN_OK[:7] + b"\x01" + VXLAN_OK[8:]),
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
