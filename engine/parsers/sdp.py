"""SDP (RFC 8866): the media descriptions of one body, as numbers in arrays.

Media k has its figures at index k, its formats at k * MAX_CODECS and the `codecs[k]` - 1 behind. The
scanner takes what it can, names the first defect, and never raises, whatever the octets.
"""

from __future__ import annotations

from array import array
from functools import cache

from engine.parsers import octets
from engine.parsers.address import AddressReader
from engine.parsers.sdp_grammar import (
    E_ADDRESS,
    E_FORMAT,
    E_LIMIT,
    E_LINE,
    E_MEDIA,
    E_PORT,
    E_RTPMAP,
    E_VERSION,
    ERRORS,
    M_APPLICATION,
    M_AUDIO,
    M_FEEDBACK,
    M_HELD,
    M_IMAGE,
    M_MULTICAST,
    M_NO_ADDRESS,
    M_RECV,
    M_REJECTED,
    M_RTCP,
    M_RTCP_MUX,
    M_RTP,
    M_SECURE,
    M_SEND,
    M_TCP,
    M_TEXT,
    M_UDPTL,
    M_UNSPECIFIED,
    M_VIDEO,
    MAX_CODECS,
    MAX_MEDIA,
    NO_TYPE,
    STATIC_CODECS,
    name_words,
    static_codec,
)
from engine.parsers.sdp_text import media_dicts, media_summary

__all__ = ["ERRORS", "SdpParser", "static_codec", "summarise"]

HT, LF, CR, SP, MINUS, SLASH, ZERO, COLON, EQUALS = b"\t\n\r -/0:="
SESSION, BEYOND = -1, -2
"""Where a line belongs that stands in no kept media description."""
MAX_NUMBER = 1 << 31
MASK32 = 0xFFFFFFFF
ADDRESS_CLEAR = MASK32 ^ (M_MULTICAST | M_NO_ADDRESS | M_UNSPECIFIED)
DIRECTION_CLEAR = MASK32 ^ (M_SEND | M_RECV)
AUDIO, VIDEO, IMAGE, APPLICATION, TEXT = b"audio", b"video", b"image", b"application", b"text"
RTP, TCP, TLS, AVPF, SAVP, SAVPF, DTLS, UDPTL = (
    b"rtp",
    b"tcp",
    b"tls",
    b"avpf",
    b"savp",
    b"savpf",
    b"dtls",
    b"udptl",
)
RTPMAP, RTCP, RTCP_MUX, PTIME = b"rtpmap", b"rtcp", b"rtcp-mux", b"ptime"
SENDRECV, SENDONLY, RECVONLY, INACTIVE = b"sendrecv", b"sendonly", b"recvonly", b"inactive"
"""Words to find, in lower case."""


@cache
def _static(figure: int) -> array[int]:
    """One figure of the static payload types by number: the first or second name word, the clock rate."""
    if figure == 2:
        return array("I", [static_codec(number)[1] for number in range(128)])
    return array("Q", [name_words(STATIC_CODECS.get(number, ("", 0))[0])[figure] for number in range(128)])


class SdpParser:
    """Scans one SDP of an attached buffer; `count` media descriptions are kept, `over_limit` were too many.

    `address0`, `address1`: little-endian words of the 16-octet address (IPv4 as ::ffff:a.b.c.d), 0 where
    M_NO_ADDRESS. `port`, `rtcp_port`, `port_count`, `ptime` (ms, 0 unknown), `flags` (M_*), `codecs`
    (formats kept), `codecs_over_limit`. `session_version` modulo 2**32 (o= line), `error` (number in ERRORS).
    """

    def __init__(self) -> None:
        self.buf: bytes | bytearray | memoryview = b""
        self.count = self.over_limit = self.codecs_over_limit = self.error = self.session_version = 0
        media, codecs = [0] * MAX_MEDIA, [0] * (MAX_MEDIA * MAX_CODECS)
        self.address0, self.address1 = array("Q", media), array("Q", media)
        self.rtcp_address0, self.rtcp_address1 = array("Q", media), array("Q", media)
        self.port, self.port_count, self.rtcp_port = array("I", media), array("I", media), array("I", media)
        self.flags, self.ptime, self.codecs = array("I", media), array("I", media), array("I", media)
        self.codec_type, self.codec_clock = array("I", codecs), array("I", codecs)
        self.codec_name0, self.codec_name1 = array("Q", codecs), array("Q", codecs)
        self.static_name0, self.static_name1 = _static(0), _static(1)
        self.static_clock = _static(2)
        self.type_start, self.type_end = array("i", media), array("i", media)
        self.transport_start, self.transport_end = array("i", media), array("i", media)
        self.reader = AddressReader()
        self.current = SESSION
        self.began = False
        self.session0 = self.session1 = self.session_flags = 0
        self.found0 = self.found1 = self.found_flags = 0
        self.place = 0

    def attach(self, buf: bytes | bytearray | memoryview) -> None:
        """Read from `buf` (octets, contiguous) from now on; offsets count from its front."""
        self.buf = buf
        self.reader.attach(buf)

    def parse(self, start: int, end: int) -> int:
        """Scan the SDP in [start, end); how many media descriptions are kept.

        Lines before v= are passed over and a line that begins with `--` ends it, so that a multipart body
        may be given whole.
        """
        self.count = self.over_limit = self.codecs_over_limit = self.error = self.session_version = 0
        self.session0 = self.session1 = 0
        self.session_flags = M_NO_ADDRESS | M_SEND | M_RECV
        self.current = SESSION
        self.began = False
        while start < end:
            stop = octets.find(self.buf, start, end, LF)
            finish = stop
            while finish > start and (self.buf[finish - 1] in (CR, SP, HT, 0)):
                finish -= 1
            if start + 1 < finish and self.buf[start + 1] == EQUALS:
                self.line(self.buf[start], start + 2, finish)
            elif self.began and start < finish:
                if self.buf[start] == MINUS:
                    break
                self.fail(E_LINE)
            start = stop + 1
        for media in range(self.count):
            self.settle(media)
        return self.count

    def fail(self, error: int) -> int:
        """Keep the first defect."""
        if self.error == 0:
            self.error = error
        return 0

    def line(self, kind: int, begin: int, stop: int) -> int:
        """Take in one line by its letter."""
        if kind == 118:  # v
            if stop == begin + 1 and self.buf[begin] == ZERO:
                self.began = True
            return 0
        if not self.began:
            self.began = True
            self.fail(E_VERSION)
        if kind == 97:  # a
            return self.attribute(begin, stop)
        if kind == 109:  # m
            return self.media(begin, stop)
        if kind == 99:  # c
            return self.connection(begin, stop)
        return self.origin(begin, stop) if kind == 111 else 0

    # ------------------------------------------------------------------ words and numbers

    def word_end(self, begin: int, stop: int) -> int:
        """Where the word that begins here ends: at white space."""
        while begin < stop and self.buf[begin] != SP and self.buf[begin] != HT:
            begin += 1
        return begin

    def next_word(self, begin: int, stop: int) -> int:
        """Behind the white space that begins here."""
        while begin < stop and (self.buf[begin] == SP or self.buf[begin] == HT):
            begin += 1
        return begin

    def number(self, begin: int, stop: int) -> int:
        """The digits from begin on as a number, at most MAX_NUMBER, `place` behind them; -1 without any."""
        value = 0
        place = begin
        while place < stop and 48 <= self.buf[place] <= 57:
            if value < MAX_NUMBER:
                value = value * 10 + self.buf[place] - 48
            place += 1
        self.place = place
        if place == begin:
            return -1
        return min(value, MAX_NUMBER)

    def is_word(self, begin: int, stop: int, word: bytes) -> bool:
        """Whether [begin, stop) is the word, which is given in lower case."""
        if stop - begin != len(word):
            return False
        for index in range(len(word)):
            octet = self.buf[begin + index]
            if 65 <= octet <= 90:
                octet += 32
            if octet != word[index]:
                return False
        return True

    # ------------------------------------------------------------------ lines

    def origin(self, begin: int, stop: int) -> int:
        """o=: the session's version, its third word, counts up with every change."""
        begin = self.next_word(self.word_end(begin, stop), stop)
        begin = self.next_word(self.word_end(begin, stop), stop)
        version = 0
        while begin < stop and 48 <= self.buf[begin] <= 57:
            version = (version * 10 + self.buf[begin] - 48) & MASK32
            begin += 1
        self.session_version = version
        return 0

    def connection(self, begin: int, stop: int) -> int:
        """c=: `IN IP4 address[/ttl[/count]]`, of the session or of one media description."""
        begin = self.next_word(self.word_end(begin, stop), stop)
        begin = self.next_word(self.word_end(begin, stop), stop)
        self.address(begin, self.word_end(begin, stop))
        if self.current >= 0:
            self.address0[self.current] = self.found0
            self.address1[self.current] = self.found1
            self.flags[self.current] = (self.flags[self.current] & ADDRESS_CLEAR) | self.found_flags
        elif self.current == SESSION:
            self.session0 = self.found0
            self.session1 = self.found1
            self.session_flags = (self.session_flags & ADDRESS_CLEAR) | self.found_flags
        return 0

    def media(self, begin: int, stop: int) -> int:
        """m=: `type port[/count] transport format ...`."""
        if self.count >= MAX_MEDIA:
            self.over_limit += 1
            self.current = BEYOND
            return self.fail(E_LIMIT)
        media = self.current = self.count
        self.count += 1
        self.address0[media] = self.session0
        self.address1[media] = self.session1
        self.rtcp_address0[media] = self.rtcp_address1[media] = 0
        self.port[media] = self.rtcp_port[media] = self.ptime[media] = self.codecs[media] = 0
        self.port_count[media] = 1
        self.transport_start[media] = self.transport_end[media] = 0
        stop_word = self.word_end(begin, stop)
        self.type_start[media] = begin
        self.type_end[media] = stop_word
        self.flags[media] = self.session_flags | self.media_type(begin, stop_word)
        begin = self.next_word(stop_word, stop)
        stop_word = self.word_end(begin, stop)
        self.media_port(begin, stop_word)
        begin = self.next_word(stop_word, stop)
        if begin == stop:
            return self.fail(E_MEDIA)
        stop_word = self.word_end(begin, stop)
        self.transport_start[media] = begin
        self.transport_end[media] = stop_word
        self.transport(begin, stop_word)
        return self.formats(self.next_word(stop_word, stop), stop)

    def media_type(self, begin: int, stop: int) -> int:
        """The flag of a media type, 0 for others than the usual ones."""
        if self.is_word(begin, stop, AUDIO):
            return M_AUDIO
        if self.is_word(begin, stop, VIDEO):
            return M_VIDEO
        if self.is_word(begin, stop, IMAGE):
            return M_IMAGE
        if self.is_word(begin, stop, APPLICATION):
            return M_APPLICATION
        return M_TEXT if self.is_word(begin, stop, TEXT) else 0

    def media_port(self, begin: int, stop: int) -> int:
        """Port and number of ports; what is no port is 0 without being a rejection."""
        media = self.current
        port = self.number(begin, stop)
        if port < 0 or port > 65535 or (self.place < stop and self.buf[self.place] != SLASH):
            return self.fail(E_PORT)
        self.port[media] = port
        if port == 0:
            self.flags[media] |= M_REJECTED
        if self.place < stop:
            ports = self.number(self.place + 1, stop)
            if 0 < ports <= 65535:
                self.port_count[media] = ports
        return 0

    def transport(self, begin: int, stop: int) -> int:
        """The flags of a transport such as RTP/AVP or UDP/TLS/RTP/SAVPF, part by part."""
        flags = 0
        while begin < stop:
            part = begin
            while part < stop and self.buf[part] != SLASH:
                part += 1
            if self.is_word(begin, part, RTP):
                flags |= M_RTP
            elif self.is_word(begin, part, TCP):
                flags |= M_TCP
            elif self.is_word(begin, part, UDPTL):
                flags |= M_UDPTL
            elif self.is_word(begin, part, AVPF):
                flags |= M_FEEDBACK
            elif self.is_word(begin, part, SAVPF):
                flags |= M_FEEDBACK | M_SECURE
            elif (
                self.is_word(begin, part, SAVP)
                or self.is_word(begin, part, TLS)
                or self.is_word(begin, part, DTLS)
            ):
                flags |= M_SECURE
            begin = part + 1
        self.flags[self.current] |= flags
        return 0

    def formats(self, begin: int, stop: int) -> int:
        """The formats of an m= line; static payload types get their name and clock at once."""
        media = self.current
        rtp = self.flags[media] & M_RTP
        while begin < stop:
            stop_word = self.word_end(begin, stop)
            payload_type = self.number(begin, stop_word) if rtp else NO_TYPE
            if rtp and (payload_type < 0 or payload_type > 127 or self.place != stop_word):
                self.fail(E_FORMAT)
            elif self.codecs[media] >= MAX_CODECS:
                self.codecs_over_limit += 1
                self.fail(E_LIMIT)
            else:
                codec = media * MAX_CODECS + self.codecs[media]
                self.codecs[media] += 1
                self.codec_type[codec] = payload_type
                if payload_type < 128:
                    self.codec_name0[codec] = self.static_name0[payload_type]
                    self.codec_name1[codec] = self.static_name1[payload_type]
                    self.codec_clock[codec] = self.static_clock[payload_type]
                else:
                    self.codec_clock[codec] = 0
                    self.codec_name(codec, begin, stop_word)
            begin = self.next_word(stop_word, stop)
        return 0

    def codec_name(self, codec: int, begin: int, stop: int) -> int:
        """Store a name in upper case, cut at 16 octets."""
        word0 = word1 = 0
        stop = min(stop, begin + 16)
        for place in range(begin, stop):
            octet = self.buf[place]
            if 97 <= octet <= 122:
                octet -= 32
            if place - begin < 8:
                word0 |= octet << (8 * (place - begin))
            else:
                word1 |= octet << (8 * (place - begin - 8))
        self.codec_name0[codec] = word0
        self.codec_name1[codec] = word1
        return 0

    # ------------------------------------------------------------------ attributes

    def attribute(self, begin: int, stop: int) -> int:
        """a=: those that say where media goes and how it is coded, by first letter and whole name."""
        if begin == stop:
            return 0
        name = begin
        while name < stop and self.buf[name] != COLON:
            name += 1
        letter = self.buf[begin] | 32
        if letter == 114:  # r
            if self.is_word(begin, name, RTPMAP):
                return self.rtpmap(name + 1, stop)
            if self.is_word(begin, name, RTCP):
                return self.rtcp(name + 1, stop)
            if self.is_word(begin, name, RTCP_MUX) and self.current >= 0:
                self.flags[self.current] |= M_RTCP_MUX
            elif self.is_word(begin, name, RECVONLY):
                return self.direction(M_RECV)
        elif letter == 115:  # s
            if self.is_word(begin, name, SENDRECV):
                return self.direction(M_SEND | M_RECV)
            if self.is_word(begin, name, SENDONLY):
                return self.direction(M_SEND)
        elif letter == 105 and self.is_word(begin, name, INACTIVE):
            return self.direction(0)
        elif letter == 112 and self.current >= 0 and self.is_word(begin, name, PTIME):
            ptime = self.number(self.next_word(name + 1, stop), stop)
            self.ptime[self.current] = ptime if 0 < ptime <= 65535 else 0
        return 0

    def direction(self, flags: int) -> int:
        """Set the direction of the media description, or of all that follow."""
        if self.current >= 0:
            self.flags[self.current] = (self.flags[self.current] & DIRECTION_CLEAR) | flags
        elif self.current == SESSION:
            self.session_flags = (self.session_flags & DIRECTION_CLEAR) | flags
        return 0

    def rtpmap(self, begin: int, stop: int) -> int:
        """`type name/clock[/channels]`: names a format of the m= line; all others are passed over."""
        if self.current < 0:
            return 0
        begin = self.next_word(begin, stop)
        payload_type = self.number(begin, stop)
        begin = self.next_word(self.place, stop)
        finish = begin
        while finish < stop and self.buf[finish] != SLASH and self.buf[finish] != SP:
            finish += 1
        if payload_type < 0 or payload_type > 127 or finish == begin:
            return self.fail(E_RTPMAP)
        clock = self.number(finish + 1, stop) if finish < stop else 0
        first = self.current * MAX_CODECS
        for codec in range(first, first + self.codecs[self.current]):
            if self.codec_type[codec] == payload_type:
                self.codec_name(codec, begin, finish)
                self.codec_clock[codec] = clock if 0 < clock < MAX_NUMBER else 0
        return 0

    def rtcp(self, begin: int, stop: int) -> int:
        """`port [IN IP4 address]` (RFC 3605)."""
        media = self.current
        begin = self.next_word(begin, stop)
        port = self.number(begin, stop)
        if media < 0:
            return 0
        if port <= 0 or port > 65535:
            return self.fail(E_PORT)
        self.rtcp_port[media] = port
        self.flags[media] |= M_RTCP
        begin = self.next_word(self.place, stop)
        begin = self.next_word(self.word_end(begin, stop), stop)
        begin = self.next_word(self.word_end(begin, stop), stop)
        if begin < stop:
            self.address(begin, self.word_end(begin, stop))
            self.rtcp_address0[media] = self.found0
            self.rtcp_address1[media] = self.found1
        return 0

    def settle(self, media: int) -> int:
        """What follows from all lines of a media description."""
        flags = self.flags[media]
        if flags & M_UNSPECIFIED or not flags & M_RECV:
            self.flags[media] = flags | M_HELD
        port = self.port[media]
        if not flags & M_RTCP and flags & M_RTP and port:
            self.rtcp_port[media] = port if flags & M_RTCP_MUX or port == 65535 else port + 1
        if self.rtcp_address0[media] == 0 and self.rtcp_address1[media] == 0:
            self.rtcp_address0[media] = self.address0[media]
            self.rtcp_address1[media] = self.address1[media]
        return 0

    def address(self, begin: int, stop: int) -> int:
        """Read an address, with or without /ttl, into found0, found1 and found_flags."""
        finish = begin
        while finish < stop and self.buf[finish] != SLASH:
            finish += 1
        self.found0 = self.found1 = 0
        self.found_flags = M_NO_ADDRESS
        if self.reader.read(begin, finish):
            if self.reader.unspecified:
                self.found_flags |= M_UNSPECIFIED
                return 0
            self.found0 = self.reader.word0
            self.found1 = self.reader.word1
            self.found_flags = M_MULTICAST if self.reader.multicast else 0
        elif self.reader.numeric:
            self.fail(E_ADDRESS)
        return 0

    # ------------------------------------------------------------------ for people

    def summary(self) -> str:
        """One line for an arrow: `audio 40012 PCMA PCMU sendrecv`; media are parted by `, `."""
        return media_summary(media_dicts(self), self.over_limit)

    @property
    def error_text(self) -> str:
        """The first defect as a sentence; empty for an SDP without one."""
        return ERRORS[self.error]


def summarise(octets: bytes | bytearray | memoryview) -> str:
    """The summary() of one SDP, or of a multipart body with one; empty without media."""
    parser = SdpParser()
    parser.attach(octets)
    parser.parse(0, len(octets))
    return parser.summary()
