"""IP addresses written as text, read into the two words of a 16-octet address."""

from __future__ import annotations

from array import array

from engine import packet

POINT, COLON = b".:"
MAPPED = 0xFFFF0000
"""::ffff:0:0 as its second little-endian word."""


class AddressReader:
    """Reads IPv4 and IPv6 addresses of an attached buffer.

    `word0` and `word1` are the little-endian words of the 16 octets in network order, IPv4 as
    ::ffff:a.b.c.d. `numeric` says that the text was meant as an address and not as a host name.
    """

    def __init__(self) -> None:
        self.buf: bytes | bytearray | memoryview = b""
        self.groups = array("I", [0] * 8)
        self.word0 = self.word1 = 0
        self.unspecified = self.multicast = self.numeric = False

    def attach(self, buf: bytes | bytearray | memoryview) -> None:
        """Read from `buf` from now on."""
        self.buf = buf

    def read(self, begin: int, stop: int) -> bool:
        """Whether [begin, stop) is an address, nothing more; the words are 0 when it is none."""
        self.word0 = self.word1 = 0
        self.unspecified = self.multicast = False
        colon = False
        self.numeric = begin == stop
        for place in range(begin, stop):
            if self.buf[place] == COLON:
                colon = True
        if colon:
            self.numeric = True
            return self.ipv6(begin, stop) and self.fold(self.groups[0] >> 8 == 255)
        if begin < stop and 48 <= self.buf[stop - 1] <= 57:
            # The last label of a host name begins with a letter (RFC 3696 section 2).
            self.numeric = True
        for index in range(5):
            self.groups[index] = 0
        self.groups[5] = 0xFFFF
        return self.ipv4(begin, stop, 6) and self.fold(224 <= self.groups[6] >> 8 < 240)

    def fold(self, multicast: bool) -> bool:
        """The eight groups as two words."""
        for index in range(4):
            group = self.groups[index]
            self.word0 |= ((group >> 8) | ((group & 255) << 8)) << (16 * index)
            group = self.groups[index + 4]
            self.word1 |= ((group >> 8) | ((group & 255) << 8)) << (16 * index)
        self.unspecified = self.word0 == 0 and (self.word1 in (0, MAPPED))
        self.multicast = multicast
        return True

    def ipv4(self, begin: int, stop: int, group: int) -> bool:
        """Dotted decimal to two groups."""
        value = 0
        for index in range(4):
            octet = 0
            place = begin
            while place < stop and place - begin < 4 and 48 <= self.buf[place] <= 57:
                octet = octet * 10 + self.buf[place] - 48
                place += 1
            if place == begin or place - begin > 3 or octet > 255:
                return False
            value = value << 8 | octet
            if index < 3 and (place == stop or self.buf[place] != POINT):
                return False
            begin = place + 1
        self.groups[group] = value >> 16
        self.groups[group + 1] = value & 0xFFFF
        return begin == stop + 1

    def ipv6(self, begin: int, stop: int) -> bool:
        """RFC 4291 section 2.2 text to eight groups; a zone makes it no address."""
        count = 0
        gap = -1
        if stop - begin >= 2 and self.buf[begin] == COLON and self.buf[begin + 1] == COLON:
            gap = 0
            begin += 2
        while begin < stop:
            if count == 8:
                return False
            place = begin
            value = 0
            while place < stop and place - begin < 5 and self.hex_digit(self.buf[place]) >= 0:
                value = value << 4 | self.hex_digit(self.buf[place])
                place += 1
            if place < stop and self.buf[place] == POINT:
                if count > 6 or not self.ipv4(begin, stop, count):
                    return False
                count += 2
                break
            if place == begin or place - begin > 4:
                return False
            self.groups[count] = value
            count += 1
            begin = place
            if begin < stop:
                if self.buf[begin] != COLON or begin + 1 == stop:
                    return False
                begin += 1
                if self.buf[begin] == COLON:
                    if gap >= 0:
                        return False
                    gap = count
                    begin += 1
        return self.expand(count, gap)

    def expand(self, count: int, gap: int) -> bool:
        """Open the gap of `::` among `count` groups."""
        if gap < 0 or count == 8:
            return count == 8 and gap < 0
        shift = 8 - count
        index = 7
        while index >= 0:
            if index >= gap + shift:
                self.groups[index] = self.groups[index - shift]
            elif index >= gap:
                self.groups[index] = 0
            index -= 1
        return True

    def hex_digit(self, octet: int) -> int:
        """The value of a hexadecimal digit, -1 for other octets."""
        if 48 <= octet <= 57:
            return octet - 48
        octet |= 32
        return octet - 87 if 97 <= octet <= 102 else -1


def address_text(word0: int, word1: int) -> str | None:
    """The address in two words as text; None for the unspecified one."""
    if word0 == 0 and word1 in (0, MAPPED):
        return None
    return packet.address_text(word0.to_bytes(8, "little") + word1.to_bytes(8, "little"))
