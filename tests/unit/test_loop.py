"""The packet road: what becomes of each kind of packet, and that the books balance for all of them."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.shm import records
from tests.builds import COMPILED, PURE, Build
from tests.packet_road import ALICE, BOB, MS, SR, Road, frame, rtp, sdp, sip


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


def test_a_message_that_the_snap_length_cut_is_not_malformed(build: Build) -> None:
    road = Road(build)
    message = sip(call="a-long-one@b", cseq="123 INVITE", body=sdp())
    octets = frame(message, ALICE, 5060, BOB, 5060)
    front = len(octets) - len(message)
    calls, numbers = set(), set()
    reader = road.ring.RingReader(road.evidence)
    for cut in range(front + 1, len(octets)):
        road.give(octets[:cut], wire=len(octets))
        for *_, body in reader.read(4):
            record = records.sip_record(body)
            assert (record.message, record.error) == (octets[front:cut], 0)
            assert record.flags & records.S_TRUNCATED
            calls.add(record.text("call_id"))
            numbers.add(record.cseq)
    # What stands in a line that was cut is not taken for the whole of it.
    assert calls == {"", "a-long-one@b"}
    assert numbers == {0, 123}
    assert {row["sport"] for row in road.flows.rows()} == {4000, 4001}
    seen = road.counters.get("sip_messages")
    assert seen > len(message) - 32
    assert road.counted("sip_truncated", "sip_malformed") == (seen, 0)


def test_sip_on_any_port_and_what_is_none_on_its_own(build: Build) -> None:
    road = Road(build)
    road.udp(sip("SIP/2.0 200 OK"), sport=9, dport=17)
    road.say(b"hello")
    assert road.counted("sip_responses", "unmatched") == (1, 1)


def test_tcp_on_sip_ports_is_counted_and_not_read(build: Build) -> None:
    road = Road(build, sip_ports=(5060, 5080))
    for sport, dport in ((40000, 5060), (5080, 40000), (40000, 443)):
        segment = struct.pack("!HHIIBBHHH", sport, dport, 1, 1, 0x50, 0x18, 1000, 0, 0) + sip()
        road.give(frame(segment, ALICE, sport, BOB, dport, protocol=6))
    assert road.counters.get("tcp_sip_port") == 2
    assert road.counters.get("unmatched") == 3
    assert road.counters.get("sip_messages") == 0


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
