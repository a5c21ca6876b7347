"""What plugins see of the packet in work: parsers of others the whole of it, processors its labels.

What such a parser makes of a packet goes into the send ring as JSON (engine.shm.records, PLUGIN).
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any

import orjson

from engine.packet import (
    PROTOCOL_NAMES,
    DecodedPacket,
    NetworkMeta,
    RawPacket,
    TunnelInfo,
    address_from_bytes,
)
from engine.pipeline.verdicts import DROP_BIT
from engine.plugin import RAISED, Envelope, Faults, started, stop_all
from engine.processors.chain import drop_bad_labels
from engine.shm import records
from engine.shm.counters import index

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from engine.decode.classifier import Decoder
    from engine.packet import OutputPacket
    from engine.parsers.sip import SipParser
    from engine.pipeline.writer import PacketFacts
    from engine.plugin import Parser

NOBODY = 0
HANDLED, FILTERED, OUTPUT = (index(name) for name in ("handled", "filtered", "output"))
"""What becomes of a packet that parsers of others were asked about: the counter where it ends."""


def load_parsers(specs: Iterable[Mapping[str, Any]]) -> list[Parser]:
    """Parsers of other packages, started, from {plugin, config}. UsageError names the one at fault."""
    return [started("parser", spec["plugin"], {}, spec.get("config") or {}) for spec in specs]


class ForeignParsers:
    """The parsers of other packages; the first that takes a packet has it."""

    def __init__(self, parsers: Sequence[Parser], sending: bool, chain: Any = None) -> None:
        """`sending`: what they make is reported, if the `chain` of processors lets it pass."""
        numbers = {name: number for number, name in PROTOCOL_NAMES.items()}
        self.parsers = [
            (parser, frozenset(parser.ports), numbers.get(parser.transport, 0)) for parser in parsers
        ]
        self.sending = sending
        self.chain = chain
        self.faults = Faults()
        self.refused = 0
        self.octets = b""
        self.code = 0
        """The processors' verdict of the last packet that was made (engine.pipeline.verdicts)."""

    def take_refused(self) -> int:
        """Labels that had to be left out since the last call."""
        refused, self.refused = self.refused, 0
        return refused

    def ask(self, decoder: Decoder, facts: PacketFacts) -> int:
        """Offer the packet in work: NOBODY, or where it ends; with OUTPUT `octets` is the JSON."""
        ends = (decoder.sport, decoder.dport)
        packet = None
        self.code = 0
        for parser, ports, protocol in self.parsers:
            if ports and (decoder.protocol != protocol or ports.isdisjoint(ends)):
                continue
            try:
                packet = packet or decoded_packet(decoder, facts)
                if parser.can_handle(packet):
                    made = parser.handle(packet)
                    if made is None or not self.sending:
                        return HANDLED
                    return self.report(made, parser, packet)
            except RAISED:
                self.faults.note(parser)
                self.code = 0
        return NOBODY

    def report(self, made: OutputPacket, parser: Parser, packet: DecodedPacket) -> int:
        """OUTPUT or, where the processors drop it, FILTERED."""
        labels = {key: str(value) for key, value in made.labels.items()}
        self.refused += drop_bad_labels(labels)
        protocol = str(made.protocol or parser.protocol)
        payload = None if made.payload is None else made.payload.as_dict()
        if self.chain is not None:
            envelope = Envelope(packet.raw.timestamp_ns, protocol, packet.five_tuple, network_of(packet))
            passes = self.chain.verdict(dict(labels), envelope)
            self.code = 1 + self.chain.reason + (0 if passes else DROP_BIT)
            if not passes:
                return FILTERED
        if payload is not None and not isinstance(payload, dict):
            raise TypeError(f"a payload of {type(payload).__name__}")
        document = {"protocol": protocol, "labels": labels, "payload": payload}
        # Numbers beyond 64 bits and text that is no UTF-8 are refused here: no reporter could write them.
        orjson.dumps(document)
        self.octets = json.dumps(document, allow_nan=False, separators=(",", ":")).encode()
        return OUTPUT

    def stop(self) -> None:
        """Behind the last packet."""
        stop_all(parser for parser, _, _ in self.parsers)


def decoded_packet(decoder: Decoder, facts: PacketFacts) -> DecodedPacket:
    """The packet in work as plugins see it; its octets are copies."""
    frame = decoder.octets(decoder.frame, decoder.frame_end)
    macs = decoder.octets(decoder.mac, decoder.mac + 12) if decoder.flags & records.P_ETHERNET else b""
    vlans = (decoder.outer_vlan, decoder.inner_vlan)[: decoder.vlan_count]
    return DecodedPacket(
        RawPacket(
            frame, facts.timestamp, facts.captured, facts.wire_length, facts.interface, decoder.link_type
        ),
        macs[6:].hex(":"),
        macs[:6].hex(":"),
        vlans,
        decoder.ether_type,
        tunnel_of(decoder) if decoder.tunnel_type else None,
        address_from_bytes(struct.pack("<QQ", decoder.src0, decoder.src1)),
        address_from_bytes(struct.pack("<QQ", decoder.dst0, decoder.dst1)),
        decoder.protocol,
        decoder.ttl,
        bool(decoder.flags & records.P_REASSEMBLED),
        decoder.sport,
        decoder.dport,
        decoder.tcp_flags,
        decoder.octets(decoder.payload, decoder.payload_end),
    )


def tunnel_of(decoder: Decoder) -> TunnelInfo:
    """The innermost tunnel of the packet in work."""
    return TunnelInfo(
        records.TUNNELS[decoder.tunnel_type],
        address_from_bytes(struct.pack("<QQ", decoder.outer_src0, decoder.outer_src1)),
        address_from_bytes(struct.pack("<QQ", decoder.outer_dst0, decoder.outer_dst1)),
        decoder.vni,
    )


def network_of(packet: DecodedPacket) -> NetworkMeta:
    """The packet's context as processors may read it."""
    return NetworkMeta(
        packet.src_ip,
        packet.dst_ip,
        packet.src_port,
        packet.dst_port,
        packet.src_mac,
        packet.dst_mac,
        tuple(packet.vlans),
        packet.raw.interface,
        packet.tunnel,
        packet.fragmented,
    )


def envelope_of(protocol: str, decoder: Decoder, facts: PacketFacts) -> Envelope:
    """The packet in work as a processor may read it; costs some microseconds."""
    packet = decoded_packet(decoder, facts)
    return Envelope(facts.timestamp, protocol, packet.five_tuple, network_of(packet))


def sip_labels(sip: SipParser, decoder: Decoder, reads: frozenset[str] | None = None) -> dict[str, str]:
    """The labels of the message that `sip` parsed last, as in engine.reporters.output.sip_labels().

    `reads`: only those.
    """
    if reads is not None:
        return {key: text for key in reads if (text := _label(sip, decoder, key)) is not None}
    method = records.METHODS[sip.method]
    labels = {
        "sip.method": method or _text(sip, decoder, "cseq_method" if sip.status else "method"),
        "sip.call-id": _text(sip, decoder, "call_id"),
        "sip.from": _text(sip, decoder, "from_uri") or _text(sip, decoder, "from"),
        "sip.to": _text(sip, decoder, "to_uri") or _text(sip, decoder, "to"),
    }
    if sip.status:
        labels["sip.status-code"] = str(sip.status)
    return labels


def _label(sip: SipParser, decoder: Decoder, key: str) -> str | None:
    """One label of sip_labels(); None where a message has none of this name."""
    if key == "sip.method":
        method = records.METHODS[sip.method]
        return method or _text(sip, decoder, "cseq_method" if sip.status else "method")
    if key == "sip.status-code":
        return str(sip.status) if sip.status else None
    if key == "sip.call-id":
        return _text(sip, decoder, "call_id")
    if key in ("sip.from", "sip.to"):
        name = key[4:]
        return _text(sip, decoder, f"{name}_uri") or _text(sip, decoder, name)
    return None


def _text(sip: SipParser, decoder: Decoder, name: str) -> str:
    """A slot of the message as text on one line, empty where absent."""
    first = 2 * records.SLOTS.index(name)
    start, end = sip.slots[first], sip.slots[first + 1]
    if start < 0:
        return ""
    octets = decoder.octets(sip.start + start, sip.start + end)
    return " ".join(octets.decode("utf-8", "replace").split())
