"""Tunnels: each type taken off, its domain, and what can be in it, in both builds; tshark is the measure."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.l2 import ARP, GRE, Dot1AD, Dot1Q
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
    vxlan,
)
from tests.unit.tunnel_bench import (
    ALL,
    BODY,
    ICMP_,
    IN4,
    IN6,
    NON_IP,
    OTHER,
    PORTS,
    SIMPLE,
    TCP_,
    TYPES,
    UDP_,
    Bench,
    domain,
    each_form,
    inner,
    of,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


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
