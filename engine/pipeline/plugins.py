"""What plugins see of the packet in work: parsers of others the whole of it, processors its labels."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from engine.packet import DecodedPacket, RawPacket, address_from_bytes
from engine.shm import records

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder
    from engine.parsers.sip import SipParser
    from engine.pipeline.writer import PacketFacts


def decoded_packet(decoder: Decoder, facts: PacketFacts) -> DecodedPacket:
    """The packet in work as plugins see it; its octets are copies."""
    frame = decoder.octets(decoder.frame, decoder.frame_end)
    ethernet = decoder.flags & records.P_ETHERNET and len(frame) >= 12
    vlans = (decoder.outer_vlan, decoder.inner_vlan)[: decoder.vlan_count]
    return DecodedPacket(
        RawPacket(
            frame, facts.timestamp, facts.captured, facts.wire_length, facts.interface, decoder.link_type
        ),
        frame[6:12].hex(":") if ethernet else "",
        frame[:6].hex(":") if ethernet else "",
        vlans,
        decoder.ether_type,
        None,
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


def sip_labels(sip: SipParser, decoder: Decoder) -> dict[str, str]:
    """The labels of the message that `sip` parsed last, as in engine.reporters.output.sip_labels()."""
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


def _text(sip: SipParser, decoder: Decoder, name: str) -> str:
    """A slot of the message as text on one line, empty where absent."""
    first = 2 * records.SLOTS.index(name)
    start, end = sip.slots[first], sip.slots[first + 1]
    if start < 0:
        return ""
    octets = decoder.octets(sip.start + start, sip.start + end)
    return " ".join(octets.decode("utf-8", "replace").split())
