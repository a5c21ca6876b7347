"""JSON composed octet by octet into one buffer: what orjson makes of the same values, without the values.

Strings come from an attached buffer (`source`); what is not ASCII takes the way over Python's decoder, which
is slower and knows all of Unicode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from engine.parsers import octets
from engine.text import format_timestamp

if TYPE_CHECKING:
    from collections.abc import Callable

BILLION = 1_000_000_000
FIRST_OCTETS = 1 << 16
QUOTE = 34
BACKSLASH = 92
SPACE = 32
DOT = 46
DIGIT0 = 48
MAPPED = 0xFFFF0000
"""The second half of the front of an IPv4 address in 16 octets, as the low half of a little-endian word."""
MASK32 = 0xFFFFFFFF
LAST_SECOND = 253_402_300_799
HEX = b"0123456789abcdef"
ESCAPES = bytes(
    {8: ord("b"), 9: ord("t"), 10: ord("n"), 12: ord("f"), 13: ord("r")}.get(octet, 0) for octet in range(32)
)
"""The letter behind the backslash; 0: \\u00xx."""
WHITE = bytes(octet in (9, 10, 11, 12, 13, 28, 29, 30, 31, 32) for octet in range(256))
"""What str.split() takes for white space, of ASCII."""


def quoted(text: str) -> bytes:
    """A string as JSON, UTF-8."""
    return orjson.dumps(text)


class JsonText:
    """The buffer `out`, filled up to `end`; what is appended grows it."""

    def __init__(self) -> None:
        self.memory = bytearray(FIRST_OCTETS)
        self.out = memoryview(self.memory)
        self.size = FIRST_OCTETS
        self.end = 0
        self.source = memoryview(b"")
        self.second = 0
        self.second_text = b""

    def grow(self, need: int) -> int:
        """Make room for `need` more octets."""
        while self.end + need > self.size:
            self.size *= 2
        memory = bytearray(self.size)
        memory[: self.end] = self.memory[: self.end]
        self.memory = memory
        self.out = memoryview(memory)
        return 0

    def give(self, write: Callable[[memoryview], object]) -> int:
        """Call `write` with what there is, valid during the call; the buffer is empty then."""
        end = self.end
        self.end = 0
        if end:
            write(memoryview(self.memory)[:end])
        return 0

    def put(self, text: bytes) -> int:
        """Append octets as they are."""
        if self.end + len(text) > self.size:
            self.grow(len(text))
        self.end = octets.put(self.out, self.end, text)
        return 0

    def number(self, value: int) -> int:
        """A whole number, not below 0."""
        if self.end + 20 > self.size:
            self.grow(20)
        place = self.end
        rest = value
        while rest >= 10:
            rest //= 10
            place += 1
        self.end = place + 1
        while place >= 0:
            self.out[place] = DIGIT0 + value % 10
            value //= 10
            place -= 1
            if value == 0:
                break
        return 0

    def digits(self, value: int, count: int) -> int:
        """The last `count` decimal digits, zeros in front."""
        if self.end + count > self.size:
            self.grow(count)
        place = self.end + count
        while place > self.end:
            place -= 1
            self.out[place] = DIGIT0 + value % 10
            value //= 10
        self.end += count
        return 0

    def timestamp(self, nanoseconds: int) -> int:
        """As engine.packet.format_timestamp(), in quotes."""
        second = nanoseconds // BILLION
        if second != self.second or not self.second_text:
            self.second_text = b'"' + format_timestamp(nanoseconds)[:20].encode()
            self.second = second
        self.put(self.second_text)
        self.digits(nanoseconds % BILLION // 1000, 6)
        self.put(b'Z"')
        return 0

    # ---- strings ----

    def string(self, begin: int, stop: int) -> int:
        """source[begin:stop] as a string, what is no UTF-8 as U+FFFD."""
        if stop < begin:
            stop = begin
        if self.end + 6 * (stop - begin) + 2 > self.size:
            self.grow(6 * (stop - begin) + 2)
        start = self.end
        self.out[start] = QUOTE
        at = start + 1
        place = begin
        while place < stop:
            run = octets.plain(self.source, place, stop)
            at = octets.copy(self.out, at, self.source, place, run)
            if run == stop:
                break
            octet = self.source[run]
            if octet >= 128:
                return self.foreign(begin, stop, False)
            at = self.escape(at, octet)
            place = run + 1
        self.out[at] = QUOTE
        self.end = at + 1
        return 0

    def escape(self, at: int, octet: int) -> int:
        """One octet that does not stand for itself, at `at`; the place behind it."""
        self.out[at] = BACKSLASH
        if octet >= SPACE:
            self.out[at + 1] = octet
            return at + 2
        letter = ESCAPES[octet]
        if letter:
            self.out[at + 1] = letter
            return at + 2
        at = octets.put(self.out, at + 1, b"u00")
        self.out[at] = HEX[octet >> 4]
        self.out[at + 1] = HEX[octet & 15]
        return at + 2

    def line(self, begin: int, stop: int) -> int:
        """The same as one line: white space at the ends goes, each run within it is one space."""
        if stop < begin:
            stop = begin
        while begin < stop and WHITE[self.source[begin]]:
            begin += 1
        while stop > begin and WHITE[self.source[stop - 1]]:
            stop -= 1
        if self.end + 6 * (stop - begin) + 2 > self.size:
            self.grow(6 * (stop - begin) + 2)
        self.out[self.end] = QUOTE
        at = self.end + 1
        place = begin
        while place < stop:
            run = octets.plain(self.source, place, stop)
            at = octets.copy(self.out, at, self.source, place, run)
            if run == stop:
                break
            octet = self.source[run]
            if octet >= 128:
                return self.foreign(begin, stop, True)
            if octet < SPACE and WHITE[octet]:
                at = self.blank(at)
                run += 1
                while run < stop and WHITE[self.source[run]]:
                    run += 1
                place = run
                continue
            at = self.escape(at, octet)
            place = run + 1
        return self.single(at)

    def blank(self, at: int) -> int:
        """White space that is none of the spaces: one space, where none stands in front."""
        while self.out[at - 1] == SPACE:
            at -= 1
        self.out[at] = SPACE
        return at + 1

    def single(self, at: int) -> int:
        """End the string at `at`, with one space for several."""
        place = self.end + 1
        while place + 1 < at:
            if self.out[place] == SPACE and self.out[place + 1] == SPACE:
                break
            place += 1
        if place + 1 < at:
            to = place
            while place < at:
                if self.out[place] != SPACE or self.out[to - 1] != SPACE:
                    self.out[to] = self.out[place]
                    to += 1
                place += 1
            at = to
        self.out[at] = QUOTE
        self.end = at + 1
        return 0

    def foreign(self, begin: int, stop: int, one_line: bool) -> int:
        """string() or line() of octets that are not all ASCII."""
        text = bytes(self.source[begin:stop]).decode("utf-8", "replace")
        return self.put(quoted(" ".join(text.split()) if one_line else text))

    def is_blank(self, begin: int, stop: int) -> bool:
        """Whether line() would make an empty string."""
        while begin < stop:
            octet = self.source[begin]
            if octet >= 128:
                return not bytes(self.source[begin:stop]).decode("utf-8", "replace").strip()
            if not WHITE[octet]:
                return False
            begin += 1
        return True

    # ---- addresses ----

    def is_ipv4(self, low: int, high: int) -> bool:
        """Whether an address of two little-endian words is an IPv4 one."""
        return low == 0 and high & MASK32 == MAPPED

    def ipv4(self, high: int) -> int:
        """The dotted address in the upper half of a word, without quotes."""
        self.number((high >> 32) & 255)
        self.out[self.end] = DOT
        self.end += 1
        self.number((high >> 40) & 255)
        self.out[self.end] = DOT
        self.end += 1
        self.number((high >> 48) & 255)
        self.out[self.end] = DOT
        self.end += 1
        self.number(high >> 56)
        return 0
