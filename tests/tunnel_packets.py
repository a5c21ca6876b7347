"""Packets in tunnels, made by scapy: every type of engine.shm.records.TUNNELS in its forms."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NamedTuple

from scapy.contrib.erspan import ERSPAN_II, ERSPAN_III, ERSPAN_PlatformSpecific
from scapy.contrib.geneve import GENEVE, GeneveOptions
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

if TYPE_CHECKING:
    from collections.abc import Callable

    from scapy.packet import Packet

OUTER = Ether(src="02:00:00:00:0a:01", dst="02:00:00:00:0a:02")
INNER = Ether(src="02:00:00:00:0b:01", dst="02:00:00:00:0b:02")
A, B = "192.0.2.65", "198.51.100.66"
"""Ends of the tunnel."""
V4 = IP(src=A, dst=B)
V6 = IPv6(src="2001:db8:a::1", dst="2001:db8:a::2")
OPTIONS = [GeneveOptions(classid=0x102, type=0x80, data=bytes(8)), GeneveOptions(data=b"")]


class Form(NamedTuple):
    """One way to put a packet into a tunnel."""

    type: str
    header: Callable[[bytes], Packet | bytes]
    """What stands between the outer IP header and this content."""
    vni: int = 0
    protocol: int = 17
    frame: bool = False
    """A whole frame is inside."""
    separates: bool = False
    """The domain has the VNI."""
    outer: Packet = V4
    versions: tuple[int, ...] = (4, 6)
    """What the inner packet can be."""

    def wrap(self, inner: Packet | bytes, link: Packet = OUTER, outer: Packet | None = None) -> bytes:
        """The frame on the wire; `inner` is an IP packet, or what follows the MAC addresses of a frame."""
        content = bytes(inner)
        if self.frame and not content.startswith(bytes(INNER)[:12]):
            content = bytes(INNER / inner)
        around = (self.outer if outer is None else outer).copy()
        if isinstance(around.lastlayer(), IP):
            around.proto = self.protocol
        else:
            around.lastlayer().nh = self.protocol
        return bytes(link / around / self.header(content) / Raw(content))


def udp(port: int) -> Packet:
    """As hosts of an overlay send it over IPv4: without a checksum."""
    return UDP(sport=49_152, dport=port, chksum=0)


def vxlan(vni: int, port: int = 4789) -> Callable[[bytes], Packet]:
    """RFC 7348."""
    return lambda _: udp(port) / VXLAN(flags=8, vni=vni, NextProtocol=0)


def geneve(vni: int, proto: int = 0x6558, **fields: Any) -> Callable[[bytes], Packet]:
    """RFC 8926."""
    return lambda _: udp(6081) / GENEVE(vni=vni, proto=proto, **fields)


def gtp(flags: int = 0x30, more: bytes = b"", teid: int = 0x1234) -> Callable[[bytes], Packet]:
    """A G-PDU; `more`: the optional word and extension headers."""
    return lambda content: (
        udp(2152) / Raw(struct.pack(">BBHI", flags, 255, len(more) + len(content), teid) + more)
    )


def gre(proto: int, key: int | None = None, **fields: int) -> Callable[[bytes], Packet]:
    """RFC 2784 and 2890; a checksum is that of the header alone, which nobody looks at."""
    present = {} if key is None else {"key_present": 1, "key": key}
    return lambda _: GRE(proto=proto, **present, **fields)


def pptp(front: bytes, call: int = 0x77, ack: bool = False) -> Callable[[bytes], Packet]:
    """Enhanced GRE of RFC 2637 with PPP, which begins with `front`."""

    def header(content: bytes) -> Packet:
        octets = struct.pack(">BBHHHI", 0x30, 0x81 if ack else 1, 0x880B, len(front + content), call, 9)
        return Raw(octets + (bytes(4) if ack else b"") + front)

    return header


def erspan2(session: int = 99, **fields: int) -> Callable[[bytes], Packet]:
    """With sequence number and header."""
    return lambda _: GRE(seqnum_present=1) / ERSPAN_II(session_id=session, **fields)


def erspan3(session: int = 33, **fields: int) -> Callable[[bytes], Packet]:
    """With the platform's own header where `o` says so."""
    more = ERSPAN_PlatformSpecific() if fields.get("o") else Raw(b"")
    return lambda _: GRE(seqnum_present=1) / ERSPAN_III(session_id=session, **fields) / more


def nothing(_: bytes) -> bytes:
    """IP in IP has no header of its own."""
    return b""


GROUP = VXLAN(flags=0x88, gpflags=0x48, gpid=77, vni=9)
FIVE_G = b"\0\0\0\x85" + b"\x01\x10\x09\0"
LONG = b"\0\1\2\x85" + b"\x02\x10\x09\0\0\0\0\xc0" + b"\x01\0\0\0"
ALL = {"chksum_present": 1, "seqnum_present": 1}

FORMS: dict[str, Form] = {
    "vxlan": Form("vxlan", vxlan(0xABCDE), 0xABCDE, frame=True, separates=True),
    "vxlan-8472": Form("vxlan", vxlan(1, 8472), 1, frame=True, separates=True),
    "vxlan-group": Form("vxlan", lambda _: udp(4789) / GROUP, 9, frame=True, separates=True),
    "vxlan-over-6": Form("vxlan", vxlan(0xFFFFFF), 0xFFFFFF, frame=True, separates=True, outer=V6),
    "geneve": Form("geneve", geneve(0x123456), 0x123456, frame=True, separates=True),
    "geneve-options": Form(
        "geneve", geneve(7, critical=1, options=OPTIONS), 7, frame=True, separates=True, outer=V6
    ),
    "geneve-ip": Form("geneve", geneve(8, 0x0800), 8, separates=True, versions=(4,)),
    "geneve-ipv6": Form("geneve", geneve(8, 0x86DD), 8, separates=True, versions=(6,)),
    "gtp-u": Form("gtp-u", gtp(), 0x1234),
    "gtp-u-sequence": Form("gtp-u", gtp(0x32, b"\0\5\0\0"), 0x1234, outer=V6),
    "gtp-u-5g": Form("gtp-u", gtp(0x34, FIVE_G), 0x1234),
    "gtp-u-extensions": Form("gtp-u", gtp(0x37, LONG, 0xFFFFFFFF), 0xFFFFFFFF),
    "gre": Form("gre", gre(0x0800), 0, 47, versions=(4,)),
    "gre-6": Form("gre", gre(0x86DD), 0, 47, versions=(6,)),
    "gre-over-6": Form("gre", gre(0x0800), 0, 47, outer=V6, versions=(4,)),
    "gre-all": Form("gre", gre(0x0800, 0xDEADBEEF, **ALL), 0xDEADBEEF, 47, separates=True, versions=(4,)),
    "gre-checksum": Form("gre", gre(0x86DD, chksum_present=1), 0, 47, versions=(6,)),
    "gre-sequence": Form("gre", gre(0x0800, seqnum_present=1), 0, 47, versions=(4,)),
    "gre-bridging": Form("gre", gre(0x6558), 0, 47, frame=True),
    "gre-bridging-key": Form("gre", gre(0x6558, 5), 5, 47, frame=True, separates=True),
    "gre-mpls": Form("gre", lambda _: GRE(proto=0x8847) / MPLS(label=16, s=0) / MPLS(label=17, s=1), 0, 47),
    "nvgre": Form("nvgre", gre(0x6558, 0x123456AA), 0x123456, 47, frame=True, separates=True),
    "ppp-gre": Form("ppp-gre", pptp(b"\xff\3\0\x21"), 0x77, 47, versions=(4,)),
    "ppp-gre-short": Form("ppp-gre", pptp(b"\x57", ack=True), 0x77, 47, versions=(6,)),
    "erspan-1": Form("erspan", gre(0x88BE), 0, 47, frame=True),
    "erspan-2": Form("erspan", erspan2(), 99, 47, frame=True),
    "erspan-3": Form("erspan", erspan3(), 33, 47, frame=True),
    "erspan-3-platform": Form("erspan", erspan3(o=1), 33, 47, frame=True),
    "erspan-3-ip": Form("erspan", erspan3(ft=2), 33, 47),
    "4in4": Form("ipip", nothing, 0, 4, versions=(4,)),
    "6in4": Form("ipip", nothing, 0, 41, versions=(6,)),
    "4in6": Form("ipip", nothing, 0, 4, outer=V6, versions=(4,)),
    "6in6": Form("ipip", nothing, 0, 41, outer=V6, versions=(6,)),
    "4in6-options": Form("ipip", nothing, 0, 4, outer=V6 / IPv6ExtHdrDestOpt(), versions=(4,)),
}
