"""Where a packet's headers are: link layer, VLAN tags, IPv4, IPv6, UDP, TCP and ICMP, in one pass.

Nothing is copied and nothing is allocated: the result of `Decoder.decode()` is a verdict and the
fields of the decoder, which are offsets into the attached buffer. Whatever the octets are, a verdict comes
out; every length is checked against the capture and against the layer around it.
"""

from __future__ import annotations

from engine.shm import records
from engine.shm.counters import index

MALFORMED, UDP, TCP, ICMP, OTHER, NON_IP, FRAGMENT, UNKNOWN_LINK = range(8)
"""Verdicts. OTHER: IP without a transport that is looked into, or cut by the snap length before its ports."""
VERDICTS = ("malformed", "udp", "tcp", "icmp", "other", "non_ip", "fragment", "unknown_link")

# The same, as compiled constants: those are not visible from Python.
V_MALFORMED, V_UDP, V_TCP, V_ICMP = MALFORMED, UDP, TCP, ICMP
V_OTHER, V_NON_IP, V_FRAGMENT, V_UNKNOWN_LINK = OTHER, NON_IP, FRAGMENT, UNKNOWN_LINK

SNAPPED, ETHERNET, REASSEMBLED = records.P_SNAPPED, records.P_ETHERNET, records.P_REASSEMBLED
MAPPED = 0xFFFF0000
"""Octets 8 to 11 of ::ffff:a.b.c.d as a little-endian word."""

C_SNAPPED, C_GRO, C_VLAN_TAGGED = index("snapped"), index("gro"), index("vlan_tagged")
C_IPV4, C_IPV6, C_UDP = index("ipv4"), index("ipv6"), index("udp")
C_TCP, C_ICMP, C_OTHER_TRANSPORT = index("tcp"), index("icmp"), index("other_transport")
C_NON_IP, C_LINK_UNKNOWN, C_MALFORMED_LINK = index("non_ip"), index("link_unknown"), index("malformed_link")
C_MALFORMED_IPV4, C_MALFORMED_IPV6 = index("malformed_ipv4"), index("malformed_ipv6")
C_MALFORMED_UDP, C_MALFORMED_TCP, C_IP_FRAGMENTS = map(
    index, ("malformed_udp", "malformed_tcp", "ip_fragments")
)

LARGEST_FRAME = 9216
"""Octets of IP that a jumbo frame carries; a longer packet was merged by GRO or not yet cut by TSO."""
MOST_TAGS = 8
MOST_EXTENSIONS = 8


class Decoder:
    """Finds the headers of one packet at a time; `counters_words` is where its FACTS are counted.

    Fields after decode(): `frame`..`frame_end` the octets captured; `network`, `transport` where
    those headers begin; `payload`..`payload_end` what the transport carries (of ICMP: the whole message),
    without Ethernet padding; `clipped`: the snap length cut it. `flags` are records.P_*. `vlan_count`
    tags: `outer_vlan` the first, `inner_vlan` the last of several. MAC addresses stand at `frame` where
    P_ETHERNET is set.

    `domain` keeps tenants with the same addresses apart (part of the flow key): bits 0-11 VLAN id of
    the inner tag, 12-23 of the outer or only one, 28-31 tunnel type, 32-63 VNI or key. A priority tag
    (id 0) is domain 0, as if untagged.

    Valid after FRAGMENT: `fragment_id`, `fragment_offset` (octets), `fragment_more`,
    `fragment_start`..`fragment_end` (the octets it carries); ports and payload are not.
    """

    def __init__(self, counters_words: memoryview, tunnels: int = 0) -> None:
        """`counters_words`: Counters.words; `tunnels`: a bit for each tunnel type to take off."""
        self.counters = counters_words
        self.tunnels = tunnels
        self.buf: memoryview | bytes = b""
        self.size = 0
        self.clipped = False
        self.src0 = self.src1 = self.dst0 = self.dst1 = 0
        self.sport = self.dport = self.protocol = self.tos = self.ttl = self.tcp_flags = 0
        self.ether_type = self.vlan_count = self.outer_vlan = self.inner_vlan = 0
        self.tunnel_type = self.vni = 0
        self.outer_src0 = self.outer_src1 = self.outer_dst0 = self.outer_dst1 = 0
        self.domain = self.flags = self.link_type = 0
        self.frame = self.frame_end = self.network = self.transport = self.payload = self.payload_end = 0
        self.fragment_id = self.fragment_offset = self.fragment_start = self.fragment_end = 0
        self.fragment_more = False

    def attach(self, buf: memoryview | bytes) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.size = len(buf)

    def octets(self, start: int, end: int) -> bytes:
        """A copy of a part of the buffer, empty where that lies outside."""
        if start < 0 or end > self.size or start >= end:
            return b""
        return bytes(self.buf[start:end])

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
        if self.ether_type == 0x0800:
            return self.ipv4(position, end)
        if self.ether_type == 0x86DD:
            return self.ipv6(position, end)
        return self.other_ether_type(position, end)

    def decode_network(self, start: int, end: int) -> int:
        """A reassembled IP packet, octets start..end of another attached buffer; returns a verdict.

        Keeps the link layer's facts of the decode() before, which was that of its last fragment;
        the octets before `start` are that fragment's link header, so `frame` becomes 0.
        A fragment inside is malformed.
        """
        self.flags = (self.flags & ETHERNET) | REASSEMBLED if start >= 14 else REASSEMBLED
        if self.begin(start, end):
            return self.malformed(C_MALFORMED_LINK)
        self.frame = 0
        return self.by_version(start, end)

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

    def other_link(self, start: int, end: int) -> int:
        """Where the network layer begins, with `ether_type` set; or -2 - verdict."""
        kind = self.link_type
        if kind in (101, 12, 14, 228, 229):
            if end == start:
                return -2 - self.too_short(C_MALFORMED_LINK)
            if kind == 228:
                self.ether_type = 0x0800
            elif kind == 229 or self.buf[start] >> 4 == 6:
                self.ether_type = 0x86DD
            elif self.buf[start] >> 4 == 4:
                self.ether_type = 0x0800
            else:
                return -2 - self.malformed(C_MALFORMED_LINK)
            return start
        if kind in (113, 276):
            position = start + (16 if kind == 113 else 20)
            if position > end:
                return -2 - self.too_short(C_MALFORMED_LINK)
            if kind == 113:
                start += 14
            self.ether_type = self.buf[start] << 8 | self.buf[start + 1]
            return position
        if kind in (0, 108):
            if end - start < 4:
                return -2 - self.too_short(C_MALFORMED_LINK)
            self.null_family(start)
            return start + 4
        if kind == 9:
            return -2 - self.ppp(start, end)
        self.counters[C_LINK_UNKNOWN] += 1
        return -2 - V_UNKNOWN_LINK

    def null_family(self, start: int) -> int:
        """`ether_type` from the address family of a null or loopback header, in either byte order.

        IPv6 is 24 on NetBSD and OpenBSD, 28 on FreeBSD, 30 on macOS, 10 on Linux.
        """
        family = 0
        if self.buf[start] == 0 and self.buf[start + 1] == 0 and self.buf[start + 2] == 0:
            family = self.buf[start + 3]
        elif self.buf[start + 1] == 0 and self.buf[start + 2] == 0 and self.buf[start + 3] == 0:
            family = self.buf[start]
        if family == 2:
            self.ether_type = 0x0800
        elif family in (10, 24, 28, 30):
            self.ether_type = 0x86DD
        return 0

    def tag(self, tci: int) -> int:
        """Take one VLAN tag."""
        if self.vlan_count == 0:
            self.outer_vlan = tci & 0xFFF
            self.counters[C_VLAN_TAGGED] += 1
        else:
            self.inner_vlan = tci & 0xFFF
        self.vlan_count += 1
        self.domain = self.outer_vlan << 12 | self.inner_vlan
        return 0

    def by_version(self, position: int, end: int) -> int:
        """IP by its version nibble."""
        if position >= end:
            return self.too_short(C_MALFORMED_LINK)
        if self.buf[position] >> 4 == 4:
            self.ether_type = 0x0800
            return self.ipv4(position, end)
        if self.buf[position] >> 4 == 6:
            self.ether_type = 0x86DD
            return self.ipv6(position, end)
        return self.not_ip()

    def not_ip(self) -> int:
        """Count a packet that carries no IP."""
        self.counters[C_NON_IP] += 1
        return V_NON_IP

    def other_ether_type(self, position: int, end: int) -> int:
        """VLAN tags (802.1Q, 802.1ad and the older 0x9100), PPPoE sessions, MPLS; then IP or not."""
        kind = self.ether_type
        while kind in (0x8100, 0x88A8, 0x9100):
            if end - position < 4:
                return self.too_short(C_MALFORMED_LINK)
            if self.vlan_count >= MOST_TAGS:
                return self.malformed(C_MALFORMED_LINK)
            self.tag(self.buf[position] << 8 | self.buf[position + 1])
            kind = self.buf[position + 2] << 8 | self.buf[position + 3]
            position += 4
        self.ether_type = kind
        if kind == 0x0800:
            return self.ipv4(position, end)
        if kind == 0x86DD:
            return self.ipv6(position, end)
        if kind == 0x8864:
            return self.pppoe(position, end)
        if kind in (0x8847, 0x8848):
            return self.mpls(position, end)
        return self.not_ip()

    def pppoe(self, position: int, end: int) -> int:
        """A PPPoE session packet (RFC 2516 section 4)."""
        if end - position < 6:
            return self.too_short(C_MALFORMED_LINK)
        if self.buf[position] != 0x11 or self.buf[position + 1] != 0:
            return self.malformed(C_MALFORMED_LINK)
        length = self.buf[position + 4] << 8 | self.buf[position + 5]
        position += 6
        if length <= end - position:
            self.clipped = False
            return self.ppp(position, position + length)
        if not self.clipped:
            return self.malformed(C_MALFORMED_LINK)
        return self.ppp(position, end)

    def ppp(self, position: int, end: int) -> int:
        """PPP, with or without HDLC framing; protocol field also compressed (RFC 1661 section 2)."""
        if end - position >= 2 and self.buf[position] == 0xFF and self.buf[position + 1] == 3:
            position += 2
        if end - position < 2:
            return self.too_short(C_MALFORMED_LINK)
        kind = self.buf[position]
        position += 1
        if not kind & 1:
            kind = kind << 8 | self.buf[position]
            position += 1
        if kind == 0x21:
            self.ether_type = 0x0800
            return self.ipv4(position, end)
        if kind == 0x57:
            self.ether_type = 0x86DD
            return self.ipv6(position, end)
        return self.not_ip()

    def mpls(self, position: int, end: int) -> int:
        """Skip the label stack (RFC 3032); what follows says by its nibble whether it is IP (RFC 4928)."""
        for _ in range(MOST_TAGS):
            if end - position < 4:
                return self.too_short(C_MALFORMED_LINK)
            position += 4
            if self.buf[position - 2] & 1:
                return self.by_version(position, end)
        return self.malformed(C_MALFORMED_LINK)

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
        if not self.flags & REASSEMBLED:
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
        if not self.flags & REASSEMBLED:
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
        if start >= end or self.flags & REASSEMBLED:
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
            self.counters[C_UDP] += 1
            return V_UDP
        self.payload = position
        self.payload_end = end
        if protocol == 6:
            return self.tcp(position, end)
        if protocol in (1, 58):
            self.counters[C_ICMP] += 1
            return V_ICMP
        self.counters[C_OTHER_TRANSPORT] += 1
        return V_OTHER

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

    def malformed(self, counter: int) -> int:
        """Count and say so."""
        self.counters[counter] += 1
        return V_MALFORMED

    def too_short(self, counter: int) -> int:
        """A header that is not there: cut by the snap length, no fault of the packet; or malformed."""
        if self.clipped:
            return V_OTHER
        return self.malformed(counter)
