"""Numbers, times and untrusted text."""

from __future__ import annotations

import os
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.cells import cell_len

from otus_tui import format as fmt

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
HOSTILE = (
    "\x1b[31mred\x1b[0m",
    "a\x00b\x7f\x9b1m",
    "\u202eevil\u2066x\u2069",
    "a\u200bb\ufeff",
    "\udc80\udcff",
    "e\u0301\u0301\u0301",
)


@given(ANY_TEXT, st.booleans())
def test_nothing_that_a_terminal_obeys_is_left(text: str, ascii_only: bool) -> None:
    shown = fmt.clean(text, ascii_only)
    for character in shown:
        assert unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    if ascii_only:
        assert shown.isascii()
    # Once clean, it stays as it is.
    assert fmt.clean(shown, ascii_only) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [bold]text[/]", "plain [bold]text[/]"),
        (HOSTILE[0], "\\x1b[31mred\\x1b[0m"),
        (HOSTILE[1], "a\\x00b\\x7f\\x9b1m"),
        (HOSTILE[2], "\\u202eevil\\u2066x\\u2069"),
        (HOSTILE[3], "a\\u200bb\\ufeff"),
        (HOSTILE[4], "\\x80\\xff"),
        (HOSTILE[5], "e\u0301\u0301\\u0301"),
        ("a\tb\nc\r", "a\\tb\\nc\\r"),
        ("日本 ü", "日本 ü"),
        ("\u0301x", "\\u0301x"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_escapes(text: str, shown: str) -> None:
    assert fmt.clean(text) == shown


@given(ANY_TEXT, st.integers(0, 40), st.sampled_from("<>^"))
@example("日本日本", 5, "<")
@example("日本日本", 1, ">")
def test_fit_is_exact(text: str, width: int, align: str) -> None:
    assert cell_len(fmt.fit(fmt.clean(text), width, align)) == width


def test_fit_cuts_with_an_ellipsis() -> None:
    assert fmt.fit("abcdef", 4) == "abc…"
    assert fmt.fit("abc", 5, ">") == "  abc"
    assert fmt.fit("abc", 6, "^") == " abc  "


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "·"),
        (0, "0"),
        (82, "82"),
        (999, "999"),
        (999.6, "1.00k"),
        (12_400, "12.4k"),
        (3_612_000, "3.61M"),
        (9.27, "9.27"),
        (-1500, "-1.50k"),
    ],
)
def test_short(value: float | None, shown: str) -> None:
    assert fmt.short(value) == shown


@given(st.floats(0, 1e15))
def test_short_has_at_most_three_digits_and_one_unit(value: float) -> None:
    shown = fmt.short(value)
    assert sum(c.isdigit() for c in shown) <= 4
    assert len(shown) <= 7


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "·"),
        (0, "0 s"),
        (0.000412, "412 µs"),
        (0.041, "41 ms"),
        (0.0021, "2.1 ms"),
        (2.31, "2.31 s"),
        (72, "72.0 s"),
        (161, "2:41"),
        (-0.5, "-500 ms"),
    ],
)
def test_seconds(value: float | None, shown: str) -> None:
    assert fmt.seconds(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "·"), (41.9, "0:41"), (764, "12:44"), (3723, "1:02:03"), (273_900, "3d 04:05"), (-3, "0:00")],
)
def test_duration(value: float | None, shown: str) -> None:
    assert fmt.duration(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "·"), (0, "0"), (0.04, "0"), (0.4, "0.4"), (81.7, "82"), (11_900, "11.9k")],
)
def test_rate(value: float | None, shown: str) -> None:
    assert fmt.rate(value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "·"), (0, "0.0"), (0.001, "<0.01"), (0.12, "0.12"), (9.8, "9.80"), (61.0, "61.0")],
)
def test_percent(value: float | None, shown: str) -> None:
    assert fmt.percent(value) == shown


def test_octets_and_times() -> None:
    assert fmt.octets(None) == "·"
    assert fmt.octets(512) == "512 B"
    assert fmt.octets(1536) == "1.50 KiB"
    assert fmt.octets(150 << 20) == "150 MiB"
    assert fmt.clock(1_763_800_867_123_456_789, 3) == "08:41:07.123"
    assert fmt.clock(None) == "·"
    assert fmt.clock(10**40) == "·"
    assert fmt.day(1_763_800_867_000_000_000) == "2025-11-22"
    assert fmt.zone(0) == "UTC"


@pytest.mark.parametrize(("wish", "ascii_only"), [("C", True), ("POSIX", True), ("C.UTF-8", False)])
def test_signs_are_those_of_the_locale(wish: str, ascii_only: bool) -> None:
    """As `otus-tui doctor` tells them; Python by itself takes LC_ALL=C for UTF-8."""
    code = "from otus_tui.glyphs import choose; print(choose().ascii_only)"
    environment = {name: value for name, value in os.environ.items() if name != "OTUS_ASCII"}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "LC_ALL": wish},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == str(ascii_only)
