"""What parsers of others see of the packet in work."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from engine.packet import DecodedPacket, RawPacket, address_from_bytes
from engine.shm import records

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder
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
