"""RTP and RTCP headers: what is one, what it says, and that nothing raises."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builds import COMPILED, PURE, Build

NOTHING, RTP, RTCP, BROKEN = range(4)


def rtp(first: int = 0x80, second: int = 0, body: bytes = b"\x55" * 160) -> bytes:
    return struct.pack("!BBHII", first, second, 0xFFFE, 0xFEDCBA98, 0x89ABCDEF) + body


def rtcp(kind: int = 200, words: int = 6, body: bytes | None = None) -> bytes:
    head = struct.pack("!BBHI", 0x80, kind, words, 0x89ABCDEF)
    return head + (bytes(4 * words - 4) if body is None else body)


class Reader:
    def __init__(self, build: Build) -> None:
        self.parser: Any = build.module("engine.parsers.rtp").RtpParser()

    def classify(self, payload: bytes, snapped: bool = False) -> int:
        """In the middle of a buffer, so that a look outside the payload would see something."""
        self.parser.attach(memoryview(b"\xa5" * 9 + payload + b"\xa5" * 70))
        return int(self.parser.classify(9, 9 + len(payload), snapped))

    def compound(self, payload: bytes) -> bool:
        self.parser.attach(memoryview(payload))
        return bool(self.parser.rtcp_compound(0, len(payload)))


def test_fields_of_rtp(build: Build) -> None:
    reader = Reader(build)
    assert reader.classify(rtp(0x80, 0x88)) == RTP
    parser = reader.parser
    assert (parser.payload_type, parser.marker, parser.sequence) == (8, 1, 0xFFFE)
    assert (parser.timestamp, parser.ssrc, parser.octets) == (0xFEDCBA98, 0x89ABCDEF, 160)


@pytest.mark.parametrize(
    ("first", "body", "octets"),
    [
        (0x80, b"", 0),
        (0x82, bytes(8) + b"abc", 3),
        (0x90, b"\xbe\xde\0\x01" + bytes(4) + b"abc", 3),
        (0x92, bytes(8) + b"\xbe\xde\0\0" + b"abc", 3),
        (0xA0, b"abc\0\0\x03", 3),
        (0xA0, b"\x01", 0),
        (0xA0, b"", 0),
        (0xA0, b"abc\0", 4),
        (0xA0, b"abc\x05", 4),
    ],
)
def test_payload_without_what_is_around_it(build: Build, first: int, body: bytes, octets: int) -> None:
    reader = Reader(build)
    assert reader.classify(rtp(first, 0, body)) == RTP
    assert reader.parser.octets == octets


@pytest.mark.parametrize(
    ("first", "body"),
    [
        (0x81, b"abc"),
        (0x90, b"\xbe\xde\0"),
        (0x90, b"\xbe\xde\xff\xff" + bytes(8)),
    ],
)
def test_lengths_that_cannot_be(build: Build, first: int, body: bytes) -> None:
    reader = Reader(build)
    assert reader.classify(rtp(first, 0, body)) == BROKEN
    assert reader.classify(rtp(first, 0, body), snapped=True) == RTP


def test_headers_that_are_cut(build: Build) -> None:
    reader = Reader(build)
    assert reader.classify(b"") == reader.classify(b"\x80") == NOTHING
    assert [reader.classify(rtp()[:length]) for length in range(2, 12)] == [BROKEN] * 10
    assert [reader.classify(rtcp()[:length]) for length in range(2, 8)] == [BROKEN] * 6


def test_headers_that_the_snap_length_cut_are_not_broken(build: Build) -> None:
    reader = Reader(build)
    assert {reader.classify(rtp()[:length], snapped=True) for length in range(12)} == {NOTHING}
    assert {reader.classify(rtcp()[:length], snapped=True) for length in range(8)} == {NOTHING}
    assert reader.classify(rtp()[:12], snapped=True) == RTP
    assert reader.classify(rtcp()[:8], snapped=True) == RTCP


@pytest.mark.parametrize("first", [0x00, 0x01, 0x14, 0x16, 0x17, 0x40, 0x10, 0xC0, 0xFF, 0x47])
def test_neighbours_on_the_port_are_not_media(build: Build, first: int) -> None:
    """STUN, DTLS, TURN channel data, ZRTP, QUIC, text (RFC 7983)."""
    assert Reader(build).classify(bytes([first]) + bytes(60)) == NOTHING


def test_rtcp_by_its_second_octet(build: Build) -> None:
    reader = Reader(build)
    kinds = {
        second: reader.classify(struct.pack("!BBHI", 0x80, second, 1, 7) + bytes(30)) for second in range(256)
    }
    assert {second for second, kind in kinds.items() if kind == RTCP} == set(range(192, 224))
    assert set(kinds.values()) == {RTP, RTCP}


def test_encrypted_rtcp_has_a_tail(build: Build) -> None:
    reader = Reader(build)
    assert reader.classify(rtcp() + bytes(14)) == RTCP
    assert reader.parser.packet_type == 200
    assert not reader.compound(rtcp() + bytes(14))


def test_compound_rtcp(build: Build) -> None:
    reader = Reader(build)
    assert reader.compound(rtcp())
    assert reader.compound(rtcp(201, 1) + rtcp(202, 3) + rtcp(203, 1))
    assert not reader.compound(rtcp(202, 3))
    assert not reader.compound(rtcp(200, 7, bytes(20)))
    assert not reader.compound(rtcp() + b"\x80\xc9\0")
    assert not reader.compound(b"")


@given(payload=st.binary(max_size=80), snapped=st.booleans())
@settings(max_examples=300, deadline=None)
def test_both_builds_agree_on_any_octets(payload: bytes, snapped: bool) -> None:
    results = []
    for build in (COMPILED, PURE):
        reader = Reader(build)
        kind = reader.classify(payload, snapped)
        parser = reader.parser
        results.append(
            (kind, parser.ssrc, parser.sequence, parser.timestamp, parser.octets, reader.compound(payload))
        )
        assert 0 <= parser.octets <= len(payload)
    assert results[0] == results[1]
