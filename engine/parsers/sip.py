"""SIP messages (RFC 3261): known by their first line, scanned once into offsets.

Nothing is copied: what a message says stands in `slots` as pairs of offsets into the buffer. The
scanner accepts what it can and names the first defect; it never raises, whatever the octets.
"""

from __future__ import annotations

from engine.parsers import octets
from engine.parsers.sip_grammar import (
    BODY,
    BUCKETS,
    CALL_ID,
    COMPACT,
    CONTACT,
    CONTENT_LENGTH,
    CONTENT_TYPE,
    CSEQ_METHOD,
    DATE,
    DIGIT,
    E_CSEQ_FORM,
    E_CSEQ_METHOD,
    E_CSEQ_NUMBER,
    E_LENGTH_FORM,
    E_LENGTH_LARGE,
    E_LENGTH_NEGATIVE,
    E_LINE_END,
    E_LINE_SPACES,
    E_NAME,
    E_NO_CALL_ID,
    E_NO_CSEQ,
    E_NO_END,
    E_NO_FROM,
    E_NO_TO,
    E_NO_VIA,
    E_STATUS,
    E_TOO_MANY,
    E_TWO_CALL_ID,
    E_TWO_CSEQ,
    E_TWO_FROM,
    E_TWO_LENGTHS,
    E_TWO_TO,
    E_URI_BRACKETS,
    E_URI_HEADERS,
    E_URI_SCHEME,
    E_URI_SPACES,
    E_VERSION,
    ERRORS,
    FROM,
    IN_CONTACT,
    IN_FROM,
    IN_TO,
    KIND,
    LENGTHS,
    LOWER,
    LWS,
    METHOD,
    NEXT,
    NO_SLOT,
    REASON_PHRASE,
    SPELLINGS,
    STATUS,
    STRIDE,
    TARGETS,
    TO,
    TOKEN,
    URI,
    VIA,
)
from engine.parsers.sip_values import SipValues
from engine.shm.records import METHODS, S_COMPACT, S_SDP, S_TRUNCATED, SLOTS

__all__ = ["ERRORS", "SipParser"]

MAX_HEADERS = 512
MAX_MESSAGE = 1 << 24
"""Octets; what is longer is no SIP message."""
MAX_METHOD = 128
MAX_KEEPALIVE = 64
MAX_CSEQ = 1 << 31
"""RFC 3261 section 8.1.1.5."""
UNSTATED = 999
"""Stands for a status code that is not from 1 to 999."""
MULTIPART, SDP_TYPE, SDP_BEGIN, JAK = b"multipart/", b"application/sdp", b"v=0", b"jak"
"""Words to find, in lower case."""

HT, LF, CR, SP, MINUS, SLASH, COLON, SEMICOLON, LT, QUESTION, AT = b"\t\n\r -/:;<?@"


class SipParser(SipValues):
    """Scans one SIP message of an attached buffer.

    `parse()` fills `status` (0: request; 999: no code), `method` (number in METHODS), `error` (number in
    ERRORS), `headers`, `flags` (S_*), `cseq`, `slots` (SLOTS), `start` as given, `end` behind the body as far
    as it is there, `sdp_start` and `sdp_end` relative to start. METHODS, SLOTS, S_*: engine.shm.records.
    """

    def __init__(self) -> None:
        super().__init__()
        self.status = self.method = self.headers = self.flags = self.cseq = 0
        self.end = 0
        self.sdp_start = self.sdp_end = -1
        self.line = self.line_end = self.word_end = self.version = self.limit = 0
        self.length = -1

    # ------------------------------------------------------------------ what it is

    def is_keepalive(self, start: int, end: int) -> bool:
        """Whether the octets only keep a path open: none, CRLFs (RFC 5626 section 4.4.1), zeros or `jaK`."""
        if end - start > MAX_KEEPALIVE:
            return False
        if end - start == 3 and self.begins(start, end, JAK):
            return True
        for place in range(start, end):
            octet = self.buf[place]
            if octet not in (0, CR, LF):
                return False
        return True

    def looks_like(self, start: int, end: int) -> bool:
        """Whether the first line is that of a SIP message: any method, any version, a little broken too."""
        if start >= end or not KIND[self.buf[start]] & (TOKEN | LWS):
            return False
        return self.first_line(start, end) != 0

    def first_line(self, start: int, end: int) -> int:
        """Find the parts of the first line: 0 not SIP, 1 request, 2 response."""
        self.limit = end
        place = start
        while place < end and (self.buf[place] == CR or self.buf[place] == LF):
            place += 1
        self.line = place
        stop = end if end - place <= MAX_METHOD else place + MAX_METHOD
        while place < stop and KIND[self.buf[place]] & TOKEN:
            place += 1
        self.word_end = place
        if place in (self.line, stop):
            return 0
        octet = self.buf[place]
        if octet == SLASH and place - self.line == 3:
            return self.is_response(end)
        if octet not in (SP, HT):
            return 0
        self.line_end = place = octets.find(self.buf, place, end, LF)
        while place > self.word_end and KIND[self.buf[place - 1]] & LWS:
            place -= 1
        place -= 7
        if place <= self.word_end or not self.is_version(place):
            return 0
        self.version = place
        octet = self.buf[place - 1]
        return 1 if octet in (SP, HT) else 0

    def is_response(self, end: int) -> int:
        """The first line begins with `SIP/`: 2 when a version and a number follow."""
        place = self.line + 7
        if not self.is_version(self.line) or place >= end or self.buf[place] not in (SP, HT):
            return 0
        while place < end and (self.buf[place] == SP or self.buf[place] == HT):
            place += 1
        if place == end or not KIND[self.buf[place]] & DIGIT:
            return 0
        self.word_end = place
        self.line_end = octets.find(self.buf, place, end, LF)
        return 2

    def is_version(self, place: int) -> bool:
        """`SIP/` and two digits with a point, in any case; never beyond the message."""
        return (
            place + 6 < self.limit
            and LOWER[self.buf[place]] == 115
            and LOWER[self.buf[place + 1]] == 105
            and LOWER[self.buf[place + 2]] == 112
            and self.buf[place + 3] == SLASH
            and KIND[self.buf[place + 4]] & DIGIT != 0
            and self.buf[place + 5] == 46
            and KIND[self.buf[place + 6]] & DIGIT != 0
        )

    # ------------------------------------------------------------------ the message

    def parse(self, start: int, end: int) -> int:
        """Scan the message in [start, end): 0 not SIP, 1 request, 2 response."""
        self.error = self.status = self.method = self.headers = self.flags = self.cseq = 0
        self.start = start
        self.end = end
        self.sdp_start = self.sdp_end = self.length = -1
        octets.clear(self.slots)
        if end - start > MAX_MESSAGE or start < 0:
            return 0
        kind = self.first_line(start, end)
        if kind == 0:
            return 0
        if kind == 1:
            self.request_line()
        else:
            self.status_line()
        body = self.header_lines(self.line_end + 1, end)
        self.complete()
        if body >= 0:
            self.content(body, end)
        else:
            self.fail(E_NO_END)
        return kind

    def request_line(self) -> int:
        """Method, Request-URI and version (RFC 3261 section 7.1)."""
        self.put(METHOD, self.line, self.word_end)
        self.method = self.method_number(self.line, self.word_end)
        begin = self.skip(self.word_end, self.version)
        stop = self.version
        while stop > begin and KIND[self.buf[stop - 1]] & LWS:
            stop -= 1
        self.put(URI, begin, stop)
        if self.buf[self.version + 4] != 50 or self.buf[self.version + 6] != 48:
            self.fail(E_VERSION)
        if begin != self.word_end + 1 or (begin < stop and stop != self.version - 1):
            self.fail(E_LINE_SPACES)
        self.request_uri(begin, stop)
        if self.version + 7 < self.line_end and self.buf[self.version + 7] != CR:
            self.fail(E_LINE_END)
        return 0

    def request_uri(self, begin: int, stop: int) -> int:
        """What a Request-URI may not hold: white space, <>, header fields (RFC 3261 section 19.1.1)."""
        colon = query = False
        if begin < stop and self.buf[begin] == LT:
            self.fail(E_URI_BRACKETS)
        for place in range(begin, stop):
            octet = self.buf[place]
            if octet == COLON:
                colon = True
            elif octet == QUESTION:
                query = True
            elif octet == AT:
                query = False
            elif octet in (SP, HT):
                self.fail(E_URI_SPACES)
        if not colon:
            self.fail(E_URI_SCHEME)
        elif query and LOWER[self.buf[begin]] == 115 and LOWER[self.buf[begin + 1]] == 105:
            self.fail(E_URI_HEADERS)
        return 0

    def status_line(self) -> int:
        """Version, status code and reason phrase (RFC 3261 section 7.2)."""
        code = 0
        place = self.word_end
        while place < self.line_end and KIND[self.buf[place]] & DIGIT:
            if code < 1000:
                code = code * 10 + self.buf[place] - 48
            place += 1
        self.put(STATUS, self.word_end, place)
        if self.buf[self.line + 4] != 50 or self.buf[self.line + 6] != 48:
            self.fail(E_VERSION)
        if code < 100 or code > 699 or place - self.word_end != 3:
            self.fail(E_STATUS)
        self.status = code if 1 <= code <= 999 else UNSTATED
        begin = self.skip(place, self.line_end)
        stop = self.line_end
        while stop > begin and KIND[self.buf[stop - 1]] & LWS:
            stop -= 1
        self.put(REASON_PHRASE, begin, stop)
        return 0

    # ------------------------------------------------------------------ headers

    def header_lines(self, place: int, end: int) -> int:
        """Scan the header lines; where the body begins, -1 when no empty line comes."""
        while place < end:
            colon = place
            while colon < end and KIND[self.buf[colon]] & TOKEN:
                colon += 1
            name_end = colon
            if colon == place and (self.buf[place] == LF or self.buf[place] == CR):
                if self.buf[place] == LF:
                    return place + 1
                if place + 1 < end and self.buf[place + 1] == LF:
                    return place + 2
            if self.headers >= MAX_HEADERS:
                self.fail(E_TOO_MANY)
                return -1
            while colon < end and (self.buf[colon] == SP or self.buf[colon] == HT):
                colon += 1
            stop = colon
            while stop < end:
                stop = octets.find(self.buf, stop, end, LF) + 1
                if stop >= end or (self.buf[stop] != SP and self.buf[stop] != HT):
                    break
            self.headers += 1
            if name_end > place and colon < end and self.buf[colon] == COLON:
                self.header(self.identify(place, name_end), colon + 1, min(end, stop))
            else:
                self.fail(E_NAME)
            place = stop
        return -1

    def identify(self, begin: int, stop: int) -> int:
        """The slot that a header name fills, NO_SLOT for a name that is not wanted."""
        length = stop - begin
        if length == 1:
            entry = COMPACT[self.buf[begin]]
            if entry != NO_SLOT:
                self.flags |= S_COMPACT
            return entry
        if length >= STRIDE:
            return NO_SLOT
        entry = BUCKETS[length * 32 + (self.buf[begin] & 31)]
        while entry:
            if LENGTHS[entry] == length:
                base = entry * STRIDE
                index = 0
                while index < length and LOWER[self.buf[begin + index]] == SPELLINGS[base + index]:
                    index += 1
                if index == length:
                    return TARGETS[entry]
            entry = NEXT[entry]
        return NO_SLOT

    def header(self, slot: int, begin: int, stop: int) -> int:
        """Take in one header's value; the first of a name fills the slot."""
        if slot == NO_SLOT:
            return 0
        begin = self.skip(begin, stop)
        while stop > begin and KIND[self.buf[stop - 1]] & LWS:
            stop -= 1
        if slot >= DATE:
            return self.date(begin, stop) if slot == DATE else self.max_forwards(begin, stop)
        if self.has(slot):
            return self.again(slot)
        self.put(slot, begin, stop)
        if slot == VIA:
            return self.via(begin, stop)
        if slot == FROM:
            return self.address(begin, stop, IN_FROM, FROM)
        if slot == TO:
            return self.address(begin, stop, IN_TO, TO)
        if slot == CSEQ_METHOD:
            return self.cseq_value(begin, stop)
        if slot == CONTACT:
            return self.address(begin, stop, IN_CONTACT, CONTACT)
        if slot == CONTENT_LENGTH:
            return self.content_length(begin, stop)
        return 0

    def again(self, slot: int) -> int:
        """A header came again: which of them may not."""
        if slot == CALL_ID:
            self.fail(E_TWO_CALL_ID)
        elif slot == FROM:
            self.fail(E_TWO_FROM)
        elif slot == TO:
            self.fail(E_TWO_TO)
        elif slot == CSEQ_METHOD:
            self.fail(E_TWO_CSEQ)
        elif slot == CONTENT_LENGTH:
            self.fail(E_TWO_LENGTHS)
        return 0

    def cseq_value(self, begin: int, stop: int) -> int:
        """CSeq: number and method; a request's method must be the same, a response takes it from here."""
        digits = begin
        while digits < stop and KIND[self.buf[digits]] & DIGIT:
            digits += 1
        method = self.skip(digits, stop)
        method_end = method
        while method_end < stop and KIND[self.buf[method_end]] & TOKEN:
            method_end += 1
        if digits in (begin, method) or method_end == method or method_end != stop:
            self.fail(E_CSEQ_FORM)
        self.put(CSEQ_METHOD, method, method_end)
        value = self.number(begin, digits)
        if value >= MAX_CSEQ:
            self.fail(E_CSEQ_NUMBER)
            value = value if value < 2 * MAX_CSEQ else 0
        self.cseq = max(0, value)
        if self.status:
            self.method = self.method_number(method, method_end)
        elif not self.same(self.line, self.word_end, method, method_end):
            self.fail(E_CSEQ_METHOD)
        return 0

    def content_length(self, begin: int, stop: int) -> int:
        """Content-Length; what is no number counts as absent."""
        self.length = self.number(begin, stop)
        if self.length < 0:
            self.fail(E_LENGTH_NEGATIVE if begin < stop and self.buf[begin] == MINUS else E_LENGTH_FORM)
        return 0

    # ------------------------------------------------------------------ all of it

    def complete(self) -> int:
        """Name what every message must have and this one has not (RFC 3261 section 8.1.1)."""
        if not self.has(VIA):
            self.fail(E_NO_VIA)
        if not self.has(FROM):
            self.fail(E_NO_FROM)
        if not self.has(TO):
            self.fail(E_NO_TO)
        if not self.has(CALL_ID):
            self.fail(E_NO_CALL_ID)
        if not self.has(CSEQ_METHOD):
            self.fail(E_NO_CSEQ)
        return 0

    def content(self, body: int, end: int) -> int:
        """The body within Content-Length, and the SDP in it."""
        if self.length > end - body:
            self.flags |= S_TRUNCATED
            self.fail(E_LENGTH_LARGE)
        elif self.length >= 0:
            end = body + self.length
        self.end = end
        if body == end:
            return 0
        self.put(BODY, body, end)
        begin = stop = body
        if self.has(CONTENT_TYPE):
            begin = self.start + self.slots[2 * CONTENT_TYPE]
            stop = self.start + self.slots[2 * CONTENT_TYPE + 1]
            if self.begins(begin, stop, MULTIPART):
                return self.multipart(body, end)
        if self.is_sdp(begin, stop) or (begin == stop and self.begins(body, end, SDP_BEGIN)):
            self.flags |= S_SDP
            self.sdp_start = body - self.start
            self.sdp_end = end - self.start
        return 0

    def is_sdp(self, begin: int, stop: int) -> bool:
        """Whether a Content-Type is application/sdp, with or without parameters."""
        if not self.begins(begin, stop, SDP_TYPE):
            return False
        begin += len(SDP_TYPE)
        return begin == stop or self.buf[begin] == SEMICOLON or KIND[self.buf[begin]] & LWS != 0

    def multipart(self, place: int, end: int) -> int:
        """Find the first SDP part, also of a multipart in a multipart (RFC 2046 section 5.1).

        Every line that begins with `--` counts as a boundary: no line of an SDP does, and boundaries
        that the Content-Type does not announce are seen in the field.
        """
        in_head = wanted = False
        sdp = -1
        while place < end:
            stop = octets.find(self.buf, place, end, LF)
            if place + 1 < end and self.buf[place] == MINUS and self.buf[place + 1] == MINUS:
                if sdp >= 0:
                    break
                in_head = True
                wanted = False
            elif in_head and self.skip(place, stop) == stop:
                in_head = False
                if wanted:
                    sdp = stop + 1 if stop < end else end
            elif in_head and self.names_sdp(place, stop):
                wanted = True
            place = stop + 1
        if sdp >= 0:
            self.flags |= S_SDP
            self.sdp_start = sdp - self.start
            self.sdp_end = (min(end, place)) - self.start
        return 0

    def names_sdp(self, place: int, stop: int) -> bool:
        """Whether the line of a part's head is a Content-Type of SDP."""
        colon = place
        while colon < stop and KIND[self.buf[colon]] & TOKEN:
            colon += 1
        name_end = colon
        colon = self.skip(colon, stop)
        if colon >= stop or self.buf[colon] != COLON or name_end == place:
            return False
        if self.identify(place, name_end) != CONTENT_TYPE:
            return False
        return self.is_sdp(self.skip(colon + 1, stop), stop)

    # ------------------------------------------------------------------ for people

    def slot(self, name: str) -> bytes | None:
        """The octets of a slot, by its name in SLOTS; None where the message has none."""
        place = 2 * SLOTS.index(name)
        if self.slots[place] < 0:
            return None
        return bytes(self.buf[self.start + self.slots[place] : self.start + self.slots[place + 1]])

    @property
    def method_name(self) -> str:
        """The method, of a response the one in its CSeq."""
        name = self.slot("cseq_method" if self.status else "method") or b""
        return METHODS[self.method] or name.decode("utf-8", "replace")

    @property
    def error_text(self) -> str:
        """The first defect as a sentence; empty for a message without one."""
        return ERRORS[self.error]
