"""What the packet road reports of RTP: each packet, some of them or figures, and what sampling leaves out."""

from __future__ import annotations

from typing import Any

import pytest

from engine.capture.media_sampling import leave_out
from engine.capture.packet_filter import PacketFilter
from engine.shm import counters as layout
from engine.shm import records
from engine.shm import rows as rows_module
from tests.builds import Build
from tests.packet_road import ALICE, BOB, MS, SR, Road, frame, rtp, sdp, sip


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
