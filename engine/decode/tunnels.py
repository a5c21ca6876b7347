"""Tunnel headers between two packets: VXLAN, Geneve, GTP-U, GRE, NVGRE, ERSPAN, PPP in GRE, IP in IP.

Each method looks at one header and says TUNNEL with `next_type`, `next_vni` and where the inner
packet stands; or that there is no tunnel to take off (UDP, OTHER); or MALFORMED. `enter()` then makes the
outer packet the past. What the flow's domain takes from each of them is decided in ADR 6.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, Any

from engine.decode import link
from engine.decode.link import LinkLayer
from engine.shm import records
from engine.shm.counters import index

if TYPE_CHECKING:
    from collections.abc import Iterable

V_UDP, V_OTHER = link.UDP, link.OTHER
V_TUNNEL = 8
SNAPPED = records.P_SNAPPED

VXLAN, GRE, ERSPAN, GENEVE, IPIP, GTP_U, NVGRE, PPP_GRE = (
    records.TUNNELS.index(name)
    for name in ("vxlan", "gre", "erspan", "geneve", "ipip", "gtp-u", "nvgre", "ppp-gre")
)
ALL = (1 << len(records.TUNNELS)) - 2
"""Every type switched on."""
VXLAN_PORTS = (4789, 8472, 4790)
"""RFC 7348, what Linux took before it, and the generic protocol extension."""
PORT_GENEVE, PORT_GTP_U = 6081, 2152
T_VXLAN, T_GRE, T_ERSPAN, T_GENEVE = VXLAN, GRE, ERSPAN, GENEVE
T_IPIP, T_GTP_U, T_NVGRE, T_PPP_GRE = IPIP, GTP_U, NVGRE, PPP_GRE
# The same, as compiled constants: those are not visible from Python.

C_TUNNELS, C_MALFORMED_TUNNEL = index("tunnels"), index("malformed_tunnel")
C_FIRST = index("tunnels_vxlan") - 1
"""Behind it the counters of the types stand in the order of records.TUNNELS."""

ETHER, IPV4, IPV6, PPP, BY_VERSION = 0x6558, 0x0800, 0x86DD, 0x880B, 0
"""What stands in a tunnel, as a protocol type of GRE."""
LEAST_VSID, MOST_VSID = 0x1000, 0xFFFFFE
"""RFC 7637 section 3.3: others are reserved, so a key without one of these is no NVGRE key."""
MIX = 0x9E3779B1
LOW32 = 0xFFFFFFFF
MIXED = 1 << 24
"""In a domain: its upper half is made of several identifiers."""


class Tunnels(LinkLayer):
    """The tunnels' part of `Decoder`."""

    def __init__(
        self, counters_words: memoryview, tunnels: int = 0, vxlan_ports: Iterable[int] = VXLAN_PORTS
    ) -> None:
        """`tunnels`: a bit for each type (1 << its number in records.TUNNELS) to take off."""
        super().__init__(counters_words)
        self.tunnels = self.active = tunnels & ALL
        self.ports = memoryview(array("Q", bytes(8192)))
        ports = [*vxlan_ports] if tunnels >> VXLAN & 1 else []
        ports += [PORT_GENEVE] if tunnels >> GENEVE & 1 else []
        ports += [PORT_GTP_U] if tunnels >> GTP_U & 1 else []
        for port in ports:
            self.ports[port >> 6] |= 1 << (port & 63)
        self.src0 = self.src1 = self.dst0 = self.dst1 = 0
        self.protocol = self.tos = self.ttl = 0
        self.sport = self.dport = self.tcp_flags = 0
        self.tunnel_type = self.vni = self.depth = 0
        self.identifier = self.identifiers = 0
        self.outer_src0 = self.outer_src1 = self.outer_dst0 = self.outer_dst1 = 0
        self.next_type = self.next_vni = self.inner_type = 0
        self.separate = False
        self.inner_start = self.inner_end = 0
        self.repeated = False

    def on(self, kind: int) -> bool:
        """Whether this type is taken off."""
        return (self.tunnels >> kind) & 1 != 0

    def found(self, kind: int, vni: int, separate: bool, inner_type: int, start: int, end: int) -> int:
        """A tunnel; `separate`: its `vni` is the same in both directions, so it tells tenants apart."""
        self.next_type = kind
        self.next_vni = vni
        self.separate = separate
        self.inner_type = inner_type
        self.inner_start = start
        self.inner_end = end
        return V_TUNNEL

    def enter(self) -> int:
        """The inner packet's turn: what is known of the outer one moves to `outer_*` and to the domain."""
        self.counters[C_TUNNELS] += 1
        self.counters[C_FIRST + self.next_type] += 1
        self.depth += 1
        self.outer_src0 = self.src0
        self.outer_src1 = self.src1
        self.outer_dst0 = self.dst0
        self.outer_dst1 = self.dst1
        self.tunnel_type = self.next_type
        self.vni = self.next_vni
        if self.separate:
            self.identifier = (self.identifier * MIX + self.next_vni) & LOW32
            self.identifiers += 1
        self.tunnel_domain = self.identifier
        self.tunnel_domain = (self.tunnel_domain << 32) | (self.next_type << 28)
        if self.identifiers > 1:
            self.tunnel_domain |= MIXED
        if self.inner_type == ETHER:
            self.vlan_count = self.outer_vlan = self.inner_vlan = 0
        self.domain = self.tunnel_domain | self.outer_vlan << 12 | self.inner_vlan
        self.src0 = self.src1 = self.dst0 = self.dst1 = 0
        self.protocol = self.tos = self.ttl = 0
        self.sport = self.dport = self.tcp_flags = 0
        self.repeated = False
        return 0

    def leave(self) -> int:
        """Forget the tunnels of the packet before."""
        self.depth = 0
        self.tunnel_type = self.vni = self.identifier = self.identifiers = 0
        self.tunnel_domain = 0
        self.outer_src0 = self.outer_src1 = self.outer_dst0 = self.outer_dst1 = 0
        return 0

    def state(self) -> tuple[Any, ...]:
        """What the tunnels and tags around this packet come to, for restore()."""
        return (
            self.depth, self.tunnel_type, self.vni, self.identifier, self.identifiers, self.tunnel_domain,
            self.domain, self.outer_src0, self.outer_src1, self.outer_dst0, self.outer_dst1,
            self.vlan_count, self.outer_vlan, self.inner_vlan, self.mac, self.flags,
        )  # fmt: skip

    def restore(self, state: tuple[Any, ...]) -> int:
        """Undo what enter() did since state()."""
        (
            self.depth, self.tunnel_type, self.vni, self.identifier, self.identifiers, self.tunnel_domain,
            self.domain, self.outer_src0, self.outer_src1, self.outer_dst0, self.outer_dst1,
            self.vlan_count, self.outer_vlan, self.inner_vlan, self.mac, self.flags,
        ) = state  # fmt: skip
        return 0

    def word16(self, position: int) -> int:
        """Two octets in network order."""
        return self.buf[position] << 8 | self.buf[position + 1]

    def word24(self, position: int) -> int:
        """Three octets in network order."""
        return self.buf[position] << 16 | self.buf[position + 1] << 8 | self.buf[position + 2]

    # ---- over UDP ----

    def over_udp(self, port: int, position: int, end: int) -> int:
        """A datagram to a tunnel's port. It may be anything: what does not look like the tunnel is UDP."""
        if end - position < 4:
            return V_OTHER if self.clipped else V_UDP
        if port == PORT_GENEVE and self.on(T_GENEVE):
            return self.geneve(position, end)
        if port == PORT_GTP_U and self.on(T_GTP_U):
            return self.gtp_u(position, end)
        return self.vxlan(position, end)

    def vxlan(self, position: int, end: int) -> int:
        """RFC 7348 section 5 and its extensions: group policy, and GPE (draft-ietf-nvo3-vxlan-gpe) with IP.

        With other reserved bits set, which a receiver ignores, a frame must be to be seen behind the header.
        """
        flags = self.word16(position)
        group = self.word16(position + 2)
        if not flags & 0x800:
            return V_UDP
        usual = flags & 0x7FB7 == 0x800 and (flags & 0x8000 != 0 or (flags & 0xFF == 0 and group == 0))
        if end - position < 8:
            return self.too_short(C_MALFORMED_TUNNEL) if usual else V_UDP
        kind = ETHER
        if not usual or self.buf[position + 7]:
            if flags & 0xF9FF == 0x800 and 1 <= group <= 2 and end - position > 8:
                self.by_version(position + 8)
                if self.ether_type == (IPV4 if group == 1 else IPV6):
                    kind = self.ether_type
            if kind == ETHER and not self.is_frame(position + 8, end):
                return V_UDP
        return self.found(T_VXLAN, self.word24(position + 4), True, kind, position + 8, end)

    def geneve(self, position: int, end: int) -> int:
        """RFC 8926 section 3.4; a control packet (O) or one of another protocol is left as it is."""
        kind = self.word16(position + 2)
        if self.buf[position] >> 6 or self.buf[position + 1] & 0x80 or kind not in (ETHER, IPV4, IPV6):
            return V_UDP
        if end - position < 8:
            return self.too_short(C_MALFORMED_TUNNEL)
        inner = position + 8 + 4 * (self.buf[position] & 0x3F)
        if inner > end:
            return self.too_short(C_MALFORMED_TUNNEL)
        option = position + 8
        while option < inner:
            option += 4 + 4 * (self.buf[option + 3] & 0x1F)
        if option != inner:
            return self.malformed(C_MALFORMED_TUNNEL)
        return self.found(T_GENEVE, self.word24(position + 4), True, kind, inner, end)

    def gtp_u(self, position: int, end: int) -> int:
        """3GPP TS 29.281 section 5: a G-PDU of version 1; every other message is no tunnel."""
        flags = self.buf[position]
        if flags & 0xF0 != 0x30 or self.buf[position + 1] != 255:
            return V_UDP
        if end - position < 8:
            return self.too_short(C_MALFORMED_TUNNEL)
        teid = self.word24(position + 4) << 8 | self.buf[position + 7]
        last = position + 8 + self.word16(position + 2)
        if last <= end:
            self.clipped = False
            end = last
        elif not self.clipped:
            return self.malformed(C_MALFORMED_TUNNEL)
        position += 8
        if flags & 7:
            position += 4
            if position > end:
                return self.too_short(C_MALFORMED_TUNNEL)
            while flags & 4 and self.buf[position - 1]:
                if position >= end:
                    return self.too_short(C_MALFORMED_TUNNEL)
                size = 4 * self.buf[position]
                if size == 0:
                    return self.malformed(C_MALFORMED_TUNNEL)
                position += size
                if position > end:
                    return self.too_short(C_MALFORMED_TUNNEL)
        return self.found(T_GTP_U, teid, False, BY_VERSION, position, end)

    # ---- over IP ----

    def over_ip(self, protocol: int, position: int, end: int) -> int:
        """IP in IP (RFC 2003, 4213, 2473) or GRE."""
        if protocol == 47:
            return self.gre(position, end)
        if not self.on(T_IPIP):
            return V_OTHER
        return self.found(T_IPIP, 0, False, IPV4 if protocol == 4 else IPV6, position, end)

    def gre(self, position: int, end: int) -> int:
        """RFC 2784 with RFC 2890; by its protocol type also NVGRE, ERSPAN and PPP.

        Routing, and other bits that RFC 2784 section 2.3 has refused, are malformed.
        """
        if end - position < 4:
            return self.too_short(C_MALFORMED_TUNNEL)
        flags = self.word16(position)
        kind = self.word16(position + 2)
        if kind == PPP:
            return self.enhanced_gre(flags, position, end) if self.on(T_PPP_GRE) else V_OTHER
        if kind in (0x88BE, 0x22EB):
            if not self.on(T_ERSPAN):
                return V_OTHER
        elif kind not in (ETHER, IPV4, IPV6, 0x8847, 0x8848) or not (
            self.on(T_GRE) or (kind == ETHER and self.on(T_NVGRE))
        ):
            return V_OTHER
        if flags & 0x4C07:
            return self.malformed(C_MALFORMED_TUNNEL)
        position += 8 if flags & 0x8000 else 4
        key = position
        position += (4 if flags & 0x2000 else 0) + (4 if flags & 0x1000 else 0)
        if position > end:
            return self.too_short(C_MALFORMED_TUNNEL)
        vni = 0
        if flags & 0x2000:
            vni = self.word24(key)
        if kind in (0x88BE, 0x22EB):
            return self.erspan(kind, flags & 0x1000 != 0, position, end)
        if kind == ETHER and flags & 0xB000 == 0x2000 and LEAST_VSID <= vni <= MOST_VSID and self.on(T_NVGRE):
            return self.found(T_NVGRE, vni, True, ETHER, position, end)
        if not self.on(T_GRE):
            return V_OTHER
        if flags & 0x2000:
            vni = vni << 8 | self.buf[key + 3]
        return self.found(T_GRE, vni, flags & 0x2000 != 0, kind, position, end)

    def enhanced_gre(self, flags: int, position: int, end: int) -> int:
        """PPP over GRE version 1 (RFC 2637 section 4.1); a mere acknowledgment carries nothing."""
        if flags & 0xEF7F != 0x2001:
            return self.malformed(C_MALFORMED_TUNNEL)
        if end - position < 8:
            return self.too_short(C_MALFORMED_TUNNEL)
        length = self.word16(position + 4)
        call = self.word16(position + 6)
        position += 8 + (4 if flags & 0x1000 else 0) + (4 if flags & 0x80 else 0)
        if position > end:
            return self.too_short(C_MALFORMED_TUNNEL)
        if not flags & 0x1000 or length == 0:
            return V_OTHER
        if position + length <= end:
            self.clipped = False
            end = position + length
        elif not self.clipped:
            return self.malformed(C_MALFORMED_TUNNEL)
        return self.found(T_PPP_GRE, call, False, PPP, position, end)

    def erspan(self, kind: int, sequenced: bool, position: int, end: int) -> int:
        """Type I (no header of its own), II or III (draft-foschiano-erspan-03 section 4); `vni`: session."""
        if kind == 0x88BE and not sequenced:
            return self.found(T_ERSPAN, 0, False, ETHER, position, end)
        if end - position < 8:
            return self.too_short(C_MALFORMED_TUNNEL)
        version = self.buf[position] >> 4
        word = self.word16(position + 2)
        inner = ETHER
        if version == 1 and kind == 0x88BE:
            position += 8
        elif version == 2:
            if end - position < 12:
                return self.too_short(C_MALFORMED_TUNNEL)
            frame_type = self.word16(position + 10) >> 10 & 31
            position += 20 if self.buf[position + 11] & 1 else 12
            if position > end:
                return self.too_short(C_MALFORMED_TUNNEL)
            if frame_type == 2:
                inner = BY_VERSION
            elif frame_type:
                return V_OTHER
        else:
            return self.malformed(C_MALFORMED_TUNNEL)
        if word & 0x400:
            # The mirror cut the frame: its lengths reach beyond it.
            self.clipped = True
            self.flags |= SNAPPED
        return self.found(T_ERSPAN, word & 0x3FF, False, inner, position, end)
