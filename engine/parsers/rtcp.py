"""RTCP (RFC 3550 section 6, extended reports of RFC 3611): one thing after the other, nothing copied.

    if parser.begin(start, end):
        while item := parser.next():
            ...     # the fields that stand with the item's number below are set

Every length is checked against the packet, the packet against the payload. Only a payload that its packets
fill exactly is read: behind encrypted RTCP (RFC 3711 section 3.4) stand an index and a tag, and what looks
like a second packet is none, so nothing encrypted is taken for figures. What does not fit its packet is
left out and counted in `defects`; the packets behind it are read.
"""

from __future__ import annotations

SENDER = SENDER_ITEM = 1
"""Sender report: `ssrc`, `ntp`, `timestamp`, `packets`, `octets`."""
RECEIVER = RECEIVER_ITEM = 2
"""Receiver report: `ssrc`."""
BLOCK = BLOCK_ITEM = 3
"""Block of `ssrc` about `about`: `fraction`, `lost` (24 bits), `highest`, `jitter`, `last`, `delay`."""
CNAME = CNAME_ITEM = 4
"""CNAME of `ssrc`, octets `text`..`text_end`."""
BYE = BYE_ITEM = 5
"""`ssrc` leaves."""
APP = APP_ITEM = 6
"""Application-defined of `ssrc`, four octets `name`."""
EXTENDED = EXTENDED_ITEM = 7
"""Extended report of `ssrc`; its blocks follow."""
REFERENCE = REFERENCE_ITEM = 8
"""Receiver reference time of `ssrc`: `ntp`."""
ANSWER = ANSWER_ITEM = 9
"""DLRR sub-block of `ssrc` to `about`: `last`, `delay`."""
METRICS = METRICS_ITEM = 10
"""VoIP metrics of `ssrc` about `about`, 28 octets from `text` on."""
OTHER = 11
"""Another packet, such as feedback (RFC 4585): `ssrc`, `packet_type`."""
MOST_PACKETS = 64


class RtcpParser:
    """Walks one compound packet at a time."""

    def __init__(self) -> None:
        self.buf: memoryview | bytes = b""
        self.size = 0
        self.at = self.end = self.inner = self.inner_end = 0
        self.within = self.left = 0
        self.defects = 0
        self.packet_type = 0
        self.ssrc = self.about = 0
        self.ntp = self.timestamp = self.packets = self.octets = 0
        self.fraction = self.lost = self.highest = self.jitter = self.last = self.delay = 0
        self.text = self.text_end = 0
        self.name = 0

    def attach(self, buf: memoryview | bytes) -> None:
        """All following offsets are into `buf`."""
        self.buf = buf
        self.size = len(buf)

    def begin(self, start: int, end: int) -> bool:
        """Whether octets start..end are RTCP in the clear; then next() walks them."""
        self.at = self.inner = self.inner_end = start
        self.end = end
        self.within = self.left = self.defects = 0
        if start < 0 or end > self.size or end - start < 8:
            self.end = start
            return False
        position = start
        for _ in range(MOST_PACKETS):
            if end - position < 4 or self.buf[position] >> 6 != 2 or not 192 <= self.buf[position + 1] <= 223:
                break
            position += 4 + 4 * ((self.buf[position + 2] << 8) | self.buf[position + 3])
            if position == end:
                return True
            if position > end:
                break
        self.end = start
        return False

    def next(self) -> int:
        """The next item, 0 behind the last one."""
        while True:
            item = 0
            if self.within == 200:
                item = self.block()
            elif self.within == 207:
                item = self.extended_block()
            elif self.within == 202:
                item = self.chunk()
            elif self.within == 203:
                item = self.leaver()
            elif self.within == 5:
                item = self.answer()
            if item:
                return item
            if self.within == 5:
                self.within = 207
                continue
            if self.at >= self.end:
                return 0
            item = self.packet()
            if item:
                return item

    def packet(self) -> int:
        """Enter the next packet; its own item, 0 where it has none."""
        first = self.buf[self.at]
        self.packet_type = self.buf[self.at + 1]
        self.inner = self.at + 4
        self.at += 4 + 4 * ((self.buf[self.at + 2] << 8) | self.buf[self.at + 3])
        self.inner_end = self.at
        self.left = first & 31
        self.within = 0
        if first & 0x20:
            padding = self.buf[self.inner_end - 1]
            if padding == 0 or padding > self.inner_end - self.inner:
                self.defects += 1
                return 0
            self.inner_end -= padding
        if self.packet_type == 202 or self.packet_type == 203:  # noqa: PLR1714 -- compiled
            self.within = self.packet_type
            return 0
        if self.inner_end - self.inner < 4:
            self.defects += 1
            return 0
        self.ssrc = self.word(self.inner)
        self.inner += 4
        if self.packet_type == 200:
            return self.sender()
        if self.packet_type == 201:
            self.within = 200
            return RECEIVER
        if self.packet_type == 207:
            self.within = 207
            return EXTENDED
        if self.packet_type == 204:
            if self.inner_end - self.inner < 4:
                self.defects += 1
                return 0
            self.name = self.word(self.inner)
            return APP
        return OTHER

    def sender(self) -> int:
        """RFC 3550 section 6.4.1."""
        if self.inner_end - self.inner < 20:
            self.defects += 1
            return 0
        self.ntp = self.long_word(self.inner)
        self.timestamp = self.word(self.inner + 8)
        self.packets = self.word(self.inner + 12)
        self.octets = self.word(self.inner + 16)
        self.inner += 20
        self.within = 200
        return SENDER

    def block(self) -> int:
        """The next report block (RFC 3550 section 6.4.1); what follows them is a profile's own."""
        if self.left == 0:
            return 0
        if self.inner_end - self.inner < 24:
            self.defects += 1
            self.left = 0
            return 0
        self.left -= 1
        self.about = self.word(self.inner)
        self.fraction = self.buf[self.inner + 4]
        self.lost = self.word(self.inner + 4) & 0xFFFFFF
        self.highest = self.word(self.inner + 8)
        self.jitter = self.word(self.inner + 12)
        self.last = self.word(self.inner + 16)
        self.delay = self.word(self.inner + 20)
        self.inner += 24
        return BLOCK

    def chunk(self) -> int:
        """The CNAME of the next source (RFC 3550 section 6.5)."""
        while self.left:
            self.left -= 1
            if self.inner_end - self.inner < 4:
                self.defects += 1
                self.left = 0
                return 0
            self.ssrc = self.word(self.inner)
            begin = self.inner
            self.inner += 4
            found = 0
            while self.inner < self.inner_end and self.buf[self.inner]:
                if (
                    self.inner_end - self.inner < 2
                    or self.inner_end - self.inner < 2 + self.buf[self.inner + 1]
                ):
                    self.defects += 1
                    self.left = 0
                    return found
                if self.buf[self.inner] == 1:
                    self.text = self.inner + 2
                    self.text_end = self.text + self.buf[self.inner + 1]
                    found = CNAME
                self.inner += 2 + self.buf[self.inner + 1]
            # One or more zero octets up to the next word.
            self.inner = begin + ((self.inner - begin) // 4 + 1) * 4
            if found:
                return found
        return 0

    def leaver(self) -> int:
        """The next source that leaves (RFC 3550 section 6.6)."""
        if self.left == 0:
            return 0
        if self.inner_end - self.inner < 4:
            self.defects += 1
            self.left = 0
            return 0
        self.left -= 1
        self.ssrc = self.word(self.inner)
        self.inner += 4
        return BYE

    def extended_block(self) -> int:
        """The next block of an extended report that is known (RFC 3611 section 3); others are skipped."""
        while self.inner_end - self.inner >= 4:
            kind = self.buf[self.inner]
            begin = self.inner + 4
            length = 4 * ((self.buf[self.inner + 2] << 8) | self.buf[self.inner + 3])
            if self.inner_end - begin < length:
                self.defects += 1
                self.inner = self.inner_end
                return 0
            self.inner = begin + length
            if kind == 4 and length >= 8:
                self.ntp = self.long_word(begin)
                return REFERENCE
            if kind == 7 and length >= 32:
                self.about = self.word(begin)
                self.text = begin + 4
                self.text_end = begin + 32
                return METRICS
            if kind == 5 and length >= 12:
                self.inner = begin
                self.left = length // 12
                self.within = 5
                self.text_end = begin + length
                return self.answer()
        return 0

    def answer(self) -> int:
        """The next sub-block of a DLRR block (RFC 3611 section 4.5)."""
        if self.left == 0:
            # Behind them may stand what is no whole sub-block.
            self.inner = self.text_end
            return 0
        self.left -= 1
        self.about = self.word(self.inner)
        self.last = self.word(self.inner + 4)
        self.delay = self.word(self.inner + 8)
        self.inner += 12
        return ANSWER

    def word(self, position: int) -> int:
        """A 32-bit number in network order."""
        return (
            (self.buf[position] << 24)
            | (self.buf[position + 1] << 16)
            | (self.buf[position + 2] << 8)
            | self.buf[position + 3]
        )

    def long_word(self, position: int) -> int:
        """A 64-bit number in network order."""
        high = self.word(position)
        return (high << 32) | self.word(position + 4)
