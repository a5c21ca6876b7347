"""Tunnels in tunnels, and fragments in them and around them, as the decoder sees them in both builds."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, UDP, fragment
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from engine.shm import records
from tests.builds import COMPILED, Build
from tests.tunnel_packets import FORMS, INNER, OUTER, V4, Form, vxlan
from tests.unit.tunnel_bench import (
    FIELDS,
    FRAGMENT,
    IN4,
    MALFORMED,
    OTHER,
    PORTS,
    SIMPLE,
    UDP_,
    Bench,
    domain,
    inner,
    nest,
)


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


# ---- tunnels in tunnels ----


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
