"""RTCP: what each packet says, that every length is checked, that nothing encrypted gives figures."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.parsers import rtcp as items
from engine.shm.stream_figures import voip_metrics
from tests.builds import COMPILED, PURE, Build

SSRC, OTHER = 0x11111111, 0x22222222
OTHER_ITEM = 11
FIELDS = {
    items.SENDER_ITEM: ("ssrc", "ntp", "timestamp", "packets", "octets"),
    items.RECEIVER_ITEM: ("ssrc",),
    items.BLOCK_ITEM: ("ssrc", "about", "fraction", "lost", "highest", "jitter", "last", "delay"),
    items.CNAME_ITEM: ("ssrc", "text", "text_end"),
    items.BYE_ITEM: ("ssrc",),
    items.APP_ITEM: ("ssrc", "name"),
    items.EXTENDED_ITEM: ("ssrc",),
    items.REFERENCE_ITEM: ("ssrc", "ntp"),
    items.ANSWER_ITEM: ("ssrc", "about", "last", "delay"),
    items.METRICS_ITEM: ("ssrc", "about", "text"),
    OTHER_ITEM: ("ssrc", "packet_type"),
}


def packet(kind: int, body: bytes, count: int = 0, padding: int = 0) -> bytes:
    body += bytes(-len(body) % 4)
    if padding:
        body += bytes(padding - 1) + bytes([padding])
    first = 0x80 | (0x20 if padding else 0) | count
    return struct.pack("!BBH", first, kind, len(body) // 4) + body


def block(about: int = OTHER, fraction: int = 12, lost: int = -3, last: int = 7, delay: int = 9) -> bytes:
    return struct.pack("!IIIIII", about, fraction << 24 | lost & 0xFFFFFF, 0x10005, 160, last, delay)


def sender_report(
    *blocks: bytes, ssrc: int = SSRC, ntp: int = 0xAABBCCDD11223344, packets: int = 100, padding: int = 0
) -> bytes:
    body = struct.pack("!IQIII", ssrc, ntp, 8000, packets, 160 * packets)
    return packet(200, body + b"".join(blocks), len(blocks), padding)


def receiver_report(*blocks: bytes, ssrc: int = SSRC) -> bytes:
    return packet(201, struct.pack("!I", ssrc) + b"".join(blocks), len(blocks))


def names(*chunks: tuple[int, bytes]) -> bytes:
    body = b""
    for ssrc, name in chunks:
        chunk = struct.pack("!I", ssrc) + bytes([7, 2]) + b"xx" + bytes([1, len(name)]) + name + b"\0"
        body += chunk + bytes(-len(chunk) % 4)
    return packet(202, body, len(chunks))


METRICS = struct.pack(
    ">BBBBHHHHbbBBBBBBBxHHH",
    13,
    5,
    26,
    3,
    120,
    4000,
    55,
    110,
    -19,
    -60,
    127,
    16,
    93,
    127,
    42,
    41,
    0xF0,
    40,
    60,
    120,
)


def extended(*blocks: tuple[int, bytes], ssrc: int = SSRC) -> bytes:
    body = struct.pack("!I", ssrc)
    for kind, octets in blocks:
        body += struct.pack("!BBH", kind, 0, len(octets) // 4) + octets
    return packet(207, body)


def walk(build: Build, payload: bytes, before: int = 9) -> tuple[list[tuple[int, ...]], int] | None:
    """Every item with its fields, and the defects; None where it is not read; other octets around it."""
    parser: Any = build.module("engine.parsers.rtcp").RtcpParser()
    parser.attach(memoryview(b"\xa5" * before + payload + b"\xa5" * 70))
    if not parser.begin(before, before + len(payload)):
        assert parser.next() == 0
        return None
    found = []
    while item := parser.next():
        found.append((item, *(getattr(parser, name) for name in FIELDS[item])))
        assert len(found) <= len(payload)
    return found, parser.defects


def test_everything_in_one_compound(build: Build) -> None:
    reference, answer = struct.pack("!Q", 0x0102030405060708), struct.pack("!III", OTHER, 3, 4) * 2
    payload = (
        sender_report(block(), block(SSRC, 0, 5))
        + names((SSRC, b"alice@example.com"), (OTHER, b""))
        + extended(
            (4, reference), (6, bytes(36)), (99, b""), (7, struct.pack("!I", OTHER) + METRICS), (5, answer)
        )
        + packet(204, struct.pack("!I4s", SSRC, b"OTUS") + bytes(8))
        + packet(205, struct.pack("!II", SSRC, OTHER) + bytes(4), 1)
        + packet(203, struct.pack("!II", SSRC, OTHER) + b"\x04done", 2)
    )
    result = walk(build, payload)
    assert result is not None
    found, defects = result
    assert defects == 0
    assert found[:3] == [
        (items.SENDER_ITEM, SSRC, 0xAABBCCDD11223344, 8000, 100, 16_000),
        (items.BLOCK_ITEM, SSRC, OTHER, 12, 0xFFFFFD, 0x10005, 160, 7, 9),
        (items.BLOCK_ITEM, SSRC, SSRC, 0, 5, 0x10005, 160, 7, 9),
    ]
    (kind, ssrc, text, end), second = found[3:5]
    assert (kind, ssrc, payload[text - 9 : end - 9]) == (items.CNAME_ITEM, SSRC, b"alice@example.com")
    assert second[1] == OTHER
    assert second[2] == second[3]
    assert [row[0] for row in found[5:]] == [
        items.EXTENDED_ITEM, items.REFERENCE_ITEM, items.METRICS_ITEM, items.ANSWER_ITEM, items.ANSWER_ITEM,
        items.APP_ITEM, OTHER_ITEM, items.BYE_ITEM, items.BYE_ITEM,
    ]  # fmt: skip
    assert found[6] == (items.REFERENCE_ITEM, SSRC, 0x0102030405060708)
    assert found[8] == (items.ANSWER_ITEM, SSRC, OTHER, 3, 4)
    assert payload[found[7][3] - 9 :].startswith(METRICS)
    assert [row[1] for row in found[12:]] == [SSRC, OTHER]


def test_padding_belongs_to_no_packet(build: Build) -> None:
    assert walk(build, sender_report(block(), padding=8)) == walk(build, sender_report(block()))
    # Padding that is longer than its packet, or none at all.
    for padding in (0, 200):
        octets = bytearray(sender_report(padding=4))
        octets[-1] = padding
        assert walk(build, bytes(octets)) == ([], 1)


def test_more_is_announced_than_there_is(build: Build) -> None:
    """What does not fit its packet is a defect, and the next packet is read."""
    bye = packet(203, struct.pack("!I", SSRC), 1)
    for broken in (
        packet(200, struct.pack("!IQI", SSRC, 1, 2)),
        packet(201, struct.pack("!I", SSRC) + block()[:20], 1),
        packet(202, struct.pack("!IBB", SSRC, 1, 99) + b"ab", 1),
        packet(202, b"", 3),
        packet(203, b"", 1),
        packet(204, struct.pack("!I", SSRC)),
        packet(207, struct.pack("!IBBH", SSRC, 7, 0, 8) + bytes(8)),
        packet(201, b""),
    ):
        result = walk(build, broken + bye)
        assert result is not None
        assert result[1] == 1, broken
        assert result[0][-1] == (items.BYE_ITEM, SSRC)
    many = walk(build, packet(201, struct.pack("!I", SSRC) + block(), 31))
    assert many is not None
    assert ([row[0] for row in many[0]], many[1]) == ([items.RECEIVER_ITEM, items.BLOCK_ITEM], 1)


def test_short_known_blocks_are_skipped(build: Build) -> None:
    result = walk(
        build, extended((4, bytes(4)), (7, bytes(28)), (5, bytes(8)), (5, bytes(16)), (4, bytes(8)))
    )
    assert result is not None
    assert [row[0] for row in result[0]] == [items.EXTENDED_ITEM, items.ANSWER_ITEM, items.REFERENCE_ITEM]


def test_every_cut_of_a_compound_is_refused(build: Build) -> None:
    """Cut between two packets it is a shorter compound; anywhere else nothing is read."""
    parts = [sender_report(block()), names((SSRC, b"a@b")), packet(203, struct.pack("!I", SSRC), 1)]
    whole, borders, length = b"".join(parts), set(), 0
    for part in parts:
        length += len(part)
        borders.add(length)
    for cut in range(len(whole)):
        assert (walk(build, whole[:cut]) is not None) == (cut in borders)


@pytest.mark.parametrize("tail", [14, 8])
def test_encrypted_rtcp_is_not_read(build: Build, tail: int) -> None:
    """SRTCP: 8 octets in the clear, noise, the index with its E bit, a tag (RFC 3711 section 3.4)."""
    noise = bytes((index * 89 + 7) & 0xFF for index in range(200))
    clear = sender_report(block())
    assert walk(build, clear[:8] + noise[: len(clear) - 8] + b"\x80\0\0\x01" + noise[: tail - 4]) is None
    compound = clear + names((SSRC, b"alice"))
    secret = clear[:8] + noise[: len(compound) - 8] + b"\x80\0\0\x01" + noise[: tail - 4]
    assert walk(build, secret) is None


kinds = st.sampled_from([200, 201, 202, 203, 204, 205, 207])
hostile = st.lists(
    st.builds(packet, kinds, st.binary(max_size=60), st.integers(0, 31)),
    max_size=5,
).map(b"".join)


@given(payload=st.one_of(hostile, st.binary(max_size=80), hostile.map(lambda octets: octets[:-3])))
@settings(max_examples=300, deadline=None)
def test_both_builds_agree_on_any_octets(payload: bytes) -> None:
    assert walk(COMPILED, payload) == walk(PURE, payload)


@given(
    blocks=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 200), st.binary(max_size=60)), max_size=4)
)
@settings(max_examples=200, deadline=None)
def test_both_builds_agree_on_any_extended_report(blocks: list[tuple[int, int, bytes]]) -> None:
    body = struct.pack("!I", SSRC)
    for kind, length, octets in blocks:
        body += struct.pack("!BBH", kind % 9, 0, length % (len(octets) // 4 + 2)) + octets
    assert walk(COMPILED, packet(207, body)) == walk(PURE, packet(207, body))


def test_voip_metrics_by_name() -> None:
    found = voip_metrics(METRICS, 3, 5)
    assert (found["reports"], found["last_ns"], found["gmin"], found["r"]) == (3, 5, 16, 93)
    assert found["lost_pct"] == pytest.approx(5.08, abs=0.01)
    assert (found["burst_ms"], found["gap_ms"], found["rtt_ms"], found["end_delay_ms"]) == (
        120,
        4000,
        55,
        110,
    )
    assert (found["signal_dbm"], found["noise_dbm"], found["echo_db"], found["external_r"]) == (
        -19,
        -60,
        None,
        None,
    )
    assert (found["mos_lq"], found["mos_cq"], found["concealment"], found["buffer_adaptive"]) == (
        4.2, 4.1, "standard", True,
    )  # fmt: skip
    assert (found["buffer_ms"], found["buffer_max_ms"], found["buffer_limit_ms"]) == (40, 60, 120)
