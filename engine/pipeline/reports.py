"""Which RTP packets a worker reports (docs/adr/0008-rtp-records.md), and which streams sampling leaves out.

EVERY packet; or of each stream the first packet and each Nth; or of each stream the first packet, one an
interval, and the newest one when the stream has been silent for an interval: what is reported then are its
figures.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from engine.shm import atomics
from engine.shm import counters as layout
from engine.shm import streams as stream_layout

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder
    from engine.pipeline.media import MediaPath
    from engine.pipeline.writer import RecordWriter
    from engine.shm.flows import FlowTable
    from engine.shm.streams import StreamTable

EVERY, NTH, INTERVAL = 0, 1, 2
MODES = {"every": 0, "sample": 1, "interval": 2}
MASK64, MASK32 = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF
WAITING = 0x10000
"""Packets came since the last record."""
COUNT = 0xFFFF
ALL = EVERYBODY = 1 << 32
"""The share of streams that is reported without sampling, in 1/ALL; the second name is for Python."""
FACTS, PORTS, KEY = 1, 2, 3
LATEST = stream_layout.PLACE_LATEST
"""Places in an entry (engine.shm.slots, engine.shm.streams)."""
SPREAD1, SPREAD2 = 0x9E3779B1, 0x85EBCA77
W_KEY = layout.SAMPLING_KEY
C_OUTPUT, C_HANDLED, C_OUTPUT_RTP, C_RTP_HANDLED = (
    layout.index(name) for name in ("output", "handled", "output_rtp", "rtp_handled")
)


class RtpReports:
    """One worker's memory of what it has reported: two words a stream.

    0 generation << 32 | WAITING | packets since the last record (NTH)     1 when the last record was made, ns
    """

    def __init__(
        self,
        counters: memoryview,
        flows: FlowTable,
        streams: StreamTable,
        mode: int,
        every: int,
        interval: int,
    ) -> None:
        """`every` packets (NTH), `interval` in ns (INTERVAL)."""
        self.counters = counters
        self.flows = flows
        self.streams = streams
        self.mode = mode
        self.every = every
        self.interval = interval
        self.words = memoryview(mmap.mmap(-1, 16 * streams.slots)).cast("Q")
        self.cursor = 0
        self.left = -1

    def due(self, media: MediaPath, now: int) -> bool:
        """Whether the packet that the media path just counted is to be reported."""
        if self.mode == EVERY:
            return True
        if media.stream < 0:
            # The table of streams is full: there are no figures, and nobody counts its packets.
            return False
        word = 2 * ((self.streams.place(media.stream) - self.streams.first) // self.streams.width)
        state = self.words[word]
        if state >> 32 != media.stream_generation:
            self.words[word] = media.stream_generation << 32
            self.words[word + 1] = now
            return True
        if self.mode == NTH:
            if (state & COUNT) + 1 >= self.every:
                self.words[word] = state & ~COUNT & MASK64
                return True
            self.words[word] = state + 1
            return False
        # Also when time was set back.
        if now - self.words[word + 1] < self.interval and now >= self.words[word + 1]:
            if not state & WAITING:
                self.words[word] = state | WAITING
            return False
        self.words[word] = state & ~WAITING & MASK64
        self.words[word + 1] = now
        return True

    def silent(self, now: int, most: int, writer: RecordWriter, share: int) -> int:
        """Look at `most` more streams, report those that have been silent for an interval; how many.

        At `now` 0 they count as silent. `share` is that of left_out().
        """
        found = 0
        if self.mode != INTERVAL:
            return 0
        for _ in range(min(most, self.streams.slots)):
            slot = self.cursor
            self.cursor = slot + 1 if slot + 1 < self.streams.slots else 0
            entry = self.streams.place(slot)
            if not entry:
                continue
            word = 2 * ((entry - self.streams.first) // self.streams.width)
            state = self.words[word]
            if not state & WAITING:
                continue
            if state >> 32 != self.streams.words[entry + FACTS] >> 32:
                # Another stream has its place by now.
                self.words[word] = 0
                continue
            if now and now < self.streams.words[entry + LATEST] + self.interval:
                continue
            self.words[word] = state & ~WAITING & MASK64
            self.words[word + 1] = self.streams.words[entry + LATEST]
            if self.stream_left_out(entry, share) or not writer.reserve_stream(self.streams):
                continue
            # Its newest packet was booked as handled; now it is reported, and in work between the two.
            self.counters[C_RTP_HANDLED] -= 1
            atomics.store(self.counters, C_HANDLED, self.counters[C_HANDLED] - 1)
            writer.stream(self.streams, slot)
            self.counters[C_OUTPUT_RTP] += 1
            atomics.store(self.counters, C_OUTPUT, self.counters[C_OUTPUT] + 1)
            found += 1
        return found

    def last(self, most: int, writer: RecordWriter, share: int) -> bool:
        """Behind the last packet: silent() for `most` more streams; False when all were looked at."""
        if self.left < 0:
            self.cursor, self.left = 0, self.streams.slots
        self.silent(0, most, writer, share)
        self.left -= most
        return self.left > 0

    def left_out(self, decoder: Decoder, share: int) -> bool:
        """Whether sampling leaves out the packet in work; `share` of all conversations in 1/ALL is kept."""
        if share >= ALL:
            return False
        source = self.side(decoder.src0 ^ decoder.src1, decoder.sport)
        return self.place_of(source + self.side(decoder.dst0 ^ decoder.dst1, decoder.dport)) >= share

    def stream_left_out(self, entry: int, share: int) -> bool:
        """The same of a stream, by the place of its entry."""
        if share >= ALL:
            return False
        ports = self.streams.words[entry + PORTS]
        source = self.streams.words[entry + KEY] ^ self.streams.words[entry + KEY + 1]
        source = self.side(source, ports & 0xFFFF)
        target = self.streams.words[entry + KEY + 2] ^ self.streams.words[entry + KEY + 3]
        return self.place_of(source + self.side(target, (ports >> 16) & 0xFFFF)) >= share

    def side(self, address: int, port: int) -> int:
        """One end of a conversation, mixed with the key of the task so that nobody can choose it."""
        address = (address ^ (address >> 32)) & MASK32
        # The address is in network order, the word that holds it is not.
        address = ((address & 0xFF00FF) << 8) | ((address >> 8) & 0xFF00FF)
        address = ((address << 16) | (address >> 16)) & MASK32
        address = ((address ^ port ^ self.counters[W_KEY]) * SPREAD1) & MASK32
        return address ^ (address >> 15)

    def place_of(self, sides: int) -> int:
        """Where a conversation stands among all, below ALL, by the sum of its sides.

        The same in both directions, so a conversation is whole or absent, and simple enough for the
        kernel's filter (engine.capture.media_sampling).
        """
        place = ((sides & MASK32) * SPREAD1) & MASK32
        place = place ^ (place >> 15)
        return (place * SPREAD2) & MASK32
