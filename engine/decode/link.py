"""Link layers in front of IP: Ethernet with VLAN tags, cooked, PPP, PPPoE, MPLS, 802.11 and the bare ones."""

from __future__ import annotations

from engine.shm import records
from engine.shm.counters import index

MALFORMED, UDP, TCP, ICMP, OTHER, NON_IP, FRAGMENT, UNKNOWN_LINK = range(8)
"""Verdicts of engine.decode.classifier."""
# The same, as compiled constants: those are not visible from Python.
V_MALFORMED, V_OTHER, V_NON_IP, V_UNKNOWN_LINK = MALFORMED, OTHER, NON_IP, UNKNOWN_LINK

ETHERNET = records.P_ETHERNET
C_VLAN_TAGGED, C_NON_IP, C_LINK_UNKNOWN = index("vlan_tagged"), index("non_ip"), index("link_unknown")
C_MALFORMED_LINK = index("malformed_link")

MOST_TAGS = 8
LONGEST_8023 = 1500
"""Up to here an EtherType is the length of an IEEE 802.3 frame, or in a cooked one a kind of its own."""
MOST_ATTRIBUTES = 32
"""Of an NFLOG packet: its payload is the last one, behind at most some 20 others."""


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
        if kind in (9, 50):
            self.ether_type = 0x880B
            if kind == 50 and end - start >= 4 and self.buf[start] & 0x7F == 0x0F:
                self.ether_type = self.word_at(start + 2)
                start += 4
            return start
        return self.rare_link(start, end)

    def rare_link(self, start: int, end: int) -> int:
        """Link types of serial lines, wireless and firewalls."""
        kind = self.link_type
        if kind in (105, 119, 127, 163, 192):
            return self.wireless(start, end)
        if kind == 239:
            return self.nflog(start, end)
        if kind == 100:
            return self.llc(start, end)
        least = 0
        if kind in (51, 104, 107):
            least = 4
        elif kind == 109:
            least = 12
        elif kind == 204:
            least = 1
        if least == 0:
            self.counters[C_LINK_UNKNOWN] += 1
            return -2 - V_UNKNOWN_LINK
        if end - start < least:
            return -2 - self.too_short(C_MALFORMED_LINK)
        if kind == 107:
            return self.frame_relay(start, end)
        if kind == 51:
            if self.buf[start + 1]:
                return -2 - self.not_ip()
            self.ether_type = 0x8864
            return start
        if kind == 104:
            self.ether_type = self.word_at(start + 2)
        elif kind == 109:
            self.null_family(start)
        else:
            self.ether_type = 0x880B
        return start + least

    def word_at(self, position: int) -> int:
        """Two octets in network order."""
        return self.buf[position] << 8 | self.buf[position + 1]

    def llc(self, position: int, end: int) -> int:
        """Logical link control with SNAP (RFC 1042): sets `ether_type` where it names one."""
        if (
            end - position < 8
            or self.buf[position] != 0xAA
            or self.buf[position + 1] != 0xAA
            or self.buf[position + 2] != 3
            or self.buf[position + 3]
            or self.buf[position + 4]
            or self.buf[position + 5] not in (0, 0xF8)
        ):
            return -2 - self.not_ip()
        self.ether_type = self.word_at(position + 6)
        return position + 8

    def frame_relay(self, position: int, end: int) -> int:
        """RFC 2427 by its NLPID, or Cisco's encapsulation: an EtherType behind the address."""
        last = position + 4
        position += 1
        while position < last and not self.buf[position] & 1:
            position += 1
        position += 1
        if end - position < 4:
            return -2 - self.too_short(C_MALFORMED_LINK)
        if self.buf[position] != 3:
            self.ether_type = self.word_at(position)
            return position + 2
        position += 1
        if self.buf[position] == 0:
            position += 1
        kind = self.buf[position]
        if kind == 0x80 and end - position >= 6 and not (self.buf[position + 1] | self.buf[position + 2]):
            self.ether_type = self.word_at(position + 4)
            return position + 6
        if kind == 0xCC:
            self.ether_type = 0x0800
        elif kind == 0x8E:
            self.ether_type = 0x86DD
        else:
            return -2 - self.not_ip()
        return position + 1

    def wireless(self, position: int, end: int) -> int:
        """IEEE 802.11 behind what the capture puts in front: Radiotap, PPI, Prism, AVS or nothing."""
        kind = self.link_type
        if kind != 105:
            if end - position < 8:
                return -2 - self.too_short(C_MALFORMED_LINK)
            if kind in (127, 192):
                size = self.buf[position + 3] << 8 | self.buf[position + 2]
                if kind == 192 and self.buf[position + 4] != 105:
                    return -2 - self.not_ip()
            elif self.buf[position + 4]:
                # Prism's length in the order of a little-endian host; otherwise, and in AVS, the other one.
                size = self.buf[position + 5] << 8 | self.buf[position + 4]
            else:
                size = self.word_at(position + 6)
            if size < 8:
                return -2 - self.malformed(C_MALFORMED_LINK)
            position += size
        return self.ieee80211(position, end)

    def ieee80211(self, position: int, end: int) -> int:
        """A data frame in the clear (IEEE 802.11-2020 section 9.3.2); fragments and A-MSDUs are left out."""
        if end - position < 24:
            return -2 - self.too_short(C_MALFORMED_LINK)
        control = self.buf[position]
        flags = self.buf[position + 1]
        if control & 0x4F != 0x08 or flags & 0x44 or self.buf[position + 22] & 15:
            return -2 - self.not_ip()
        size = 30 if flags & 3 == 3 else 24
        if control & 0x80:
            if end - position < size + 2:
                return -2 - self.too_short(C_MALFORMED_LINK)
            if self.buf[position + size] & 0x80:
                return -2 - self.not_ip()
            size += 6 if flags & 0x80 else 2
        position += size
        if size & 2 and end - position >= 3 and self.buf[position] != 0xAA and self.buf[position + 2] == 0xAA:
            # Some drivers leave the header padded to a multiple of 4.
            position += 2
        return self.llc(position, end)

    def nflog(self, position: int, end: int) -> int:
        """Linux netfilter's log: attributes in the order of the host that wrote them, the packet is one."""
        position += 4
        for _ in range(MOST_ATTRIBUTES):
            if end - position < 4:
                break
            size = self.buf[position + 1] << 8 | self.buf[position]
            kind = self.buf[position + 3] << 8 | self.buf[position + 2]
            if kind > 255:
                size = self.word_at(position)
                kind = self.buf[position + 3]
            if kind == 9:
                position += 4
                if position >= end:
                    break
                self.by_version(position)
                return position
            if size < 4:
                return -2 - self.malformed(C_MALFORMED_LINK)
            position += (size + 3) // 4 * 4
        if self.clipped:
            return -2 - V_OTHER
        return -2 - self.not_ip()

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
        """VLAN tags, then SNAP, a PPPoE session, PPP or MPLS labels.

        Sets `ether_type` to what stands behind them and `link_end` to where that ends.
        """
        self.link_end = end
        position = self.tags(position, end)
        kind = self.ether_type
        if position < 0:
            return position
        if kind == 0x8864:
            return self.pppoe(position, end)
        if kind == 0x880B:
            return self.ppp(position, end)
        if kind in (0x8847, 0x8848):
            return self.mpls(position, end)
        if 0 < kind <= LONGEST_8023:
            return self.llc(position, end)
        return position

    def tags(self, position: int, end: int) -> int:
        """Behind VLAN tags (802.1Q, 802.1ad and the older 0x9100), with the `ether_type` that follows."""
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
        """Skip the label stack (RFC 3032); what follows says by its nibble whether it is IP (RFC 4928).

        Else it may be an Ethernet pseudowire, with or without control word (RFC 4448).
        """
        kind = self.ether_type
        for _ in range(MOST_TAGS):
            if end - position < 4:
                return -2 - self.too_short(C_MALFORMED_LINK)
            position += 4
            if self.buf[position - 2] & 1:
                if position >= end:
                    return -2 - self.too_short(C_MALFORMED_LINK)
                self.by_version(position)
                if self.ether_type:
                    return position
                if self.is_frame(position, end):
                    return self.pseudowire(position, end)
                if self.buf[position] >> 4 == 0 and self.is_frame(position + 4, end):
                    return self.pseudowire(position + 4, end)
                self.ether_type = kind
                return -2 - self.not_ip()
        return -2 - self.malformed(C_MALFORMED_LINK)

    def is_frame(self, position: int, end: int) -> bool:
        """Whether this looks like an Ethernet frame with IP or a VLAN tag: nothing in front says so."""
        if end - position < 18:
            return False
        kind = self.word_at(position + 12)
        version = self.buf[position + 14] >> 4
        if kind == 0x0800:
            return version == 4
        return version == 6 if kind == 0x86DD else kind in (0x8100, 0x88A8)

    def pseudowire(self, position: int, end: int) -> int:
        """The frame of a pseudowire; its addresses and tags are those of the innermost frame."""
        self.flags |= ETHERNET
        self.mac = position
        self.vlan_count = self.outer_vlan = self.inner_vlan = 0
        self.domain = self.tunnel_domain
        self.ether_type = self.word_at(position + 12)
        return self.tags(position + 14, end)

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
