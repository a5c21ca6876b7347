"""Numbers, times and untrusted text as a person reads them on a screen of cells.

Unknown (None) is always UNKNOWN, never 0. Text from packets goes through `clean` before it meets a
terminal: nothing in it can move the cursor, change direction or hide.
"""

from __future__ import annotations

import time
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len, set_cell_size

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN = "·"
NS = 1_000_000_000


# --- untrusted text ----------------------------------------------------------------------------


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # an octet that was not UTF-8, kept by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    if character == "\n":
        return "\\n"
    if character == "\r":
        return "\\r"
    if character == "\t":
        return "\\t"
    if code < 0x100:
        return f"\\x{code:02x}"
    if code < 0x10000:
        return f"\\u{code:04x}"
    return f"\\U{code:08x}"


def _shows(character: str) -> bool:
    """Whether a terminal shows this character as itself, in a width that we can tell."""
    category = unicodedata.category(character)
    if category[0] in "LNPS":
        return True
    if category == "Zs":
        return True
    # Variation selectors change a width that terminals do not agree on.
    return category in ("Mn", "Mc") and not 0xFE00 <= ord(character) <= 0xFE0F


def clean(text: str, ascii_only: bool = False) -> str:
    """Untrusted text with every character that a terminal would obey or hide as a visible escape.

    Control characters, line and paragraph separators, bidirectional overrides and marks,
    zero-width characters, surrogates, private and unassigned code points become `\\x1b`, `\\u202e` ...
    The result is one line.
    """
    if text.isascii():
        if text.isprintable():
            return text
        return "".join(c if " " <= c <= "~" else _escape(c) for c in text)
    if ascii_only:
        return "".join(c if " " <= c <= "~" else _escape(c) for c in text)
    parts: list[str] = []
    marks = 0
    for character in text:
        if " " <= character <= "~":
            parts.append(character)
            marks = 0
            continue
        if unicodedata.category(character) in ("Mn", "Mc"):
            # A combining mark needs a base, and a pile of them paints over other lines.
            marks += 1
            if not parts or marks > 2:
                parts.append(_escape(character))
                continue
        else:
            marks = 0
        parts.append(character if _shows(character) else _escape(character))
    return "".join(parts)


def cells(text: str) -> int:
    """How many cells `text` takes."""
    return len(text) if text.isascii() else cell_len(text)


@lru_cache(maxsize=8192)
def fit(text: str, width: int, align: str = "<", ellipsis: str = "…") -> str:
    """`text` in exactly `width` cells: padded, or cut with an ellipsis at its end."""
    if width <= 0:
        return ""
    length = cells(text)
    if length == width:
        return text
    if length > width:
        if width <= cell_len(ellipsis):
            return set_cell_size(text, width)
        return set_cell_size(text, width - cell_len(ellipsis)) + ellipsis
    pad = " " * (width - length)
    if align == ">":
        return pad + text
    if align == "^":
        half = (width - length) // 2
        return pad[:half] + text + pad[half:]
    return text + pad


# --- numbers -----------------------------------------------------------------------------------


def count(value: float | None) -> str:
    """A whole number with thousands separators."""
    return UNKNOWN if value is None else f"{int(value):,}"


def _three(value: float) -> str:
    if value >= 100:
        return f"{value:.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}"


_BIG = (("", 1.0), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12))


def short(value: float | None) -> str:
    """Three significant digits: 82, 12.4k, 3.61M."""
    if value is None:
        return UNKNOWN
    sign = "-" if value < 0 else ""
    value = abs(value)
    for unit, scale in reversed(_BIG):
        # 999.6 would print as 1000
        if value >= scale * 0.9995 and unit:
            return f"{sign}{_three(value / scale)}{unit}"
    if value == int(value):
        return f"{sign}{int(value)}"
    if value < 0.005:
        return f"<{sign}0.01"
    return sign + _three(value)


def rate(value: float | None) -> str:
    """A rate per second, without its unit; below 10 with one digit."""
    if value is None:
        return UNKNOWN
    if value < 0.05:
        return "0"
    if value < 10:
        return f"{value:.1f}"
    return short(round(value))


def octets(value: float | None) -> str:
    """Octets with a unit of powers of 1024."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1023.5 or unit == "TiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three(value)} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def percent(value: float | None) -> str:
    """A share given in percent, without the sign."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.01:
        return "<0.01"
    if value < 10:
        return f"{value:.2f}" if value else "0.0"
    return f"{value:.1f}"


def milliseconds(value: float | None) -> str:
    """A number of milliseconds without the unit, for columns titled with it."""
    if value is None:
        return UNKNOWN
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"


def seconds(value: float | None) -> str:
    """A short time with its unit: 412 µs, 41 ms, 2.31 s."""
    if value is None:
        return UNKNOWN
    sign = "-" if value < 0 else ""
    value = abs(value)
    if value == 0:
        return "0 s"
    if value < 0.0009995:
        return f"{sign}{value * 1e6:.0f} µs"
    if value < 0.9995:
        ms = value * 1e3
        return f"{sign}{ms:.0f} ms" if ms >= 10 else f"{sign}{ms:.1f} ms"
    if value < 99.95:
        return f"{sign}{_three(value)} s"
    return sign + duration(value)


def duration(value: float | None) -> str:
    """A long time: 0:41, 12:44, 1:02:03, 3d 04:05."""
    if value is None:
        return UNKNOWN
    whole = max(0, int(value))
    days, rest = divmod(whole, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, secs = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02d}:{minutes:02d}"
    if hours:
        return f"{hours}:{minutes:02d}:{secs:02d}"
    return f"{minutes}:{secs:02d}"


# --- times of day ------------------------------------------------------------------------------


def clock(time_ns: int | None, digits: int = 0) -> str:
    """Local time of day: 22:41:07, with `digits` digits of the second."""
    if time_ns is None:
        return UNKNOWN
    try:
        text = time.strftime("%H:%M:%S", time.localtime(time_ns // NS))
    except (OverflowError, ValueError, OSError):
        return UNKNOWN
    if not digits:
        return text
    return f"{text}.{time_ns % NS:09d}"[: 9 + digits]


def day(time_ns: int | None) -> str:
    """Local date: 2026-11-22."""
    if time_ns is None:
        return UNKNOWN
    try:
        return time.strftime("%Y-%m-%d", time.localtime(time_ns // NS))
    except (OverflowError, ValueError, OSError):
        return UNKNOWN


def zone(time_ns: int) -> str:
    """Abbreviation of the local time zone at that time."""
    try:
        return time.strftime("%Z", time.localtime(time_ns // NS))
    except (OverflowError, ValueError, OSError):
        return ""


def codec(stream: Mapping[str, Any]) -> str:
    """Of a stream; `DTMF` where only telephone events were seen, empty where it is not known."""
    return str(stream.get("codec") or ("DTMF" if stream.get("digits") else ""))


def tunnel(found: Mapping[str, Any] | None, arrow: str) -> list[str]:
    """What a message came in, such as `in vxlan 77: 192.0.2.1 → 192.0.2.2`; nothing where in none."""
    if not found:
        return []
    number = f" {found['vni']}" if found["vni"] else ""
    return [clean(f"in {found['type']}{number}: {found['outer_src_ip']} {arrow} {found['outer_dst_ip']}")]
