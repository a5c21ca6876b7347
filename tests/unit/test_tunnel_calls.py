"""Calls in tunnels: media is found whichever worker saw the signalling, tenants stay apart, records tell."""

from __future__ import annotations

import json
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw
from scapy.utils import PcapWriter

from engine.packet import TunnelInfo
from engine.plugin import Parser
from engine.reporters.output import OutputMaker
from engine.shm import records
from engine.shm.counters import Counters
from otus_tui.format import tunnel
from tests.analysis import analyse
from tests.builds import COMPILED, PURE, Build
from tests.tunnel_calls import call_frames, ip, sip, speech
from tests.tunnel_packets import FORMS, INNER, OUTER, V4, V6, Form, erspan2, gtp, vxlan

if TYPE_CHECKING:
    from pathlib import Path

    from engine.packet import DecodedPacket, OutputPacket

MS = 1_000_000
NOW = 1_700_000_000_000_000_000
ALL = (1 << len(records.TUNNELS)) - 2
ONE_OF_EACH = [*{form.type: name for name, form in FORMS.items()}.values()]
"""Names of forms, one of each type."""


class Workers:
    """Two packet roads of one build, with the flow registry and the streams that two workers share."""

    def __init__(self, build: Build, tunnels: int = ALL, **options: Any) -> None:
        self.ring = build.module("engine.shm.ring")
        flows = build.module("engine.shm.flows").FlowTable.create("test", 0, 1024)
        self.streams = build.module("engine.shm.streams").StreamTable.create("test", 0, 1024)
        self.counters = [Counters.create("test", index) for index in (0, 1)]
        self.evidence = [self.ring.create("test", index, 1 << 18) for index in (0, 1)]
        self.roads = [
            build.module("engine.pipeline.loop").Pipeline(
                counters,
                flows,
                self.streams,
                None,
                self.ring.RingWriter(evidence),
                build.module("engine.decode.fragments").Reassembly(counters.words),
                build.module("engine.decode.classifier").Decoder(counters.words, tunnels),
                options,
            )
            for counters, evidence in zip(self.counters, self.evidence, strict=True)
        ]
        self.now = NOW

    def give(self, worker: int, octets: bytes) -> None:
        """One frame to one worker; its books must balance behind it."""
        self.now += MS
        road = self.roads[worker]
        road.attach(memoryview(octets))
        road.packet(0, len(octets), len(octets), self.now, 3, 1, 0, 0)
        assert self.counters[worker].balance() == 0

    def get(self, name: str) -> int:
        """One counter of both."""
        return sum(counters.get(name) for counters in self.counters)

    def witnessed(self, worker: int = 0) -> list[tuple[int, bytes]]:
        """Kind and body of the evidence."""
        reader = self.ring.RingReader(self.evidence[worker])
        return [(kind, body) for kind, _, _, body in reader.read(1 << 20)]


def stream_calls(streams: Any) -> dict[int, tuple[str, int]]:
    return {row["ssrc"]: (row["call_id"], row["packets"]) for row in streams.rows()}


@pytest.mark.parametrize(
    ("build", "name"),
    [*((COMPILED, name) for name in FORMS), *((PURE, name) for name in ONE_OF_EACH)],
    ids=str,
)
def test_the_directions_of_a_flow_may_come_to_two_workers(build: Build, name: str) -> None:
    workers = Workers(build, rtp_heuristic=False)
    # What a tunnel carries is spread by its outer addresses and ports: worker 0 has one way, 1 the other.
    for number, frame in enumerate(call_frames(FORMS[name])):
        workers.give(number & 1, frame)
    assert stream_calls(workers.streams) == {7: ("a@b", 3), 8: ("a@b", 3)}
    assert workers.get("rtp_by_sdp") == 6
    assert workers.get("tunnels") == 8
    # And so that nobody who had the SDP sees the media: worker 1 hears all of the speech.
    workers = Workers(build, rtp_heuristic=False)
    for number, frame in enumerate(call_frames(FORMS[name])):
        workers.give(number > 1, frame)
    assert stream_calls(workers.streams) == {7: ("a@b", 3), 8: ("a@b", 3)}
    assert [counters.get("rtp_packets") for counters in workers.counters] == [0, 6]


@pytest.mark.parametrize(
    ("form", "back"),
    [
        (Form("gtp-u", gtp(teid=0x10)), Form("gtp-u", gtp(0x34, b"\0\0\0\x85\1\x10\x09\0", teid=0x20))),
        (Form("erspan", erspan2(10), 0, 47, True), Form("erspan", erspan2(11), 0, 47, True)),
    ],
    ids=["gtp-u", "erspan"],
)
def test_identifiers_of_one_direction_do_not_part_a_call(build: Build, form: Form, back: Form) -> None:
    workers = Workers(build, rtp_heuristic=False)
    for frame in call_frames(form, back):
        workers.give(0, frame)
    assert stream_calls(workers.streams) == {7: ("a@b", 3), 8: ("a@b", 3)}


def test_tenants_with_the_same_addresses(build: Build) -> None:
    workers = Workers(build)
    tenants = [Form("vxlan", vxlan(vni), vni, frame=True) for vni in (1, 2)]
    calls = [call_frames(form, call=f"call{n}", ssrc=10 * n) for n, form in enumerate(tenants, 1)]
    bare = call_frames(Form("", lambda _: b"", protocol=0), call="bare", ssrc=30)
    bare = [bytes(OUTER / IP(frame[34:])) for frame in bare]
    for frames in zip(*calls, bare, strict=True):
        for frame in frames:
            workers.give(0, frame)
    assert stream_calls(workers.streams) == {
        10: ("call1", 3), 11: ("call1", 3), 20: ("call2", 3), 21: ("call2", 3),
        30: ("bare", 3), 31: ("bare", 3),
    }  # fmt: skip
    assert workers.get("flow_conflicts") == 0


@pytest.mark.parametrize("where", ["outer", "inner", "both"])
def test_a_large_message(build: Build, where: str) -> None:
    """An INVITE beyond the MTU: the host cut it, or the tunnel's end its datagram, or both did."""
    workers = Workers(build)
    form = FORMS["vxlan"]
    whole = IP(src="10.0.0.1", dst="10.0.0.2", id=5) / UDP(sport=5060, dport=5060)
    whole /= Raw(sip(4, "large", filler=2500))
    frames = []
    for number, one in enumerate(fragment(whole, 1400) if where in ("inner", "both") else [whole]):
        around = Ether(form.wrap(IP(bytes(one)), outer=IP(src=V4.src, dst=V4.dst, id=50 + number))).payload
        cut = fragment(IP(bytes(around)), 1000 if where == "both" else 1400) if where != "inner" else [around]
        frames += [bytes(OUTER / IP(bytes(piece))) for piece in cut]
    assert len(frames) == {"outer": 3, "inner": 3, "both": 5}[where]
    for frame in frames:
        workers.give(0, frame)
    assert workers.get("sip_messages") == workers.get("sdp_media") == 1
    (kind, body), *more = workers.witnessed()
    record = records.sip_record(body)
    assert (kind, more, record.text("call_id")) == (records.SIP, [], "large")
    network = record.header.network()
    assert network.fragmented
    assert network.tunnel == TunnelInfo("vxlan", ip_address(V4.src), ip_address(V4.dst), form.vni)


def test_tunnels_that_are_off(build: Build) -> None:
    workers = Workers(build, 0)
    for name in ONE_OF_EACH:
        for frame in call_frames(FORMS[name]):
            workers.give(0, frame)
    assert workers.get("unmatched") == workers.get("received") == 8 * len(ONE_OF_EACH)
    assert workers.get("tunnels") == 0


def test_sip_quoted_by_an_error_about_the_tunnel(build: Build) -> None:
    workers = Workers(build)
    quoted = Ether(FORMS["vxlan"].wrap(ip(4) / UDP(sport=5060, dport=5060) / Raw(sip(4, "q")))).payload
    for cut in (200, 576, 2000):
        back = IP(src=V4.dst, dst=V4.src)
        workers.give(0, bytes(OUTER / back / ICMP(type=3, code=3) / Raw(bytes(quoted)[:cut])))
    # An error inside the tunnel, about what is in it; of IPv6; and about a first fragment.
    inside = IP(src="10.0.0.9", dst="10.0.0.1") / ICMP(type=11)
    workers.give(0, FORMS["geneve"].wrap(inside / Raw(bytes(quoted)[50:400])))
    six = ip(6) / UDP(sport=5060, dport=5060) / Raw(sip(6, "six"))
    error = IPv6(src="fd00::9", dst="fd00::1") / ICMPv6DestUnreach(code=4)
    workers.give(0, bytes(OUTER / error / Raw(bytes(six)[:300])))
    first = bytes(fragment(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(dport=5060) / Raw(sip(4, "f")), 200)[0])
    workers.give(0, bytes(OUTER / back / ICMP(type=3, code=4) / Raw(first)))
    # No SIP: the tunnel's own headers, speech, a fragment from the middle.
    speech_quoted = Ether(
        FORMS["vxlan"].wrap(ip(4) / UDP(sport=4000, dport=5000) / Raw(speech(1, 2)))
    ).payload
    for octets in (bytes(quoted)[:36], bytes(quoted)[:60], bytes(speech_quoted), b"\x45", bytes(60)):
        workers.give(0, bytes(OUTER / back / ICMP(type=3, code=3) / Raw(octets)))
    assert (workers.get("icmp_quoted_sip"), workers.get("handled"), workers.get("sip_messages")) == (6, 6, 0)
    assert workers.get("icmp_errors") == 11
    assert {kind for kind, _ in workers.witnessed()} == {records.ICMP}
    # What is quoted is no packet: no tunnel was taken off but that of the error inside one.
    assert workers.get("tunnels") == 1


def test_sip_over_tcp_in_a_tunnel_is_counted(build: Build) -> None:
    from scapy.layers.inet import TCP

    workers = Workers(build)
    workers.give(0, FORMS["4in4"].wrap(ip(4) / TCP(dport=5060) / Raw(sip(4, "t"))))
    assert (workers.get("tcp_sip_port"), workers.get("unmatched")) == (1, 1)


class Everything(Parser):
    """A parser of another package that wants everything."""

    protocol = "everything"
    seen: list[DecodedPacket]

    def can_handle(self, packet: DecodedPacket) -> bool:
        self.seen.append(packet)
        return False

    def handle(self, packet: DecodedPacket) -> OutputPacket | None:
        return None


def test_plugins_see_the_tunnel(build: Build) -> None:
    plugin = Everything()
    plugin.seen = []
    workers = Workers(build, plugins=(plugin,))
    tagged = INNER / Dot1Q(vlan=3) / ip(4) / UDP(sport=1, dport=2) / b"hello"
    workers.give(0, FORMS["vxlan"].wrap(tagged))
    workers.give(0, bytes(OUTER / ip(4) / UDP(sport=1, dport=2) / b"hello"))
    inside, bare = plugin.seen
    assert inside.tunnel is not None
    assert (inside.tunnel.type, str(inside.tunnel.outer_src_ip), inside.tunnel.vni) == (
        "vxlan",
        V4.src,
        0xABCDE,
    )
    assert (inside.src_mac, inside.dst_mac, inside.vlans) == (INNER.src, INNER.dst, (3,))
    assert bytes(inside.payload) == b"hello"
    assert bare.tunnel is None
    assert (bare.src_mac, bare.vlans) == (OUTER.src, ())


def test_the_line_of_a_packet_has_its_tunnel(build: Build) -> None:
    workers = Workers(build)
    workers.give(0, call_frames(FORMS["geneve-options"])[0])
    ((kind, body),) = workers.witnessed()
    packet = OutputMaker("t", {}).make(kind, NOW, body)
    assert packet is not None
    assert json.loads(json.dumps(packet.as_dict()))["network"]["tunnel"] == {
        "type": "geneve", "outer_src_ip": "2001:db8:a::1", "outer_dst_ip": "2001:db8:a::2", "vni": 7,
    }  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_the_report_of_a_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / "call.pcap"
    with PcapWriter(str(path), linktype=1) as writer:
        for frame in call_frames(FORMS[name]):
            writer.write(frame)
    found = analyse(str(path))
    assert [row["call_id"] for row in found["sip"]["dialogs"]] == ["a@b"]
    assert [row["call_id"] for row in found["rtp"]["streams"]] == ["a@b", "a@b"]
    number = f" {FORMS[name].vni}" if FORMS[name].separates else ""
    assert {row["tunnel"] for row in found["rtp"]["streams"]} == {FORMS[name].type + number}
    kind = FORMS[name].type.replace("-", "_")
    assert (found["decode"]["tunnels"], found["decode"][f"tunnels_{kind}"]) == (8, 8)
    assert found["books"]["received"] == found["books"]["reported"] == 8


def test_the_messages_of_a_call_name_their_tunnel(build: Build) -> None:
    workers = Workers(build)
    frames = call_frames(FORMS["vxlan"]) + call_frames(FORMS["4in6"])
    bare = [bytes(OUTER / ip(4) / UDP(sport=5060, dport=5060) / Raw(sip(4, "a@b")))]
    for octets in (frames[0], frames[1], frames[8], *bare, frames[0]):
        workers.give(0, octets)
    calls = build.module("engine.calls.store").Calls({}, "packet")
    for kind, body in workers.witnessed():
        calls.add(kind, NOW, body)
    name = calls.answer("query", {})["rows"][0]["id"]
    found = [row["tunnel"] for row in calls.answer("call", {"id": name})["messages"]]
    there = {"type": "vxlan", "outer_src_ip": V4.src, "outer_dst_ip": V4.dst, "vni": 0xABCDE}
    back = {**there, "outer_src_ip": V4.dst, "outer_dst_ip": V4.src}
    plain = {"type": "ipip", "outer_src_ip": V6.src, "outer_dst_ip": V6.dst, "vni": 0}
    assert found == [there, back, plain, None, there]
    assert tunnel(there, ">") == [f"in vxlan 703710: {V4.src} > {V4.dst}"]
    assert tunnel(plain, ">") == [f"in ipip: {V6.src} > {V6.dst}"]
    assert tunnel(None, ">") == []


def test_tunnels_of_messages_are_bounded(build: Build) -> None:
    workers = Workers(build)
    calls = build.module("engine.calls.store").Calls({"messages_per_call": 20_000}, "packet")
    workers.give(0, call_frames(FORMS["gtp-u"])[0])
    ((kind, body),) = workers.witnessed()
    most = 16_384
    for teid in range(most + 10):
        changed = bytearray(body)
        struct.pack_into("<I", changed, 44, teid)
        calls.add(kind, NOW + teid, bytes(changed))
    assert len(calls.table.arena.tunnels) == most
    name = calls.answer("query", {})["rows"][0]["id"]
    last = calls.answer("call", {"id": name, "from": 0, "count": 1})["messages"]
    assert last[0]["tunnel"]["vni"] == 0
