"""The packet road: what becomes of each kind of packet, and that the books balance for all of them."""

from __future__ import annotations

import struct
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.capture.media_sampling import leave_out
from engine.capture.packet_filter import PacketFilter
from engine.packet import DictPayload, NetworkMeta, OutputPacket
from engine.plugin import Parser, Processor
from engine.processors.chain import Chain, build_chain
from engine.reporters.output import OutputMaker
from engine.shm import counters as layout
from engine.shm import records
from engine.shm import rows as rows_module
from engine.shm.counters import Counters
from tests.builds import COMPILED, PURE, Build

NOW = 1_700_000_000_000_000_000
MS = 1_000_000
ALICE, BOB = "10.0.0.1", "10.0.0.2"


def frame(
    payload: bytes, src: str, sport: int, dst: str, dport: int, protocol: int = 17, ident: int = 1
) -> bytes:
    if protocol == 17:
        payload = struct.pack("!HHHH", sport, dport, 8 + len(payload), 0) + payload
    if ":" in src:
        header = struct.pack("!IHBB", 0x60000000, len(payload), protocol, 64)
        kind = b"\x86\xdd"
    else:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), ident, 0, 64, protocol, 0)
        kind = b"\x08\0"
    addresses = ip_address(src).packed + ip_address(dst).packed
    return bytes.fromhex("0200000000020200000000a1") + kind + header + addresses + payload


def sdp(address: str = ALICE, port: int = 4000, formats: str = "8 101", more: str = "") -> str:
    return (
        f"v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n"
        f"m=audio {port} RTP/AVP {formats}\r\n"
        f"a=rtpmap:8 PCMA/8000\r\na=rtpmap:101 telephone-event/8000\r\n{more}"
    )


def sip(
    first: str = f"INVITE sip:bob@{BOB} SIP/2.0", call: str = "a@b", body: str = "", cseq: str = "1 INVITE"
) -> bytes:
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP {ALICE}:5060;branch=z9hG4bK1\r\nFrom: <sip:alice@{ALICE}>;tag=1\r\n"
        f"To: <sip:bob@{BOB}>\r\nCall-ID: {call}\r\nCSeq: {cseq}\r\n"
        f"{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def rtp(
    number: int,
    ssrc: int = 0x1234,
    payload_type: int = 8,
    timestamp: int | None = None,
    body: bytes = bytes(160),
) -> bytes:
    stamp = 160 * number if timestamp is None else timestamp
    return struct.pack("!BBHII", 0x80, payload_type, number & 0xFFFF, stamp & 0xFFFFFFFF, ssrc) + body


SR = struct.pack("!BBHI", 0x80, 200, 6, 0x1234) + bytes(20)


class Road:
    """A pipeline of one build, with rings and a clock."""

    def __init__(self, build: Build, sending: bool = True, slots: int = 256, **options: Any) -> None:
        self.ring = build.module("engine.shm.ring")
        self.counters = Counters.create("test", 0)
        words = self.counters.words
        self.flows = build.module("engine.shm.flows").FlowTable.create("test", 0, slots)
        self.streams = build.module("engine.shm.streams").StreamTable.create("test", 0, slots)
        self.evidence = self.ring.create("test", 0, 1 << 18)
        self.send = self.ring.create("test", 0, 1 << 18)
        self.pipeline = build.module("engine.pipeline.loop").Pipeline(
            self.counters,
            self.flows,
            self.streams,
            self.ring.RingWriter(self.send) if sending else None,
            self.ring.RingWriter(self.evidence),
            build.module("engine.decode.fragments").Reassembly(words),
            build.module("engine.decode.classifier").Decoder(words),
            options,
        )
        self.now = NOW

    def give(
        self, octets: bytes, gap_ms: float = 1, interface: int = 3, kind: int = 0, link: int = 1
    ) -> None:
        """One frame, in the middle of a larger buffer; the books must balance behind it."""
        self.now += int(gap_ms * MS)
        buffer = bytearray(b"\x80" * 64 + octets + b"\x80" * 64)
        self.pipeline.attach(memoryview(buffer))
        self.pipeline.packet(64, 64 + len(octets), len(octets), self.now, interface, link, 0, kind)
        assert self.counters.balance() == 0

    def udp(
        self,
        payload: bytes,
        src: str = ALICE,
        sport: int = 4000,
        dst: str = BOB,
        dport: int = 5000,
        **more: Any,
    ) -> None:
        self.give(frame(payload, src, sport, dst, dport), **more)

    def say(self, message: bytes, **more: Any) -> None:
        self.udp(message, sport=5060, dport=5060, **more)

    def counted(self, *names: str) -> tuple[int, ...]:
        return tuple(self.counters.get(name) for name in names)

    def sent(self) -> list[tuple[int, bytes]]:
        return [(kind, body) for kind, _, _, body in self.ring.RingReader(self.send).read(1 << 20)]

    def witnessed(self) -> list[tuple[int, bytes]]:
        return [(kind, body) for kind, _, _, body in self.ring.RingReader(self.evidence).read(1 << 20)]


def test_a_sip_message_goes_to_both_rings(build: Build) -> None:
    road = Road(build, frame_numbers=True)
    message = sip(body=sdp())
    road.say(b"\r\n\r\n")
    road.say(message)
    assert (
        road.counted("sip_messages", "sip_requests", "sdp_media", "output", "output_sip", "evidence")
        == (1,) * 6
    )
    assert road.counted("sip_keepalives", "handled") == (1, 1)
    (kind, body), (_, witness) = *road.sent(), *road.witnessed()
    assert (kind, body) == (records.SIP, witness)
    record = records.sip_record(body)
    header = record.header
    assert (record.message, record.text("call_id"), record.method_name()) == (message, "a@b", "INVITE")
    assert (header.sport, header.dport, header.frame, header.interface, header.ttl) == (5060, 5060, 2, 3, 64)
    assert (header.captured, header.wire) == (len(message) + 42,) * 2
    assert (header.network().src_mac, header.network().dst_mac) == ("02:00:00:00:00:a1", "02:00:00:00:00:02")
    assert str(header.flow_id().src_ip) == ALICE
    assert header.flow_slot == records.NO_SLOT


def test_sip_on_any_port_and_what_is_none_on_its_own(build: Build) -> None:
    road = Road(build)
    road.udp(sip("SIP/2.0 200 OK"), sport=9, dport=17)
    road.say(b"hello")
    assert road.counted("sip_responses", "unmatched") == (1, 1)


def test_media_of_an_sdp(build: Build) -> None:
    road = Road(build)
    road.say(sip(body=sdp()))
    for number in range(10):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000, gap_ms=20)
        road.udp(rtp(number, 0x77), ALICE, 4000, BOB, 5000)
    road.udp(SR, BOB, 5001, ALICE, 4001)
    assert road.counted("rtp_packets", "rtp_by_sdp", "output_rtp", "rtcp_packets", "output_rtcp") == (
        20,
        20,
        20,
        1,
        1,
    )
    assert road.streams.figures()["added"] == 2
    rows = {row["ssrc"]: row for row in road.streams.rows()}
    assert {row["call_id"] for row in rows.values()} == {"a@b"}
    assert (rows[0x1234]["packets"], rows[0x1234]["lost"], rows[0x1234]["codec"]) == (10, 0, "PCMA")
    sent = [body for kind, body in road.sent() if kind == records.RTP]
    record = records.rtp_record(sent[0])
    assert (record.ssrc, record.sequence, record.payload_type, record.payload_length) == (0x1234, 0, 8, 160)
    assert (record.found_by, record.frame) == (1, b"")
    header = record.header
    assert road.flows.labels(header.flow_slot, header.flow_generation, 8) == {
        "call-id": "a@b",
        "codec": "PCMA",
    }
    assert road.streams.read(record.stream_slot)["ssrc"] == 0x1234
    kinds = [kind for kind, _ in road.witnessed()]
    assert kinds == [records.SIP]


def test_streams_of_one_flow_take_turns(build: Build) -> None:
    road = Road(build)
    road.say(sip(body=sdp()))
    for number in range(20):
        road.udp(rtp(number // 2, 0x77 + (number & 1)), BOB, 5000, ALICE, 4000, gap_ms=10)
    assert [(row["packets"], row["lost"]) for row in road.streams.rows()] == [(10, 0), (10, 0)]
    assert road.streams.figures()["added"] == 2


def test_without_a_send_ring_media_is_handled(build: Build) -> None:
    road = Road(build, sending=False)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    road.udp(SR, BOB, 5001, ALICE, 4001)
    assert road.counted("handled", "rtp_handled", "rtcp_handled", "output") == (3, 1, 1, 0)


def test_the_frame_is_in_the_record_where_it_is_asked_for(build: Build) -> None:
    road = Road(build, rtp_raw=True)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    octets = frame(rtp(1), BOB, 5000, ALICE, 4000)
    assert records.rtp_record(road.sent()[-1][1]).frame == octets


@pytest.mark.parametrize(
    "body",
    [sdp(port=0), sdp("0.0.0.0"), "v=0\r\n", sdp().replace("RTP/AVP", "TCP/RTP/AVP"), sdp("host.invalid")],
)
def test_media_that_cannot_be_followed(build: Build, body: str) -> None:
    road = Road(build, rtp_heuristic=False)
    road.say(sip(body=body))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert road.counted("sdp_media", "rtp_packets", "unmatched") == (0, 0, 1)


def test_tcp_on_sip_ports_is_counted_and_not_read(build: Build) -> None:
    road = Road(build, sip_ports=(5060, 5080))
    for sport, dport in ((40000, 5060), (5080, 40000), (40000, 443)):
        segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, 0x18, 1000, 0, 0) + sip()
        road.give(frame(segment, ALICE, sport, BOB, dport, protocol=6))
    assert road.counters.get("tcp_sip_port") == 2
    assert road.counters.get("unmatched") == 3
    assert road.counters.get("sip_messages") == 0


def test_rtcp_on_the_port_of_the_media(build: Build) -> None:
    road = Road(build)
    road.say(sip(body=sdp(more="a=rtcp-mux\r\n")))
    road.udp(SR, BOB, 5000, ALICE, 4000)
    road.udp(b"\x80\xc8\0\x20" + bytes(8), BOB, 5000, ALICE, 4000)
    road.udp(b"\x8f\x08" + bytes(20), BOB, 5000, ALICE, 4000)
    assert road.counted("rtcp_packets", "rtcp_malformed", "rtp_malformed", "malformed") == (1, 1, 1, 2)


def test_what_shares_the_media_port_is_not_media(build: Build) -> None:
    road = Road(build)
    road.say(sip(body=sdp()))
    for first in (0, 1, 22, 64):
        road.udp(bytes([first]) + bytes(40), BOB, 5000, ALICE, 4000)
    assert road.counted("unmatched", "rtp_packets") == (4, 0)


def test_another_call_may_have_the_port_after_the_bye(build: Build) -> None:
    road = Road(build)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    road.say(sip(call="thief", body=sdp()))
    assert road.counted("flow_conflicts") == (2,)
    road.say(sip(f"BYE sip:bob@{BOB} SIP/2.0", cseq="2 BYE"))
    road.say(sip(call="next", body=sdp()))
    assert road.counted("flow_conflicts") == (2,)
    road.udp(rtp(900, 0x99), BOB, 5000, ALICE, 4000)
    assert {row["ssrc"]: row["call_id"] for row in road.streams.rows()} == {0x1234: "a@b", 0x99: "next"}


def test_only_the_transactions_of_an_invite_negotiate_media(build: Build) -> None:
    """An answer to OPTIONS says what somebody could do, with the ports of a call that is up or none."""
    road = Road(build)
    for method in ("OPTIONS", "INFO", "MESSAGE", "NOTIFY", "REGISTER", "SUBSCRIBE", "FOO"):
        road.say(sip("SIP/2.0 200 OK", call="thief", body=sdp(), cseq=f"1 {method}"))
        road.say(sip(f"{method} sip:bob@{BOB} SIP/2.0", call="thief", body=sdp(), cseq=f"1 {method}"))
    assert road.counted("sdp_media", "flow_conflicts") == (0, 0)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert [row["call_id"] for row in road.streams.rows()] == ["a@b"]
    assert road.counted("sdp_media", "flow_conflicts") == (1, 0)
    port = 4000
    for method in ("INVITE", "ACK", "PRACK", "UPDATE"):
        for first in (f"{method} sip:bob@{BOB} SIP/2.0", "SIP/2.0 200 OK", "SIP/2.0 183 Session Progress"):
            port += 2
            road.say(sip(first, body=sdp(port=port), cseq=f"7 {method}"))
            road.udp(rtp(1, port), BOB, 5000, ALICE, port)
    assert {row["dport"]: row["call_id"] for row in road.streams.rows()} == dict.fromkeys(
        range(4000, port + 2, 2), "a@b"
    )


# ---- media without SDP ----


def test_media_without_signalling_counts_from_its_first_packet(build: Build) -> None:
    road = Road(build)
    for number in range(4):
        road.udp(rtp(number), gap_ms=20)
    assert road.counted("rtp_packets", "unmatched") == (0, 4)
    road.udp(rtp(4), gap_ms=20)
    road.udp(rtp(4))
    road.udp(SR, sport=4001, dport=5001)
    (row,) = road.streams.rows()
    assert (row["packets"], row["expected"], row["duplicates"], row["found_by"]) == (6, 5, 1, "heuristic")
    assert row["start_ns"] == NOW + 20 * MS
    assert row["max_delta_ms"] == pytest.approx(20)
    assert road.counted("rtp_packets", "rtp_by_heuristic", "rtcp_packets", "unmatched") == (6, 6, 1, 4)


def test_signalling_that_comes_late_names_the_stream(build: Build) -> None:
    road = Road(build)
    for number in range(10):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000, gap_ms=20)
    road.say(sip(body=sdp()))
    road.udp(rtp(10), BOB, 5000, ALICE, 4000, gap_ms=20)
    (row,) = road.streams.rows()
    assert (row["packets"], row["found_by"], row["call_id"]) == (11, "sdp", "a@b")


@pytest.mark.parametrize(
    ("why", "packets", "sport", "dport"),
    [
        ("another SSRC each", [rtp(number, number + 1) for number in range(20)], 4000, 5000),
        ("no SSRC", [rtp(number, 0) for number in range(20)], 4000, 5000),
        ("falling numbers", [rtp(50 - number, timestamp=number) for number in range(20)], 4000, 5000),
        ("wide steps", [rtp(5 * number) for number in range(20)], 4000, 5000),
        ("one number", [rtp(7) for _ in range(20)], 4000, 5000),
        ("time stands still", [rtp(number, timestamp=5) for number in range(12)], 4000, 5000),
        ("time leaps", [rtp(number, timestamp=number << 20) for number in range(20)], 4000, 5000),
        ("unassigned payload type", [rtp(number, payload_type=50) for number in range(20)], 4000, 5000),
        (
            "changing payload type",
            [rtp(number, payload_type=8 * (number & 1)) for number in range(20)],
            4000,
            5000,
        ),
        ("odd ports", [rtp(number) for number in range(20)], 4001, 5001),
        ("DNS", [rtp(number) for number in range(20)], 53, 5000),
        ("QUIC", [b"\xc3\0\0\0\x01" + bytes(40)] * 20, 443, 5000),
        ("STUN", [b"\0\x01\0\0\x21\x12\xa4\x42" + bytes(12)] * 20, 3478, 5000),
        (
            "noise",
            [bytes([0x80 | number]) + bytes(range(number, number + 50)) for number in range(20)],
            4000,
            5000,
        ),
    ],
)
def test_what_only_resembles_media_is_left_alone(
    build: Build, why: str, packets: list[bytes], sport: int, dport: int
) -> None:
    road = Road(build)
    for payload in packets:
        road.udp(payload, sport=sport, dport=dport, gap_ms=20)
    assert road.streams.rows() == [], why
    assert road.counted("unmatched") == (len(packets),)


def test_a_pause_begins_anew(build: Build) -> None:
    road = Road(build)
    for number in range(20):
        road.udp(rtp(number), gap_ms=2500)
    assert road.streams.rows() == []


def test_candidates_are_bounded(build: Build) -> None:
    road = Road(build)
    for number in range(3000):
        road.udp(rtp(1, number + 1), gap_ms=0.001)
    assert road.counted("candidates_full")[0] > 1000
    assert road.counted("unmatched") == (3000,)


def test_tables_that_are_full_are_counted(build: Build) -> None:
    road = Road(build, slots=64)
    road.say(sip(body=sdp()))
    for number in range(200):
        road.udp(rtp(1, number + 1), BOB, 5000, ALICE, 4000)
    assert road.counted("rtp_packets", "output_rtp") == (200, 200)
    assert road.counted("streams_full")[0] >= 136
    for number in range(200):
        road.say(sip(call=f"call{number}", body=sdp(f"10.9.0.{number}")))
    assert road.counted("flows_full")[0] > 100


# ---- everything else ----


def test_the_second_copy_on_loopback_is_left_out(build: Build) -> None:
    road = Road(build, loopback_index=1)
    message = frame(sip(), ALICE, 5060, ALICE, 5060)
    road.give(message, interface=1, kind=4)
    road.give(message, interface=1, kind=0)
    road.give(message, interface=2, kind=4)
    assert road.counted("received", "duplicates", "sip_messages") == (3, 1, 2)


@pytest.mark.parametrize(
    ("alice", "bob", "lives"), [(ALICE, BOB, 22), ("fd00::1", "fd00::2", 21)], ids=["IPv4", "IPv6"]
)
def test_one_packet_on_two_interfaces_counts_once(build: Build, alice: str, bob: str, lives: int) -> None:
    road = Road(build, deduplicate=True)
    message = frame(sip(), alice, 5060, bob, 5060)
    routed = bytearray(message)
    routed[lives] -= 1
    routed[:12] = bytes(12)
    road.give(message, interface=1)
    road.give(bytes(routed), interface=2, gap_ms=0.2)
    assert road.counted("duplicates", "sip_messages", "output_sip") == (1, 1, 1)
    flags = [records.packet_header(body).flags & records.P_DUPLICATE for _, body in road.witnessed()]
    assert flags == [0, records.P_DUPLICATE]
    # A retransmission on the same interface, and one later, are packets of their own.
    road.give(message, interface=1, gap_ms=0.1)
    road.give(message, interface=2, gap_ms=500)
    assert road.counted("duplicates", "sip_messages") == (1, 3)


def test_sip_in_an_icmp_error_is_evidence(build: Build) -> None:
    road = Road(build)
    quoted = frame(sip(), BOB, 5060, ALICE, 5060)[14:]
    error = struct.pack("!BBHI", 3, 3, 0, 0)
    road.give(frame(error + quoted, ALICE, 0, BOB, 0, 1))
    road.give(frame(error + quoted[:20] + bytes(30), ALICE, 0, BOB, 0, 1))
    road.give(frame(error, ALICE, 0, BOB, 0, 1))
    road.give(frame(struct.pack("!BBHI", 8, 0, 0, 0) + quoted, ALICE, 0, BOB, 0, 1))
    six = frame(sip(), "2001:db8::1", 5060, "2001:db8::2", 5060)[14:]
    road.give(frame(struct.pack("!BBHI", 1, 4, 0, 0) + six, "2001:db8::2", 0, "2001:db8::1", 0, 58))
    assert road.counted("icmp_errors", "icmp_quoted_sip", "handled", "unmatched", "sip_messages") == (
        4,
        2,
        2,
        3,
        0,
    )
    (kind, body), _ = road.witnessed()
    assert (kind, body[records.PACKET_SIZE :]) == (records.ICMP, error + quoted)


def test_a_first_fragment_in_an_icmp_error_is_evidence(build: Build) -> None:
    road = Road(build)
    quoted = bytearray(frame(sip(), BOB, 5060, ALICE, 5060)[14:])
    quoted[6] = 0x20
    error = struct.pack("!BBHI", 11, 1, 0, 0)
    road.give(frame(error + bytes(quoted), ALICE, 0, BOB, 0, 1))
    quoted[7] = 1
    road.give(frame(error + bytes(quoted), ALICE, 0, BOB, 0, 1))
    assert road.counted("icmp_errors", "icmp_quoted_sip", "ip_fragments") == (2, 1, 0)


def test_a_message_in_fragments(build: Build) -> None:
    road = Road(build)
    message = sip(body=sdp() + "a=x:" + "y" * 2000 + "\r\n")
    whole = frame(message, ALICE, 5060, BOB, 5060)
    head, data = whole[:34], whole[34:]
    for start, more in ((0, 0x2000), (1480, 0)):
        piece = data[start : start + 1480] if more else data[start:]
        header = bytearray(head)
        struct.pack_into("!HHH", header, 16, 20 + len(piece), 77, more | start // 8)
        road.give(bytes(header) + piece)
    assert road.counted("received", "fragments", "output", "sip_messages", "sdp_media") == (2, 1, 1, 1, 1)
    record = records.sip_record(road.sent()[0][1])
    assert record.message == message
    assert record.header.flags & records.P_REASSEMBLED
    # Behind it the road looks at the driver's buffer again.
    road.say(sip())
    assert road.counted("sip_messages") == (2,)


def pieces(whole: bytes, size: int) -> list[bytes]:
    """An Ethernet frame with IPv6 in fragments, each with `size` octets of the packet."""
    data, found = whole[54:], []
    for start in range(0, len(data), size):
        part = data[start : start + size]
        more = start + size < len(data)
        header = bytearray(whole[:54])
        struct.pack_into("!HB", header, 18, 8 + len(part), 44)
        found.append(bytes(header) + struct.pack("!BBHI", whole[20], 0, start | more, 9) + part)
    return found


@pytest.mark.parametrize(
    ("rules", "outcome"),
    [
        ({"ports": [5060]}, "output"),
        ({"ports": [5070]}, "filtered"),
        ({"bpf": "udp port 5060"}, "output"),
        ({"bpf": "tcp"}, "filtered"),
        ({"bpf": "ether src 02:00:00:00:00:a1"}, "output"),
    ],
)
def test_a_datagram_in_fragments_meets_the_filter_when_it_is_whole(
    build: Build, rules: dict[str, Any], outcome: str
) -> None:
    from engine.capture.filters import live_program

    one = build.module("engine.capture.packet_filter").PacketFilter(live_program(rules))
    road = Road(build, filters={1: one, 101: one})
    message = sip(body=sdp() + "a=x:" + "y" * 2000 + "\r\n")
    for piece in pieces(frame(message, "2001:db8::1", 5060, "2001:db8::2", 5060), 1280):
        road.give(piece)
    assert road.counted("received", "fragments", "filter_rechecked", outcome) == (2, 1, 1, 1)
    # Behind it the road looks at the driver's buffer again.
    road.say(sip())
    assert road.counted("output_sip") == (2 if outcome == "output" else 1,)


def test_what_is_no_ip_has_nothing_of_the_packet_before(build: Build) -> None:
    road = Road(build, unmatched_forward=True)
    road.say(sip())
    road.give(bytes(12) + b"\x08\x06" + bytes(28))
    header = records.packet_header(road.sent()[1][1])
    assert (header.src, header.dst, header.ttl, header.tos) == (bytes(16), bytes(16), 0, 0)


def test_rtcp_goes_where_its_line_says(build: Build) -> None:
    cases = {
        "a=rtcp:4000 IN IP4 10.0.0.9\r\n": {(ALICE, 4000, False), ("10.0.0.9", 4000, True)},
        "a=rtcp:4007 IN IP6 2001:db8::9\r\n": {(ALICE, 4000, False), ("2001:db8::9", 4007, True)},
        "a=rtcp:4007\r\n": {(ALICE, 4000, False), (ALICE, 4007, True)},
        "a=rtcp:9 IN IP4 0.0.0.0\r\na=rtcp-mux\r\n": {(ALICE, 4000, False)},
        "a=rtcp:4007\r\na=rtcp-mux\r\n": {(ALICE, 4000, False), (ALICE, 4007, True)},
        "a=rtcp-mux\r\n": {(ALICE, 4000, False)},
        "": {(ALICE, 4000, False), (ALICE, 4001, True)},
    }
    for more, expected in cases.items():
        road = Road(build)
        road.say(sip(body=sdp(more=more)))
        assert {(row["src"], row["sport"], row["rtcp"]) for row in road.flows.rows()} == expected


def test_what_nobody_wants_is_dropped_or_forwarded(build: Build) -> None:
    packets = [
        frame(b"x" * 30, ALICE, 7, BOB, 7),
        frame(b"", ALICE, 7, BOB, 7),
        frame(struct.pack("!HHIIHHHH", 80, 81, 1, 1, 0x5010, 1, 0, 0), ALICE, 0, BOB, 0, 6),
        bytes(12) + b"\x08\x06" + bytes(28),
    ]
    dropped, forwarded = Road(build), Road(build, unmatched_forward=True)
    for octets in packets:
        dropped.give(octets)
        forwarded.give(octets)
    assert dropped.counted("unmatched", "output") == (4, 0)
    assert forwarded.counted("unmatched", "output", "output_raw") == (0, 4, 4)
    assert [body[records.PACKET_SIZE :] for _, body in forwarded.sent()] == packets


def test_a_record_that_no_ring_takes_is_counted(build: Build) -> None:
    road = Road(build)
    for _ in range(20):
        road.udp(sip(body="x" * 60_000), sport=5060, dport=5060)
    assert road.counted("output_sip", "evidence") == (20, 20)
    road.give(frame(b"x" * 100, ALICE, 7, BOB, 7) + bytes(70_000))
    assert road.counted("unmatched") == (1,)


class Probe(Processor):
    """Drops by label and counts how often it is asked."""

    name = "probe"
    reads = ("codec", "sip.method", "chatty.text")
    wants_envelope = True

    def __init__(self, drop: str) -> None:
        self.drop = drop
        self.asked: list[dict[str, str]] = []
        self.envelopes: list[Any] = []

    def process(self, labels: dict[str, str]) -> bool:
        self.asked.append(dict(labels))
        self.envelopes.append(self.envelope)
        if self.drop == "raise" or "raise" in labels.values():
            raise RuntimeError("broken")
        labels["Not_Allowed"] = "x"
        return self.drop not in labels.values()


def rules(*found: dict[str, Any]) -> Chain:
    return build_chain([{"plugin": "filter", "config": {"rules": list(found)}}])


def decided(road: Road, count: int) -> list[int]:
    return road.counters.rules(count)


def test_processors_are_asked_once_for_a_flow_and_payload_type(build: Build) -> None:
    probe = Probe("PCMA")
    road = Road(build, chain=Chain([probe]))
    road.say(sip(body=sdp()))
    for number in range(5):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000)
        road.udp(rtp(number, payload_type=101), BOB, 5000, ALICE, 4000)
    road.udp(SR, BOB, 5001, ALICE, 4001)
    assert len(probe.asked) == 4
    assert probe.asked[0] == {
        "sip.method": "INVITE", "sip.call-id": "a@b", "sip.from": f"sip:alice@{ALICE}",
        "sip.to": f"sip:bob@{BOB}",
    }  # fmt: skip
    assert probe.asked[1] == {"call-id": "a@b", "codec": "PCMA", "rtp.pt": "8", "rtp.ssrc": str(0x1234)}
    assert [envelope.protocol for envelope in probe.envelopes] == ["sip", "rtp", "rtp", "rtcp"]
    assert probe.envelopes[1].flow_id.dst_port == probe.envelopes[1].network.dst_port == 4000
    assert road.counted("filtered", "output_rtp", "output_rtcp") == (5, 5, 1)
    assert decided(road, 2) == [5, 0], "the packets, not the verdicts"
    assert road.streams.rows()[0]["packets"] == 10


def test_processors_that_drop_sip_and_that_raise(build: Build) -> None:
    road = Road(build, chain=Chain([Probe("INVITE")]))
    road.say(sip())
    road.say(sip("SIP/2.0 200 OK"))
    assert road.counted("filtered", "evidence") == (2, 2)
    chain = Chain([Probe("raise")])
    road = Road(build, chain=chain)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert (chain.errors, *road.counted("output_rtp")) == (2, 1)


@pytest.mark.parametrize("label", ["rtp.pt", "rtp.ssrc"])
def test_verdicts_end_with_the_labels_they_were_made_of(build: Build, label: str) -> None:
    chain = rules({"label": label, "values": ["9999"]}, {"label": "codec", "values": ["PCMA"]})
    road = Road(build, chain=chain)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    road.udp(rtp(2), BOB, 5000, ALICE, 4000)
    assert road.counted("filtered") == (2,)
    road.say(sip(body=sdp().replace("PCMA", "G.x")))
    for number in range(3, 6):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000)
    assert road.counted("filtered", "output_rtp") == (2, 3)
    assert decided(road, 2) == [0, 2]


def test_a_rule_on_the_ssrc_is_asked_once_a_stream(build: Build) -> None:
    probe = Probe("no")
    probe.reads = ("rtp.ssrc",)
    chain = Chain([*rules({"label": "rtp.ssrc", "values": ["7"]}).processors, probe])
    road = Road(build, chain=chain)
    road.say(sip(body=sdp()))
    before = len(probe.asked)
    for number in range(10):
        for ssrc in (7, 8, 9):
            road.udp(rtp(number, ssrc), BOB, 5000, ALICE, 4000)
    road.udp(SR, BOB, 5001, ALICE, 4001)
    assert road.counted("filtered", "output_rtp", "output_rtcp") == (10, 20, 1)
    assert len(probe.asked) - before == 3, "8, 9 and the RTCP"
    assert decided(road, 2) == [10, 0]


@pytest.mark.parametrize("more", [(), ({"label": "rtp.ssrc", "values": ["7"]},)])
def test_rules_on_the_type_of_rtcp(build: Build, more: tuple[dict[str, Any], ...]) -> None:
    road = Road(build, chain=rules({"label": "rtcp.type", "values": ["SR"]}, *more))
    road.say(sip(body=sdp()))
    receiver_report = struct.pack("!BBHI", 0x80, 201, 1, 0x1234)
    for _ in range(3):
        road.udp(SR, BOB, 5001, ALICE, 4001)
        road.udp(receiver_report, BOB, 5001, ALICE, 4001)
    assert road.counted("filtered", "output_rtcp") == (3, 3)
    assert decided(road, 1) == [3]


@pytest.mark.parametrize("action", ["drop", "pass"])
def test_packets_that_are_forwarded_pass_the_processors(build: Build, action: str) -> None:
    chain = build_chain(
        [
            {"plugin": "label", "config": {"labels": {"env": "prod"}}},
            {
                "plugin": "filter",
                "config": {"rules": [{"label": "env", "values": ["prod"], "action": action}]},
            },
        ]
    )
    road = Road(build, chain=chain, unmatched_forward=True)
    for number in range(4):
        road.udp(b"nobody's", ALICE, 7, BOB, 9000 + number)
    dropped = 4 if action == "drop" else 0
    assert road.counted("filtered", "output_raw", "unmatched") == (dropped, 4 - dropped, 0)
    assert decided(road, 1) == [4]


def test_a_processor_sees_the_envelope_of_a_packet_that_is_forwarded(build: Build) -> None:
    probe = Probe("no")
    road = Road(build, chain=Chain([probe]), unmatched_forward=True)
    road.udp(b"nobody's", ALICE, 7, BOB, 9000)
    assert probe.asked == [{}]
    assert (probe.envelopes[0].protocol, probe.envelopes[0].flow_id.dst_port) == ("raw", 9000)


def test_an_impure_processor_is_asked_about_each_packet(build: Build) -> None:
    class Impure(Probe):
        pure = False

    probe = Impure("no")
    road = Road(build, chain=Chain([probe]))
    road.say(sip(body=sdp()))
    for number in range(4):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000)
    assert len(probe.asked) == 5


def test_a_chain_of_filters_gets_no_label_that_it_does_not_read(build: Build) -> None:
    chain = rules(
        {"label": "sip.method", "values": ["OPTIONS"], "name": "pings"},
        {"label": "sip.from", "values": ["sip:alice*"], "action": "pass"},
        {"label": "sip.status-code", "values": ["/^5/"]},
    )
    road = Road(build, chain=chain)
    road.say(sip("OPTIONS sip:b SIP/2.0", cseq="1 OPTIONS"))
    road.say(sip("SIP/2.0 200 OK", cseq="1 OPTIONS"))
    road.say(sip())
    road.say(sip().replace(b"sip:alice", b"sip:carol"))
    road.say(sip("SIP/2.0 503 Busy").replace(b"sip:alice", b"sip:carol"))
    assert road.counted("filtered", "output_sip") == (3, 2)
    assert decided(road, 3) == [2, 1, 1]
    assert chain.reasons == ["pings", "2: pass sip.from", "3: drop sip.status-code"]


# ---- what is reported of RTP ----


def reported(road: Road) -> list[Any]:
    return [records.rtp_record(body) for kind, body in road.sent() if kind == records.RTP]


def test_every_nth_packet_of_each_stream(build: Build) -> None:
    road = Road(build, rtp_report="sample", rtp_every=4)
    road.say(sip(body=sdp()))
    for number in range(10):
        road.udp(rtp(number, 7), BOB, 5000, ALICE, 4000)
        if number < 5:
            road.udp(rtp(number, 8), BOB, 5000, ALICE, 4000)
    found = [(record.ssrc, record.sequence, record.figures) for record in reported(road)]
    assert sorted(found) == [(7, 0, b""), (7, 4, b""), (7, 8, b""), (8, 0, b""), (8, 4, b"")]
    assert road.counted("output_rtp", "rtp_handled", "handled") == (5, 10, 10)


def test_one_record_a_stream_and_interval(build: Build) -> None:
    road = Road(build, rtp_report="interval", rtp_interval_ns=1000 * MS)
    road.say(sip(body=sdp()))
    for number in range(120):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000, gap_ms=20)
    assert road.counted("output_rtp", "rtp_handled") == (3, 117)
    road.pipeline.idle(road.now + 500 * MS)
    assert road.counted("output_rtp") == (3,), "not silent yet"
    road.pipeline.idle(road.now + 1001 * MS)
    assert road.counted("output_rtp", "rtp_handled", "handled") == (4, 116, 116)
    assert road.counters.balance() == 0
    found = reported(road)
    rows = [rows_module.stream_row(record.stream_slot, record.figures) for record in found]
    assert [record.sequence for record in found] == [0, 50, 100, 119]
    assert [row["packets"] for row in rows] == [1, 51, 101, 120]
    assert [record.flags for record in found] == [0, 0, 0, records.R_LAST]
    assert rows[3]["lost"] == 0
    header = found[3].header
    assert (header.sport, header.dport, header.protocol) == (5000, 4000, 17)
    assert header.flow_id() == found[0].header.flow_id()
    assert (header.flow_slot, header.flow_generation) == tuple(found[0].header[-2:])
    road.pipeline.idle(road.now + 9000 * MS)
    assert road.counted("output_rtp") == (4,)
    road.udp(rtp(121), BOB, 5000, ALICE, 4000, gap_ms=20)
    assert road.counted("output_rtp") == (4,), "one an interval, behind a silence too"
    road.udp(rtp(122), BOB, 5000, ALICE, 4000, gap_ms=2000)
    assert road.counted("output_rtp") == (5,)
    road.udp(rtp(123), BOB, 5000, ALICE, 4000, gap_ms=-3_600_000)
    assert road.counted("output_rtp") == (6,), "time was set back"


@pytest.mark.parametrize("slots", [256, 16384])
def test_the_last_figures_at_the_end(build: Build, slots: int) -> None:
    road = Road(build, slots=slots, rtp_report="interval", rtp_interval_ns=1000 * MS)
    road.say(sip(body=sdp()))
    for number in range(3):
        for ssrc in range(5):
            road.udp(rtp(number, ssrc), BOB, 5000, ALICE, 4000)
    road.udp(rtp(0, 99), BOB, 5000, ALICE, 4000)
    road.pipeline.idle(road.now)
    while road.pipeline.finish():
        pass
    found = reported(road)
    assert sorted(record.ssrc for record in found if record.flags) == [0, 1, 2, 3, 4]
    assert road.counted("output_rtp", "rtp_handled") == (11, 5)
    assert road.counters.balance() == 0


def test_what_is_reported_of_rtp_where_there_is_no_room_for_streams(build: Build) -> None:
    road = Road(build, slots=64, rtp_report="interval")
    road.say(sip(body=sdp()))
    for ssrc in range(500):
        road.udp(rtp(1, ssrc), BOB, 5000, ALICE, 4000)
    (full,) = road.counted("streams_full")
    assert full
    assert road.counted("output_rtp", "rtp_handled") == (500 - full, full)


def test_a_frame_behind_the_figures(build: Build) -> None:
    road = Road(build, rtp_report="interval", rtp_raw=True)
    road.say(sip(body=sdp()))
    packet = frame(rtp(1), BOB, 5000, ALICE, 4000)
    road.give(packet)
    (record,) = reported(road)
    assert record.frame == packet
    assert rows_module.stream_row(0, record.figures)["packets"] == 1


# ---- sampling ----


def test_sampling_keeps_conversations_whole(build: Build) -> None:
    road = Road(build, slots=1024)
    sides = [(f"10.1.0.{number}", 4000 + 2 * number) for number in range(60)]
    for number, (address, port) in enumerate(sides):
        road.say(sip(call=f"{number}@b", body=sdp(address, port)))
    road.counters.words[layout.LEFT_OUT_SHARE] = 1 << 31
    before = road.counted("output_sip")
    for step in range(3):
        for address, port in sides:
            road.udp(rtp(step, 1), BOB, 5000, address, port)
            road.udp(rtp(step, 2), address, port, BOB, 5000)
    road.udp(SR, BOB, 5001, sides[0][0], 4001)
    road.say(sip())
    seen: dict[Any, int] = {}
    for record in reported(road):
        key = frozenset({(record.header.src, record.header.sport), (record.header.dst, record.header.dport)})
        seen[key] = seen.get(key, 0) + 1
    assert set(seen.values()) == {6}
    assert 10 < len(seen) < 50
    assert road.counted("sampled") == (6 * (60 - len(seen)),)
    assert road.counted("output_rtcp", "output_sip") == (1, before[0] + 1), "signalling never"
    assert all(row["packets"] == 3 for row in road.streams.rows()), "figures are of all packets"
    road.counters.words[layout.LEFT_OUT_SHARE] = 0
    (sampled,) = road.counted("sampled")
    for address, port in sides:
        road.udp(rtp(4, 1), BOB, 5000, address, port)
    assert road.counted("sampled") == (sampled,)


@pytest.mark.parametrize("addresses", [("10.1.0.{}", BOB), ("2001:db8::{:x}", "2001:db8:1::2")])
def test_the_kernel_leaves_out_what_the_worker_does(build: Build, addresses: tuple[str, str]) -> None:
    road = Road(build, slots=4096)
    road.counters.words[layout.SAMPLING_KEY] = key = 0x89ABCDEF
    share = 1 << 30
    road.counters.words[layout.LEFT_OUT_SHARE] = (1 << 32) - share
    program = leave_out([(6, 0, 0, 262_144)], share, key)
    kernel = PacketFilter(program)

    def passes(octets: bytes) -> bool:
        kernel.attach(memoryview(octets))
        kernel.wire_length, kernel.network = len(octets), 14
        kernel.protocol = int.from_bytes(octets[12:14], "big")
        return kernel.match(0, len(octets)) != 0

    kept = 0
    for number in range(1, 200):
        near, far = addresses[0].format(number), addresses[1]
        road.say(
            sip(call=f"{number}@b", body=sdp(near, 4000).replace("IP4", "IP6" if ":" in near else "IP4"))
        )
        for ends in ((far, 5000 + number, near, 4000), (near, 4000, far, 5000 + number)):
            octets = frame(rtp(1), *ends)
            before = road.counted("sampled")
            road.give(octets)
            assert passes(octets) is (road.counted("sampled") == before), ends
            kept += passes(octets)
    assert 60 < kept < 140
    assert not any(passes(frame(rtp(1), BOB, 5000 + number, ALICE, 1023)) is False for number in range(50)), (
        "services"
    )
    for never in (
        frame(sip(), ALICE, 5060, BOB, 5060),
        frame(SR + bytes(40), ALICE, 4001, BOB, 5001),
        frame(bytes(100), ALICE, 4000, BOB, 5000),
        frame(rtp(1), ALICE, 4000, BOB, 5000, 6),
        frame(rtp(1)[:12], ALICE, 4000, BOB, 5000)[:54],
        bytes(60),
    ):
        hidden = PacketFilter(leave_out([(6, 0, 0, 262_144)], 0, key))
        hidden.attach(memoryview(never))
        hidden.wire_length, hidden.network = len(never), 14
        hidden.protocol = int.from_bytes(never[12:14], "big")
        assert hidden.match(0, len(never)), never


def test_sampling_of_what_is_forwarded(build: Build) -> None:
    road = Road(build, unmatched_forward=True)
    road.counters.words[layout.LEFT_OUT_SHARE] = (1 << 32) - 1
    road.udp(b"ping", dport=7)
    road.udp(b"\x01not sip", sport=5060, dport=5060)
    assert road.counted("sampled", "output_raw") == (1, 1)


class Echo(Parser):
    """Takes port 7."""

    name = protocol = "echo"

    def can_handle(self, packet: Any) -> bool:
        return bool(packet.dst_port == 7)

    def handle(self, packet: Any) -> OutputPacket | None:
        if packet.payload == b"raise":
            raise RuntimeError("broken")
        return None


def test_parsers_of_others_get_what_is_left(build: Build) -> None:
    road = Road(build, plugins=[Echo()])
    road.udp(b"ping", dport=7)
    road.udp(b"raise", dport=7)
    road.udp(b"ping", dport=8)
    road.say(sip())
    assert road.counted("handled", "unmatched", "plugin_errors", "output") == (1, 2, 1, 1)


class Chatty(Parser):
    """Makes a packet of what comes from or to port 7, over UDP."""

    name = protocol = "chatty"
    ports = (7,)

    def can_handle(self, packet: Any) -> bool:
        return bool(packet.payload)

    def handle(self, packet: Any) -> OutputPacket | None:
        sides = packet.five_tuple
        network = NetworkMeta(sides.src_ip, sides.dst_ip, sides.src_port, sides.dst_port)
        text = bytes(packet.payload).decode()
        labels = {"chatty.text": text, "Not_Allowed": "x"}
        value: Any = {"nan": float("nan"), "set": {1}, "large": 1 << 64, "lone": "\ud800"}.get(text, text)
        payload: Any = ["no mapping"] if text == "list" else {"is": value}
        return OutputPacket(1, "chatty", sides, network, labels=labels, payload=DictPayload("x", payload))


def test_what_parsers_of_others_make_is_sent(build: Build) -> None:
    chain = Chain([Probe("drop")])
    road = Road(build, plugins=[Chatty()], chain=chain)
    for text in (b"ping", b"nan", b"set", b"drop", b"raise"):
        road.udp(text, sport=7)
    road.give(frame(struct.pack("!HHIIHHHH", 7, 7, 1, 1, 0x5000, 1, 0, 0) + b"ping", ALICE, 0, BOB, 0, 6))
    road.udp(b"", dport=7)
    assert road.counted("output", "output_plugin", "filtered", "unmatched") == (2, 2, 1, 4)
    assert road.counted("plugin_errors", "labels_refused") == (2, 5)
    assert (chain.errors, decided(road, 1)) == (1, [1])
    maker = OutputMaker("t", {"node": "n"})
    (kind, body), (_, _) = sent = road.sent()
    assert {kind for kind, _ in sent} == {records.PLUGIN}
    made = maker.make(kind, NOW, body)
    assert made is not None
    line = made.as_dict()
    assert (line["protocol"], line["payload"]) == ("chatty", {"is": "ping"})
    assert line["labels"] == {"chatty.text": "ping", "node": "n"}
    assert (line["src_ip"], line["src_port"], line["dest_port"]) == (ALICE, 7, 5000)
    assert line["timestamp"].startswith("2023-11-14T22:13:20")


@pytest.mark.parametrize("text", ["nan", "set", "large", "lone", "list"])
def test_what_no_reporter_could_write_is_an_error_of_the_plugin(build: Build, text: str) -> None:
    road = Road(build, plugins=[Chatty()])
    road.udp(text.encode(), sport=7)
    assert road.counted("unmatched", "plugin_errors", "output") == (1, 1, 0)
    assert road.sent() == []


def test_without_a_send_ring_what_parsers_of_others_take_is_handled(build: Build) -> None:
    road = Road(build, sending=False, plugins=[Chatty()])
    road.udp(b"ping", sport=7)
    road.udp(b"ping", sport=8)
    assert road.counted("handled", "unmatched", "plugin_errors") == (1, 1, 0)
    large = Road(build, plugins=[Chatty()])
    large.udp(b"x" * 40_000, sport=7)
    assert large.counted("handled", "output_oversize") == (1, 1)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"protocol":"a"}',
        b'{"protocol":"a","labels":3,"payload":1}',
        b'{"protocol":"a","labels":{},"payload":[1]}',
        b'{"protocol":5,"labels":{},"payload":null}',
        b'{"protocol":"\\ud800","labels":{},"payload":null}',
        b"\xff",
        b"[" * 9999,
    ],
    ids=lambda text: text[:40].decode("ascii", "replace"),
)
def test_a_record_of_a_plugin_that_is_none(build: Build, text: bytes) -> None:
    assert OutputMaker("t", {}).make(records.PLUGIN, NOW, bytes(records.PACKET_SIZE) + text) is None


def test_options_that_do_not_exist_are_refused(build: Build) -> None:
    with pytest.raises(ValueError, match="options: sip_port"):
        Road(build, sip_port=1)


def test_idle_expires_flows_and_fragments(build: Build) -> None:
    road = Road(build, media_ttl_ns=1000 * MS)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    road.pipeline.idle(road.now + 999 * MS)
    assert road.counted("flows_expired") == (0,)
    road.pipeline.idle(road.now + 2000 * MS)
    assert road.counted("flows_expired") == (3,)
    assert road.streams.rows()[0]["packets"] == 1


@pytest.mark.parametrize("hours", [2, -2])
def test_a_step_of_the_wall_clock_expires_nothing(build: Build, hours: int) -> None:
    """Live: packets bear the stepped time, the flow's limits run on the task's clock."""
    road = Road(build, media_ttl_ns=5000 * MS)
    road.pipeline.moment(road.now, 0)
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    step = hours * 3600 * 1000 * MS
    steady = road.now + 1000 * MS
    # Stamped before a step and read behind it: never beyond the task's clock.
    road.pipeline.moment(steady, step)
    road.udp(rtp(2), BOB, 5000, ALICE, 4000)
    road.now = steady + step
    road.udp(rtp(3), BOB, 5000, ALICE, 4000)
    road.pipeline.idle(steady)
    assert road.counted("rtp_by_sdp", "flows_expired", "streams_expired") == (3, 0, 0)
    # Without packets it expires when its time is over on the task's clock.
    road.pipeline.moment(steady + 6000 * MS, step)
    road.pipeline.idle(steady + 6000 * MS)
    assert road.counted("flows_expired") == (3,)


# ---- any octets ----

seeds = [
    frame(sip(body=sdp()), ALICE, 5060, BOB, 5060),
    frame(rtp(1), BOB, 5000, ALICE, 4000),
    frame(SR, BOB, 5001, ALICE, 4001),
    frame(rtp(1), "2001:db8::1", 5000, "2001:db8::2", 4000),
    frame(struct.pack("!BBHI", 3, 3, 0, 0) + frame(sip(), BOB, 5060, ALICE, 5060)[14:], ALICE, 0, BOB, 0, 1),
]


@st.composite
def octets(draw: st.DrawFn) -> bytes:
    """Noise, or one of the seeds with some octets changed and the end cut."""
    if draw(st.integers(0, 4)) == 0:
        return draw(st.binary(max_size=100))
    mutant = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 5))):
        mutant[draw(st.integers(0, len(mutant) - 1))] = draw(st.integers(0, 255))
    return bytes(mutant[: draw(st.integers(0, len(mutant)))] if draw(st.booleans()) else mutant)


@given(packets=st.lists(octets(), max_size=12), link=st.sampled_from([1, 101, 113, 276, 0, 9999]))
@settings(max_examples=120, deadline=None)
def test_both_builds_balance_and_agree_on_any_octets(packets: list[bytes], link: int) -> None:
    roads = [Road(build, deduplicate=True, unmatched_forward=True) for build in (COMPILED, PURE)]
    for road in roads:
        for number, packet in enumerate(packets):
            road.give(packet, interface=number & 1, link=1 if packet in seeds else link, gap_ms=0.3)
    assert roads[0].counters.as_dict() == roads[1].counters.as_dict()
    for ours, theirs in zip(roads[0].sent(), roads[1].sent(), strict=True):
        # Slots depend on the seed of the table, nothing else does.
        assert ours[0] == theirs[0]
        assert ours[1][:120] + ours[1][128:144] == theirs[1][:120] + theirs[1][128:144]


def test_a_successor_finds_the_books_in_order(build: Build) -> None:
    """Killed between `received` and the outcome: one packet is lost, and the next one is not."""
    road = Road(build)
    road.say(sip(body=sdp()))
    road.counters.add("received")
    entry = next(
        index for index in range(road.flows.slots) if road.flows.region.words[4608 + 2 * index] >= 1 << 63
    )
    road.flows.region.words[road.flows.region.words[4608 + 2 * entry + 1]] |= 1
    assert road.counters.recover() == 1
    assert road.flows.break_locks(0) == 1
    road.say(sip(body=sdp()))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert road.counted("rtp_by_sdp", "worker_lost") == (1, 1)
