"""The scanners on any octets: they never raise, and both builds see the same."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.parsers.sdp_grammar import MAX_CODECS, MAX_MEDIA
from engine.parsers.sdp_text import media_dicts
from engine.shm.records import SLOTS
from tests.builds import COMPILED, PURE
from tests.messages import BODIES, MESSAGES

quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

PIECES = st.sampled_from(
    [
        b"\r\n",
        b"\n",
        b"\r",
        b"\r\n ",
        b"\r\n\r\n",
        b" ",
        b"\t",
        b"\0",
        b'"',
        b"\\",
        b"<",
        b">",
        b";",
        b",",
        b":",
        b"=",
        b"--",
        b"SIP/2.0",
        b"SIP/7.0",
        b"sip:",
        b"tag=",
        b";branch=z9hG4bK",
        b"-1",
        b"4294967296",
        b"99999999999999999999",
        b"Content-Length: ",
        b"l:",
        b"CSeq:",
        b"m=audio 1 RTP/AVP 0 300\r\n",
        b"c=IN IP4 ",
        b"a=rtpmap:",
        b"\xff\xfe",
        b"::",
    ]
)


@st.composite
def changed(draw: st.DrawFn, seeds: tuple[bytes, ...]) -> bytes:
    """One of the seeds with some pieces put in, cut out or overwritten, and perhaps cut short."""
    octets = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        place = draw(st.integers(0, len(octets)))
        piece = draw(PIECES | st.binary(max_size=4))
        octets[place : place + draw(st.integers(0, 12))] = piece
    return bytes(octets[: draw(st.integers(0, len(octets)) | st.just(len(octets)))])


def sip_view(parser: Any, octets: bytes) -> tuple[Any, ...]:
    """All that a SIP scanner says of some octets, which lie between others."""
    before, behind = b"INVITE ", b"\r\n\r\nv=0\r\n"
    parser.attach(before + octets + behind)
    start, end = len(before), len(before) + len(octets)
    view = (parser.is_keepalive(start, end), parser.looks_like(start, end), parser.parse(start, end))
    for begin, stop in zip(parser.slots[::2], parser.slots[1::2], strict=True):
        assert (begin, stop) == (-1, -1) or 0 <= begin <= stop <= len(octets)
    assert bool(view[1]) == (view[2] != 0)
    if view[2]:
        assert start <= parser.end <= end
    return (
        *map(int, view),
        parser.status,
        parser.method,
        parser.error,
        parser.headers,
        parser.flags,
        parser.cseq,
        parser.start,
        parser.end,
        parser.sdp_start,
        parser.sdp_end,
        tuple(parser.slots),
        parser.method_name,
        parser.error_text,
        tuple(parser.slot(name) for name in SLOTS),
    )


def sdp_view(parser: Any, octets: bytes) -> tuple[Any, ...]:
    """All that an SDP scanner says of some octets, which lie between others."""
    before, behind = b"v=0\r\nm=audio 1 RTP/AVP 0\r\n", b"\r\nm=video 2 RTP/AVP 31\r\n"
    parser.attach(before + octets + behind)
    count = parser.parse(len(before), len(before) + len(octets))
    assert count == parser.count <= MAX_MEDIA
    assert all(codecs <= MAX_CODECS for codecs in parser.codecs)
    return (
        count,
        parser.over_limit,
        parser.codecs_over_limit,
        parser.error,
        parser.session_version,
        parser.summary(),
        media_dicts(parser),
        list(parser.flags[:count]),
        list(parser.address0[:count]),
        list(parser.address1[:count]),
    )


def both(module: str, name: str) -> tuple[Any, Any]:
    """The class in both builds."""
    return getattr(COMPILED.module(module), name), getattr(PURE.module(module), name)


def agree_on_sip(octets: bytes) -> None:
    fast, plain = both("engine.parsers.sip", "SipParser")
    assert sip_view(fast(), octets) == sip_view(plain(), octets)


def agree_on_sdp(octets: bytes) -> None:
    fast, plain = both("engine.parsers.sdp", "SdpParser")
    assert sdp_view(fast(), octets) == sdp_view(plain(), octets)


@quick
@given(st.binary(max_size=200) | st.lists(PIECES, max_size=30).map(b"".join))
def test_any_octets(octets: bytes) -> None:
    agree_on_sip(octets)
    agree_on_sdp(octets)


@quick
@given(st.lists(PIECES, max_size=30).map(b"".join))
def test_any_headers(octets: bytes) -> None:
    agree_on_sip(b"INVITE sip:a@b SIP/2.0\r\n" + octets)
    agree_on_sip(b"SIP/2.0 200 OK\r\nVia: " + octets)
    agree_on_sip(b"BYE sip:a@b SIP/2.0\r\nFrom: " + octets)


@quick
@given(changed(MESSAGES))
def test_changed_messages(octets: bytes) -> None:
    agree_on_sip(octets)


@quick
@given(changed(BODIES))
def test_changed_bodies(octets: bytes) -> None:
    agree_on_sdp(octets)


@pytest.mark.parametrize("message", MESSAGES, ids=["invite", "ok", "multipart", "register", "notify"])
def test_every_truncation_of_a_message(message: bytes) -> None:
    for end in range(len(message) + 1):
        agree_on_sip(message[:end])


@pytest.mark.parametrize("body", BODIES, ids=["offer", "webrtc", "held"])
def test_every_truncation_of_a_body(body: bytes) -> None:
    for end in range(len(body) + 1):
        agree_on_sdp(body[:end])


@quick
@given(st.text("0123456789abcdefABCDEF.:", max_size=24) | st.ip_addresses().map(str))
def test_addresses_as_the_standard_library_reads_them(text: str) -> None:
    for reader_class in both("engine.parsers.address", "AddressReader"):
        reader = reader_class()
        octets = text.encode()
        reader.attach(octets)
        good = reader.read(0, len(octets))
        try:
            address: IPv4Address | IPv6Address | None = ip_address(text)
        except ValueError:
            address = None
        dotted = text.rpartition(":")[2].split(".")
        if len(dotted) > 1 and any(part != str(int(part)) for part in dotted if part.isdigit()):
            return  # leading zeros: read as decimal here, refused there
        assert bool(good) == (address is not None)
        if address is not None:
            packed = (b"\0" * 10 + b"\xff\xff" if address.version == 4 else b"") + address.packed
            words = reader.word0.to_bytes(8, "little") + reader.word1.to_bytes(8, "little")
            assert words == packed
            assert bool(reader.multicast) == (address.is_multicast)
