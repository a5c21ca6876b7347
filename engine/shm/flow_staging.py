"""What the flow registry enters next: Call-ID and codecs of one SDP; whether they may have an endpoint."""

from __future__ import annotations

from engine.shm import atomics
from engine.shm.flow_lookup import FlowLookup
from engine.shm.region import Region

ENDED, LAST, LABELS, CALL, CODECS = 512, 8, 11, 16, 32
"""Words of the table and of an entry, as engine.shm.flows says."""
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
MILLISECOND = 1_000_000
IDLE = 10_000_000_000
"""An endpoint that saw neither SDP nor media for this long may be taken over by another call."""
SDP = 1
MAX_CODECS = 16
FIRST_DYNAMIC = 35
RTX, RED, ULPFEC, FLEXFEC = (
    int.from_bytes(name, "little") for name in (b"RTX", b"RED", b"ULPFEC", b"FLEXFEC")
)
"""Names as they stand in the first word of a codec, 7 octets."""


class FlowStaging(FlowLookup):
    """What FlowTable.register() enters next."""

    def __init__(self, region: Region, writer: int, tags: int) -> None:
        """As SlotTable."""
        super().__init__(region, writer, tags)
        self.call_octets = memoryview(bytearray(128))
        self.call = memoryview(self.call_octets).cast("Q")
        self.call_length = 0
        self.call_hash = 0
        self.codecs = memoryview(bytearray(16 * MAX_CODECS)).cast("Q")
        self.codec_count = 0

    def stage_call(self, buf: bytes | bytearray | memoryview, start: int, end: int) -> int:
        """The Call-ID of what is registered next: octets start..end of `buf`, cut at 127. No codecs yet."""
        length = max(0, min(127, end - start))
        for index in range(16):
            self.call[index] = 0
        for index in range(length):
            self.call_octets[index] = buf[start + index]
        self.call_length = length
        if end - start > 127:
            self.call_length |= 128
        self.codec_count = 0
        self.call_hash = 0
        for index in range(0, 16, 4):
            if index and 8 * index >= length:
                break
            self.call_hash = self.hash(
                self.call[index],
                self.call[index + 1],
                self.call[index + 2],
                self.call[index + 3],
                self.call_hash,
                length,
            )
        return 0

    def hash_call(self, word: int, length: int) -> int:
        """Hash of the Call-ID in an entry, equal to that of stage_call()."""
        for index in range(128):
            if not (self.words[word + (index >> 3)] >> (8 * (index & 7))) & 0xFF:
                break
            length += 1
        hashed = 0
        for index in range(0, 16, 4):
            if index and 8 * index >= length:
                break
            hashed = self.hash(
                self.words[word + index],
                self.words[word + index + 1],
                self.words[word + index + 2],
                self.words[word + index + 3],
                hashed,
                length,
            )
        return hashed

    def stage_codec(self, payload_type: int, clock: int, name0: int, name1: int) -> int:
        """One more codec of what is registered next; the name as two little-endian words, 11 octets kept.

        Where there are more than 16, those that spare() names make room for others. A dynamic type without a
        name is left out: the other end may have one for it.
        """
        if not name0 and payload_type >= FIRST_DYNAMIC:
            return 0
        codec = ((name0 << 8) & MASK64) | (payload_type & 0xFF)
        place = self.codec_count
        if place < 16:
            self.codec_count += 1
        elif self.spare(codec):
            return 0
        else:
            while place and not self.spare(self.codecs[2 * place - 2]):
                place -= 1
            if not place:
                return 0
            place -= 1
        self.codecs[2 * place] = codec
        self.codecs[2 * place + 1] = (name0 >> 56) | ((name1 & 0xFFFFFF) << 8) | ((clock & MASK32) << 32)
        return 0

    def spare(self, codec: int) -> bool:
        """Whether a codec, its first word, can be done without: repair of others, a static type."""
        return codec & 0xFF < FIRST_DYNAMIC or codec >> 8 in (RTX, RED, ULPFEC, FLEXFEC)

    def staged_labels(self, rtcp: bool, media: int, ttl: int) -> int:
        """The labels of the next register()."""
        labels = SDP | ((media & 0xFF) << 16) | (self.codec_count << 24)
        if rtcp:
            labels |= 0x100
        if self.call_length & 128:
            labels |= 0x200
        return labels | ((ttl // MILLISECOND) & MASK32) << 32

    def write_staged(self, word: int, labels: int, now: int) -> int:
        """What was staged into a locked entry."""
        for index in range(16):
            self.words[word + CALL + index] = self.call[index]
        for index in range(2 * self.codec_count):
            self.words[word + CODECS + index] = self.codecs[index]
        self.words[word + LABELS] = labels
        self.words[word + LAST] = now
        return 0

    def same_codecs(self, word: int) -> bool:
        """Whether the entry at `word` has the staged codecs and no others."""
        for index in range(2 * self.codec_count):
            if self.words[word + CODECS + index] != self.codecs[index]:
                return False
        return True

    def may_take(self, slot: int, rtcp: bool, now: int) -> bool:
        """Whether the staged call may have a known endpoint: it is its own, or its owner ended or is idle."""
        labels = self.words[self.place(slot) + LABELS]
        if self.same_call(slot):
            # RTP wins over RTCP where one call announces both for a port.
            return not rtcp or labels & 0x100 != 0
        recent = self.words[self.place(slot) + LAST]
        idle = now - recent if now > recent else 0
        if idle > IDLE:
            return True
        recent = self.hash_call(self.place(slot) + CALL, 0)
        return self.words[ENDED + (recent & 2047)] == recent

    def same_call(self, slot: int) -> bool:
        """Whether an entry carries the staged Call-ID."""
        word = self.place(slot) + CALL
        for index in range(16):  # noqa: SIM110 -- compiled
            if self.words[word + index] != self.call[index]:
                return False
        return True

    def end_call(self) -> int:
        """The staged call is over: its endpoints may be taken over at once."""
        atomics.store(self.words, ENDED + (self.call_hash & 2047), self.call_hash)
        return 0
