"""Searching octets, uncompiled; the compiled twin of these functions is `__init__.pxd`.

A module pair of that name would be compiled itself, a package is not: hot modules take the functions
inline, so their place is a header.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from array import array

_PIECE = 1024


def find(buf: bytes | bytearray | memoryview, begin: int, stop: int, octet: int) -> int:
    """The first place of `octet` in [begin, stop) of `buf`; stop where there is none."""
    while begin < stop:
        place = bytes(buf[begin : min(begin + _PIECE, stop)]).find(octet)
        if place >= 0:
            return begin + place
        begin += _PIECE
    return stop


def clear(slots: array[int]) -> int:
    """Set every element to -1."""
    for index in range(len(slots)):
        slots[index] = -1
    return 0


def cut(buf: bytes | bytearray | memoryview, begin: int, stop: int) -> bytes:
    """The octets [begin, stop) of `buf`."""
    return bytes(buf[begin:stop])


def copy(
    target: bytearray | memoryview, place: int, buf: bytes | bytearray | memoryview, begin: int, stop: int
) -> int:
    """Copy [begin, stop) of `buf` to `place`; the place behind it."""
    if begin >= stop:
        return place
    target[place : place + stop - begin] = buf[begin:stop]
    return place + stop - begin


def put(target: bytearray | memoryview, place: int, text: bytes) -> int:
    """Write `text` at `place`; the place behind it."""
    target[place : place + len(text)] = text
    return place + len(text)


_UNSAFE = re.compile(rb"[^ !#-\[\]-\x7f]")


def plain(buf: bytes | bytearray | memoryview, begin: int, stop: int) -> int:
    """The first octet of [begin, stop) that does not stand for itself in JSON or is no ASCII; else stop."""
    found = _UNSAFE.search(buf, begin, stop)
    return max(begin, stop) if found is None else found.start()
