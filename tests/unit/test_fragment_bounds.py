"""Reassembly is bounded: in time, in datagrams, in octets, by source and network; each loss is counted."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from scapy.layers.inet import UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Raw

from engine.shm import counters
from tests.builds import COMPILED, Build
from tests.pace import unit
from tests.unit.fragment_bench import ETHER, SECOND, SEED, Bench, octets_held, piece


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


def test_timeout_and_clock(build: Build) -> None:
    bench = Bench(build, timeout_ns=5 * SECOND)
    assert bench.add(piece(0, bytes(16))) is None
    assert bench.add(piece(24, bytes(16))) is None
    bench.now += 5 * SECOND
    assert bench.reassembly.expire(bench.now) == 0
    bench.now += 1
    assert bench.add(piece(16, bytes(8), more=False)) is None
    # A hole: both fragments of one datagram are lost.
    assert (bench.faults(), bench.get("datagrams_incomplete")) == ({"timed_out": 2}, 1)
    bench.check()
    assert bench.reassembly.expire(bench.now + 6 * SECOND) == 1
    # One datagram from the far future does not keep what came behind it.
    bench.now = 1 << 62
    assert bench.add(piece(0, bytes(16), identification=1)) is None
    bench.now = 50 * SECOND
    assert bench.add(piece(0, bytes(16), identification=2)) is None
    assert bench.faults() == {"timed_out": 4}
    assert bench.reassembly.expire(bench.now + 6 * SECOND) == 1
    bench.check()
    assert octets_held(bench.reassembly) == 0


def test_the_end_of_the_capture(bench: Bench) -> None:
    assert bench.add(piece(0, bytes(16))) is None
    assert bench.add(piece(0, bytes(16), identification=8)) is None
    assert bench.add(piece(24, bytes(16), identification=8)) is None
    assert bench.get("fragments_held") == 3
    assert bench.reassembly.finish() == 2
    assert (bench.faults(), bench.get("fragments_held")) == ({"unfinished": 3}, 0)
    bench.check()


def test_the_oldest_goes_when_the_table_is_full(build: Build) -> None:
    bench = Bench(build, max_datagrams=4, per_source_share=1, per_network_share=1)
    for number in range(5):
        assert bench.add(piece(0, bytes(16), src=f"10.0.0.{number}")) is None
        bench.check()
    assert bench.faults() == {"evicted": 1}
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.1")) is not None
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.0")) is None
    # One that is only remembered goes first.
    assert bench.faults() == {"evicted": 1}
    bench.check()


def test_octets_are_bounded(build: Build) -> None:
    bench = Bench(build, max_bytes=1 << 18, per_source_share=1, per_network_share=1)
    for number in range(200):
        assert bench.add(piece(0, bytes(8000), identification=number)) is None
        bench.check()
        assert octets_held(bench.reassembly) <= 1 << 18
    # 16 chunks each, and room for two more where the next one might begin.
    assert bench.reassembly.datagrams == (512 - 2) // 16
    assert bench.faults() == {"evicted": 200 - bench.reassembly.datagrams}


def test_a_datagram_that_cannot_fit_goes_itself(build: Build) -> None:
    bench = Bench(build, max_bytes=4096, per_source_share=1, per_network_share=1)
    for offset in range(0, 8000, 1000):
        assert bench.add(piece(offset, bytes(1000))) is None
        bench.check()
    assert set(bench.faults()) == {"evicted"}
    assert bench.add(piece(0, bytes(5000))) is None
    bench.check()


def test_one_source_has_its_share(build: Build) -> None:
    bench = Bench(build, max_datagrams=64)
    assert bench.add(piece(0, bytes(16), src="10.0.0.9")) is None
    for number in range(40):
        assert bench.add(piece(0, bytes(16), identification=number)) is None
        bench.check()
    assert bench.faults() == {"over_limit": 36}
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.9")) is not None


def test_one_network_has_its_share(build: Build) -> None:
    bench = Bench(build, max_datagrams=64)
    assert bench.add(piece(0, bytes(16), src="10.9.0.9")) is None
    for number in range(200):
        assert bench.add(piece(0, bytes(16), src=f"10.0.{number}.1")) is None
    bench.check()
    assert bench.faults() == {"over_limit": 200 - 32}
    assert bench.add(piece(16, bytes(8), more=False, src="10.9.0.9")) is not None


@pytest.mark.parametrize(("prefix", "share"), [("2001:db8:0:1::", 4), ("2001:db8:{}::", 32)])
def test_networks_of_ipv6_have_their_share(build: Build, prefix: str, share: int) -> None:
    """A /64 counts as one source, a /32 as one network: addresses below cost a sender nothing."""
    bench = Bench(build, max_datagrams=64)
    for number in range(100):
        packet = IPv6(src=prefix.format(number) + f"{number:x}", dst="2001:db9::2")
        assert bench.add(ETHER / packet / IPv6ExtHdrFragment(m=1, id=5, nh=17) / Raw(bytes(16))) is None
    assert bench.faults() == {"over_limit": 100 - share}
    bench.check()


def test_octets_of_one_network_have_their_share(build: Build) -> None:
    bench = Bench(build, max_bytes=1 << 20)
    assert bench.add(piece(0, bytes(8000), src="10.9.0.9")) is None
    for number in range(250):
        assert bench.add(piece(0, bytes(8000), src=f"10.0.{number}.1")) is None
        bench.check()
    assert set(bench.faults()) == {"over_limit"}
    assert bench.add(piece(8000, bytes(8), more=False, src="10.9.0.9")) is not None


def test_octets_of_one_source_have_their_share(build: Build) -> None:
    bench = Bench(build, max_bytes=4 << 20, max_datagrams=1000)
    assert bench.add(piece(0, bytes(16), src="10.0.0.9")) is None
    for number in range(20):
        for offset in range(0, 48_000, 24_000):
            assert bench.add(piece(offset, bytes(24_000), identification=number)) is None
            bench.check()
    assert octets_held(bench.reassembly) < 1 << 18
    assert bench.add(piece(16, bytes(8), more=False, src="10.0.0.9")) is not None
    assert set(bench.faults()) == {"over_limit"}


def test_fragments_of_one_datagram_are_bounded(build: Build) -> None:
    bench = Bench(build, max_fragments=8)
    for number in range(9):
        assert bench.add(piece(16 * number, bytes(8))) is None
        bench.check()
    assert bench.faults() == {"over_limit": 9}
    assert bench.reassembly.datagrams == 0


def test_the_counters_of_a_killed_worker(bench: Bench) -> None:
    """Its successor knows what it held: those fragments are lost, and booked."""
    assert bench.add(piece(0, bytes(16))) is None
    assert bench.add(piece(24, bytes(16))) is None
    words = counters.Counters.create("test", 0)
    for name in counters.NAMES:
        words.add(name, bench.get(name))
    words.add("received", 2)
    words.add("fragments", 2)
    assert words.recover() == 0
    assert (words.get("fragments_unfinished"), words.get("fragments_held")) == (2, 0)
    assert counters.drops(words.as_dict())["fragments_unfinished"] == 2
    assert counters.drops(words.as_dict())["fragments"] == 0


def test_chosen_keys_do_not_collide(build: Build) -> None:
    """Identifications that meet in one place under one seed are spread under another."""
    sip_hash = build.module("engine.shm.siphash").SipHash
    known, other = sip_hash(SEED), sip_hash(SEED[::-1])
    chosen = [n for n in range(30_000) if known.hash(1, 2, 3, 4, n, 5) & 1023 == 7]
    assert len(chosen) > 15
    assert len({other.hash(1, 2, 3, 4, n, 5) & 1023 for n in chosen}) > len(chosen) // 2
    # Without a seed that was given, no two are the same.
    assert sip_hash().hash(1, 2, 3, 4, 5, 6) != sip_hash().hash(1, 2, 3, 4, 5, 6)


FLOODS = {"random": 0, "one source": 0xFFFFFFFF, "one /16": 0xFFFF0000}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_of_first_fragments(build: Build, kind: str) -> None:
    """Calls come through, the table stays bounded, memory is flat, a fragment costs the same at the end."""
    bench = Bench(build)
    template = bytearray(bytes(piece(0, bytes(16))))
    invite = bytes(UDP(sport=5060, dport=5060, len=24)) + bytes(16)
    ours = [
        (
            bytes(piece(0, invite[:16], True, n, "10.9.9.9")),
            bytes(piece(16, invite[16:], False, n, "10.9.9.9")),
        )
        for n in range(100)
    ]
    chance = random.Random(1)
    amount, gap = (100_000, 3000) if build is COMPILED else (6_000, 100)
    step = amount // 100
    waiting: dict[int, bytes] = {}
    costs, whole = [], 0
    for number in range(amount):
        if number % (amount // 4) == 0:
            costs.append((time.process_time(), unit()))
        src = chance.getrandbits(32) & ~FLOODS[kind] | 0xC0A80101 & FLOODS[kind]
        template[26:30] = src.to_bytes(4, "big")
        template[18:20] = (number & 0xFFFF).to_bytes(2, "big")
        assert bench.add(bytes(template)) is None
        if number % step == 0:
            first, second = ours[number // step]
            assert bench.add(first) is None
            waiting[number + chance.randrange(1, gap)] = second
        if number in waiting:
            whole += bench.add(waiting.pop(number)) is not None
    costs.append((time.process_time(), unit()))
    whole += sum(bench.add(second) is not None for second in waiting.values())
    assert whole >= 99
    bench.check()
    assert bench.reassembly.datagrams <= 10_000
    assert octets_held(bench.reassembly) <= 16 << 20
    # In units of what the machine did just before and just after.
    parts = [
        (after - before) / max(slow, slower) for (before, slow), (after, slower) in itertools.pairwise(costs)
    ]
    assert min(parts[2:]) < 4 * max(parts[:2])
