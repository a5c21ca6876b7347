"""The m= lines of a session description as JSON: what engine.reporters.output.sdp_media() and orjson make."""

from __future__ import annotations

from array import array

from engine.json_text import JsonText
from engine.parsers import octets

TAB, LF, CR, SPACE, SLASH, DIGIT0, DIGIT9, EQUALS = 9, 10, 13, 32, 47, 48, 57, 61
LETTER_A, LETTER_C, LETTER_M = 97, 99, 109
MOST_LINES, MOST_MEDIA, MOST_CODECS = 500, 32, 64
DIRECTIONS = (b"sendrecv", b"sendonly", b"recvonly", b"inactive")
RTPMAP = b"a=rtpmap:"


class SdpLines(JsonText):
    """Reads `source`; offsets are into it."""

    def __init__(self) -> None:
        super().__init__()
        self.word_first = self.word_last = 0
        self.type_first = self.type_last = self.port_first = self.port_last = 0
        self.profile_first = self.profile_last = self.formats = self.line_end = 0
        self.address_first = self.address_last = -1
        self.session_first = self.session_last = -1
        self.direction = self.session_direction = 0
        self.numbers = memoryview(array("q", bytes(16 * MOST_CODECS)))

    def media(self, begin: int, stop: int) -> bool:
        """Append the media of the SDP in [begin, stop), no brackets; False, and nothing, if it is odd."""
        front = self.end
        if not self.is_simple(begin, stop):
            return False
        self.address_first = self.address_last = -1
        self.direction = 0
        count = lines = 0
        section = place = begin
        while place < stop:
            after = octets.find(self.source, place, stop, LF)
            last = after
            if last > place and self.source[last - 1] == CR:
                last -= 1
            lines += 1
            if lines > MOST_LINES:
                self.end = front
                return False
            if last - place >= 2 and self.source[place + 1] == EQUALS:
                octet = self.source[place]
                if octet == LETTER_M and count < MOST_MEDIA and self.is_media(place + 2, last):
                    if count == 0:
                        self.session_first = self.address_first
                        self.session_last = self.address_last
                        self.session_direction = self.direction
                    elif not self.end_media(count, section, place):
                        self.end = front
                        return False
                    self.begin_media(place + 2, last)
                    count += 1
                    section = after + 1
                elif octet == LETTER_C:
                    self.connection(place + 2, last)
                elif octet == LETTER_A and last - place == 10:
                    self.attribute(place + 2)
            place = after + 1
        if count and not self.end_media(count, section, stop):
            self.end = front
            return False
        return True

    def is_simple(self, begin: int, stop: int) -> bool:
        """Whether all is printable ASCII on lines that end with CRLF or LF."""
        for place in range(begin, stop):
            octet = self.source[place]
            if octet < SPACE or octet > 126:
                if octet == CR:
                    if place + 1 < stop and self.source[place + 1] != LF:
                        return False
                elif octet not in (LF, TAB):
                    return False
        return True

    def word(self, place: int, stop: int) -> bool:
        """The next word: word_first to word_last; False where there is none."""
        while place < stop and (self.source[place] == SPACE or self.source[place] == TAB):
            place += 1
        self.word_first = place
        while place < stop and self.source[place] != SPACE and self.source[place] != TAB:
            place += 1
        self.word_last = place
        return self.word_first < place

    def is_media(self, place: int, stop: int) -> bool:
        """Whether an m= line has its three words."""
        return self.word(place, stop) and self.word(self.word_last, stop) and self.word(self.word_last, stop)

    def begin_media(self, place: int, stop: int) -> int:
        """Take an m= line in; address and direction are those of the session so far."""
        self.word(place, stop)
        self.type_first = self.word_first
        self.type_last = self.word_last
        self.word(self.word_last, stop)
        self.port_first = self.word_first
        self.port_last = self.before_slash()
        self.word(self.word_last, stop)
        self.profile_first = self.word_first
        self.profile_last = self.formats = self.word_last
        self.line_end = stop
        self.address_first = self.session_first
        self.address_last = self.session_last
        self.direction = self.session_direction
        return 0

    def before_slash(self) -> int:
        """Where a word ends that may have a slash and more behind it."""
        return octets.find(self.source, self.word_first, self.word_last, SLASH)

    def connection(self, place: int, stop: int) -> int:
        """The address of a c= line."""
        self.address_first = self.address_last = -1
        if self.is_media(place, stop):
            self.address_first = self.word_first
            self.address_last = self.before_slash()
        return 0

    def attribute(self, place: int) -> int:
        """A direction, eight octets long like each of them."""
        for number in range(4):
            if self.begins(place, DIRECTIONS[number]):
                self.direction = number
        return 0

    def begins(self, place: int, text: bytes) -> bool:
        """Whether the octets from `place` on, as many as `text` has, are `text`."""
        for index in range(len(text)):  # noqa: SIM110 -- compiled
            if self.source[place + index] != text[index]:
                return False
        return True

    def end_media(self, count: int, begin: int, stop: int) -> bool:
        """Append the open media; attributes in [begin, stop). False for a payload type mapped twice."""
        self.put(b'{"type":' if count == 1 else b',{"type":')
        self.string(self.type_first, self.type_last)
        self.put(b',"address":')
        if self.address_first < 0:
            self.put(b"null")
        else:
            self.string(self.address_first, self.address_last)
        self.put(b',"port":')
        self.port()
        self.put(b',"profile":')
        self.string(self.profile_first, self.profile_last)
        self.put(b',"formats":[')
        first = True
        self.word_last = self.formats
        while self.word(self.word_last, self.line_end):
            if not first:
                self.put(b",")
            first = False
            self.string(self.word_first, self.word_last)
        self.put(b'],"codecs":{')
        if not self.codecs(begin, stop):
            return False
        self.put(b'},"direction":"')
        self.put(DIRECTIONS[self.direction])
        self.put(b'"}')
        return True

    def port(self) -> int:
        """The port as a number, null where it is none."""
        value = 0
        if self.port_last == self.port_first or self.port_last - self.port_first > 5:
            return self.put(b"null")
        for place in range(self.port_first, self.port_last):
            octet = self.source[place]
            if octet < DIGIT0 or octet > DIGIT9:
                return self.put(b"null")
            value = 10 * value + octet - DIGIT0
        return self.number(value)

    def codecs(self, begin: int, stop: int) -> bool:
        """The rtpmap lines as payload type and name; False where one is mapped again."""
        count = 0
        place = begin
        while place < stop and count < MOST_CODECS:
            after = octets.find(self.source, place, stop, LF)
            last = after
            if last > place and self.source[last - 1] == CR:
                last -= 1
            if last - place >= 9 and self.begins(place, RTPMAP):
                first = place + 9
                space = octets.find(self.source, first, last, SPACE)
                if self.is_known(count, first, space):
                    return False
                self.numbers[2 * count] = first
                self.numbers[2 * count + 1] = space
                if count:
                    self.put(b",")
                count += 1
                self.string(first, space)
                self.put(b":")
                while space < last and (self.source[space] == SPACE or self.source[space] == TAB):
                    space += 1
                while last > space and (self.source[last - 1] == SPACE or self.source[last - 1] == TAB):
                    last -= 1
                self.string(space, last)
            place = after + 1
        return True

    def is_known(self, count: int, first: int, last: int) -> bool:
        """Whether one of the payload types so far is the same."""
        for number in range(count):
            start = self.numbers[2 * number]
            if self.numbers[2 * number + 1] - start != last - first:
                continue
            index = 0
            while index < last - first and self.source[start + index] == self.source[first + index]:
                index += 1
            if index == last - first:
                return True
        return False
