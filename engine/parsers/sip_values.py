"""Values of SIP headers: addresses, parameters, numbers (RFC 3261 section 25.1).

The base of the message scanner, which attaches the buffer and says where each value lies.
"""

from __future__ import annotations

from array import array

from engine.parsers import octets
from engine.parsers.sip_grammar import (
    CONTACT,
    DIGIT,
    E_BRANCH,
    E_DATE,
    E_MAX_FORWARDS,
    E_VIA_FORM,
    IN_CONTACT,
    IN_VIA,
    K_BRACKETS,
    K_CLOSE,
    K_EMPTY,
    K_NAME,
    K_QUOTE,
    K_SPACE,
    K_TEXT,
    K_URI,
    KIND,
    LOWER,
    LWS,
    METHOD_BUCKETS,
    METHOD_LENGTHS,
    METHOD_NEXT,
    METHOD_SPELLINGS,
    NO_SLOT,
    STRIDE,
    TOKEN,
    VIA,
    VIA_BRANCH,
)
from engine.shm.records import SLOTS

MAX_NUMBER = 1 << 40
"""Where reading a number stops; larger than every limit."""
GMT, PROTOCOL, COOKIE, BRANCH, TAG = b"gmt", b"sip", b"z9hg4bk", b"branch", b"tag"
"""Words to find, in lower case."""

QUOTE, STAR, COMMA, COLON, SEMICOLON, LT, EQUALS, GT, QUESTION, BACKSLASH = b'"*,:;<=>?\\'


class SipValues:
    """Slots, the first defect, and the readers of single values."""

    def __init__(self) -> None:
        self.buf: bytes | bytearray | memoryview = b""
        self.slots = array("i", [-1] * (2 * len(SLOTS)))
        self.start = self.error = 0

    def attach(self, buf: bytes | bytearray | memoryview) -> None:
        """Read from `buf` (octets, contiguous) from now on; offsets count from its front."""
        self.buf = buf

    def fail(self, error: int) -> int:
        """Keep the first defect."""
        if self.error == 0:
            self.error = error
        return 0

    def put(self, slot: int, begin: int, stop: int) -> int:
        """Fill a slot."""
        self.slots[2 * slot] = begin - self.start
        self.slots[2 * slot + 1] = stop - self.start
        return 0

    def has(self, slot: int) -> bool:
        """Whether the slot is filled."""
        return self.slots[2 * slot] >= 0

    def skip(self, place: int, stop: int) -> int:
        """The first octet from place on that is no white space."""
        while place < stop and KIND[self.buf[place]] & LWS:
            place += 1
        return place

    def number(self, begin: int, stop: int) -> int:
        """A decimal number, at most MAX_NUMBER; -1 when anything else stands there."""
        value = 0
        if begin == stop:
            return -1
        for place in range(begin, stop):
            if not KIND[self.buf[place]] & DIGIT:
                return -1
            if value < MAX_NUMBER:
                value = value * 10 + self.buf[place] - 48
        return value

    def same(self, begin: int, stop: int, other: int, other_stop: int) -> bool:
        """Whether two places hold the same octets."""
        if stop - begin != other_stop - other:
            return False
        index = 0
        while index < stop - begin and self.buf[begin + index] == self.buf[other + index]:
            index += 1
        return index == stop - begin

    def begins(self, begin: int, stop: int, word: bytes) -> bool:
        """Whether [begin, stop) begins with the word, which is given in lower case."""
        if stop - begin < len(word):
            return False
        index = 0
        while index < len(word) and LOWER[self.buf[begin + index]] == word[index]:
            index += 1
        return index == len(word)

    def quoted(self, place: int, stop: int) -> int:
        """The place behind the quoted string that begins at place, -1 if it never ends."""
        place += 1
        while place < stop and self.buf[place] != QUOTE:
            if self.buf[place] == BACKSLASH:
                place += 1
            place += 1
        return place + 1 if place < stop else -1

    def address(self, begin: int, stop: int, group: int, slot: int) -> int:
        """From, To or the first Contact: name-addr or addr-spec, with parameters (RFC 3261 section 20.10)."""
        place = begin
        if place < stop and self.buf[place] == QUOTE:
            place = self.quoted(begin, stop)
            if place < 0:
                self.fail(group + K_QUOTE)
                place = begin + 1
        left = self.left_bracket(place, stop)
        if left < 0:
            return self.bare_uri(begin, stop, group, slot)
        while place < left:
            # From 128 on no octet is a token either, but UTF-8 without quotes is too common to be news.
            if KIND[self.buf[place]] == 0 and self.buf[place] < 128:
                self.fail(group + K_NAME)
            place += 1
        return self.bracketed(left + 1, stop, group, slot)

    def left_bracket(self, place: int, stop: int) -> int:
        """Where the URI's angle bracket opens, -1 for an addr-spec."""
        colon = False
        while place < stop:
            octet = self.buf[place]
            if octet == LT:
                return place
            if octet == COLON:
                colon = True
            elif colon and (octet in (SEMICOLON, COMMA)):
                return -1
            place += 1
        return -1

    def bracketed(self, begin: int, stop: int, group: int, slot: int) -> int:
        """The URI in angle brackets, and what follows."""
        finish = octets.find(self.buf, begin, stop, GT)
        place = finish + 1
        if finish == stop:
            self.fail(group + K_CLOSE)
            place = finish = octets.find(self.buf, begin, stop, SEMICOLON)
        if begin < finish and (KIND[self.buf[begin]] | KIND[self.buf[finish - 1]]) & LWS:
            self.fail(group + K_SPACE)
        return self.uri(begin, finish, place, stop, group, slot)

    def bare_uri(self, begin: int, stop: int, group: int, slot: int) -> int:
        """A URI without angle brackets: it ends at the first semicolon, of a list at the comma."""
        if slot == CONTACT and stop - begin == 1 and self.buf[begin] == STAR:
            return 0
        place = begin
        while place < stop and self.buf[place] != SEMICOLON:
            octet = self.buf[place]
            if octet == COMMA and slot == CONTACT:
                break
            if octet in (QUESTION, COMMA):
                self.fail(group + K_BRACKETS)
            place += 1
        return self.uri(begin, place, place, stop, group, slot)

    def uri(self, begin: int, finish: int, place: int, stop: int, group: int, slot: int) -> int:
        """Note the URI in [begin, finish) without its white space, then the parameters from place on."""
        begin = self.skip(begin, finish)
        while finish > begin and KIND[self.buf[finish - 1]] & LWS:
            finish -= 1
        if octets.find(self.buf, begin, finish, COLON) == finish:
            self.fail(group + K_URI)
        if slot == CONTACT:
            self.parameters(place, stop, group, NO_SLOT)
        else:
            self.put(slot + 1, begin, finish)
            self.parameters(place, stop, group, slot + 2)
        return 0

    def parameters(self, place: int, stop: int, group: int, wanted: int) -> int:
        """Walk `;name=value` from place on and fill the slot `wanted` (branch or tag).

        Returns where the value of the header ends: at stop, or at the comma of a list.
        """
        listed = group >= IN_CONTACT
        while True:
            place = self.skip(place, stop)
            if place == stop or (listed and self.buf[place] == COMMA):
                return place
            if self.buf[place] != SEMICOLON:
                self.fail(group + K_TEXT)
                while place < stop and self.buf[place] != SEMICOLON:
                    place += 1
                continue
            begin = place = self.skip(place + 1, stop)
            while place < stop and KIND[self.buf[place]] & TOKEN:
                place += 1
            finish = place
            if begin == finish:
                self.fail(group + K_EMPTY)
                continue
            place = self.skip(place, stop)
            if place == stop or self.buf[place] != EQUALS:
                continue
            value = place = self.skip(place + 1, stop)
            place = self.value_end(place, stop, group)
            if wanted != NO_SLOT and self.is_wanted(begin, finish, wanted) and not self.has(wanted):
                self.put(wanted, value, place)

    def value_end(self, place: int, stop: int, group: int) -> int:
        """Where the parameter's value that begins at place ends."""
        if place < stop and self.buf[place] == QUOTE:
            place = self.quoted(place, stop)
            if place < 0:
                self.fail(group + K_QUOTE)
                return stop
            return place
        while place < stop:
            octet = self.buf[place]
            if octet == SEMICOLON or KIND[octet] & LWS or (octet == COMMA and group >= IN_CONTACT):
                return place
            place += 1
        return place

    def is_wanted(self, begin: int, finish: int, wanted: int) -> bool:
        """Whether the parameter's name is the one that fills the slot: branch of Via, else tag."""
        if wanted == VIA_BRANCH:
            return finish - begin == len(BRANCH) and self.begins(begin, finish, BRANCH)
        return finish - begin == len(TAG) and self.begins(begin, finish, TAG)

    def via(self, begin: int, stop: int) -> int:
        """The topmost Via: its end at the first comma, and its branch (RFC 3261 section 8.1.1.7)."""
        if not self.begins(begin, stop, PROTOCOL):
            self.fail(E_VIA_FORM)
        place = begin
        while place < stop and self.buf[place] != SEMICOLON and self.buf[place] != COMMA:
            place += 1
        finish = self.parameters(place, stop, IN_VIA, VIA_BRANCH)
        while finish > begin and KIND[self.buf[finish - 1]] & LWS:
            finish -= 1
        self.put(VIA, begin, finish)
        if self.has(VIA_BRANCH):
            begin = self.start + self.slots[2 * VIA_BRANCH]
            stop = self.start + self.slots[2 * VIA_BRANCH + 1]
            if stop - begin == len(COOKIE) and self.begins(begin, stop, COOKIE):
                self.fail(E_BRANCH)
        return 0

    def date(self, begin: int, stop: int) -> int:
        """RFC 3261 section 20.17: no time zone but GMT."""
        if stop - begin < 4 or not self.begins(stop - 3, stop, GMT):
            self.fail(E_DATE)
        return 0

    def method_number(self, begin: int, stop: int) -> int:
        """The number of a method, case-sensitive (RFC 3261 section 7.1); 0 is any other."""
        length = stop - begin
        if length == 0 or length >= STRIDE:
            return 0
        entry = METHOD_BUCKETS[length * 32 + (self.buf[begin] & 31)]
        while entry:
            base = entry * STRIDE
            index = 0
            while index < length and self.buf[begin + index] == METHOD_SPELLINGS[base + index]:
                index += 1
            if index == length and METHOD_LENGTHS[entry] == length:
                return entry
            entry = METHOD_NEXT[entry]
        return 0

    def max_forwards(self, begin: int, stop: int) -> int:
        """RFC 3261 section 20.22."""
        value = self.number(begin, stop)
        if value < 0 or value > 255:
            self.fail(E_MAX_FORWARDS)
        return 0
