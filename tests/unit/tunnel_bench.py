"""A decoder that takes tunnels off, with its counters, and packets for it."""

from __future__ import annotations

import ipaddress
import struct
from array import array
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from engine.shm import counters, records
from tests.builds import PURE, Build
from tests.tunnel_packets import FORMS, INNER, OUTER, Form

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


def inner(version: int, transport: Packet | None = None) -> Packet:
    """The packet that is in the tunnels here."""
    return (IN4 if version == 4 else IN6) / (transport or UDP(**PORTS) / BODY)


def of(form: Form) -> Packet:
    """An inner packet that this form can carry."""
    return inner(form.versions[0])


SIMPLE = {name: form.wrap(of(form)) for name, form in FORMS.items()}
each_form = pytest.mark.parametrize("name", FORMS)


def domain(bench: Bench, frame: bytes) -> int:
    """The domain of a frame, which has an inner packet."""
    assert bench.decode(frame) == UDP_
    assert bench.decoder.depth
    found: int = bench.decoder.domain
    return found


def nest(names: list[str], packet: Packet) -> bytes:
    """`packet` in the innermost, the last of these tunnels."""
    link = Ether(src=INNER.src, dst=INNER.dst)
    for number, name in enumerate(reversed(names)):
        form = FORMS[name]
        frame = form.wrap(packet, OUTER if number == len(names) - 1 else link)
        packet = Ether(frame).payload if number < len(names) - 1 else Raw(frame)
        packet = Raw(bytes(packet)) if number == len(names) - 1 else packet
    return bytes(packet)
