"""The packet road of media: found by its SDP, or by what it looks like, for as long as its call."""

from __future__ import annotations

import pytest

from engine.shm import records
from tests.builds import Build
from tests.packet_road import ALICE, BOB, MS, NOW, SR, Road, frame, rtp, sdp, sip


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


@pytest.mark.parametrize(
    "body",
    [sdp(port=0), sdp("0.0.0.0"), "v=0\r\n", sdp().replace("RTP/AVP", "TCP/RTP/AVP"), sdp("host.invalid")],
)
def test_media_that_cannot_be_followed(build: Build, body: str) -> None:
    road = Road(build, rtp_heuristic=False)
    road.say(sip(body=body))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert road.counted("sdp_media", "rtp_packets", "unmatched") == (0, 0, 1)


def test_a_bundle_has_the_codecs_of_all_its_media(build: Build) -> None:
    """Audio and video on one port (RFC 9143)."""
    road = Road(build)
    video = "m=video 4000 RTP/AVP 96 97\r\na=rtpmap:96 VP8/90000\r\na=rtpmap:97 H264/90000\r\n"
    alone = "m=video 4010 RTP/AVP 96\r\na=rtpmap:96 AV1/90000\r\n"
    road.say(sip(body=sdp(formats="101", more="m=text 0 RTP/AVP 8\r\n" + video + alone)))
    for number in range(3):
        for payload_type in (96, 101):
            road.udp(rtp(number, payload_type, payload_type), BOB, 5000, ALICE, 4000)
        road.udp(rtp(number, 7, 96), BOB, 5010, ALICE, 4010)
    rows = {row["ssrc"]: row for row in road.streams.rows()}
    assert [rows[ssrc]["codec"] for ssrc in (96, 7)] == ["VP8", "AV1"]
    assert rows[101]["dtmf_count"] == 0
    assert road.counted("sdp_media", "sdp_rejected", "rtp_by_sdp") == (3, 1, 9)
    before = road.flows.figures()["added"]
    road.say(sip(body=sdp(formats="101", more="m=text 0 RTP/AVP 8\r\n" + video + alone)))
    assert road.flows.figures()["added"] == before


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


def tagged(octets: bytes, *ids: int) -> bytes:
    """The frame with these VLAN ids, the outermost one first."""
    return octets[:12] + b"".join(b"\x81\0" + number.to_bytes(2, "big") for number in ids) + octets[12:]


@pytest.mark.parametrize(
    ("signalling", "media"), [((10,), (20,)), ((10,), ()), ((), (20,)), ((100, 10), (100, 20)), ((0,), (20,))]
)
def test_media_on_another_vlan_than_its_signalling(
    build: Build, signalling: tuple[int, ...], media: tuple[int, ...]
) -> None:
    road = Road(build, rtp_heuristic=False)
    road.give(tagged(frame(sip(body=sdp()), ALICE, 5060, BOB, 5060), *signalling))
    road.give(tagged(frame(sip("SIP/2.0 200 OK", body=sdp(BOB, 5000)), BOB, 5060, ALICE, 5060), *signalling))
    for number in range(3):
        road.give(tagged(frame(rtp(number), BOB, 5000, ALICE, 4000), *media))
        road.give(tagged(frame(rtp(number, 7), ALICE, 4000, BOB, 5000), *media))
    assert [(row["call_id"], row["found_by"], row["packets"]) for row in road.streams.rows()] == [
        ("a@b", "sdp", 3)
    ] * 2
    assert road.counted("sdp_media", "flow_conflicts", "rtp_by_sdp") == (2, 0, 6)
    road.give(tagged(frame(rtp(1, 9), "10.9.9.9", 9000, "10.9.9.8", 9002), *media))
    assert road.counted("rtp_packets", "unmatched") == (6, 1)


def test_media_that_a_trunk_shows_on_two_vlans_has_no_change_of_ssrc(build: Build) -> None:
    road = Road(build)
    road.give(tagged(frame(sip(body=sdp()), ALICE, 5060, BOB, 5060), 10))
    for number in range(4):
        for vlan in (20, 30):
            road.give(tagged(frame(rtp(number, 5), BOB, 5000, ALICE, 4000), vlan))
    road.give(tagged(frame(rtp(1, 6), BOB, 5000, ALICE, 4000), 30))
    assert [
        (row["ssrc"], row["packets"], row["ssrc_changes"], row["previous_ssrc"])
        for row in sorted(road.streams.rows(), key=lambda row: (row["ssrc"], row["domain"]))
    ] == [(5, 4, 0, None), (5, 4, 0, None), (6, 1, 1, 5)]


def test_signalling_behind_the_media_names_it_on_another_vlan_too(build: Build) -> None:
    road = Road(build)
    for number in range(6):
        road.give(tagged(frame(rtp(number), BOB, 5000, ALICE, 4000), 20))
    assert [(row["call_id"], row["found_by"]) for row in road.streams.rows()] == [("", "heuristic")]
    road.give(tagged(frame(sip(call="late", body=sdp()), ALICE, 5060, BOB, 5060), 10))
    road.give(tagged(frame(rtp(6), BOB, 5000, ALICE, 4000), 20))
    assert [(row["call_id"], row["found_by"], row["packets"]) for row in road.streams.rows()] == [
        ("late", "sdp", 7)
    ]


@pytest.mark.parametrize("heuristic", [False, True])
def test_media_goes_to_the_call_on_its_own_vlan_when_that_is_announced(build: Build, heuristic: bool) -> None:
    road = Road(build, rtp_heuristic=heuristic)
    road.give(tagged(frame(sip(call="other", body=sdp()), ALICE, 5060, BOB, 5060), 10))
    for number in range(6):
        road.give(tagged(frame(rtp(number), BOB, 5000, ALICE, 4000), 20))
    road.give(tagged(frame(sip(call="own", body=sdp()), ALICE, 5060, BOB, 5060), 20))
    road.give(tagged(frame(rtp(6), BOB, 5000, ALICE, 4000), 20))
    road.give(tagged(frame(rtp(1, 9), BOB, 5000, ALICE, 4000), 20))
    assert [row["call_id"] for row in road.streams.rows() if row["ssrc"] == 9] == ["own"]
    for number in range(2, 5):
        road.give(tagged(frame(rtp(number, 10), BOB, 5000, ALICE, 4000), 30))
    assert [row["call_id"] for row in road.streams.rows() if row["ssrc"] == 10] == ["other"]


def test_calls_of_two_vlans_with_the_same_addresses_stay_apart(build: Build) -> None:
    road = Road(build)
    for vlan in (10, 20):
        road.give(tagged(frame(sip(call=f"call {vlan}", body=sdp()), ALICE, 5060, BOB, 5060), vlan))
    road.say(sip(call="untagged", body=sdp()))
    for vlan in (10, 20):
        road.give(tagged(frame(rtp(1, vlan), BOB, 5000, ALICE, 4000), vlan))
    road.udp(rtp(1, 1), BOB, 5000, ALICE, 4000)
    assert {row["ssrc"]: row["call_id"] for row in road.streams.rows()} == {
        10: "call 10",
        20: "call 20",
        1: "untagged",
    }
    assert road.counted("flow_conflicts") == (0,)


def test_rtcp_on_another_vlan_than_its_signalling(build: Build) -> None:
    road = Road(build)
    road.give(tagged(frame(sip(body=sdp()), ALICE, 5060, BOB, 5060), 10))
    for number in range(2):
        road.give(tagged(frame(rtp(number), BOB, 5000, ALICE, 4000), 20))
    report = SR[:2] + b"\0\x06" + SR[4:] + b"\x81\xca\0\x03" + SR[4:8] + b"\x01\x03a@b\0\0\0"
    road.give(tagged(frame(report, BOB, 5001, ALICE, 4001), 20))
    assert road.counted("rtcp_packets") == (1,)
    assert [row["sender"]["reports"] for row in road.streams.rows()] == [1]


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


def test_the_clock_that_an_sdp_names_late_makes_no_jitter(build: Build) -> None:
    """A delayed offer: 20 ms of 48 kHz, steady all along."""
    road = Road(build)
    for number in range(20):
        road.udp(rtp(number, payload_type=96, timestamp=960 * number), BOB, 5000, ALICE, 4000, gap_ms=20)
    assert [row["max_jitter_ms"] for row in road.streams.rows()] == [None]
    road.say(sip(body=sdp(formats="96", more="a=rtpmap:96 opus/48000/2\r\n")), gap_ms=0)
    for number in range(20, 40):
        road.udp(rtp(number, payload_type=96, timestamp=960 * number), BOB, 5000, ALICE, 4000, gap_ms=20)
    (row,) = road.streams.rows()
    assert (row["codec"], row["packets"]) == ("OPUS", 40)
    assert row["max_jitter_ms"] == pytest.approx(0)


FAX = "v=0\r\no=- 1 2 IN IP4 {0}\r\ns=-\r\nc=IN IP4 {0}\r\nt=0 0\r\nm=image {1} udptl t38\r\n"


def test_fax_on_the_ports_of_the_voice_is_not_media(build: Build) -> None:
    """T.38 after a re-INVITE: UDPTL's sequence numbers from 0x8000 on begin as RTP and RTCP do."""
    road = Road(build)
    road.say(sip(body=sdp()))
    road.say(sip("SIP/2.0 200 OK", body=sdp(BOB, 5000)))
    for number in range(5):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000, gap_ms=20)
    road.say(sip(body=FAX.format(ALICE, 4000), cseq="2 INVITE"))
    road.say(sip("SIP/2.0 200 OK", body=FAX.format(BOB, 5000), cseq="2 INVITE"))
    for number in range(0x8000, 0xC000, 97):
        fax = number.to_bytes(2, "big") + b"\x06\x01\x02\x03\x04\x05\0\0" + bytes(30)
        road.udp(fax, BOB, 5000, ALICE, 4000, gap_ms=30)
        road.udp(fax, ALICE, 4000, BOB, 5000)
    assert road.counted("rtp_packets", "malformed") == (5, 0)
    # Voice that was under way, RTCP, and the way back from fax to voice with another source.
    road.udp(rtp(5), BOB, 5000, ALICE, 4000)
    road.udp(SR, BOB, 5000, ALICE, 4000)
    road.say(sip(body=sdp(), cseq="3 INVITE"))
    for number in range(3):
        road.udp(rtp(number, 0x99), BOB, 5000, ALICE, 4000, gap_ms=20)
    assert road.counted("rtp_packets", "rtcp_packets", "malformed") == (9, 1, 0)
    assert {row["ssrc"]: row["packets"] for row in road.streams.rows()} == {0x1234: 6, 0x99: 3}


def test_a_fax_of_another_call_takes_no_port(build: Build) -> None:
    road = Road(build)
    road.say(sip(body=sdp()))
    road.say(sip(call="thief", body=FAX.format(ALICE, 4000)))
    road.udp(rtp(1), BOB, 5000, ALICE, 4000)
    assert road.counted("rtp_packets", "rtp_by_sdp") == (1, 1)


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
