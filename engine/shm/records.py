"""What stands in a ring record, by kind; the compiled writers and the cold readers agree here.

Every body begins with the packet header, 128 octets, little-endian, addresses in network order:

      0 source address, 16       16 destination address, 16 (IPv4 as ::ffff:a.b.c.d)
     32 u16 source port          34 u16 destination port     36 u8 IP protocol   37 u8 flags (P_*)
     38 u8 VLAN tags             39 u8 tunnel type (TUNNELS) 40 u16 outer VLAN   42 u16 inner VLAN
     44 u32 VNI or key           48 source MAC, 6            54 destination MAC, 6
     60 u32 interface index      64 u32 octets captured      68 u32 octets on the wire
     72 u8 TOS octet             73 u8 TTL                   74 u16 link type
     76 u32 zero
     80 outer source, 16         96 outer destination, 16   112 u64 frame number (from 1; 0 live)
    120 u32 flow slot           124 u32 flow generation (NO_SLOT, 0: no flow)

SIP: u16 status (0: request), u16 error (engine.parsers.sip.ERRORS), u16 headers, u8 method
(METHODS), u8 flags (S_*); u32 CSeq number, u32 octets of the message; 32 slots (SLOTS) of two i32, start
and end relative to the message, -1 where absent; the message.

RTP: u32 SSRC, u32 timestamp, u16 sequence, u8 payload type, u8 marker, u32 payload octets, u32
stream slot, u32 stream generation, u8 found by (FOUND_BY), u8 flags (R_*), u16 words of figures,
4 octets zero; the entry of the stream (engine.shm.streams), so many words, where its figures are
reported; the frame, where the task asks for it.

RTCP: the compound packet. RAW: the frame. ICMP: the ICMP message as captured. PLUGIN: what a parser of
another package made of the packet, as JSON {protocol, labels, payload}.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from engine.packet import FiveTuple, NetworkMeta

SIP, RTP, RTCP, RAW, ICMP, PLUGIN = 1, 2, 3, 4, 5, 6
KINDS = {SIP: "sip", RTP: "rtp", RTCP: "rtcp", RAW: "raw", ICMP: "icmp", PLUGIN: "plugin"}

PACKET = struct.Struct("<16s16sHHBBBBHHI6s6sIIIBBH4x16s16sQII")
PACKET_SIZE = 128
P_REASSEMBLED, P_SNAPPED, P_ETHERNET, P_DUPLICATE = 1, 2, 4, 8
"""Put together from fragments; cut by the snap length; with MAC addresses; a copy of a message that came on
another interface within 1 ms. A copy comes behind its packet, whose record nobody can change then: the
evidence ring has a SIP copy as a record of its own, by which the calls process marks the message; no other
record has the flag, and the send ring has no copies."""
TUNNELS = ("", "vxlan", "gre", "erspan", "geneve", "ipip", "gtp-u", "nvgre", "ppp-gre")
NO_SLOT = 0xFFFFFFFF


def domain_tunnel(domain: int) -> str | None:
    """The tunnel in a flow's domain (engine.decode.classifier): `vxlan 77`; no number of several mixed."""
    kind = domain >> 28 & 15
    if not kind:
        return None
    name = TUNNELS[kind] if kind < len(TUNNELS) else str(kind)
    return f"{name} {domain >> 32}" if domain >> 32 and not domain >> 24 & 1 else name


SIP_FIXED = struct.Struct("<HHHBBII")
SIP_SLOTS = 32
SIP_MESSAGE = PACKET_SIZE + SIP_FIXED.size + 8 * SIP_SLOTS
"""Where the message begins in a SIP body: 400."""
S_SDP, S_TRUNCATED, S_COMPACT = 1, 2, 4
"""Has a body of type application/sdp; Content-Length says there was more; uses compact header names."""

METHODS = (
    "", "INVITE", "ACK", "BYE", "CANCEL", "OPTIONS", "REGISTER", "PRACK", "SUBSCRIBE", "NOTIFY",
    "PUBLISH", "INFO", "REFER", "MESSAGE", "UPDATE",
)  # fmt: skip
"""Method by number; 0 is any other method, whose name stands in the METHOD slot (responses: CSEQ_METHOD)."""

SLOTS = (
    "method", "uri", "status", "reason_phrase", "call_id", "from", "from_uri", "from_tag",
    "to", "to_uri", "to_tag", "cseq_method", "via", "via_branch", "contact", "content_type",
    "content_length", "user_agent", "reason", "expires", "event", "subscription_state", "x_call_id",
    "replaces", "session_id", "p_charging_vector", "warning", "retry_after", "diversion", "rack", "body",
    "content_encoding",
)  # fmt: skip
"""Names of the 32 slots; the value without surrounding white space. `from` and `to` are the whole header
value, `via` the topmost one, `user_agent` User-Agent or Server, `x_call_id` X-Call-ID or X-CID, `body` all
behind the empty line, within Content-Length."""

RTP_FIXED = struct.Struct("<IIHBBIIIBBH4x")
RTP_FRAME = PACKET_SIZE + RTP_FIXED.size
R_LAST = 1
"""The stream has been silent since: no octets of the packet are at hand; timestamp, marker, length are 0."""
FOUND_BY = ("", "sdp", "heuristic")


class PacketHeader(NamedTuple):
    """The packet header of a record, unpacked."""

    src: bytes
    dst: bytes
    sport: int
    dport: int
    protocol: int
    flags: int
    vlan_count: int
    tunnel_type: int
    outer_vlan: int
    inner_vlan: int
    vni: int
    src_mac: bytes
    dst_mac: bytes
    interface: int
    captured: int
    wire: int
    tos: int
    ttl: int
    link_type: int
    outer_src: bytes
    outer_dst: bytes
    frame: int
    flow_slot: int
    flow_generation: int

    def flow_id(self) -> FiveTuple:
        """Addresses and ports in the packet's direction."""
        from engine.packet import FiveTuple, address_from_bytes

        return FiveTuple(
            address_from_bytes(self.src), address_from_bytes(self.dst), self.sport, self.dport, self.protocol
        )

    def network(self) -> NetworkMeta:
        """The same facts as OutputPacket.network."""
        from engine.packet import NetworkMeta, TunnelInfo, address_from_bytes

        ethernet = self.flags & P_ETHERNET
        tunnel = None
        if self.tunnel_type:
            tunnel = TunnelInfo(
                TUNNELS[self.tunnel_type] if self.tunnel_type < len(TUNNELS) else str(self.tunnel_type),
                address_from_bytes(self.outer_src),
                address_from_bytes(self.outer_dst),
                self.vni,
            )
        return NetworkMeta(
            src_ip=address_from_bytes(self.src),
            dst_ip=address_from_bytes(self.dst),
            src_port=self.sport,
            dst_port=self.dport,
            src_mac=self.src_mac.hex(":") if ethernet else "",
            dst_mac=self.dst_mac.hex(":") if ethernet else "",
            vlans=(self.outer_vlan, self.inner_vlan)[: self.vlan_count],
            interface=self.interface,
            tunnel=tunnel,
            fragmented=bool(self.flags & P_REASSEMBLED),
        )


def packet_header(body: bytes | bytearray | memoryview) -> PacketHeader:
    """The header at the front of a record's body; ValueError when the body is shorter."""
    if len(body) < PACKET_SIZE:
        raise ValueError(f"a record of {len(body)} octets has no packet header")
    return PacketHeader._make(PACKET.unpack_from(body))


class SipRecord(NamedTuple):
    """A SIP record, unpacked: `slots` are (start, end) into `message`."""

    header: PacketHeader
    status: int
    error: int
    headers: int
    method: int
    flags: int
    cseq: int
    slots: tuple[int, ...]
    message: bytes

    def slot(self, name: str) -> bytes | None:
        """The octets of one slot, folded lines and all; None where the message has none."""
        position = 2 * SLOTS.index(name)
        start, end = self.slots[position : position + 2]
        return None if start < 0 else self.message[start:end]

    def text(self, name: str) -> str:
        """The slot as text on one line (RFC 3261 section 7.3.1), empty where absent."""
        value = self.slot(name)
        return "" if value is None else " ".join(value.decode("utf-8", "replace").split())

    def method_name(self) -> str:
        """The method, of a response the one in its CSeq."""
        return METHODS[self.method] or self.text("cseq_method" if self.status else "method")


_SLOTS = struct.Struct(f"<{2 * SIP_SLOTS}i")


def sip_record(body: bytes | bytearray | memoryview) -> SipRecord:
    """Unpack a SIP record; ValueError if it is cut."""
    header = packet_header(body)
    if len(body) < SIP_MESSAGE:
        raise ValueError(f"a SIP record of {len(body)} octets is cut")
    status, error, headers, method, flags, cseq, length = SIP_FIXED.unpack_from(body, PACKET_SIZE)
    slots = _SLOTS.unpack_from(body, PACKET_SIZE + SIP_FIXED.size)
    message = bytes(body[SIP_MESSAGE : SIP_MESSAGE + length])
    return SipRecord(header, status, error, headers, method, flags, cseq, slots, message)


class RtpRecord(NamedTuple):
    """An RTP record, unpacked."""

    header: PacketHeader
    ssrc: int
    timestamp: int
    sequence: int
    payload_type: int
    marker: int
    payload_length: int
    stream_slot: int
    stream_generation: int
    found_by: int
    flags: int
    figures: bytes
    """The stream's entry (engine.shm.rows.stream_row); empty where every packet is reported."""
    frame: bytes


def rtp_record(body: bytes | bytearray | memoryview) -> RtpRecord:
    """Unpack an RTP record; ValueError if it is cut."""
    header = packet_header(body)
    if len(body) < RTP_FRAME:
        raise ValueError(f"an RTP record of {len(body)} octets is cut")
    *fixed, words = RTP_FIXED.unpack_from(body, PACKET_SIZE)
    frame = RTP_FRAME + 8 * words
    if len(body) < frame:
        raise ValueError(f"an RTP record of {len(body)} octets lacks the figures of its stream")
    return RtpRecord._make((header, *fixed, bytes(body[RTP_FRAME:frame]), bytes(body[frame:])))
