"""Changes inputs at random, with the numbers and pieces that parsers of packets and texts trip over."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

EDGES = (0, 1, 2, 3, 4, 7, 8, 9, 15, 16, 20, 31, 32, 40, 63, 64, 127, 128, 191, 192, 200, 254, 255)
WIDE = (0, 1, 7, 8, 0xFF, 0x100, 0x1FFF, 0x2000, 0x7FFF, 0x8000, 0xFFF8, 0xFFFF, 0x10000, 0x3FFFFFFF, 0x40000,
        0x7FFFFFFF, 0x80000000, 0xFFFFFFF0, 0xFFFFFFFF)  # fmt: skip
NUMBERS = (
    b"0",
    b"1",
    b"-1",
    b"65535",
    b"65536",
    b"2147483647",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"4294967328",
    b"9223372036854775808",
    b"18446744073709551616",
    b"99999999999999999999999",
    b"0x10",
    b"1e9",
    b"00000000000000000000001",
)
MARKS = (
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"\t",
    b" ",
    b'"',
    b"\\",
    b"<",
    b">",
    b";",
    b",",
    b":",
    b"=",
    b"(",
    b")",
    b"[",
    b"]",
    b"{",
    b"}",
    b"\xff",
    b"\xfe\xff",
    b"\xc3\xa9",
    b"\xed\xa0\x80",
    b"%00",
    b"..",
)


def mutate(
    octets: bytes, random: Random, others: Sequence[bytes], pieces: Sequence[bytes], most: int
) -> bytes:
    """One to sixteen changes; `others` to cross with, `pieces` to put in, at most `most` octets."""
    made = bytearray(octets)
    for _ in range(1 << random.randrange(5)):
        made = _change(made, random, others, pieces)
    return bytes(made[:most])


def _change(made: bytearray, random: Random, others: Sequence[bytes], pieces: Sequence[bytes]) -> bytearray:
    """One change."""
    if not made:
        return bytearray(random.randbytes(random.randrange(1, 64)))
    place = random.randrange(len(made))
    kind = random.randrange(16)
    if kind == 0:
        made[place] ^= 1 << random.randrange(8)
    elif kind == 1:
        made[place] = random.choice(EDGES)
    elif kind == 2:
        made[place] = random.randrange(256)
    elif kind == 3:
        made[place] = (made[place] + random.randrange(-4, 5)) & 255
    elif kind == 4:
        made[place : place + 2] = struct.pack(random.choice("<>") + "H", random.choice(WIDE) & 0xFFFF)
    elif kind == 5:
        made[place : place + 4] = struct.pack(random.choice("<>") + "I", random.choice(WIDE) & 0xFFFFFFFF)
    elif kind == 6:
        del made[place : place + random.choice((1, 2, 4, 8, 16, random.randrange(1, 256)))]
    elif kind == 7:
        made[place:place] = random.randbytes(random.choice((1, 2, 4, 8, random.randrange(1, 64))))
    elif kind == 8:
        end = place + random.choice((4, 8, 16, random.randrange(1, 300)))
        made[place:place] = made[place:end] * random.choice((1, 1, 2, 3, 20))
    elif kind == 9:
        del made[place:]
    elif kind == 10:
        number = _number_at(made, place)
        made[number[0] : number[1]] = random.choice(NUMBERS)
    elif kind in (11, 12) and pieces:
        piece = random.choice(pieces)
        made[place : place + random.choice((0, 0, len(piece), 1))] = piece
    elif kind == 13:
        made[place : place + random.choice((0, 1))] = random.choice(MARKS)
    elif kind == 14 and others:
        other = random.choice(others)
        cut = random.randrange(len(other) + 1)
        made[place:] = other[cut:]
    elif others:
        other = random.choice(others)
        begin = random.randrange(len(other) + 1)
        part = other[begin : begin + random.randrange(1, 400)]
        made[place : place + random.choice((0, len(part)))] = part
    return made


def _number_at(made: bytearray, place: int) -> tuple[int, int]:
    """The decimal number from `place` on, or nothing behind it."""
    begin = place
    while begin < len(made) and not 48 <= made[begin] <= 57:
        begin += 1
    end = begin
    while end < len(made) and 48 <= made[end] <= 57:
        end += 1
    return begin, end


def shorter(octets: bytes, still: object, tries: int = 2000) -> bytes:
    """A smaller input for which `still(octets)` holds: pieces are cut out, then octets made 0."""
    check = still
    assert callable(check)
    size = max(1, len(octets) // 2)
    while size and tries > 0:
        place = 0
        while place < len(octets) and tries > 0:
            less = octets[:place] + octets[place + size :]
            tries -= 1
            if check(less):
                octets = less
            else:
                place += size
        size //= 2
    for place in range(len(octets)):
        if tries <= 0:
            break
        if octets[place]:
            plain = octets[:place] + b"\0" + octets[place + 1 :]
            tries -= 1
            if check(plain):
                octets = plain
    return octets
