"""Reassembly: whatever the order, the whole packet; whatever arrives, bounded and counted."""

from __future__ import annotations

import itertools
import random
import time
from array import array
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP, IPOption_Router_Alert, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, IPv6ExtHdrHopByHop, fragment6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw

from engine.shm import counters
from tests.builds import COMPILED, PURE, Build

MALFORMED, UDP_, FRAGMENT = 0, 1, 6
SECOND = 1_000_000_000
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BODY = random.Random(3).randbytes(3000)
PREFIX = "fragments_"


class Bench:
    """Decoder and reassembly as the pipeline joins them."""

    def __init__(self, build: Build, **limits: Any) -> None:
        self.words = memoryview(array("Q", bytes(8 * 1024)))
        self.decoder = build.module("engine.decode.classifier").Decoder(self.words)
        self.reassembly = build.module("engine.decode.fragments").Reassembly(self.words, **limits)
        self.now = 50 * SECOND

    def add(self, packet: Packet | bytes, wire: int | None = None, vlan: int = 0) -> bytes | None:
        """One frame; the whole packet without its link header when it completes one."""
        octets = bytes(packet)
        self.decoder.attach(memoryview(octets))
        verdict = self.decoder.decode(0, len(octets), wire or len(octets), 1, vlan)
        if verdict != FRAGMENT:
            return None
        whole: bytes | None = self.reassembly.add(self.decoder, self.now)
        if whole is None:
            return None
        self.decoder.attach(memoryview(whole))
        self.verdict = self.decoder.decode_network(self.reassembly.network, len(whole))
        self.link = whole[: self.reassembly.network]
        return whole[self.reassembly.network :]

    def all(self, packets: list[Packet]) -> bytes | None:
        """The result of the last of these; those before complete nothing."""
        *first, last = packets
        assert [self.add(packet) for packet in first] == [None] * len(first)
        return self.add(last)

    def get(self, name: str) -> int:
        """One counter."""
        return self.words[counters.index(name)]

    def faults(self) -> dict[str, int]:
        """The counters of fragments that are not 0."""
        every = {name: self.get(name) for name in counters.NAMES if name.startswith(PREFIX)}
        return {name.removeprefix(PREFIX): value for name, value in every.items() if value}

    def check(self) -> None:
        """What the table says of itself agrees with what is in it."""
        table = self.reassembly
        assert table.bytes == sum(datagram.cost for datagram in table.datagrams.values())
        assert table.bytes <= table.max_bytes
        assert len(table.datagrams) <= table.max_datagrams
        held = sorted(key for own in table.sources.values() for key in own)
        assert held == sorted(table.datagrams)
        assert all(0 < len(own) <= table.max_per_source for own in table.sources.values())
        for datagram in table.datagrams.values():
            assert datagram.fragments <= table.max_fragments
            assert datagram.have == sum(len(piece) for _, piece in datagram.pieces)


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


def piece(
    offset: int, octets: bytes, more: bool = True, identification: int = 7, src: str = "10.0.0.1"
) -> Packet:
    """One IPv4 fragment; `offset` in octets."""
    flags = "MF" if more else 0
    ip = IP(src=src, dst="10.0.0.2", id=identification, flags=flags, frag=offset // 8, proto=17)
    return ETHER / ip / Raw(octets)


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
        assert not bench.reassembly.datagrams
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
    assert len(bench.reassembly.datagrams) == 1
    # The tag that the kernel took off is the same VLAN.
    assert bench.add(tagged[0]) is None
    assert bench.add(piece(16, octets[16:], more=False), vlan=0x81000004) is not None


def test_overlaps_the_first_copy_wins(bench: Bench) -> None:
    octets = bytes(UDP(sport=5, dport=6, len=48)) + bytes(range(40))
    assert bench.add(piece(16, octets[16:32])) is None
    assert bench.add(piece(8, b"x" * 32)) is None
    assert bench.faults() == {"overlapping": 1}
    assert bench.add(piece(0, octets[:16])) is None
    assert bench.faults() == {"overlapping": 2}
    whole = bench.add(piece(32, octets[32:], more=False))
    assert whole is not None
    assert whole[20:] == octets[:8] + b"x" * 8 + octets[16:32] + b"x" * 8 + octets[40:]
    assert bench.faults() == {"overlapping": 3}
    bench.check()


def test_duplicates(bench: Bench) -> None:
    octets = bytes(UDP(len=24)) + bytes(16)
    for _ in range(3):
        assert bench.add(piece(0, octets[:16])) is None
    assert bench.faults() == {"duplicate": 2}
    assert bench.add(piece(16, octets[16:], more=False)) is not None


def test_teardrop_and_contradicting_ends(bench: Bench) -> None:
    # The second lies inside the first (teardrop, 1997).
    assert bench.add(piece(0, bytes(40))) is None
    assert bench.add(piece(24, bytes(4), more=False)) is None
    assert bench.faults() == {"overlapping": 1}
    assert bench.add(piece(40, bytes(8), more=False)) is not None
    # Two last fragments, and one beyond the last.
    assert bench.add(piece(64, bytes(8), more=False)) is None
    assert bench.add(piece(72, bytes(8), more=False)) is None
    assert bench.add(piece(72, bytes(8))) is None
    assert bench.faults() == {"overlapping": 3}
    assert bench.add(piece(0, bytes(64))) is not None
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
    long = IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", id=7, proto=17, options=[IPOption_Router_Alert()])
    for offset in range(1504, 65_504, 1504):
        assert bench.add(piece(offset, bytes(min(1504, 65_504 - offset)))) is None
    assert bench.add(piece(65_504, bytes(11), more=False)) is None
    assert bench.add(ETHER / long / Raw(bytes(1504))) is None
    assert bench.faults() == {"oversize": 3}
    assert not bench.reassembly.datagrams


def test_timeout_and_clock(build: Build) -> None:
    bench = Bench(build, timeout_ns=5 * SECOND)
    assert bench.add(piece(0, bytes(16))) is None
    bench.now += 5 * SECOND
    assert bench.reassembly.expire(bench.now) == 0
    bench.now += 1
    assert bench.add(piece(16, bytes(8), more=False)) is None
    assert bench.faults() == {"timed_out": 1}
    assert bench.reassembly.expire(bench.now + 6 * SECOND) == 1
    # One datagram from the far future does not keep what came behind it.
    bench.now = 1 << 62
    assert bench.add(piece(0, bytes(16), identification=1)) is None
    bench.now = 50 * SECOND
    assert bench.add(piece(0, bytes(16), identification=2)) is None
    assert bench.faults() == {"timed_out": 3}
    assert bench.reassembly.expire(bench.now + 6 * SECOND) == 1
    bench.check()
    assert bench.reassembly.bytes == 0


def test_the_oldest_goes_when_the_table_is_full(build: Build) -> None:
    bench = Bench(build, max_datagrams=4, per_source_share=1)
    for number in range(5):
        assert bench.add(piece(0, bytes(16), src=f"10.0.0.{number}")) is None
        bench.check()
    assert bench.faults() == {"evicted": 1}
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.1")) is not None
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.0")) is None


def test_octets_are_bounded(build: Build) -> None:
    bench = Bench(build, max_bytes=100_000, per_source_share=1)
    for number in range(200):
        assert bench.add(piece(0, bytes(8000), identification=number)) is None
        bench.check()
    assert len(bench.reassembly.datagrams) == 100_000 // (8000 + 1024 + 160)
    assert bench.faults() == {"evicted": 200 - len(bench.reassembly.datagrams)}


def test_one_source_has_its_share(build: Build) -> None:
    bench = Bench(build, max_datagrams=64)
    assert bench.add(piece(0, bytes(16), src="10.0.0.9")) is None
    for number in range(40):
        assert bench.add(piece(0, bytes(16), identification=number)) is None
        bench.check()
    assert bench.faults() == {"over_limit": 36}
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.9")) is not None


def test_fragments_of_one_datagram_are_bounded(build: Build) -> None:
    bench = Bench(build, max_fragments=8)
    for number in range(9):
        assert bench.add(piece(16 * number, bytes(8))) is None
        bench.check()
    assert bench.faults() == {"over_limit": 1}
    assert not bench.reassembly.datagrams


def test_a_cut_fragment_is_of_no_use(bench: Bench) -> None:
    octets = bytes(piece(0, bytes(600)))
    assert bench.add(octets[:300], wire=len(octets)) is None
    assert bench.faults() == {"snapped": 1}
    # Cut behind its payload, in the padding: whole.
    padded = bytes(piece(0, bytes(16))) + bytes(4)
    assert bench.add(padded, wire=len(padded) + 20) is None
    assert bench.faults() == {"snapped": 1}
    assert len(bench.reassembly.datagrams) == 1


def test_a_packet_in_fragments_of_fragments_is_malformed(bench: Bench) -> None:
    inner = bytes(IPv6ExtHdrFragment(m=1, id=6, nh=17)) + bytes(16)
    network = ETHER / IPv6(src="2001:db8::1", dst="2001:db8::2")
    assert bench.add(network / IPv6ExtHdrFragment(m=1, id=5, nh=44) / Raw(inner[:16])) is None
    assert bench.add(network / IPv6ExtHdrFragment(offset=2, id=5, nh=44) / Raw(inner[16:])) is not None
    assert bench.verdict == MALFORMED
    assert bench.get("malformed_ipv6") == 1


def test_a_flood_of_first_fragments(build: Build) -> None:
    """Real calls come through, the table stays bounded, a fragment costs the same at the end."""
    bench = Bench(build, max_datagrams=512)
    template = bytearray(bytes(piece(0, bytes(16))))
    invite = bytes(UDP(sport=5060, dport=5060, len=24)) + bytes(16)
    chance = random.Random(1)
    amount = 8_000 if build is COMPILED else 2_000
    costs, whole = [], 0
    for part in range(4):
        begun = time.process_time()
        for number in range(amount):
            template[26:30] = chance.randbytes(4)
            assert bench.add(bytes(template)) is None
            if number % 100 == 0:
                assert bench.add(piece(0, invite[:16], identification=number // 100, src="10.9.9.9")) is None
            if number % 100 == 50:
                last = piece(16, invite[16:], more=False, identification=number // 100, src="10.9.9.9")
                whole += bench.add(last) is not None
        costs.append(time.process_time() - begun)
        bench.check()
        assert len(bench.reassembly.datagrams) <= 512, part
    assert whole == 4 * amount // 100
    assert min(costs[2:]) < 3 * min(costs[:2])


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
    limits = {"max_datagrams": 2, "max_bytes": 2_800, "per_source_share": 1, "max_fragments": 6}
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
                (bench.add(packet), bench.faults(), bench.get("reassembled"), bench.reassembly.bytes)
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
