"""Inputs that broke other tools, each class of fault with what is asserted of it here, in both builds.

A message goes through the whole packet road of a worker and the store behind it; what counts is that the
books balance, that both builds write the same, and what the record says.
"""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest

from engine.parsers.sdp_text import media_dicts
from engine.shm import records
from engine.shm.records import sip_record
from tests.builds import COMPILED, PURE, Build
from tests.fuzz import frames
from tests.fuzz.frames import Frame, ip, joined, udp
from tests.fuzz.targets import Pair, on
from tests.messages import OFFER, with_body
from tests.packet_road import ALICE, BOB, Road, rtp, sdp, sip

INVITE, OK = "INVITE sip:b@x.test SIP/2.0", "SIP/2.0 200 OK"


def message(
    first: str = INVITE, more: str = "", body: str = "", length: str | None = None, call: str = "c@x"
) -> bytes:
    """A message whose headers end with `more`; `length`: Content-Length as it is said to be."""
    said = str(len(body.encode())) if length is None else length
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{first}\r\nVia: SIP/2.0/UDP a;branch=z9hG4bK1\r\nFrom: <sip:a@x>;tag=1\r\nTo: <sip:b@x>\r\n"
        f"Call-ID: {call}\r\nCSeq: 1 INVITE\r\n{more}{kind}Content-Length: {said}\r\n\r\n{body}"
    ).encode()


def road(*payloads: bytes) -> dict[str, Any]:
    """What both builds make of these payloads between two SIP ports: counters by name, SIP records."""
    given = joined([udp(one, 5060, 5060) for one in payloads])
    counts, sent, _, _ = Pair("pipeline").check(given)
    return {**dict(counts), "records": [sip_record(body) for kind, body in sent if kind == records.SIP]}


def on_media(*payloads: bytes) -> dict[str, int]:
    """Counters of a call whose media port got these payloads."""
    counts, _, _, _ = Pair("media").check(joined([Frame(0, 20, one) for one in payloads]))
    return dict(counts)


def described(build: Build, body: str) -> list[dict[str, Any]]:
    """The media that a build reads from a description."""
    parser = build.module("engine.parsers.sdp").SdpParser()
    octets = body.encode()
    parser.attach(octets)
    parser.parse(0, len(octets))
    return media_dicts(parser)


# ---- buffers of a fixed size ----


@pytest.mark.parametrize("length", [50, 127, 128, 255, 256, 1024, 4096, 20_000])
def test_long_values(length: int) -> None:
    """Call-ID, X-Call-ID, Warning and any other header as long as a datagram (sngrep's, kamailio's)."""
    long = "x" * length
    found = road(
        message(call=long),
        message(more=f"X-Call-ID: {long}\r\n"),
        message(OK, more=f'Warning: 399 x "{long}"\r\n'),
        message(f"INVITE sip:{long}@x SIP/2.0"),
        message(more=f"Contact: <sip:{long}>\r\nReason: {long}\r\nUser-Agent: {long}\r\n"),
    )
    first, second, third, fourth, fifth = found["records"]
    assert first.text("call_id") == second.text("x_call_id") == fifth.text("user_agent") == long
    assert third.text("warning") == f'399 x "{long}"'
    assert len(fourth.text("uri")) == length + 6
    assert found["sip_messages"] == 5


@pytest.mark.parametrize(
    "name", ["Warning", "Call-ID", "Content-Length", "Via", "From", "CSeq", "Reason", "Date"]
)
@pytest.mark.parametrize("value", ["", " ", '"', "<", ";", ",", "\r\n ", "\0"])
def test_empty_and_broken_values(name: str, value: str) -> None:
    found = road(message(OK, more=f"{name}:{value}\r\n"), f"{OK}\r\n{name}:{value}\r\n\r\n".encode())
    assert found["sip_messages"] == 2
    second, alone = found["records"]
    # What a message may have once is that of its first header; what is missing or broken is told.
    assert second.text("call_id") == "c@x"
    assert bool(second.error) == (name not in ("Warning", "Via", "Reason"))
    assert alone.error
    slot = name.lower().replace("-", "_")
    if slot in ("warning", "reason"):
        assert second.text(slot) == alone.text(slot) == value.strip()
    if slot in ("call_id", "from"):
        assert alone.text(slot) == value.strip()


@pytest.mark.parametrize("kind", ["audio" * 2000, "a" * 65, "", "\xff" * 300])
def test_media_types_of_any_length(kind: str) -> None:
    body = f"v=0\r\nc=IN IP4 10.9.9.9\r\nm={kind} 4000 RTP/AVP 8\r\n"
    found = road(message(body=body))
    assert (found["sip_messages"], found["sdp_media"]) == (1, 1)
    assert found["records"][0].slot("body") == body.encode()
    for build in (COMPILED, PURE):
        (one,) = described(build, body)
        assert (one["type"].encode(), one["port"], one["address"]) == (kind.encode(), 4000, "10.9.9.9")


@pytest.mark.parametrize(
    "line",
    [
        "m=audio 49170" + "a" * 1000 + " RTP/AVP 0",
        "m=audio 99999999999999999999 RTP/AVP 0",
        "m=audio -1 RTP/AVP 0",
        "m=audio 65536 RTP/AVP 0",
        "m=audio 4000/99999999999 RTP/AVP 0",
    ],
)
def test_ports_that_are_none(line: str) -> None:
    """As of the router's helper that wrote them onto its stack (CVE-2022-27255)."""
    found = road(message(body=f"v=0\r\nc=IN IP4 10.9.9.9\r\n{line}\r\n"))
    assert found["sip_messages"] == 1
    assert found.get("sdp_media", 0) == ("/9" in line)


# ---- arithmetic ----


@pytest.mark.parametrize(
    "length",
    [
        "4294967328",
        "18446744073709551648",
        "-1",
        "2147483648",
        "99999999999999999999999",
        "1e3",
        "0x10",
        "+5",
        " ",
        "5 5",
    ],
)
def test_content_length(length: str) -> None:
    """2^32 + 32 is not 32 (CVE-2026-23457): what is said to be longer than the datagram is cut, and told."""
    body = OFFER.decode()
    one = road(message(body=body, length=length))["records"]
    assert len(one) == 1
    assert one[0].error
    assert bool(one[0].flags & records.S_TRUNCATED) == (length.isdigit() and int(length) > len(body))
    assert one[0].slot("body") == OFFER


def test_a_second_message_behind_the_first_is_no_part_of_it() -> None:
    second = message("BYE sip:b@x SIP/2.0", call="other@x")
    (one,) = road(message() + second)["records"]
    assert (one.text("call_id"), one.slot("body")) == ("c@x", None)


@pytest.mark.parametrize("value", ["2147483648", "4294967296", "99999999999999999999", "-1", "1.5", ""])
@pytest.mark.parametrize("name", ["a=ptime:", "a=maxptime:", "a=rtcp:", "a=rtpmap:96 X/", "b=AS:", "t="])
def test_numbers_of_a_description(name: str, value: str) -> None:
    body = f"v=0\r\nc=IN IP4 10.9.9.9\r\nm=audio 4000 RTP/AVP 96\r\n{name}{value}\r\n"
    assert road(message(body=body))["sdp_media"] == 1
    # A number that none of its kind can be is unknown; never another one.
    for build in (COMPILED, PURE):
        (one,) = described(build, body)
        assert one["ptime"] in (None, 1)
        assert one["rtcp_port"] in (4001, 1)
        assert [(codec["type"], codec["clock"]) for codec in one["codecs"]] in ([(96, None)], [(96, 1)])


@pytest.mark.parametrize(
    "value", ["2147483648 INVITE", "4294967295 INVITE", "99999999999999999999 INVITE", "-1 INVITE"]
)
def test_sequence_numbers(value: str) -> None:
    (one,) = road(message().replace(b"CSeq: 1 INVITE", b"CSeq: " + value.encode()))["records"]
    assert one.error
    assert 0 <= one.cseq < 1 << 32


# ---- reading beyond the end ----


MULTIPARTS = (
    "--x",
    "--x\r\n",
    "--x--",
    "--x\r\nContent-Type: application/sdp",
    "--x\r\nContent-Type: application/sdp\r\n\r\n",
    "--x\r\n\r\n--x\r\n\r\nv=0",
    "--x\r\nContent-Type: multipart/mixed;boundary=x\r\n\r\n" * 40,
    "--" * 3000,
    "\r\n--x" * 3000,
)


@pytest.mark.parametrize("body", MULTIPARTS)
@pytest.mark.parametrize("boundary", ["x", '"x', '""', "", "x" * 300, "-", "--"])
def test_multipart_bodies(body: str, boundary: str) -> None:
    """PJSIP's CVE-2022-21723."""
    text = (
        message(more=f"Content-Type: multipart/mixed;boundary={boundary}\r\n", length=str(len(body)))
        + body.encode()
    )
    assert Pair("sip").check(text)[1] == 1


DESCRIPTIONS = (
    "v=0",
    "v",
    "=",
    "m=",
    "m=audio",
    "m=audio 1",
    "c=",
    "c=IN IP4",
    "c=IN IP4 1.2.3.4/",
    "c=IN IP6 ::ffff:1.2.3.4/127/3",
    "m=audio 1 RTP/AVP 0\r\na=rtpmap:",
    "m=audio 1 RTP/AVP 0\r\na=rtpmap:0",
    "m=audio 1 RTP/AVP 0\r\na=rtcp:",
    "m=audio 1 RTP/AVP 0\r\na=crypto:" + "1 " * 3000,
    "m=audio 1 RTP/AVP " + "0 " * 3000,
    "a=" * 3000,
    "\r\n" * 3000,
    "o=\r\n" * 1000,
)


@pytest.mark.parametrize("body", DESCRIPTIONS)
def test_descriptions_that_end_anywhere(body: str) -> None:
    """sofia-sip's CVE-2022-31001 to 31003, PJSIP's 24764, and the loops of Wireshark over `crypto`."""
    for end in {*range(min(80, len(body)) + 1), len(body)}:
        Pair("sdp").check(body[:end].encode())
    assert road(message(body=body))["sip_messages"] == 1


def test_every_cut_of_a_message_in_a_packet() -> None:
    """Each cut is a packet of its own; whatever is left of the message, its books balance."""
    whole = frames.call()[0]
    for start in range(42, len(whole), 48):
        Pair("pipeline").check(joined([whole[:end] for end in range(start, min(start + 48, len(whole)))]))


# ---- media ----


@pytest.mark.parametrize(
    "payload",
    [
        struct.pack("!BBHI", 0x81, 203, 1, 0x1234),
        struct.pack("!BBHIB", 0x81, 203, 2, 0x1234, 255) + b"abc",
        struct.pack("!BBHI", 0x9F, 203, 1, 0x1234),
        struct.pack("!BBHI", 0x81, 203, 0xFFFF, 0x1234),
        struct.pack("!BBHII", 0x83, 206, 3, 0x1234, 0x4321) + b"\xff\x7f\0\0",
        struct.pack("!BBHI", 0x9F, 200, 1, 0x1234),
        struct.pack("!BBHI", 0x81, 202, 2, 0x1234) + b"\x01\xff\0\0",
        struct.pack("!BBHI", 0xA0, 201, 1, 0x12340000 | 200),
        struct.pack("!BBHI", 0x80, 207, 2, 0x1234) + b"\x05\0\xff\xff",
        struct.pack("!BBHI", 0x80, 207, 2, 0x1234) + b"\x07\0\0\x08",
    ],
)
def test_rtcp_that_says_more_than_it_has(payload: bytes) -> None:
    """Reason of a BYE (CVE-2021-43804), RPSI (CVE-2022-24786), reports without end (CVE-2022-21722)."""
    for end in range(2, len(payload) + 1):
        counts = on_media(payload[:end])
        assert counts["received"] == 3
    assert counts.get("rtcp_packets", 0) + counts.get("rtcp_malformed", 0) == 1


@pytest.mark.parametrize("first", [0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF])
def test_rtp_that_is_shorter_than_its_header(first: int) -> None:
    """CSRC lists, extensions and padding beyond the end (sngrep's check of 45 octets, VP9's descriptors)."""
    packet = struct.pack("!BBHII", first, 8, 1, 160, 0x1234) + b"\xff" * 40
    for end in range(1, len(packet) + 1):
        counts = on_media(packet[:end])
        whole = counts.get("rtp_packets", 0) + counts.get("rtp_malformed", 0) + counts.get("unmatched", 0)
        assert whole + counts.get("output_raw", 0) == 1


@pytest.mark.parametrize("length", range(6))
def test_telephone_events_that_are_cut(length: int) -> None:
    event = struct.pack("!BBHII", 0x80, 101, 1, 160, 0x1234) + b"\x05\x8a\xff\xff\0\0"[:length]
    assert on_media(event)["rtp_packets"] == 1


# ---- no end ----


@pytest.mark.parametrize(
    "octet", [b"\r", b"\n", b"\r\n", b" ", b"\t", b"\r\n ", b"\0", b"a", b":", b"a:\r\n"]
)
def test_nothing_but_one_octet(octet: bytes) -> None:
    """The loops that Wireshark had over empty lines."""
    Pair("sip").check(octet * (8000 // len(octet)))
    Pair("sip").check(INVITE.encode() + b"\r\n" + octet * (8000 // len(octet)))
    Pair("sdp").check(octet * (4000 // len(octet)))


def test_headers_within_headers_end() -> None:
    """Options, extension headers, tags, labels and tunnels as many as fit into a frame."""
    mac = frames.MAC[:12]
    inner = frames.call()[0][14:]
    bombs = [
        mac + b"\x81\0\0\x64" * 300 + b"\x08\0" + inner,
        mac + b"\x88\x47" + b"\0\x01\0\x40" * 300 + inner,
        ip(b"\x3c\0\x01\x04\0\0\0\0" * 150 + inner, 60, "fd00::7", "fd00::9"),
        ip(b"\x2c\0\0\0\0\0\0\x01" * 150 + inner, 44, "fd00::7", "fd00::9"),
    ]
    nested = inner
    for _ in range(60):
        nested = ip(nested, 4)[14:]
    looped = inner
    for _ in range(60):
        looped = ip(b"\0\0\x08\0" + looped, 47)[14:]
    for frame in (*bombs, frames.MAC + nested, frames.MAC + looped):
        verdict, _, counts = Pair("decode").check(b"\0\0" + frame)
        assert verdict != 1 or counts
    assert dict(Pair("pipeline").check(joined([frames.MAC + nested]))[0])["tunnel_depth_exceeded"] == 1


# ---- every field ----


def lengths(frame: bytes) -> list[bytes]:
    """The frame with each of its octets, and each pair of them, at 0, 1 and the most."""
    found = []
    for place in range(12, min(len(frame), 64)):
        found += [
            frame[:place] + one + frame[place + 1 :] for one in (b"\0", b"\1", b"\x7f", b"\x80", b"\xff")
        ]
        found += [
            frame[:place] + two + frame[place + 2 :] for two in (b"\0\0", b"\0\1", b"\xff\xff", b"\x80\0")
        ]
    return found


# Those of a call that differ in their headers, and what else is on a wire; tunnels have a test of their own.
KINDS = (*(frames.call()[number] for number in (0, 2, 10, 13)), *frames.others()[:13], frames.others()[-2])


@pytest.mark.parametrize("number", range(len(KINDS)))
def test_every_length_at_its_ends(number: int) -> None:
    frame = KINDS[number]
    plain, fast = on("decode", PURE), on("decode", COMPILED)
    for one in lengths(frame):
        assert fast.run(b"\0\0" + one) == plain.run(b"\0\0" + one)
        assert fast.run(b"\x20\0" + one) == plain.run(b"\x20\0" + one)
    changed = lengths(frame)
    for start in range(0, len(changed), 60):
        Pair("pipeline").check(joined(changed[start : start + 60]))


def test_bodies_that_are_said_to_be_there() -> None:
    (one,) = road(with_body(b"MESSAGE sip:b@x SIP/2.0\r\nCall-ID: e\r\n", b"")[:-2])["records"]
    assert one.error
    assert one.slot("body") is None


# ---- what others say in the place of the ends of a call ----


def test_media_of_strangers_leave_the_figures_of_a_call_alone(build: Build) -> None:
    """RTP Bleed, CVE-2025-53399: another source with its SSRC, its source with another SSRC."""
    road = Road(build)
    road.say(sip(body=sdp()))
    for number in range(20):
        road.udp(rtp(number), BOB, 5000, ALICE, 4000, gap_ms=20)
        road.udp(rtp(3000 + 7 * number), "10.6.6.6", 6666, ALICE, 4000, gap_ms=0)
        road.udp(rtp(9000 + number, 0x6666, 0), BOB, 5000, ALICE, 4000, gap_ms=0)
    rows = {(row["src"], row["ssrc"]): row for row in road.streams.rows()}
    assert rows.keys() == {(BOB, 0x1234), ("10.6.6.6", 0x1234), (BOB, 0x6666)}
    own = rows[BOB, 0x1234]
    assert (own["packets"], own["lost"], own["out_of_order"], own["resets"]) == (20, 0, 0, 0)
    assert (own["jitter_ms"], own["codec"], own["call_id"]) == (0, "PCMA", "a@b")
    # They came to an endpoint of the call: its label is theirs, too, and they can be seen.
    assert {row["call_id"] for row in rows.values()} == {"a@b"}


# ---- the log ----


def test_no_packet_makes_a_line_of_log() -> None:
    """What decodes, parses and writes records has counters and no log: a flood cannot fill a disk with it."""
    root = Path(__file__).parents[2] / "engine"
    found = [
        path.name
        for folder in ("capture", "decode", "parsers", "pipeline", "processors", "shm")
        for path in (root / folder).glob("*.py")
        if path.name != "worker.py"
        and re.search(r"\blog(ging)?\.\w|import .*\blog(ging)?\b", path.read_text("utf-8"))
    ]
    assert found == []
