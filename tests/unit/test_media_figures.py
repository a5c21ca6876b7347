"""Telephone events, RTCP, codecs and markings on the whole packet road, both builds."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builds import COMPILED, PURE, Build
from tests.packet_road import ALICE, BOB, MS, NOW, Road, frame, rtp, sdp, sip
from tests.unit.test_rtcp import METRICS, block, extended, names, packet, receiver_report, sender_report

A, B = 0x1234, 0x5678
"""SSRC of Alice's stream and of Bob's."""


def called(build: Build, alice: str = "", bob: str = "", call: str = "a@b") -> Road:
    """A call with media both ways; `alice` and `bob` are more lines of their SDP."""
    road = Road(build)
    road.say(sip(call=call, body=sdp(more=alice)))
    road.udp(sip("SIP/2.0 200 OK", call, sdp(BOB, 5000, more=bob)), BOB, 5060, ALICE, 5060)
    talk(road)
    return road


def talk(road: Road, first: int = 0, count: int = 3) -> None:
    for number in range(first, first + count):
        road.udp(rtp(number, A), gap_ms=10)
        road.udp(rtp(number, B), BOB, 5000, ALICE, 4000, gap_ms=10)


def streams(road: Road) -> dict[int, dict[str, Any]]:
    return {row["ssrc"]: row for row in road.streams.rows(True)}


# ---- telephone events ----


def event(number: int, stamp: int, code: int, length: int, end: bool = False, tail: bytes = b"") -> bytes:
    body = struct.pack("!BBH", code, (0x80 if end else 0) | 10, length) + tail
    return rtp(number, A, 101, stamp, body)


def key(road: Road, number: int, stamp: int, code: int, packets: int = 5, ends: int = 3) -> int:
    """A key that is pressed for `packets` * 20 ms; the next sequence number."""
    for index in range(packets):
        road.udp(event(number + index, stamp, code, 160 * (index + 1)), gap_ms=20)
    for index in range(ends):
        road.udp(event(number + packets + index, stamp, code, 160 * packets + 80, True), gap_ms=20)
    return number + packets + ends


def test_digits_with_times_and_durations(build: Build) -> None:
    road = called(build)
    number, times = 3, []
    for index, code in enumerate([1, 9, 10, 11, 12]):
        times.append(road.now + 20 * MS)
        # The ends of the third one are lost.
        number = key(road, number, 8000 + 2000 * index, code, ends=0 if index == 2 else 3)
    row = streams(road)[A]
    assert (row["digits"], row["dtmf_count"], row["codec"], row["type_changes"]) == ("19*#A", 5, "PCMA", 0)
    assert [found["time_ns"] for found in row["dtmf"]] == times
    assert [found["duration_ms"] for found in row["dtmf"]] == [110, 110, 100, 110, 110]
    assert [found["ended"] for found in row["dtmf"]] == [True, True, False, True, True]
    assert streams(road)[B]["dtmf"] == []


def test_an_event_in_disorder_is_one(build: Build) -> None:
    road = called(build)
    key(road, 3, 8000, 5)
    key(road, 20, 16_000, 5)
    for stamp in (8000, 16_000, 8000):
        road.udp(event(11, stamp, 5, 300, True))
    assert (streams(road)[A]["digits"], streams(road)[A]["dtmf_count"]) == ("55", 2)
    assert streams(road)[A]["dtmf"][0]["duration_ms"] == 110


def test_a_long_event_goes_on_in_segments(build: Build) -> None:
    road = called(build)
    for segment in range(3):
        road.udp(event(3 + segment, (0xFFFF0000 + 0xFFFF * segment) & 0xFFFFFFFF, 7, 0xFFFF))
    road.udp(event(6, (0xFFFF0000 + 0xFFFF * 3) & 0xFFFFFFFF, 7, 800, True))
    row = streams(road)[A]
    assert (row["digits"], row["dtmf"][0]["duration_ms"], row["dtmf"][0]["ended"]) == ("7", 24_675, True)


def test_the_newest_events_are_kept_and_all_counted(build: Build) -> None:
    road = called(build)
    for index in range(40):
        road.udp(event(3 + index, 8000 + 1000 * index, index % 10, 400, True), gap_ms=100)
    row = streams(road)[A]
    assert (row["dtmf_count"], row["digits"]) == (40, "".join(str(index % 10) for index in range(8, 40)))


def test_flash_and_tones_are_no_digits(build: Build) -> None:
    road = called(build)
    for index, code in enumerate([16, 32, 3]):
        road.udp(event(3 + index, 8000 + 1000 * index, code, 400, True))
    row = streams(road)[A]
    assert (row["digits"], [found["event"] for found in row["dtmf"]]) == ("3", [16, 32, 3])
    assert [found["digit"] for found in row["dtmf"]] == [None, None, "3"]


def test_encrypted_events_are_not_read(build: Build) -> None:
    road = called(build)
    for tail in (bytes(4), bytes(10), b""):
        packet_of = event(3, 8000, 5, 400, True, tail)
        road.udp(packet_of if tail else packet_of[:-1])
    assert (streams(road)[A]["dtmf_count"], streams(road)[A]["telephone_events"]) == (0, 3)


# ---- RTCP ----


def ntp(milliseconds: int) -> int:
    return 0xE000_0000 << 32 | (milliseconds << 32) // 1000


def middle(milliseconds: int) -> int:
    return ntp(milliseconds) >> 16 & 0xFFFFFFFF


def test_round_trips_to_both_ends(build: Build) -> None:
    road = called(build)
    # Alice reports; Bob answers 70 ms later, of which he held it 30 ms: 40 ms from here to him and back.
    road.udp(sender_report(ssrc=A, ntp=ntp(1000)), ALICE, 4001, BOB, 5001)
    road.udp(
        sender_report(block(A, 64, 5, middle(1000), 30 * 65536 // 1000), ssrc=B, ntp=ntp(5000)),
        BOB, 5001, ALICE, 4001, gap_ms=70,
    )  # fmt: skip
    # Alice answers Bob's report after 25 ms, of which she held it 5 ms.
    road.udp(
        receiver_report(block(B, 0, -2, middle(5000), 5 * 65536 // 1000), ssrc=A),
        ALICE, 4001, BOB, 5001, gap_ms=25,
    )  # fmt: skip
    rows = streams(road)
    assert rows[A]["far"]["rtt_ms"] == rows[B]["sender"]["rtt_ms"] == pytest.approx(40, abs=0.1)
    assert rows[B]["far"]["rtt_ms"] == rows[A]["sender"]["rtt_ms"] == pytest.approx(20, abs=0.1)
    assert rows[A]["delay_ms"] == rows[B]["delay_ms"] == pytest.approx(30, abs=0.1)
    far = rows[A]["far"]
    assert (far["reports"], far["lost"], far["lost_pct"], far["ssrc"]) == (1, 5, 25, B)
    assert (far["highest_sequence"], far["jitter_ms"], far["last_ns"]) == (0x10005, 20, road.now - 25 * MS)
    assert rows[B]["far"]["lost"] == -2
    # Our own figures are not those of the far end.
    assert (rows[A]["lost"], rows[A]["out_of_order"]) == (0, 0)
    sender = rows[A]["sender"]
    assert (sender["reports"], sender["receiver_reports"], sender["packets"], sender["bytes"]) == (
        1,
        1,
        100,
        16_000,
    )
    assert road.counted("rtcp_packets", "rtcp_unread", "rtcp_defects", "rtcp_strangers") == (3, 0, 0, 0)


def test_a_report_on_one_that_did_not_pass_here_has_no_round_trip(build: Build) -> None:
    road = called(build)
    road.udp(sender_report(ssrc=A, ntp=ntp(1000)), ALICE, 4001, BOB, 5001)
    road.udp(sender_report(ssrc=A, ntp=ntp(6000)), ALICE, 4001, BOB, 5001, gap_ms=5000)
    for last, delay in ((middle(999), 0), (0, 0), (middle(6000), 65536)):
        road.udp(receiver_report(block(A, last=last, delay=delay), ssrc=B), BOB, 5001, ALICE, 4001)
    assert (streams(road)[A]["far"]["reports"], streams(road)[A]["far"]["rtt_ms"]) == (3, None)
    # The one before the newest is still known.
    road.udp(receiver_report(block(A, last=middle(1000), delay=65536), ssrc=B), BOB, 5001, ALICE, 4001)
    assert streams(road)[A]["far"]["rtt_ms"] == pytest.approx(4004, abs=1)


def test_round_trip_of_extended_reports(build: Build) -> None:
    """Bob only listens: he gives his reference time, Alice answers it 50 ms later and held it 20 ms."""
    road = called(build)
    reference = extended((4, struct.pack("!Q", ntp(3000))), ssrc=B)
    road.udp(receiver_report(block(A, last=0), ssrc=B) + reference, BOB, 5001, ALICE, 4001)
    answer = struct.pack("!III", B, middle(3000), 20 * 65536 // 1000)
    road.udp(sender_report(ssrc=A) + extended((5, answer), ssrc=A), ALICE, 4001, BOB, 5001, gap_ms=50)
    rows = streams(road)
    assert rows[A]["sender"]["rtt_ms"] == rows[B]["far"]["rtt_ms"] == pytest.approx(30, abs=0.1)


def test_what_else_rtcp_says(build: Build) -> None:
    road = called(build)
    app = packet(204, struct.pack("!I4s", A, b"OTUS"))
    feedback = packet(206, struct.pack("!II", A, B), 1)
    road.udp(
        sender_report(ssrc=A) + names((A, b"alice@example.com")) + app + feedback + extended(ssrc=A),
        ALICE, 4001, BOB, 5001,
    )  # fmt: skip
    voip = extended((7, struct.pack("!I", A) + METRICS), ssrc=B)
    road.udp(receiver_report(block(A), ssrc=B) + voip, BOB, 5001, ALICE, 4001)
    row = streams(road)[A]
    sender = row["sender"]
    assert (sender["cname"], sender["app"], sender["apps"], sender["bye_ns"]) == (
        "alice@example.com", "OTUS", 1, None,
    )  # fmt: skip
    assert (row["xr"]["mos_lq"], row["xr"]["reports"], streams(road)[B]["xr"]) == (4.2, 1, None)
    road.udp(receiver_report(ssrc=A) + packet(203, struct.pack("!I", A), 1), ALICE, 4001, BOB, 5001)
    assert streams(road)[A]["sender"]["bye_ns"] == road.now
    assert row["rtcp"] > 0


def test_a_long_name_is_cut(build: Build) -> None:
    road = called(build)
    for name in (b"x" * 255, "grün".encode(), b"\xff\x1b["):
        road.udp(sender_report(ssrc=A) + names((A, name)), ALICE, 4001, BOB, 5001)
        found = streams(road)[A]["sender"]["cname"]
        assert found == name[:63].decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("lines", "alice", "bob"),
    [
        ("", 4001, 5001),
        ("a=rtcp-mux\r\n", 4000, 5000),
        ("a=rtcp:{}\r\n", 4777, 5777),
    ],
    ids=["one above", "multiplexed", "a=rtcp"],
)
def test_wherever_rtcp_is(build: Build, lines: str, alice: int, bob: int) -> None:
    road = called(build, lines.format(4777), lines.format(5777))
    road.udp(sender_report(block(B), ssrc=A), ALICE, alice, BOB, bob)
    rows = streams(road)
    assert (rows[A]["sender"]["reports"], rows[B]["far"]["reports"]) == (1, 1)
    assert road.counted("rtcp_strangers", "unmatched") == (0, 0)


@pytest.mark.parametrize("length", [3, 8, 32, 33, 120, 127, 128])
def test_rtcp_at_another_address_belongs_to_its_call(build: Build, length: int) -> None:
    lines = "a=rtcp:7001 IN IP4 10.0.0.9\r\n", "a=rtcp:7002 IN IP4 10.0.0.8\r\n"
    road = called(build, *lines, call="c" * length)
    road.udp(sender_report(block(B), ssrc=A), "10.0.0.9", 7001, "10.0.0.8", 7002)
    rows = streams(road)
    assert (rows[A]["sender"]["reports"], rows[B]["far"]["reports"]) == (1, 1)


def test_rtcp_of_another_call_changes_nothing(build: Build) -> None:
    road = called(build)
    road.say(sip(call="other", body=sdp("10.0.0.3", 6000)))
    road.udp(sender_report(block(B), ssrc=A), "10.0.0.3", 6001, "10.0.0.4", 7001)
    rows = streams(road)
    assert (rows[A]["sender"], rows[B]["far"]) == (None, None)
    assert road.counted("rtcp_packets", "rtcp_strangers") == (1, 1)


def test_encrypted_and_cut_rtcp_gives_no_figures(build: Build) -> None:
    road = called(build)
    clear = sender_report(block(B), ssrc=A)
    road.udp(clear + b"\x80\0\0\x01" + bytes(10), ALICE, 4001, BOB, 5001)
    road.udp(clear + clear[:-4], ALICE, 4001, BOB, 5001)
    assert (streams(road)[A]["sender"], streams(road)[B]["far"]) == (None, None)
    assert road.counted("rtcp_packets", "rtcp_unread") == (2, 2)


@given(parts=st.lists(st.one_of(
    st.sampled_from([sender_report(block(B), ssrc=A), receiver_report(block(A), ssrc=B), names((A, b"x"))]),
    st.builds(
        lambda kind, body, count: packet(kind, struct.pack("!I", A) + body, count),
        st.integers(200, 207), st.binary(max_size=80), st.integers(0, 31),
    ),
), min_size=1, max_size=4), end=st.booleans())  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_rtcp_is_the_same_to_both_builds(parts: list[bytes], end: bool) -> None:
    rows = []
    for build in (COMPILED, PURE):
        road = called(build)
        ports = (ALICE, 4001, BOB, 5001) if end else (BOB, 5001, ALICE, 4001)
        road.udp(b"".join(parts), *ports)
        found = streams(road)
        for row in found.values():
            for name in ("id", "flow_slot"):
                row.pop(name)
        rows.append((found, road.counted("rtcp_unread", "rtcp_defects", "rtcp_strangers")))
    assert rows[0] == rows[1]


# ---- codecs and the flow ----


def test_96_changes_its_meaning_in_the_middle(build: Build) -> None:
    """A re-INVITE (RFC 3264 section 8) maps the number anew: name, clock rate and score follow."""
    road = Road(build)

    def offer(name: str, cseq: str) -> None:
        line = f"a=rtpmap:96 {name}\r\n"
        road.say(sip(body=sdp(formats="96", more=line), cseq=cseq))
        answer = sip("SIP/2.0 200 OK", body=sdp(BOB, 5000, "96", line), cseq=cseq)
        road.udp(answer, BOB, 5060, ALICE, 5060)

    offer("G729/8000", "1 INVITE")
    for number in range(100):
        road.udp(rtp(number, A, 96), gap_ms=20)
    before = streams(road)[A]
    assert (before["codec"], before["codec_changes"], before["type_changes"]) == ("G729", 0, 0)
    assert before["mos"] == pytest.approx(4.1, abs=0.1)
    assert before["max_jitter_ms"] < 0.1
    offer("opus/48000/2", "2 INVITE")
    for number in range(100, 200):
        road.udp(rtp(number, A, 96, 160 * 100 + 960 * (number - 100)), gap_ms=20)
    after = streams(road)[A]
    assert (after["codec"], after["codec_changes"], after["type_changes"]) == ("OPUS", 1, 0)
    assert after["mos_now"] is None
    assert after["jitter_ms"] < 25
    offer("PCMA/8000", "3 INVITE")
    for number in range(200, 203):
        road.udp(rtp(number, A, 96), gap_ms=20)
    assert (streams(road)[A]["codec"], streams(road)[A]["codec_changes"]) == ("PCMA", 2)


def test_another_ssrc_in_the_same_flow(build: Build) -> None:
    road = called(build)
    talk(road, 3)
    for ssrc in (0x9999, 0x9999, A):
        road.udp(rtp(9, ssrc))
    rows = streams(road)
    assert (rows[0x9999]["ssrc_changes"], rows[0x9999]["previous_ssrc"]) == (1, A)
    assert (rows[A]["ssrc_changes"], rows[A]["previous_ssrc"]) == (1, 0x9999)
    assert (rows[B]["ssrc_changes"], rows[B]["previous_ssrc"]) == (0, None)


def marked(octets: bytes, tos: int) -> bytes:
    return octets[:15] + bytes([tos]) + octets[16:]


def test_dscp_of_media_by_sdp_and_of_guessed_media(build: Build) -> None:
    road = called(build)
    for number, tos in enumerate((0xB8, 0xBB, 0x00, 0xB8)):
        road.give(marked(frame(rtp(3 + number, A), ALICE, 4000, BOB, 5000), tos))
    row = streams(road)[A]
    assert (row["dscp_first"], row["dscp"], row["dscp_changes"]) == (0, 46, 3)
    guessed = Road(build)
    for number in range(8):
        guessed.give(marked(frame(rtp(number, B), ALICE, 8000, BOB, 9000), 0xB8), gap_ms=20)
    row = streams(guessed)[B]
    assert (row["packets"], row["dscp_first"], row["dscp"], row["dscp_changes"]) == (8, 46, 46, 0)


def test_a_place_in_the_table_is_clean_for_the_next_stream(build: Build) -> None:
    road = called(build)
    road.udp(sender_report(block(B), ssrc=A) + names((A, b"alice")), ALICE, 4001, BOB, 5001)
    key(road, 3, 8000, 5)
    table = road.streams
    table.region.words[32] = 1000
    table.sweep(road.now + 1_000_000, 1 << 10)
    assert table.rows() == []
    for ssrc in range(1, 200):
        table.add(7, 1, 2, 3, 4, ssrc << 32 | 5000 << 16 | 4000, 0, NOW)
    for slot in table.taken():
        unit = table.unit(table.region.words[64 + 2 * slot + 1])
        assert not any(table.region.words[unit : unit + 128])
