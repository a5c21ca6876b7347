"""docs/fields.md names every key of a stream in reports and answers."""

from __future__ import annotations

import re
from pathlib import Path

from engine.control.methods import STREAM_DETAIL, STREAM_FAR, STREAM_ROW, STREAM_SENDER
from engine.stream_report import QUALITY_FIELDS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "fields.md").read_text()
ELSEWHERE = {
    "id", "call_id", "src", "sport", "dst", "dport", "ssrc", "codec", "start_ns", "last_ns", "duration_s",
    "found_by", "active", "tunnel",
}  # fmt: skip
"""What needs no words, or has them in the guide."""


def test_every_key_has_its_line() -> None:
    words = set(re.findall(r"`(?:far\.)?([a-z_]+)`", DOCUMENT))
    keys = {*STREAM_ROW, *STREAM_DETAIL, *STREAM_FAR, *STREAM_SENDER, *QUALITY_FIELDS} - ELSEWHERE
    assert {key.removesuffix("_ns") for key in keys} <= words
