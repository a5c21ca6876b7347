"""The torture messages of RFC 5118, SIP with IPv6: each is read, the sound ones without a complaint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from engine.parsers.sdp_text import media_dicts
from tests.fuzz.frames import joined, udp
from tests.fuzz.targets import Pair

if TYPE_CHECKING:
    from tests.builds import Build


def message(first: str, via: str, body: str = "", contact: str = "<sip:caller@[2001:db8::1]>") -> bytes:
    """A message of section 4; `via`: one line or several."""
    lines = "".join(f"Via: {one}\r\n" for one in via.split("|"))
    method = first.split(maxsplit=1)[0] if not first.startswith("SIP/") else "INVITE"
    kind = "Content-Type: application/sdp\r\n" if body else ""
    return (
        f"{first}\r\nTo: sip:user@example.com\r\nFrom: sip:user@example.com;tag=81x2\r\n{lines}"
        f"Call-ID: SSG9559905523997077@hlau_4100\r\nMax-Forwards: 70\r\nContact: {contact}\r\n"
        f"CSeq: 98176 {method}\r\n{kind}Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def described(*lines: str) -> str:
    return "".join(
        f"{line}\r\n"
        for line in ("v=0", "o=assistant 971731711378798081 0 IN IP6 2001:db8::20", "s=-", *lines)
    )


VIA = "SIP/2.0/UDP [2001:db8::9:1];branch=z9hG4bKas3-111"
SOUND: dict[str, tuple[bytes, dict[str, str]]] = {
    "4.1 an IPv6 reference": (
        message("REGISTER sip:[2001:db8::10] SIP/2.0", VIA),
        {
            "uri": "sip:[2001:db8::10]",
            "via_branch": "z9hG4bKas3-111",
            "contact": "<sip:caller@[2001:db8::1]>",
        },
    ),
    "4.3 a port that is ambiguous": (
        message("REGISTER sip:[2001:db8::10:5070] SIP/2.0", VIA),
        {"uri": "sip:[2001:db8::10:5070]"},
    ),
    "4.4 a port that is not": (
        message("REGISTER sip:[2001:db8::10]:5070 SIP/2.0", VIA),
        {"uri": "sip:[2001:db8::10]:5070"},
    ),
    "4.5 received in brackets": (
        message("BYE sip:[2001:db8::10] SIP/2.0", f"{VIA};received=[2001:db8::9:255]"),
        {"via_branch": "z9hG4bKas3-111"},
    ),
    "4.5 received without": (
        message("OPTIONS sip:[2001:db8::10] SIP/2.0", f"{VIA};received=2001:db8::9:255"),
        {"via_branch": "z9hG4bKas3-111"},
    ),
    "4.7 addresses of both kinds": (
        message(
            "BYE sip:user@host.example.net SIP/2.0",
            "SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111"
            "|SIP/2.0/UDP 192.0.2.1;branch=z9hG4bKjhja8781hjuaij65144"
            "|SIP/2.0/TCP [2001:db8::9:255];branch=z9hG4bK451jj;received=192.0.2.200",
        ),
        {"via": "SIP/2.0/UDP [2001:db8::9:1]:6050;branch=z9hG4bKas3-111", "method": "BYE"},
    ),
}
BROKEN = {
    "4.2 a reference without brackets": message("REGISTER sip:2001:db8::10 SIP/2.0", VIA),
    "4.10 a colon too many": message("OPTIONS sip:user@[2001:db8:::192.0.2.1] SIP/2.0", VIA),
}
DESCRIBED: dict[str, tuple[str, list[str]]] = {
    "4.6 addresses in SDP": (
        described("c=IN IP6 2001:db8::20", "t=0 0", "m=audio 5004 RTP/AVP 0"),
        ["2001:db8::20"],
    ),
    "4.8 addresses of both kinds in SDP": (
        described(
            "c=IN IP6 2001:db8::1",
            "t=0 0",
            "m=audio 22334 RTP/AVP 0",
            "c=IN IP4 192.0.2.2",
            "m=video 6024 RTP/AVP 107",
            "c=IN IP6 2001:db8::1:2",
        ),
        ["192.0.2.2", "2001:db8::1:2"],
    ),
    "4.9 mapped addresses": (
        described("c=IN IP6 ::ffff:192.0.2.2", "t=0 0", "m=audio 7003 RTP/AVP 96", "m=video 6024 RTP/AVP 97"),
        ["192.0.2.2", "192.0.2.2"],
    ),
}


def read(build: Build, octets: bytes) -> Any:
    parser = build.module("engine.parsers.sip").SipParser()
    parser.attach(octets)
    assert parser.parse(0, len(octets)) == 1
    return parser


@pytest.mark.parametrize("name", SOUND)
def test_sound_messages(build: Build, name: str) -> None:
    octets, slots = SOUND[name]
    parser = read(build, octets)
    assert parser.error_text == ""
    assert {slot: (parser.slot(slot) or b"").decode() for slot in slots} == slots


@pytest.mark.parametrize("name", BROKEN)
def test_broken_messages_are_listed_as_they_are(build: Build, name: str) -> None:
    octets = BROKEN[name]
    parser = read(build, octets)
    assert parser.slot("uri") == octets.split()[1]
    counts, *_ = Pair("pipeline").check(joined([udp(octets, 5060, 5060)]))
    assert dict(counts)["sip_messages"] == 1


@pytest.mark.parametrize("name", DESCRIBED)
def test_descriptions(build: Build, name: str) -> None:
    body, addresses = DESCRIBED[name]
    octets = message("INVITE sip:user@[2001:db8::10] SIP/2.0", VIA, body)
    parser = read(build, octets)
    assert parser.error_text == ""
    sdp = build.module("engine.parsers.sdp").SdpParser()
    sdp.attach(octets)
    assert sdp.parse(parser.sdp_start, parser.sdp_end) == len(addresses)
    assert [one["address"] for one in media_dicts(sdp)] == addresses
    counts, *_ = Pair("pipeline").check(joined([udp(octets, 5060, 5060)]))
    assert dict(counts)["sdp_media"] == len(addresses)
