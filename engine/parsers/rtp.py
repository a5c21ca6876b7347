"""RTP and RTCP headers (RFC 3550): is it one, and what does it say. Nothing is copied, nothing raises.

The first octet tells RTP and RTCP (128 to 191) from STUN (0 to 3), ZRTP (16 to 19), DTLS (20 to 63) and
TURN channels (64 to 79), RFC 7983; the second tells RTP from RTCP (192 to 223), RFC 5761 section 4.
"""

from __future__ import annotations

MOST_PACKETS = 64


class RtpParser:
    """Looks at one payload at a time; the fields are of the last header (RTCP: `ssrc`, `packet_type`).

    `octets` is the payload without header, CSRC list, extension and padding, `payload` where it begins.
    """

    def __init__(self) -> None:
        self.buf: memoryview | bytes = b""
        self.size = 0
        self.ssrc = self.timestamp = self.sequence = self.payload_type = self.marker = 0
        self.octets = 0
        self.payload = 0
        self.packet_type = 0

    def attach(self, buf: memoryview | bytes) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.size = len(buf)

    def classify(self, start: int, end: int, snapped: bool) -> int:
        """What octets start..end are: 0 neither, 1 RTP, 2 RTCP, 3 RTP or RTCP whose lengths cannot be.

        `snapped`: the capture cut the end off, so what lies behind is not known to be wrong; a header that is
        not whole is neither.
        """
        if start < 0 or end > self.size or end - start < 2:
            return 0
        first = self.buf[start]
        if first >> 6 != 2:
            return 0
        second = self.buf[start + 1]
        if 192 <= second <= 223:
            return self.rtcp(start, end, snapped)
        return self.rtp(start, end, snapped)

    def rtp(self, start: int, end: int, snapped: bool) -> int:
        """RFC 3550 section 5.1 and 5.3.1."""
        if end - start < 12:
            return 0 if snapped else 3
        first = self.buf[start]
        self.payload_type = self.buf[start + 1] & 127
        self.marker = self.buf[start + 1] >> 7
        self.sequence = (self.buf[start + 2] << 8) | self.buf[start + 3]
        self.timestamp = self.word(start + 4)
        self.ssrc = self.word(start + 8)
        header = 12 + 4 * (first & 15)
        if first & 0x10:
            if end - start < header + 4:
                if not snapped:
                    return 3
                header = end - start
            else:
                header += 4 + 4 * ((self.buf[start + header + 2] << 8) | self.buf[start + header + 3])
        if end - start < header:
            if not snapped:
                return 3
            header = end - start
        self.octets = end - start - header
        self.payload = start + header
        if first & 0x20 and not snapped:
            # SRTP encrypts the count (RFC 3711 section 3.1): one that cannot be is no fault of the packet.
            padding = self.buf[end - 1]
            if padding <= self.octets:
                self.octets -= padding
        return 1

    def rtcp(self, start: int, end: int, snapped: bool) -> int:
        """The first packet of a compound one (RFC 3550 section 6.4); SRTCP encrypts all behind 8 octets."""
        if end - start < 8:
            return 0 if snapped else 3
        self.packet_type = self.buf[start + 1]
        self.ssrc = self.word(start + 4)
        if not snapped and end - start < 4 + 4 * ((self.buf[start + 2] << 8) | self.buf[start + 3]):
            return 3
        return 2

    def rtcp_compound(self, start: int, end: int) -> bool:
        """Whether this is RTCP beyond doubt: SR or RR first and packets that fill the payload exactly."""
        if start < 0 or end > self.size or end - start < 8 or not 200 <= self.buf[start + 1] <= 201:
            return False
        for _ in range(MOST_PACKETS):
            if end - start < 4 or self.buf[start] >> 6 != 2 or not 192 <= self.buf[start + 1] <= 223:
                return False
            start += 4 + 4 * ((self.buf[start + 2] << 8) | self.buf[start + 3])
            if start == end:
                return True
            if start > end:
                return False
        return False

    def word(self, position: int) -> int:
        """A 32-bit number in network order."""
        return (
            (self.buf[position] << 24)
            | (self.buf[position + 1] << 16)
            | (self.buf[position + 2] << 8)
            | self.buf[position + 3]
        )
