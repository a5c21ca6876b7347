"""Link layers that are rarer than Ethernet, and what stands between Ethernet and IP, in both builds."""

from __future__ import annotations

import struct
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from engine.capture import filters
from engine.shm import counters, records
from tests.builds import COMPILED, PURE, Build

MALFORMED, UDP_, _, _, OTHER, NON_IP, _, UNKNOWN_LINK = range(8)
BODY = b"OPTIONS sip:a SIP/2.0\r\n\r\n"
CONTENT = UDP(sport=5060, dport=5062) / Raw(BODY)
IPS = {
    0x0800: bytes(IP(src="192.0.2.1", dst="198.51.100.7") / CONTENT),
    0x86DD: bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / CONTENT),
}
MACS = bytes.fromhex("020000000002020000000001")
SNAP = bytes.fromhex("aaaa03000000")
WIFI = bytes.fromhex("0802000002000000000202000000000102000000000310 00")
WIFI_QOS = bytes.fromhex("880200000200000000020200000000010200000000031000 0000")
WIFI_FOUR = bytes.fromhex("0803000002000000000202000000000102000000000310000200000000 0a")
LABEL = b"\x00\x01\x01\x40"


def word(number: int) -> bytes:
    return struct.pack("!H", number)


def nflog(order: str, ip: bytes) -> bytes:
    """A prefix attribute, then the packet."""
    parts = struct.pack(order + "HH", 7, 10) + b"ab\0\0" + struct.pack(order + "HH", 4 + len(ip), 9)
    return b"\x02\0\0\0" + parts + ip + bytes(-len(ip) % 4)


def forms(kind: int) -> dict[str, tuple[int, bytes]]:
    """Ways to carry an IP packet of this EtherType: the link type and the octets."""
    ip = IPS[kind]
    snap = SNAP + word(kind) + ip
    nlpid = b"\xcc" if kind == 0x0800 else b"\x8e"
    ppp = (b"\0\x21" if kind == 0x0800 else b"\0\x57") + ip
    session = struct.pack("!BBHH", 0x11, 0, 7, len(ppp)) + ppp
    frame = MACS + word(kind) + ip
    return {
        "802.3": (1, MACS + word(len(snap)) + snap),
        "802.3 tagged": (1, MACS + b"\x81\0\0\7" + word(len(snap)) + snap),
        "bridge tunnel": (1, MACS + word(len(snap)) + SNAP[:5] + b"\xf8" + word(kind) + ip),
        "cooked 802.2": (113, struct.pack("!HHH8sH", 0, 1, 6, bytes(8), 4) + snap),
        "pseudowire": (1, MACS + b"\x88\x47" + LABEL + frame),
        "pseudowire control word": (1, MACS + b"\x88\x47" + LABEL + bytes(4) + frame),
        "pseudowire tagged": (1, MACS + b"\x88\x47" + LABEL + MACS + b"\x81\0\0\5" + word(kind) + ip),
        "ppp hdlc": (50, b"\xff\x03" + ppp),
        "ppp hdlc cisco": (50, b"\x0f\0" + word(kind) + ip),
        "pppoe": (51, session),
        "ppp direction": (204, b"\x01\xff\x03" + ppp),
        "cisco hdlc": (104, b"\x0f\0" + word(kind) + ip),
        "cisco hdlc mpls": (104, b"\x0f\0\x88\x47" + LABEL + ip),
        "frame relay": (107, b"\x18\x41\x03" + nlpid + ip),
        "frame relay four": (107, b"\x18\x40\x40\x41\x03" + nlpid + ip),
        "frame relay snap": (107, b"\x18\x41\x03\x00\x80\0\0\0" + word(kind) + ip),
        "frame relay cisco": (107, b"\x18\x41" + word(kind) + ip),
        "openbsd enc": (109, struct.pack("<III", 2 if kind == 0x0800 else 24, 5, 0) + ip),
        "atm": (100, snap),
        "802.11": (105, WIFI + snap),
        "802.11 qos": (105, WIFI_QOS + snap),
        "802.11 qos padded": (105, WIFI_QOS + bytes(2) + snap),
        "802.11 qos ht": (105, b"\x88\x82" + WIFI_QOS[2:] + bytes(4) + snap),
        "802.11 four addresses": (105, WIFI_FOUR + snap),
        "radiotap": (127, b"\0\0\x0c\0" + bytes(8) + WIFI + snap),
        "ppi": (192, b"\0\0\x08\0" + struct.pack("<I", 105) + WIFI + snap),
        "prism": (119, struct.pack("<II", 0x44, 144) + bytes(136) + WIFI + snap),
        "avs": (163, struct.pack("!II", 0x80211001, 64) + bytes(56) + WIFI + snap),
        "nflog": (239, nflog("<", ip)),
        "nflog big-endian": (239, nflog(">", ip)),
    }


FORMS = {
    f"{name} {version}": form
    for version, kind in (("v4", 0x0800), ("v6", 0x86DD))
    for name, form in forms(kind).items()
}


class Bench:
    """A decoder with its counters."""

    def __init__(self, build: Build) -> None:
        self.words = memoryview(array("Q", bytes(8 * 1024)))
        self.decoder = build.module("engine.decode.classifier").Decoder(self.words)

    def decode(self, link: int, octets: bytes, wire: int | None = None) -> int:
        """In the middle of a buffer."""
        self.decoder.attach(memoryview(b"\xaa" * 5 + octets + b"\xaa" * 9))
        return int(self.decoder.decode(5, 5 + len(octets), wire or len(octets), link, 0))

    def counted(self) -> dict[str, int]:
        """Counters that are not 0."""
        return {
            name: self.words[counters.index(name)]
            for name in counters.NAMES
            if self.words[counters.index(name)]
        }

    def state(self) -> tuple[object, ...]:
        """What both builds have to agree on."""
        one = self.decoder
        return (
            one.network, one.transport, one.payload, one.payload_end, one.ether_type, one.flags, one.mac,
            one.vlan_count, one.outer_vlan, one.domain, one.clipped, bytes(self.words),
        )  # fmt: skip


@pytest.fixture
def bench(build: Build) -> Bench:
    return Bench(build)


@pytest.mark.parametrize("name", FORMS)
def test_the_packet_is_found(bench: Bench, name: str) -> None:
    link, octets = FORMS[name]
    assert bench.decode(link, octets) == UDP_
    decoder = bench.decoder
    assert decoder.octets(decoder.payload, decoder.payload_end) == BODY
    assert (decoder.sport, decoder.dport) == (5060, 5062)
    assert bench.counted().get("vlan_tagged", 0) == ("tagged" in name)
    assert bool(decoder.flags & records.P_ETHERNET) == (link == 1)
    if "pseudowire" in name:
        assert decoder.mac == 5 + octets.rindex(MACS)


@pytest.mark.parametrize("name", FORMS)
def test_every_cut(name: str) -> None:
    """A cut frame is no malformed one, and both builds agree on it."""
    link, octets = FORMS[name]
    pure, compiled = Bench(PURE), Bench(COMPILED)
    for end in range(len(octets)):
        verdict = pure.decode(link, octets[:end], len(octets))
        assert compiled.decode(link, octets[:end], len(octets)) == verdict
        assert compiled.state() == pure.state()
        assert verdict in (UDP_, OTHER, NON_IP)
    assert not [counter for counter in pure.counted() if counter.startswith("malformed")]


BENCHES = Bench(PURE), Bench(COMPILED)


@given(
    name=st.sampled_from(sorted(FORMS)),
    data=st.data(),
    link=st.sampled_from([100, 104, 105, 107, 127, 192, 239]),
)
@settings(max_examples=300, deadline=None)
def test_any_octets(name: str, data: st.DataObject, link: int) -> None:
    """Changed frames, also under another link type: a verdict, the same in both builds."""
    right, octets = FORMS[name]
    place = data.draw(st.integers(0, len(octets) - 1))
    octets = octets[:place] + data.draw(st.binary(max_size=12)) + octets[place + 1 :]
    pure, compiled = BENCHES
    for kind in (right, link):
        assert pure.decode(kind, octets) == compiled.decode(kind, octets)
        assert pure.state() == compiled.state()


@pytest.mark.parametrize(
    ("link", "octets"),
    [
        (1, MACS + word(38) + bytes.fromhex("424203") + bytes(60)),
        (1, MACS + word(64) + bytes.fromhex("aaaa0300000c") + b"\x20\0" + bytes(60)),
        (1, MACS + b"\x88\x47" + LABEL + bytes(4) + MACS + b"\x08\x06" + bytes(30)),
        (1, MACS + b"\x88\x47" + LABEL + bytes(60)),
        (105, b"\x80" + WIFI[1:] + bytes(60)),
        (105, b"\x48" + WIFI[1:] + bytes(60)),
        (105, b"\x08\x42" + WIFI[2:] + SNAP + b"\x08\0" + bytes(60)),
        (105, WIFI[:22] + b"\x11\0" + SNAP + b"\x08\0" + bytes(60)),
        (105, WIFI_QOS[:24] + b"\x80\0" + SNAP + b"\x08\0" + bytes(60)),
        (192, b"\0\0\x08\0" + struct.pack("<I", 1) + bytes(60)),
        (51, b"\x11\x09" + bytes(60)),
        (104, b"\x8f\0\x80\x35" + bytes(60)),
        (107, b"\x18\x41\x03\xcf" + bytes(60)),
        (109, bytes(60)),
        (239, b"\x02\0\0\0" + struct.pack("<HHI", 8, 1, 0)),
    ],
)
def test_what_is_no_ip(bench: Bench, link: int, octets: bytes) -> None:
    """Spanning tree, beacons, encrypted frames, fragments, A-MSDUs, discovery."""
    assert bench.decode(link, octets) == NON_IP
    assert bench.counted() == {"non_ip": 1}


@pytest.mark.parametrize(
    ("link", "octets"),
    [
        (50, b""),
        (51, b"\x11\0\0"),
        (104, b"\x0f\0\x08"),
        (105, WIFI[:23]),
        (105, WIFI_QOS[:25]),
        (107, b"\x18\x40\x40\x40"),
        (109, bytes(11)),
        (127, b"\0\0\x08"),
        (127, b"\0\0\x07\0" + bytes(60)),
        (127, b"\0\0\xff\xff" + bytes(60)),
        (204, b""),
        (239, b"\x02\0\0\0" + struct.pack("<HHI", 3, 1, 0)),
    ],
)
def test_lengths_that_cannot_be(bench: Bench, link: int, octets: bytes) -> None:
    assert bench.decode(link, octets) == MALFORMED
    assert bench.counted() == {"malformed_link": 1}


def test_pseudowires_in_pseudowires_end(bench: Bench) -> None:
    """Frames in frames as many as fit: only one is taken off."""
    octets = (MACS + b"\x88\x47" + LABEL) * 3000 + MACS + b"\x08\0" + IPS[0x0800]
    assert bench.decode(1, octets) == NON_IP


def authenticated(front: bytes, ip: bytes) -> bytes:
    """An IPv4 packet with a header between IP and UDP."""
    header = bytearray(ip[:20])
    header[2:4] = word(len(ip) + len(front))
    header[9] = 51
    return MACS + b"\x08\0" + bytes(header) + front + ip[20:]


def test_authentication_header(bench: Bench) -> None:
    ip = IPS[0x0800]
    assert bench.decode(1, authenticated(b"\x11\x04" + bytes(22), ip)) == UDP_
    assert bench.decoder.octets(bench.decoder.payload, bench.decoder.payload_end) == BODY
    assert bench.decoder.protocol == 17
    for front in (b"\x11\xff" + bytes(22), b"\x33\x04" + bytes(22), b"\x11\x00" + bytes(22)):
        assert bench.decode(1, authenticated(front, ip)) == MALFORMED
    assert bench.counted()["malformed_ipv4"] == 3


@pytest.mark.skipif(not filters.libpcap_version(), reason="libpcap is not installed")
@pytest.mark.parametrize("rules", [{"bpf": "udp port 5060"}, {"ports": [5060], "protocol": "udp"}])
@pytest.mark.parametrize(
    "name", ["ppp hdlc", "cisco hdlc", "atm", "802.11", "802.11 qos", "radiotap", "prism", "avs"]
)
def test_filters_of_files(build: Build, rules: dict[str, object], name: str) -> None:
    """Expressions and the structured keys; fragments pass, as with every link type."""
    link, octets = FORMS[f"{name} v4"]
    machine = build.module("engine.capture.packet_filter").PacketFilter(filters.build_program(rules, link))
    ip = IPS[0x0800]
    for other, passes in (
        (ip, True),
        (ip[:20] + b"\0\1\0\2" + ip[24:], False),
        (ip[:6] + b"\x20\x05" + ip[8:20] + bytes(30), True),
    ):
        frame = octets.replace(ip, other)
        machine.attach(memoryview(frame))
        machine.wire_length = len(frame)
        assert bool(machine.match(0, len(frame))) == passes
