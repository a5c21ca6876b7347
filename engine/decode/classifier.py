"""Where a packet's headers are: link layer, VLAN tags, IPv4, IPv6, UDP, TCP and ICMP, in one pass.

Nothing is copied and nothing is allocated: the result of `Decoder.decode()` is a verdict and the
fields of the decoder, which are offsets into the attached buffer. Whatever the octets are, a verdict comes
out; every length is checked against the capture and against the layer around it. Tunnels that are switched
on are taken off: the fields are those of the innermost packet.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from engine.decode import link, tunnels
from engine.decode.tunnels import Tunnels
from engine.shm import records
from engine.shm.counters import FIRST_LATENCY, index

if TYPE_CHECKING:
    from collections.abc import Iterable

MALFORMED, UDP, TCP, ICMP = link.MALFORMED, link.UDP, link.TCP, link.ICMP
OTHER, NON_IP, FRAGMENT, UNKNOWN_LINK = link.OTHER, link.NON_IP, link.FRAGMENT, link.UNKNOWN_LINK
"""Verdicts. OTHER: IP without a transport that is looked into, or cut by the snap length before its ports."""

# The same, as compiled constants: those are not visible from Python.
V_MALFORMED, V_UDP, V_TCP, V_ICMP = MALFORMED, UDP, TCP, ICMP
V_OTHER, V_FRAGMENT = OTHER, FRAGMENT
V_TUNNEL, V_TOO_DEEP = 8, 9
"""Only within: an inner packet is to be looked at; there are too many of them."""

SNAPPED, ETHERNET, REASSEMBLED = records.P_SNAPPED, records.P_ETHERNET, records.P_REASSEMBLED
MAPPED = 0xFFFF0000
"""Octets 8 to 11 of ::ffff:a.b.c.d as a little-endian word."""

C_SNAPPED, C_GRO, C_VLAN_TAGGED = index("snapped"), index("gro"), index("vlan_tagged")
C_IPV4, C_IPV6, C_UDP = index("ipv4"), index("ipv6"), index("udp")
C_TCP, C_ICMP, C_OTHER_TRANSPORT = index("tcp"), index("icmp"), index("other_transport")
C_MALFORMED_LINK = index("malformed_link")
C_MALFORMED_IPV4, C_MALFORMED_IPV6 = index("malformed_ipv4"), index("malformed_ipv6")
C_MALFORMED_UDP, C_MALFORMED_TCP, C_IP_FRAGMENTS = map(
    index, ("malformed_udp", "malformed_tcp", "ip_fragments")
)
C_TUNNEL_DEPTH = index("tunnel_depth_exceeded")

LARGEST_FRAME = 9216
"""Octets of IP that a jumbo frame carries; a longer packet was merged by GRO or not yet cut by TSO."""
MOST_EXTENSIONS = 8
MOST_TUNNELS = 8
ALL_TUNNELS, VXLAN_PORTS = tunnels.ALL, tunnels.VXLAN_PORTS
TEB = 0x6558
"""Transparent Ethernet bridging: a whole frame is in the tunnel."""


class Decoder(Tunnels):
    """Finds the headers of one packet at a time; `counters_words` is where its FACTS are counted.

    Fields after decode(): `frame`..`frame_end` the octets captured; `network`, `transport` where
    those headers begin; `payload`..`payload_end` what the transport carries (of ICMP: the whole message),
    without Ethernet padding; `clipped`: the snap length cut it. `flags` are records.P_*. `vlan_count`
    tags: `outer_vlan` the first, `inner_vlan` the last of several. MAC addresses stand at `mac` where
    P_ETHERNET is set; they and the tags are those of the innermost frame.

    `depth` tunnels were taken off. Of the innermost: `tunnel_type` (number in records.TUNNELS), `vni`, and
    `outer_*`, the addresses around it.

    `domain` keeps tenants with the same addresses apart (part of the flow key): bits 0-11 VLAN id of
    the inner tag, 12-23 of the outer or only one, 28-31 tunnel type, 32-63 VNI or key, of several tunnels
    mixed, and then bit 24 is set. Identifiers that differ by direction are not in it (ADR 6). A priority tag
    (id 0) is domain 0, as if untagged.

    Valid after FRAGMENT: `fragment_id`, `fragment_offset` (octets), `fragment_more`,
    `fragment_start`..`fragment_end` (the octets it carries); ports and payload are not.
    """

    def __init__(
        self, counters_words: memoryview, tunnels: int = 0, vxlan_ports: Iterable[int] = VXLAN_PORTS
    ) -> None:
        """`counters_words`: Counters.words; `tunnels`: a bit for each tunnel type to take off."""
        super().__init__(counters_words, tunnels, vxlan_ports)
        self.frame = self.frame_end = self.network = self.transport = self.payload = self.payload_end = 0
        self.fragment_id = self.fragment_offset = self.fragment_start = self.fragment_end = 0
        self.fragment_more = False

    def twin(self) -> Decoder:
        """Another decoder that takes the same tunnels off, with counters of its own."""
        other = Decoder(memoryview(array("Q", bytes(8 * FIRST_LATENCY))), self.tunnels)
        other.ports = self.ports
        return other

    def decode(self, start: int, end: int, wire_length: int, link_type: int, vlan: int) -> int:
        """One frame, octets start..end; returns a verdict.

        `wire_length`: octets it had on the wire; `link_type`: LINKTYPE_ number; `vlan`: the outer tag that
        the kernel took off, TPID << 16 | TCI, or 0.
        """
        self.link_type = link_type
        self.flags = 0
        self.vlan_count = 0
        self.outer_vlan = 0
        self.inner_vlan = 0
        self.domain = 0
        self.ether_type = 0
        self.mac = start
        self.repeated = False
        if self.depth:
            self.leave()
        if self.begin(start, end):
            return self.malformed(C_MALFORMED_LINK)
        if end - start < wire_length:
            self.flags = SNAPPED
            self.clipped = True
            self.counters[C_SNAPPED] += 1
        if vlan:
            self.tag(vlan)
        if link_type == 1:
            if end - start < 14:
                return self.too_short(C_MALFORMED_LINK)
            self.flags |= ETHERNET
            self.ether_type = self.buf[start + 12] << 8 | self.buf[start + 13]
            position = start + 14
        else:
            position = self.other_link(start, end)
            if position < 0:
                return -2 - position
        kind = self.ether_type
        verdict = self.ipv4(position, end) if kind == 0x0800 else self.by_type(position, end)
        if verdict == V_TUNNEL:
            verdict = self.inside()
            if verdict == V_TOO_DEEP:
                return self.as_if_off(start, end, wire_length, link_type, vlan)
        return verdict

    def as_if_off(self, start: int, end: int, wire_length: int, link_type: int, vlan: int) -> int:
        """A frame as if no tunnel were switched on; its headers are counted already."""
        snapped, tagged, gro = self.counters[C_SNAPPED], self.counters[C_VLAN_TAGGED], self.counters[C_GRO]
        ipv4, ipv6 = self.counters[C_IPV4], self.counters[C_IPV6]
        self.active = 0
        verdict = self.decode(start, end, wire_length, link_type, vlan)
        self.active = self.tunnels
        self.counters[C_SNAPPED], self.counters[C_VLAN_TAGGED], self.counters[C_GRO] = snapped, tagged, gro
        self.counters[C_IPV4], self.counters[C_IPV6] = ipv4, ipv6
        return verdict

    def decode_network(self, start: int, end: int) -> int:
        """A reassembled IP packet, octets start..end of another attached buffer; returns a verdict.

        Keeps the facts of the link layer and the tunnels of the decode() before, which was that of its
        last fragment; the octets before `start` are what stands in front of that, so `frame` becomes 0.
        A fragment inside is malformed unless it is in a tunnel that begins in this packet.
        """
        self.flags = (self.flags & ETHERNET) | REASSEMBLED
        self.mac -= self.frame
        if self.mac < 0 or self.mac + 14 > start:
            self.flags = REASSEMBLED
        if self.begin(start, end):
            return self.malformed(C_MALFORMED_LINK)
        self.frame = 0
        self.repeated = True
        if start >= end:
            return self.too_short(C_MALFORMED_LINK)
        state = self.state() if self.active else ()
        self.by_version(start)
        verdict = self.by_type(start, end)
        if verdict == V_TUNNEL:
            verdict = self.inside()
            if verdict == V_TOO_DEEP:
                self.restore(state)
                self.begin(start, end)
                self.frame = 0
                self.repeated = True
                self.active = 0
                self.by_version(start)
                verdict = self.by_type(start, end)
                self.active = self.tunnels
        return verdict

    def begin(self, start: int, end: int) -> int:
        """Forget the packet before; 1 if this one is not in the buffer."""
        self.src0 = self.src1 = self.dst0 = self.dst1 = 0
        self.protocol = self.tos = self.ttl = 0
        self.sport = self.dport = self.tcp_flags = 0
        self.clipped = False
        if start < 0 or end > self.size or start > end:
            self.frame = self.frame_end = self.network = self.transport = self.payload = self.payload_end = 0
            return 1
        self.frame = start
        self.frame_end = self.network = self.transport = self.payload = self.payload_end = end
        return 0

    def inside(self) -> int:
        """Take tunnels off until there is none, or too many."""
        verdict = V_TUNNEL
        while verdict == V_TUNNEL:
            if self.depth >= MOST_TUNNELS:
                self.counters[C_TUNNEL_DEPTH] += 1
                return V_TOO_DEEP
            self.enter()
            verdict = self.inner_packet(self.inner_type, self.inner_start, self.inner_end)
        return verdict

    def inner_packet(self, kind: int, start: int, end: int) -> int:
        """What a tunnel carries: a frame, PPP or IP."""
        self.network = self.transport = self.payload = self.payload_end = end
        if kind == TEB:
            if end - start < 14:
                return self.too_short(C_MALFORMED_LINK)
            self.flags |= ETHERNET
            self.mac = start
            self.ether_type = self.buf[start + 12] << 8 | self.buf[start + 13]
            return self.by_type(start + 14, end)
        self.ether_type = kind
        if kind == 0:
            if start >= end:
                return self.too_short(C_MALFORMED_LINK)
            self.by_version(start)
        return self.by_type(start, end)

    def by_type(self, position: int, end: int) -> int:
        """What `ether_type` says."""
        if self.ether_type == 0x0800:
            return self.ipv4(position, end)
        if self.ether_type == 0x86DD:
            return self.ipv6(position, end)
        position = self.peel(position, end)
        if position < 0:
            return -2 - position
        if self.ether_type == 0x0800:
            return self.ipv4(position, self.link_end)
        if self.ether_type == 0x86DD:
            return self.ipv6(position, self.link_end)
        return self.not_ip()

    def ipv4(self, position: int, end: int) -> int:
        """RFC 791. A total length of 0 is a packet that TSO or GRO made: it ends with the capture."""
        available = end - position
        if available < 20:
            return self.too_short(C_MALFORMED_IPV4)
        first = self.buf[position]
        header = (first & 15) << 2
        length = self.buf[position + 2] << 8 | self.buf[position + 3]
        if first >> 4 != 4 or header < 20 or (length and length < header):
            return self.malformed(C_MALFORMED_IPV4)
        if length == 0:
            length = available
            if length <= LARGEST_FRAME:
                self.counters[C_GRO] += 1
        elif length > available:
            if not self.clipped:
                return self.malformed(C_MALFORMED_IPV4)
            length = available
        else:
            self.clipped = False
        if length < header:
            return self.too_short(C_MALFORMED_IPV4)
        self.network = position
        self.tos = self.buf[position + 1]
        self.ttl = self.buf[position + 8]
        self.protocol = self.buf[position + 9]
        self.src0 = 0
        self.src1 = self.word32(position + 12) << 32 | MAPPED
        self.dst0 = 0
        self.dst1 = self.word32(position + 16) << 32 | MAPPED
        if not self.repeated:
            self.counters[C_IPV4] += 1
            if length > LARGEST_FRAME:
                self.counters[C_GRO] += 1
        field = self.buf[position + 6] << 8 | self.buf[position + 7]
        if field & 0x3FFF:
            return self.ipv4_fragment(position, position + header, position + length, field)
        return self.transport_layer(self.protocol, position + header, position + length)

    def ipv4_fragment(self, position: int, start: int, end: int, field: int) -> int:
        """One that carries start..end; before the last, cut to a multiple of 8 as the kernel does."""
        if field & 0x2000 and not self.clipped:
            end -= (end - start) & 7
        identification = self.buf[position + 4] << 8 | self.buf[position + 5]
        return self.fragment(start, end, (field & 0x1FFF) << 3, field & 0x2000 != 0, identification)

    def ipv6(self, position: int, end: int) -> int:
        """RFC 8200, extension headers bounded in number; jumbograms end with the capture (RFC 2675)."""
        available = end - position - 40
        if available < 0:
            return self.too_short(C_MALFORMED_IPV6)
        if self.buf[position] >> 4 != 6:
            return self.malformed(C_MALFORMED_IPV6)
        length = self.buf[position + 4] << 8 | self.buf[position + 5]
        following = self.buf[position + 6]
        if length == 0 and (following == 0 or available > 0xFFFF):
            length = available
            if length <= LARGEST_FRAME:
                self.counters[C_GRO] += 1
        elif length > available:
            if not self.clipped:
                return self.malformed(C_MALFORMED_IPV6)
            length = available
        else:
            self.clipped = False
        self.network = position
        self.tos = (self.buf[position] & 15) << 4 | self.buf[position + 1] >> 4
        self.ttl = self.buf[position + 7]
        self.src0 = self.word(position + 8)
        self.src1 = self.word(position + 16)
        self.dst0 = self.word(position + 24)
        self.dst1 = self.word(position + 32)
        if not self.repeated:
            self.counters[C_IPV6] += 1
            if length > LARGEST_FRAME:
                self.counters[C_GRO] += 1
        position += 40
        return self.extension_headers(following, position, position + length)

    def extension_headers(self, following: int, position: int, end: int) -> int:
        """Walk to the transport: RFC 8200 section 4, AH (RFC 4302), mobility, HIP and shim6."""
        for count in range(MOST_EXTENSIONS + 1):
            if following == 44:
                if end - position < 8:
                    break
                size = self.buf[position + 2] << 8 | self.buf[position + 3]
                if size & 0xFFF9:
                    return self.fragment_header(position, end, size)
                following = self.buf[position]
                position += 8
                continue
            if following == 51:
                size = 4
            elif following in (0, 43, 60, 135, 139, 140):
                size = 8
            else:
                self.protocol = following
                return self.transport_layer(following, position, end)
            if count == MOST_EXTENSIONS:
                return self.malformed(C_MALFORMED_IPV6)
            if end - position < 8:
                break
            size = (self.buf[position + 1] + (2 if size == 4 else 1)) * size
            if end - position < size:
                break
            following = self.buf[position]
            position += size
        else:
            return self.malformed(C_MALFORMED_IPV6)
        return self.too_short(C_MALFORMED_IPV6)

    def fragment_header(self, position: int, end: int, field: int) -> int:
        """The fragment header at `position` of a packet that is one of several (RFC 8200 section 4.5)."""
        self.protocol = self.buf[position]
        if field & 1 and (end - position) & 7 and not self.clipped:
            return self.malformed(C_MALFORMED_IPV6)
        identification = self.buf[position + 4]
        identification = identification << 8 | self.buf[position + 5]
        identification = identification << 8 | self.buf[position + 6]
        identification = identification << 8 | self.buf[position + 7]
        return self.fragment(position + 8, end, field & 0xFFF8, field & 1 != 0, identification)

    def word32(self, position: int) -> int:
        """Four octets as a little-endian word."""
        value = self.buf[position + 3]
        value = value << 8 | self.buf[position + 2]
        value = value << 8 | self.buf[position + 1]
        return value << 8 | self.buf[position]

    def fragment(self, start: int, end: int, offset: int, more: bool, identification: int) -> int:
        """Report a fragment; one without octets, and one inside a reassembled packet, are malformed."""
        if start >= end or self.repeated:
            return self.too_short(C_MALFORMED_IPV4 if self.ether_type == 0x0800 else C_MALFORMED_IPV6)
        self.counters[C_IP_FRAGMENTS] += 1
        self.fragment_id = identification
        self.fragment_offset = offset
        self.fragment_more = more
        self.fragment_start = start
        self.fragment_end = end
        return V_FRAGMENT

    def word(self, position: int) -> int:
        """Eight octets as a little-endian word."""
        value = 0
        place = position + 8
        while place > position:
            place -= 1
            value = value << 8 | self.buf[place]
        return value

    def transport_layer(self, protocol: int, position: int, end: int) -> int:
        """UDP (RFC 768; length 0: a jumbogram or GRO), TCP, ICMP or anything else."""
        self.transport = position
        available = end - position
        if protocol == 17:
            if available < 8:
                return self.too_short(C_MALFORMED_UDP)
            length = self.buf[position + 4] << 8 | self.buf[position + 5]
            if length == 0:
                length = available
                if not self.ip_was_merged(end):
                    self.counters[C_GRO] += 1
            elif length > available:
                if not self.clipped:
                    return self.malformed(C_MALFORMED_UDP)
                length = available
            elif length < 8:
                return self.malformed(C_MALFORMED_UDP)
            else:
                self.clipped = False
            self.sport = self.buf[position] << 8 | self.buf[position + 1]
            self.dport = self.buf[position + 2] << 8 | self.buf[position + 3]
            self.payload = position + 8
            self.payload_end = position + length
            if self.active and (self.ports[self.dport >> 6] >> (self.dport & 63)) & 1:
                return self.tunnel_port()
            self.counters[C_UDP] += 1
            return V_UDP
        self.payload = position
        self.payload_end = end
        if protocol == 6:
            return self.tcp(position, end)
        if protocol in (1, 58):
            self.counters[C_ICMP] += 1
            return V_ICMP
        return self.other_transport(protocol, position, end)

    def ip_was_merged(self, end: int) -> bool:
        """Whether the IP header in work, of a packet up to `end`, told already that GRO or TSO merged it."""
        if self.buf[self.network] >> 4 == 6:
            told = self.buf[self.network + 4] | self.buf[self.network + 5]
            return not told or end - self.network - 40 > LARGEST_FRAME
        told = self.buf[self.network + 2] | self.buf[self.network + 3]
        return not told or end - self.network > LARGEST_FRAME

    def tunnel_port(self) -> int:
        """UDP to the port of a tunnel."""
        verdict = self.over_udp(self.dport, self.payload, self.payload_end)
        if verdict == V_UDP:
            self.counters[C_UDP] += 1
        return verdict

    def other_transport(self, protocol: int, position: int, end: int) -> int:
        """IP, GRE, or what is not looked into."""
        if self.active and protocol in (4, 41, 47):
            verdict = self.over_ip(protocol, position, end)
            if verdict != V_OTHER:
                return verdict
        if protocol == 51:
            return self.authenticated(position, end)
        self.counters[C_OTHER_TRANSPORT] += 1
        return V_OTHER

    def authenticated(self, position: int, end: int) -> int:
        """What an IPv4 packet carries behind an authentication header (RFC 4302 section 2)."""
        if end - position < 12:
            return self.too_short(C_MALFORMED_IPV4)
        size = (self.buf[position + 1] + 2) << 2
        if size > end - position:
            return self.too_short(C_MALFORMED_IPV4)
        following = self.buf[position]
        if size < 12 or following == 51:
            return self.malformed(C_MALFORMED_IPV4)
        self.protocol = following
        return self.transport_layer(following, position + size, end)

    def tcp(self, position: int, end: int) -> int:
        """RFC 9293: ports, flags (octet 13) and data offset."""
        if end - position < 20:
            return self.too_short(C_MALFORMED_TCP)
        header = (self.buf[position + 12] >> 4) << 2
        if header < 20:
            return self.malformed(C_MALFORMED_TCP)
        if header > end - position:
            return self.too_short(C_MALFORMED_TCP)
        self.sport = self.buf[position] << 8 | self.buf[position + 1]
        self.dport = self.buf[position + 2] << 8 | self.buf[position + 3]
        self.tcp_flags = self.buf[position + 13]
        self.payload = position + header
        self.counters[C_TCP] += 1
        return V_TCP
