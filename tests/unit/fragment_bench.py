"""Decoder and reassembly as the pipeline joins them, and fragments for them."""

from __future__ import annotations

import random
from array import array
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from engine.shm import counters
from tests.builds import Build

MALFORMED, UDP_, FRAGMENT = 0, 1, 6
SECOND = 1_000_000_000
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BODY = random.Random(3).randbytes(3000)
PREFIX = "fragments_"
LOSSES = tuple(name.removeprefix(PREFIX) for name in counters.FRAGMENT_LOSSES)
SEED = bytes(range(16))


class Bench:
    """Decoder and reassembly as the pipeline joins them."""

    def __init__(self, build: Build, **limits: Any) -> None:
        self.words = memoryview(array("Q", bytes(8 * 1024)))
        self.decoder = build.module("engine.decode.classifier").Decoder(self.words)
        self.reassembly = build.module("engine.decode.fragments").Reassembly(
            self.words, **{"seed": SEED, **limits}
        )
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
        """The counters of fragments that are not 0, without the two of those that are well."""
        every = {name: self.get(name) for name in counters.NAMES if name.startswith(PREFIX)}
        found = {name.removeprefix(PREFIX): value for name, value in every.items() if value}
        return {name: value for name, value in found.items() if name not in ("held", "merged")}

    def check(self) -> None:
        """Each fragment is booked once, and what the table says of itself is true."""
        table = self.reassembly
        fates = ("merged", "held", "duplicate", *LOSSES)
        assert self.get("ip_fragments") == sum(self.get(PREFIX + name) for name in fates)
        pending, done = table.by_age.count
        assert table.datagrams == pending
        assert pending + done <= table.max_datagrams
        assert sum(table.by_source.count) == sum(table.by_network.count) == pending
        assert max(table.by_source.count) <= table.max_per_source
        assert max(table.by_network.count) <= table.max_per_network
        chunks = table.store.chunks - table.store.free
        assert octets_held(table) == 512 * chunks
        assert sum(table.by_source.weight) == sum(table.by_network.weight) == chunks
        assert max(table.by_source.weight) <= table.source_chunks
        assert max(table.by_network.weight) <= table.network_chunks
        assert pending <= self.get(PREFIX + "held") <= pending * table.max_fragments
        if not pending:
            assert self.get(PREFIX + "held") == chunks == 0


def octets_held(reassembly: Any) -> int:
    """Memory that incomplete datagrams occupy."""
    return int(512 * (reassembly.store.chunks - reassembly.store.free))


def piece(
    offset: int, octets: bytes, more: bool = True, identification: int = 7, src: str = "10.0.0.1"
) -> Packet:
    """One IPv4 fragment; `offset` in octets."""
    flags = "MF" if more else 0
    ip = IP(src=src, dst="10.0.0.2", id=identification, flags=flags, frag=offset // 8, proto=17)
    return ETHER / ip / Raw(octets)
