"""The SDP scanner: media descriptions, codecs, addresses, direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.parsers import sdp_grammar as grammar
from engine.parsers.sdp_text import media_dicts
from tests.messages import HELD, MULTIPART, OFFER, WEBRTC

if TYPE_CHECKING:
    from tests.builds import Build

HEAD = b"v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 192.0.2.1\r\nt=0 0\r\n"


def scanned(build: Build, octets: bytes) -> Any:
    """A scanner that has read the octets, which lie between others."""
    parser = build.module("engine.parsers.sdp").SdpParser()
    parser.attach(b"m=audio 1 RTP/AVP 0\r\n" + octets + b"\r\nm=audio 2 RTP/AVP 0\r\n")
    assert parser.parse(21, 21 + len(octets)) == parser.count
    return parser


def test_an_offer(build: Build) -> None:
    parser = scanned(build, OFFER)
    assert (parser.count, parser.error_text, parser.session_version) == (1, "", 2890844527)
    assert parser.flags[0] == grammar.M_AUDIO | grammar.M_RTP | grammar.M_SEND | grammar.M_RECV
    assert (parser.address0[0], parser.address1[0]) == (
        0,
        int.from_bytes(b"\0\0\xff\xff\xc0\0\2\1", "little"),
    )
    assert media_dicts(parser) == [
        {
            "type": "audio",
            "port": 40012,
            "port_count": 1,
            "rtcp_port": 40013,
            "address": "192.0.2.1",
            "rtcp_address": "192.0.2.1",
            "transport": "RTP/AVP",
            "direction": "sendrecv",
            "rejected": False,
            "held": False,
            "secure": False,
            "rtcp_mux": False,
            "ptime": 20,
            "codecs": [
                {"type": 8, "name": "PCMA", "clock": 8000},
                {"type": 0, "name": "PCMU", "clock": 8000},
                {"type": 18, "name": "G729", "clock": 8000},
                {"type": 101, "name": "telephone-event", "clock": 8000},
            ],
        }
    ]
    assert parser.summary() == "audio 40012 PCMA PCMU G729 telephone-event sendrecv"


def test_webrtc(build: Build) -> None:
    parser = scanned(build, WEBRTC)
    audio, video, data = media_dicts(parser)
    assert parser.error_text == ""
    assert (audio["direction"], audio["rtcp_mux"], audio["secure"], audio["rtcp_port"]) == (
        "recvonly",
        True,
        True,
        9,
    )
    assert [(codec["name"], codec["clock"]) for codec in audio["codecs"]] == [
        ("opus", 48000),
        ("G722", 8000),
        ("CN", 8000),
    ]
    assert (video["rejected"], video["held"], video["address"]) == (True, True, "2001:db8::9")
    assert parser.flags[1] & grammar.M_FEEDBACK
    assert (data["type"], data["secure"], data["codecs"]) == (
        "application",
        True,
        [{"type": None, "name": "WEBRTC-DATACHANN", "clock": None}],
    )
    assert parser.summary() == (
        "audio 54400 opus G722 CN recvonly, video 0 VP8 rejected, application 54400 WEBRTC-DATACHANN sendrecv"
    )


def test_hold_ports_and_multicast(build: Build) -> None:
    parser = scanned(build, HELD)
    audio, image = media_dicts(parser)
    assert (audio["held"], audio["address"], audio["port_count"]) == (True, None, 2)
    assert parser.flags[0] & grammar.M_UNSPECIFIED
    assert parser.flags[0] & grammar.M_NO_ADDRESS
    assert (parser.address0[0], parser.address1[0]) == (0, 0)
    assert (audio["rtcp_port"], audio["rtcp_address"]) == (7001, "192.0.2.77")
    assert (image["address"], image["held"], image["codecs"][0]["name"]) == ("224.2.1.1", False, "T38")
    assert parser.flags[1] & grammar.M_MULTICAST
    assert parser.flags[1] & grammar.M_UDPTL
    assert image["rtcp_port"] is None
    assert parser.summary() == "audio 6000 PCMU sendrecv held, image 6010 T38 sendrecv"


@pytest.mark.parametrize(
    ("session", "media", "direction", "held"),
    [
        (b"", b"", "sendrecv", False),
        (b"a=sendonly\r\n", b"", "sendonly", True),
        (b"a=sendonly\r\n", b"a=SendRecv\r\n", "sendrecv", False),
        (b"a=inactive\r\n", b"a=recvonly\r\n", "recvonly", False),
        (b"", b"a=inactive\r\n", "inactive", True),
        (b"", b"a=sendonly\r\n", "sendonly", True),
    ],
)
def test_direction(build: Build, session: bytes, media: bytes, direction: str, held: bool) -> None:
    parser = scanned(build, HEAD + session + b"m=audio 4000 RTP/AVP 0\r\n" + media)
    found = media_dicts(parser)[0]
    assert (found["direction"], found["held"]) == (direction, held)


@pytest.mark.parametrize(
    ("transport", "flags"),
    [
        (b"RTP/AVP", grammar.M_RTP),
        (b"rtp/avpf", grammar.M_RTP | grammar.M_FEEDBACK),
        (b"RTP/SAVP", grammar.M_RTP | grammar.M_SECURE),
        (b"RTP/SAVPF", grammar.M_RTP | grammar.M_SECURE | grammar.M_FEEDBACK),
        (b"UDP/TLS/RTP/SAVP", grammar.M_RTP | grammar.M_SECURE),
        (b"TCP/RTP/AVP", grammar.M_RTP | grammar.M_TCP),
        (b"TCP/TLS/RTP/SAVP", grammar.M_RTP | grammar.M_TCP | grammar.M_SECURE),
        (b"UDPTL", grammar.M_UDPTL),
        (b"UDP/TLS/UDPTL", grammar.M_UDPTL | grammar.M_SECURE),
        (b"TCP/MSRP", grammar.M_TCP),
        (b"udp", 0),
        (b"RTPX/AVP", 0),
    ],
)
def test_transports(build: Build, transport: bytes, flags: int) -> None:
    parser = scanned(build, HEAD + b"m=audio 4000 " + transport + b" 0\r\n")
    assert parser.flags[0] == grammar.M_AUDIO | grammar.M_SEND | grammar.M_RECV | flags


@pytest.mark.parametrize(
    ("line", "address", "flags", "error"),
    [
        (b"c=IN IP4 10.1.2.3", "10.1.2.3", 0, ""),
        (b"c=IN  IP4  10.1.2.3  ", "10.1.2.3", 0, ""),
        (b"c=IN IP4 239.0.0.1/127", "239.0.0.1", grammar.M_MULTICAST, ""),
        (b"c=IN IP6 ff15::101/3", "ff15::101", grammar.M_MULTICAST, ""),
        (b"c=IN IP6 2001:db8::1", "2001:db8::1", 0, ""),
        (b"c=IN IP6 ::ffff:10.1.2.3", "10.1.2.3", 0, ""),
        (b"c=IN IP6 ::", None, grammar.M_NO_ADDRESS | grammar.M_UNSPECIFIED | grammar.M_HELD, ""),
        (b"c=IN IP4 0.0.0.0", None, grammar.M_NO_ADDRESS | grammar.M_UNSPECIFIED | grammar.M_HELD, ""),
        (b"c=IN IP4 media.example.com", None, grammar.M_NO_ADDRESS, ""),
        (b"c=IN IP4 10.1.2.300", None, grammar.M_NO_ADDRESS, "an address that is none"),
        (b"c=IN IP4 10.1.2", None, grammar.M_NO_ADDRESS, "an address that is none"),
        (b"c=IN IP6 1:2:3", None, grammar.M_NO_ADDRESS, "an address that is none"),
        (b"c=IN IP4", None, grammar.M_NO_ADDRESS, "an address that is none"),
        (b"c=", None, grammar.M_NO_ADDRESS, "an address that is none"),
    ],
)
def test_addresses(build: Build, line: bytes, address: str | None, flags: int, error: str) -> None:
    """At the session and at the media, which overrides it."""
    media = b"m=audio 4000 RTP/AVP 0\r\n"
    usual = grammar.M_AUDIO | grammar.M_RTP | grammar.M_SEND | grammar.M_RECV
    for octets in (b"v=0\r\n" + line + b"\r\n" + media, HEAD + media + line + b"\r\n"):
        parser = scanned(build, octets)
        assert media_dicts(parser)[0]["address"] == address
        assert parser.flags[0] == usual | flags
        assert parser.error_text == error


@pytest.mark.parametrize(
    ("line", "port", "flags", "error"),
    [
        (b"m=audio 0 RTP/AVP 0", 0, grammar.M_REJECTED, ""),
        (b"m=audio 65535 RTP/AVP 0", 65535, 0, ""),
        (b"m=audio 65536 RTP/AVP 0", 0, 0, "a port that is no number from 0 to 65535"),
        (b"m=audio 18446744073709551617 RTP/AVP 0", 0, 0, "a port that is no number from 0 to 65535"),
        (b"m=audio 49170" + b"a" * 500 + b" RTP/AVP 0", 0, 0, "a port that is no number from 0 to 65535"),
        (b"m=audio -1 RTP/AVP 0", 0, 0, "a port that is no number from 0 to 65535"),
        (b"m=audio 4000/70000 RTP/AVP 0", 4000, 0, ""),
    ],
)
def test_ports(build: Build, line: bytes, port: int, flags: int, error: str) -> None:
    parser = scanned(build, HEAD + line + b"\r\n")
    usual = grammar.M_AUDIO | grammar.M_RTP | grammar.M_SEND | grammar.M_RECV
    assert (parser.port[0], parser.flags[0], parser.error_text) == (port, usual | flags, error)
    assert parser.port_count[0] == 1


def test_rtcp_ports(build: Build) -> None:
    media = b"m=audio 4000 RTP/AVP 0\r\n"
    for lines, port in (
        (b"", 4001),
        (b"a=rtcp-mux\r\n", 4000),
        (b"a=rtcp:5000\r\n", 5000),
        (b"a=rtcp:5000 IN IP4 192.0.2.9\r\na=rtcp-mux\r\n", 5000),
        (b"a=rtcp:70000\r\n", 4001),
        (b"a=rtcp-muxed\r\n", 4001),
    ):
        assert scanned(build, HEAD + media + lines).rtcp_port[0] == port


def test_static_codecs(build: Build) -> None:
    module = build.module("engine.parsers.sdp")
    for payload_type in range(128):
        name, clock = module.static_codec(payload_type)
        parser = scanned(build, HEAD + b"m=audio 4000 RTP/AVP %d\r\n" % payload_type)
        codec = media_dicts(parser)[0]["codecs"][0]
        assert codec == {"type": payload_type, "name": name, "clock": clock or None}


def test_the_static_table_of_rfc_3551() -> None:
    known = {0: ("PCMU", 8000), 8: ("PCMA", 8000), 9: ("G722", 8000), 13: ("CN", 8000), 14: ("MPA", 90000)}
    known |= {3: ("GSM", 8000), 10: ("L16", 44100), 18: ("G729", 8000), 34: ("H263", 90000), 96: ("", 0)}
    assert {number: grammar.static_codec(number) for number in known} == known


def test_rtpmap(build: Build) -> None:
    lines = (
        b"m=audio 4000 RTP/AVP 96 97 98 8\r\na=rtpmap:96 iLBC/8000\r\na=rtpmap:97 L16/44100/2\r\n"
        b"a=rtpmap:98 a-name-longer-than-16/99999999999\r\na=rtpmap:99 not-offered/1\r\n"
        b"a=rtpmap:8 other/16000\r\n"
    )
    parser = scanned(build, b"a=rtpmap:96 nothing/1\r\n" + HEAD + lines)
    assert [(codec["name"], codec["clock"]) for codec in media_dicts(parser)[0]["codecs"]] == [
        ("iLBC", 8000),
        ("L16", 44100),
        ("A-NAME-LONGER-TH", None),
        ("OTHER", 16000),
    ]
    assert (
        scanned(build, HEAD + b"m=audio 1 RTP/AVP 96\r\na=rtpmap:x\r\n").error_text
        == "an rtpmap that cannot be read"
    )


def test_tables_are_bounded_and_counted(build: Build) -> None:
    parser = scanned(
        build, HEAD + b"m=audio 4000 RTP/AVP 0\r\n" * 5000 + b"a=inactive\r\nc=IN IP4 9.9.9.9\r\n"
    )
    assert (parser.count, parser.over_limit) == (16, 4984)
    assert parser.error_text == "more media descriptions or formats than are kept"
    assert {media["address"] for media in media_dicts(parser)} == {"192.0.2.1"}
    assert parser.summary().endswith(", and 4984 more")
    parser = scanned(build, HEAD + b"m=audio 4000 RTP/AVP" + b" 0" * 5000 + b"\r\n")
    assert (parser.codecs[0], parser.codecs_over_limit) == (48, 4952)


def test_a_multipart_body_given_whole(build: Build) -> None:
    module = build.module("engine.parsers.sdp")
    body = MULTIPART.split(b"\r\n\r\n", 1)[1]
    assert (
        module.summarise(body)
        == module.summarise(OFFER)
        == "audio 40012 PCMA PCMU G729 telephone-event sendrecv"
    )


@pytest.mark.parametrize(
    ("octets", "error"),
    [
        (b"m=audio 4000 RTP/AVP 0\r\n", "no line v=0 in front"),
        (HEAD + b"garbage\r\n", "a line that is no type=value"),
        (HEAD + b"m =video 3227 RTP/AVP 31\r\n", "a line that is no type=value"),
        (HEAD + b"m=audio 4000\r\n", "a media description without port and transport"),
        (HEAD + b"m=\r\n", "a port that is no number from 0 to 65535"),
        (HEAD + b"m=audio 4000 RTP/AVP 0 128\r\n", "an RTP payload type that is no number from 0 to 127"),
        (HEAD + b"m=audio 4000 RTP/AVP 0x\r\n", "an RTP payload type that is no number from 0 to 127"),
        (b"", ""),
    ],
)
def test_defects(build: Build, octets: bytes, error: str) -> None:
    assert scanned(build, octets).error_text == error


def test_a_body_before_leaves_nothing_behind(build: Build) -> None:
    module = build.module("engine.parsers.sdp")
    used, fresh = module.SdpParser(), module.SdpParser()
    short = b"v=0\r\nm=audio 7 RTP/AVP 96\r\n"
    used.attach(WEBRTC + short)
    used.parse(0, len(WEBRTC))
    used.parse(len(WEBRTC), len(WEBRTC + short))
    fresh.attach(short)
    fresh.parse(0, len(short))
    assert media_dicts(used) == media_dicts(fresh)
    assert (used.session_version, used.flags[0]) == (0, fresh.flags[0])
