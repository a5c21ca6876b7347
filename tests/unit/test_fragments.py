"""Reassembly: whatever the order, the whole packet; the first copy wins, and each fragment is booked once."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.layers.l2 import Dot1Q
from scapy.packet import Raw

from tests.builds import COMPILED, PURE, Build
from tests.unit.fragment_bench import BODY, ETHER, MALFORMED, SECOND, UDP_, Bench, octets_held, piece


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


@pytest.mark.parametrize("options", [[], [IPOption_Router_Alert()]])
def test_ipv4_in_every_order(build: Build, options: list[Any]) -> None:
    packet = IP(src="10.0.0.1", dst="10.0.0.2", id=99, options=options) / UDP(sport=5060, dport=5061) / BODY
    whole = bytes(packet)
    pieces = [ETHER / part for part in fragment(IP(whole), fragsize=800)]
    assert len(pieces) == 4
    for order in itertools.permutations(pieces):
        bench = Bench(build)
        assert bench.all(list(order)) == whole
        assert bench.verdict == UDP_
        assert bench.decoder.sport == 5060
        assert bench.link == bytes(order[-1])[:14]
        assert bench.decoder.payload_end - bench.decoder.payload == len(BODY)
        assert (bench.get("reassembled"), bench.get("ip_fragments"), bench.faults()) == (1, 4, {})
        assert (bench.get("ipv4"), bench.get("udp")) == (4, 1)
        assert bench.reassembly.datagrams == 0
        bench.check()


def test_ipv6_in_every_order(build: Build) -> None:
    network = IPv6(src="2001:db8::1", dst="2001:db8::2")
    transport = UDP(sport=5060, dport=5061) / BODY
    head = (
        network / IPv6ExtHdrHopByHop() / IPv6ExtHdrFragment(id=0xFEDCBA98) / IPv6ExtHdrDestOpt() / transport
    )
    parts = [IPv6(bytes(part)) for part in fragment6(IPv6(bytes(head)), 1100)]
    assert len(parts) >= 3
    for order in itertools.permutations(parts):
        bench = Bench(build)
        whole = bench.all([ETHER / part for part in order])
        assert whole == bytes(network / IPv6ExtHdrDestOpt() / transport)
        assert bench.verdict == UDP_
        assert (bench.get("reassembled"), bench.faults()) == (1, {})


def test_ipv6_fragments_may_name_other_next_headers(bench: Bench) -> None:
    network = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2")
    octets = bytes(UDP(sport=1, dport=2, len=24)) + bytes(16)
    assert bench.add(network / IPv6ExtHdrFragment(m=1, id=5, nh=17) / Raw(octets[:16])) is None
    assert bench.add(network / IPv6ExtHdrFragment(offset=2, id=5, nh=60) / Raw(octets[16:])) is not None
    assert bench.verdict == UDP_


def test_vlans_are_apart(bench: Bench) -> None:
    octets = bytes(UDP(sport=9, dport=10, len=24)) + bytes(16)
    tagged = [
        ETHER / Dot1Q(vlan=4) / piece(*rest)[IP] for rest in ((0, octets[:16]), (16, octets[16:], False))
    ]
    assert bench.add(piece(16, octets[16:], more=False)) is None
    assert bench.add(tagged[0]) is None
    assert bench.add(tagged[1]) is not None
    assert (bench.decoder.outer_vlan, bench.decoder.sport) == (4, 9)
    assert len(bench.link) == 18
    assert bench.reassembly.datagrams == 1
    # The tag that the kernel took off is the same VLAN; priority and the drop bit tell nothing.
    bench.now += 2 * SECOND
    assert bench.add(tagged[0]) is None
    assert bench.add(piece(16, octets[16:], more=False), vlan=0x8100E004) is not None


@pytest.mark.parametrize(
    "other",
    [{"src": "10.0.0.3"}, {"dst": "10.0.0.3"}, {"proto": 6}, {"id": 8}],
    ids=lambda one: next(iter(one)),
)
def test_datagrams_are_told_apart_by_all_of_their_key(bench: Bench, other: dict[str, Any]) -> None:
    """RFC 791: source, destination, protocol, identification."""
    octets = bytes(UDP(sport=9, dport=10, len=24)) + bytes(16)
    key = {"src": "10.0.0.1", "dst": "10.0.0.2", "proto": 17, "id": 7}
    assert bench.add(ETHER / IP(**key, flags="MF") / Raw(octets[:16])) is None
    assert bench.add(ETHER / IP(**{**key, **other}, frag=2) / Raw(b"x" * 8)) is None
    assert bench.reassembly.datagrams == 2
    whole = bench.add(ETHER / IP(**key, frag=2) / Raw(octets[16:]))
    assert whole is not None
    assert whole[20:] == octets
    assert (bench.reassembly.datagrams, bench.faults()) == (1, {})


def test_overlaps_the_first_copy_wins(bench: Bench) -> None:
    octets = bytes(UDP(sport=5, dport=6, len=48)) + bytes(range(40))
    assert bench.add(piece(16, octets[16:32])) is None
    assert bench.add(piece(8, b"x" * 32)) is None
    assert bench.faults() == {"overlapping": 1}
    assert bench.add(piece(0, octets[:16])) is None
    assert bench.faults() == {"overlapping": 2}
    bench.check()
    whole = bench.add(piece(32, octets[32:], more=False))
    assert whole is not None
    assert whole[20:] == octets[:8] + b"x" * 8 + octets[16:32] + b"x" * 8 + octets[40:]
    assert bench.faults() == {"overlapping": 3}
    bench.check()


def test_overlap_across_chunks(bench: Bench) -> None:
    """Gaps of any size, on both sides of what is there, are filled and nothing else."""
    octets = bytes(UDP(sport=5, dport=6, len=6000)) + random.Random(9).randbytes(5992)
    assert bench.add(piece(1200, octets[1200:2200])) is None
    assert bench.add(piece(3000, octets[3000:3600])) is None
    other = bytes(octet ^ 0xFF for octet in octets)
    assert bench.add(piece(800, other[800:4800])) is None
    assert bench.faults() == {"overlapping": 1}
    assert bench.add(piece(0, octets[:800])) is None
    whole = bench.add(piece(4800, octets[4800:], more=False))
    assert whole is not None
    mixed = bytearray(octets)
    for start, end in ((800, 1200), (2200, 3000), (3600, 4800)):
        mixed[start:end] = other[start:end]
    assert whole[20:] == mixed
    bench.check()


def test_the_worked_example_of_the_overlap_policies(bench: Bench) -> None:
    """Novak, Target-Based Fragmentation Reassembly (2005): six fragments, and what each policy makes of them.

    Ours gives the result that the paper calls "first".
    """
    spans = [(0, 24), (32, 16), (48, 24), (8, 32), (48, 24), (72, 24)]
    for number, (start, length) in enumerate(spans, 1):
        found = bench.add(piece(start, str(number).encode() * length, start + length < 96))
        assert (found is None) == (number < 6)
    assert found is not None
    units = found[20::8]
    assert units.decode() == "111422333666"
    assert bench.faults() == {"overlapping": 2, "duplicate": 1}


def test_duplicates(bench: Bench) -> None:
    octets = bytes(UDP(len=24)) + bytes(16)
    for _ in range(3):
        assert bench.add(piece(0, octets[:16])) is None
    assert bench.faults() == {"duplicate": 2}
    assert bench.add(piece(16, octets[16:], more=False)) is not None
    bench.check()


def test_a_mirrored_port_shows_everything_twice(bench: Bench) -> None:
    """What comes after the datagram is whole is a duplicate and opens no datagram that never ends."""
    octets = bytes(UDP(len=24)) + bytes(16)
    for more, part in ((True, octets[:16]), (False, octets[16:])):
        for copy in range(2):
            found = bench.add(piece(0 if more else 16, part, more))
            assert (found is not None) == (not more and copy == 0)
    assert bench.faults() == {"duplicate": 2}
    assert bench.reassembly.datagrams == 0
    assert (bench.get("reassembled"), bench.get("fragments_merged")) == (1, 2)
    bench.check()


def test_the_identification_comes_again_at_once(bench: Bench) -> None:
    """Another datagram under the same identification is told by its first octets from a copy."""
    for text in (b"first---", b"second--"):
        assert bench.add(piece(0, text * 2)) is None
        whole = bench.add(piece(16, text, more=False))
        assert whole is not None
        assert whole[20:] == text * 3
    # However short, and longer than all of the one before.
    assert bench.add(piece(0, b"third---")) is None
    assert bench.add(piece(8, b"third---", more=False)) is not None
    assert bench.add(piece(0, b"third---" * 4)) is None
    assert (bench.reassembly.datagrams, bench.faults()) == (1, {})
    bench.check()


def test_the_identification_comes_again_later(bench: Bench) -> None:
    """RFC 4963: the rest of a datagram that was never whole is not mixed with the next one."""
    for number, stale in enumerate(((0, b"old1" * 4, True), (16, b"old2" * 4, False))):
        assert bench.add(piece(stale[0], stale[1], stale[2], number)) is None
    bench.now += 2 * SECOND
    assert bench.add(piece(0, b"new1" * 4, True, 0)) is None
    assert bench.faults() == {"replaced": 1}
    whole = bench.add(piece(16, b"new2" * 3, False, 0))
    assert whole is not None
    assert whole[20:] == b"new1" * 4 + b"new2" * 3
    # Another end than the one that is known.
    assert bench.add(piece(24, b"new2" * 4, False, 1)) is None
    assert bench.faults() == {"replaced": 2}
    whole = bench.add(piece(0, b"new1" * 6, True, 1))
    assert whole is not None
    assert whole[20:] == b"new1" * 6 + b"new2" * 4
    bench.check()


def test_a_late_copy_does_not_begin_a_datagram_anew(bench: Bench) -> None:
    assert bench.add(piece(0, bytes(16))) is None
    bench.now += 2 * SECOND
    assert bench.add(piece(0, bytes(16))) is None
    assert bench.faults() == {"duplicate": 1}
    assert bench.add(piece(16, bytes(8), more=False)) is not None


def test_teardrop_and_contradicting_ends(bench: Bench) -> None:
    # The second lies inside the first (teardrop, 1997).
    assert bench.add(piece(0, bytes(40))) is None
    assert bench.add(piece(24, bytes(4), more=False)) is None
    assert bench.faults() == {"overlapping": 1, "contradicting": 1}
    assert bench.add(piece(40, bytes(8), more=False)) is not None
    # Two last fragments, and one beyond the last.
    bench.now += 2 * SECOND
    assert bench.add(piece(64, bytes(8), more=False)) is None
    assert bench.add(piece(72, bytes(8), more=False)) is None
    assert bench.add(piece(72, bytes(8))) is None
    assert bench.faults() == {"overlapping": 3, "contradicting": 3}
    assert bench.add(piece(0, bytes(64))) is not None
    bench.check()


def test_tiny_fragments(build: Build) -> None:
    """Ports in the second fragment (RFC 1858): nothing is decided before the datagram is whole."""
    octets = bytes(UDP(sport=5060, dport=5061, len=200)) + BODY[:192]
    for order in (1, -1):
        bench = Bench(build)
        starts = list(range(0, 200, 8))[::order]
        found = [bench.add(piece(start, octets[start : start + 8], start < 192)) for start in starts]
        assert found[:-1] == [None] * 24
        assert found[-1] is not None
        assert found[-1][20:] == octets
        assert (bench.verdict, bench.decoder.sport, bench.faults()) == (UDP_, 5060, {})
        bench.check()


def test_no_packet_is_longer_than_65535(bench: Bench) -> None:
    assert bench.add(piece(65_528, bytes(8), more=False)) is None
    assert bench.add(piece(65_512, bytes(8))) is None
    assert bench.faults() == {"oversize": 2}
    for offset in range(0, 65_504, 1504):
        assert bench.add(piece(offset, bytes(min(1504, 65_504 - offset)))) is None
    whole = bench.add(piece(65_504, bytes(11), more=False))
    assert whole is not None
    assert len(whole) == 65_535
    # The header of the first fragment counts too, also when it comes last.
    bench.now += 2 * SECOND
    long = IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", id=7, proto=17, options=[IPOption_Router_Alert()])
    for offset in range(1504, 65_504, 1504):
        assert bench.add(piece(offset, bytes(min(1504, 65_504 - offset)))) is None
    assert bench.add(piece(65_504, bytes(11), more=False)) is None
    assert bench.add(ETHER / long / Raw(bytes(1504))) is None
    assert bench.faults() == {"oversize": 2 + 45}
    assert bench.get("datagrams_incomplete") == 1
    bench.check()


def test_a_cut_fragment_is_of_no_use(bench: Bench) -> None:
    octets = bytes(piece(0, bytes(600)))
    assert bench.add(octets[:300], wire=len(octets)) is None
    assert bench.faults() == {"snapped": 1}
    # Cut behind its payload, in the padding: whole.
    padded = bytes(piece(0, bytes(16))) + bytes(4)
    assert bench.add(padded, wire=len(padded) + 20) is None
    assert bench.faults() == {"snapped": 1}
    assert bench.reassembly.datagrams == 1


def test_a_packet_in_fragments_of_fragments_is_malformed(bench: Bench) -> None:
    inner = bytes(IPv6ExtHdrFragment(m=1, id=6, nh=17)) + bytes(16)
    network = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2")
    assert bench.add(network / IPv6ExtHdrFragment(m=1, id=5, nh=44) / Raw(inner[:16])) is None
    assert bench.add(network / IPv6ExtHdrFragment(offset=2, id=5, nh=44) / Raw(inner[16:])) is not None
    assert bench.verdict == MALFORMED
    assert bench.get("malformed_ipv6") == 1


def test_an_atomic_fragment_is_a_whole_packet(bench: Bench) -> None:
    """RFC 6946: it is not mixed with fragments of the same identification."""
    network = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2")
    assert bench.add(network / IPv6ExtHdrFragment(m=1, id=5, nh=17) / Raw(bytes(16))) is None
    octets = bytes(network / IPv6ExtHdrFragment(id=5, nh=17) / UDP(sport=7, dport=8) / b"whole")
    bench.decoder.attach(memoryview(octets))
    assert bench.decoder.decode(0, len(octets), len(octets), 1, 0) == UDP_
    assert (bench.decoder.sport, bench.reassembly.datagrams) == (7, 1)


PIECES = st.lists(
    st.tuples(
        st.integers(0, 12),
        st.integers(0, 40),
        st.booleans(),
        st.integers(0, 2),
        st.binary(min_size=1, max_size=1),
        st.integers(0, 3 * SECOND),
    ),
    max_size=30,
)


@given(pieces=PIECES, version=st.sampled_from([4, 6]))
@settings(max_examples=150, deadline=None)
def test_any_fragments(pieces: list[tuple[Any, ...]], version: int) -> None:
    """No exception, both builds equal, the books of the table right."""
    limits = {"max_datagrams": 2, "max_bytes": 4096, "per_source_share": 1, "max_fragments": 6}
    benches = [Bench(build, **limits) for build in (COMPILED, PURE)]
    for offset, length, more, identification, octet, later in pieces:
        if version == 4:
            packet = piece(8 * offset, octet * length, more, identification)
        else:
            header = IPv6ExtHdrFragment(m=more, offset=offset, id=identification, nh=17)
            packet = ETHER / IPv6(src="::1", dst="::2") / header / Raw(octet * length)
        found = []
        for bench in benches:
            bench.now += later
            found.append(
                (bench.add(packet), bench.faults(), bench.get("reassembled"), octets_held(bench.reassembly))
            )
            bench.check()
        assert found[0] == found[1]


@given(
    cuts=st.lists(st.integers(1, 30), min_size=1, max_size=6, unique=True),
    extra=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=6),
    chance=st.randoms(use_true_random=False),
)
@settings(max_examples=100, deadline=None)
def test_equal_copies_never_change_the_packet(
    cuts: list[int], extra: list[tuple[int, int]], chance: Any
) -> None:
    """Fragments of one packet, overlapping in any way and in any order, give that packet."""
    octets = bytes(UDP(sport=5060, dport=5061, len=256)) + random.Random(1).randbytes(248)
    edges = [0, *sorted(cut * 8 for cut in cuts), 256]
    spans = [span for span in itertools.pairwise(edges) if span[0] < span[1]]
    spans += [(8 * start, min(256, 8 * (start + length))) for start, length in extra]
    chance.shuffle(spans)
    bench = Bench(COMPILED)
    found = [bench.add(piece(start, octets[start:end], end < 256)) for start, end in spans]
    whole = [packet for packet in found if packet is not None]
    assert whole
    assert {packet[20:] for packet in whole} == {octets}
    assert bench.get("reassembled") == len(whole)
