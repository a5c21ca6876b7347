"""Link layers in front of IP: Ethernet with VLAN tags, cooked, PPP, PPPoE, MPLS and the bare ones."""

from __future__ import annotations

from engine.shm.counters import index

MALFORMED, UDP, TCP, ICMP, OTHER, NON_IP, FRAGMENT, UNKNOWN_LINK = range(8)
"""Verdicts of engine.decode.classifier."""
# The same, as compiled constants: those are not visible from Python.
V_MALFORMED, V_OTHER, V_NON_IP, V_UNKNOWN_LINK = MALFORMED, OTHER, NON_IP, UNKNOWN_LINK

C_VLAN_TAGGED, C_NON_IP, C_LINK_UNKNOWN = index("vlan_tagged"), index("non_ip"), index("link_unknown")
C_MALFORMED_LINK = index("malformed_link")

MOST_TAGS = 8


class LinkLayer:
    """The link layer's part of `Decoder`; methods that look for IP return its place, or -2 - verdict."""

    def __init__(self, counters_words: memoryview) -> None:
        """`counters_words`: Counters.words."""
        self.counters = counters_words
        self.buf: memoryview | bytes = b""
        self.size = 0
        self.clipped = False
        self.link_type = self.ether_type = self.flags = 0
        self.vlan_count = self.outer_vlan = self.inner_vlan = 0
        self.domain = self.tunnel_domain = 0
        self.mac = self.link_end = 0

    def attach(self, buf: memoryview | bytes) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.size = len(buf)

    def octets(self, start: int, end: int) -> bytes:
        """A copy of a part of the buffer, empty where that lies outside."""
        if start < 0 or end > self.size or start >= end:
            return b""
        return bytes(self.buf[start:end])

    def other_link(self, start: int, end: int) -> int:
        """Any link type but Ethernet: where the network layer begins, with `ether_type` set."""
        kind = self.link_type
        if kind in (101, 12, 14, 228, 229):
            if end == start:
                return -2 - self.too_short(C_MALFORMED_LINK)
            if kind == 228:
                self.ether_type = 0x0800
            elif kind == 229:
                self.ether_type = 0x86DD
            else:
                self.by_version(start)
                if self.ether_type == 0:
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
            self.ether_type = 0x880B
            return start
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

    def by_version(self, position: int) -> int:
        """`ether_type` of IP by its version nibble, 0 where that is neither 4 nor 6."""
        kind = self.buf[position] >> 4
        if kind == 4:
            self.ether_type = 0x0800
        elif kind == 6:
            self.ether_type = 0x86DD
        else:
            self.ether_type = 0
        return 0

    def tag(self, tci: int) -> int:
        """Take one VLAN tag."""
        if self.vlan_count == 0:
            self.outer_vlan = tci & 0xFFF
            self.counters[C_VLAN_TAGGED] += 1
        else:
            self.inner_vlan = tci & 0xFFF
        self.vlan_count += 1
        self.domain = self.tunnel_domain | self.outer_vlan << 12 | self.inner_vlan
        return 0

    def peel(self, position: int, end: int) -> int:
        """VLAN tags (802.1Q, 802.1ad and the older 0x9100), then a PPPoE session, PPP or MPLS labels.

        Sets `ether_type` to what stands behind them and `link_end` to where that ends.
        """
        self.link_end = end
        kind = self.ether_type
        while kind in (0x8100, 0x88A8, 0x9100):
            if end - position < 4:
                return -2 - self.too_short(C_MALFORMED_LINK)
            if self.vlan_count >= MOST_TAGS:
                return -2 - self.malformed(C_MALFORMED_LINK)
            self.tag(self.buf[position] << 8 | self.buf[position + 1])
            kind = self.buf[position + 2] << 8 | self.buf[position + 3]
            position += 4
        self.ether_type = kind
        if kind == 0x8864:
            return self.pppoe(position, end)
        if kind == 0x880B:
            return self.ppp(position, end)
        if kind in (0x8847, 0x8848):
            return self.mpls(position, end)
        return position

    def pppoe(self, position: int, end: int) -> int:
        """A PPPoE session packet (RFC 2516 section 4)."""
        if end - position < 6:
            return -2 - self.too_short(C_MALFORMED_LINK)
        if self.buf[position] != 0x11 or self.buf[position + 1] != 0:
            return -2 - self.malformed(C_MALFORMED_LINK)
        length = self.buf[position + 4] << 8 | self.buf[position + 5]
        position += 6
        if length <= end - position:
            self.clipped = False
            end = position + length
            self.link_end = end
        elif not self.clipped:
            return -2 - self.malformed(C_MALFORMED_LINK)
        return self.ppp(position, end)

    def ppp(self, position: int, end: int) -> int:
        """PPP, with or without HDLC framing; protocol field also compressed (RFC 1661 section 2)."""
        if end - position >= 2 and self.buf[position] == 0xFF and self.buf[position + 1] == 3:
            position += 2
        if end - position < 2:
            return -2 - self.too_short(C_MALFORMED_LINK)
        kind = self.buf[position]
        position += 1
        if not kind & 1:
            kind = kind << 8 | self.buf[position]
            position += 1
        if kind == 0x21:
            self.ether_type = 0x0800
        elif kind == 0x57:
            self.ether_type = 0x86DD
        else:
            return -2 - self.not_ip()
        return position

    def mpls(self, position: int, end: int) -> int:
        """Skip the label stack (RFC 3032); what follows says by its nibble whether it is IP (RFC 4928)."""
        kind = self.ether_type
        for _ in range(MOST_TAGS):
            if end - position < 4:
                return -2 - self.too_short(C_MALFORMED_LINK)
            position += 4
            if self.buf[position - 2] & 1:
                if position >= end:
                    return -2 - self.too_short(C_MALFORMED_LINK)
                self.by_version(position)
                if self.ether_type == 0:
                    self.ether_type = kind
                    return -2 - self.not_ip()
                return position
        return -2 - self.malformed(C_MALFORMED_LINK)

    def not_ip(self) -> int:
        """Count a packet that carries no IP."""
        self.counters[C_NON_IP] += 1
        return V_NON_IP

    def malformed(self, counter: int) -> int:
        """Count and say so."""
        self.counters[counter] += 1
        return V_MALFORMED

    def too_short(self, counter: int) -> int:
        """A header that is not there: cut by the snap length, no fault of the packet; or malformed."""
        if self.clipped:
            return V_OTHER
        return self.malformed(counter)
