"""The text of a media stream and its arrow: of rows that the engine made, and of rows without what is new."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from otus_tui.glyphs import UNICODE, Glyphs
from otus_tui.screens.cells import stream_columns
from otus_tui.screens.flow import mos_both_ways
from otus_tui.screens.stream_text import stream_lines
from otus_tui.widgets.ink import plain
from otus_tui.widgets.ladder import stream_label
from tests.builds import COMPILED
from tests.packet_road import ALICE, BOB
from tests.tui.engine_rows import call_row, stream_row
from tests.unit.test_media_figures import A, B, called, key, streams, talk
from tests.unit.test_rtcp import METRICS, block, extended, names, receiver_report, sender_report


@pytest.fixture(scope="module")
def row() -> dict[str, Any]:
    """A stream with everything: loss, digits, reports of both ends and VoIP metrics."""
    road = called(COMPILED)
    talk(road, 3, 40)
    talk(road, 46, 40)
    key(road, 90, 20_000, 5)
    road.udp(sender_report(block(B), ssrc=A) + names((A, b"alice\x1b[31m")), ALICE, 4001, BOB, 5001)
    answer = receiver_report(block(A, 64, 5, 0xCCDD1122, 0), ssrc=B)
    road.udp(
        answer + extended((7, struct.pack("!I", A) + METRICS), ssrc=B), BOB, 5001, ALICE, 4001, gap_ms=30
    )
    return {**streams(road)[A], "silent_for_s": 8.2, "active": False}


def text_of(row: dict[str, Any], glyphs: Glyphs) -> str:
    return "\n".join(plain(line) for line in stream_lines(row, glyphs))


def test_all_figures_are_there(row: dict[str, Any]) -> None:
    text = text_of(row, UNICODE)
    for words in (
        "2 of 65.31 ms, 100.0 % lost in them", "4 in a row", "1 x 3, 1 x 4", "digits          5", "5  110 ms",
        "nothing for 8.20 s", "25.0 %, at most 25.0 %", "listening 4.2, conversation 4.1, R 93",
        "to it, back  30.00 ms", "3.52  7.14 % of 98 lost",
    ):  # fmt: skip
        assert words in text, (words, text)
    assert "\x1b" not in text
    assert "MOS" in text


def test_a_row_without_the_new_figures_shows_them_as_unknown() -> None:
    text = text_of(stream_row(1), UNICODE)
    assert "·" in text
    assert "Far end" not in text
    for column in stream_columns(UNICODE):
        assert column.cell(stream_row(1))[0] is not None


def test_unknown_mos_is_a_dot_and_a_bad_one_has_a_sign() -> None:
    cell = next(column for column in stream_columns(UNICODE) if column.key == "mos").cell
    assert cell(stream_row(1, mos=None)) == ("·", "dim")
    assert cell(stream_row(1, mos=4.41)) == ("4.41", "")
    assert cell(stream_row(1, mos=2.1)) == (f"{UNICODE.warning}2.10", "warning")


def test_the_arrow_says_that_a_stream_stopped() -> None:
    assert stream_label(stream_row(1, mos=4.31, silent_for_s=0.3), UNICODE)[0].endswith(
        "loss 0.06 %  MOS 4.31"
    )
    text, role = stream_label(stream_row(1, mos=None, silent_for_s=8.2), UNICODE)
    assert text.endswith("▲ stopped 8.20 s")
    assert role == "warning"


def test_a_stream_of_telephone_events_alone_says_so() -> None:
    events = stream_row(1, codec=None, digits="1", payload_types=[101])
    assert stream_label(events, UNICODE)[0].startswith("RTP DTMF 3,612")
    codec = next(column for column in stream_columns(UNICODE) if column.key == "codec")
    assert codec.cell(events) == ("DTMF", "dim")
    assert codec.cell(stream_row(1, codec=None)) == ("·", "dim")
    assert codec.cell(stream_row(1)) == ("PCMA", "")


def test_mos_of_both_directions() -> None:
    there, back = stream_row(0, mos=4.31), stream_row(1, mos=2.1)
    assert plain(mos_both_ways(call_row(0), [there, back], UNICODE)) == "MOS 4.31 ▶ ◀ 2.10"
    assert plain(mos_both_ways(call_row(0), [back], UNICODE)) == "MOS · ▶ ◀ 2.10"
    relayed = stream_row(0, mos=3.9, src="192.0.2.1", dst="192.0.2.2")
    assert plain(mos_both_ways(call_row(0), [relayed], UNICODE)) == "MOS 3.90 ▶ ◀ ·"
    assert mos_both_ways(call_row(0), [stream_row(0, mos=None)], UNICODE) == []
