"""Composes records (engine.shm.records) as 64-bit words, directly in a ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.parsers import octets
from engine.shm import records
from engine.shm import streams as stream_layout

if TYPE_CHECKING:
    from engine.decode.classifier import Decoder
    from engine.parsers.sip import SipParser
    from engine.pipeline.media import MediaPath
    from engine.shm.ring import RingWriter
    from engine.shm.streams import StreamTable

ETHERNET = records.P_ETHERNET
HEADER, SIP_HEADER, RTP_LENGTH = records.PACKET_SIZE, records.SIP_MESSAGE, records.RTP_FRAME
SLOT_WORDS = records.SIP_SLOTS
NO_FLOW = NO_STREAM = records.NO_SLOT
LOW32 = 0xFFFFFFFF
K_SIP, K_RTP = records.SIP, records.RTP
LAST = records.R_LAST
FACTS, PORTS, KEY = 1, 2, 3
STREAM_LATEST, STREAM_STOP, STREAM_CODEC, STREAM_FLOW = (
    stream_layout.PLACE_LATEST,
    stream_layout.PLACE_STOP,
    stream_layout.PLACE_CODEC,
    stream_layout.PLACE_FLOW,
)
"""Places in an entry (engine.shm.slots, engine.shm.streams)."""


class PacketFacts:
    """What the driver said of the packet in work."""

    def __init__(self) -> None:
        self.timestamp = self.interface = self.wire_length = self.captured = 0
        self.frame_number = 0


class RecordWriter:
    """One ring; the methods return False for a record that is longer than the ring takes."""

    def __init__(self, ring: RingWriter, decoder: Decoder, facts: PacketFacts) -> None:
        self.ring = ring
        self.decoder = decoder
        self.facts = facts
        self.place = -1

    def header(self, word: int, slot: int, generation: int, flags: int) -> int:
        """The packet header, 16 words from `word` on."""
        self.ring.words[word] = self.decoder.src0
        self.ring.words[word + 1] = self.decoder.src1
        self.ring.words[word + 2] = self.decoder.dst0
        self.ring.words[word + 3] = self.decoder.dst1
        a = self.decoder.flags
        a = a | flags
        b = self.decoder.tunnel_type
        more = self.decoder.vlan_count
        b = (b << 56) | (more << 48) | (a << 40)
        more = self.decoder.protocol
        self.ring.words[word + 4] = b | (more << 32) | (self.decoder.dport << 16) | self.decoder.sport
        b = self.decoder.vni
        self.ring.words[word + 5] = (b << 32) | (self.decoder.inner_vlan << 16) | self.decoder.outer_vlan
        b = 0
        more = 0
        mac = self.decoder.mac
        if a & ETHERNET and self.decoder.frame_end - mac >= 12:
            b = self.octets_at(mac + 6, 6) | (self.octets_at(mac, 2) << 48)
            more = self.octets_at(mac + 2, 4)
        self.ring.words[word + 6] = b
        self.ring.words[word + 7] = more | (self.facts.interface << 32)
        self.ring.words[word + 8] = (self.facts.captured & LOW32) | (self.facts.wire_length << 32)
        a = self.decoder.link_type
        self.ring.words[word + 9] = (
            (self.decoder.tos & 0xFF) | ((self.decoder.ttl & 0xFF) << 8) | ((a & 0xFFFF) << 16)
        )
        if self.decoder.tunnel_type:
            self.ring.words[word + 10] = self.decoder.outer_src0
            self.ring.words[word + 11] = self.decoder.outer_src1
            self.ring.words[word + 12] = self.decoder.outer_dst0
            self.ring.words[word + 13] = self.decoder.outer_dst1
        else:
            for index in range(10, 14):
                self.ring.words[word + index] = 0
        self.ring.words[word + 14] = self.facts.frame_number
        self.ring.words[word + 15] = (slot & LOW32) | (generation << 32)
        return 0

    def octets_at(self, position: int, count: int) -> int:
        """Up to 8 octets of the frame as a little-endian number."""
        value = 0
        for index in range(count):
            value = (value << 8) | self.decoder.buf[position + count - 1 - index]
        return value

    def rtp(self, media: MediaPath, figures: bool, raw: bool) -> bool:
        """An RTP record; with `figures` the stream's entry behind it, with `raw` the frame."""
        length = RTP_LENGTH
        width = 0
        if figures and media.stream >= 0:
            width = media.streams.width
            length += 8 * width
        frame = length
        if raw:
            length += self.decoder.frame_end - self.decoder.frame
        place = self.ring.reserve(length)
        if place < 0:
            return False
        word = place >> 3
        self.header(word, media.flow, media.flow_generation, 0)
        a = media.parser.timestamp
        self.ring.words[word + 16] = (a << 32) | media.parser.ssrc
        a = media.parser.octets
        b = media.parser.marker
        c = media.parser.payload_type
        self.ring.words[word + 17] = (a << 32) | (b << 24) | (c << 16) | media.parser.sequence
        a = NO_STREAM
        if media.stream >= 0:
            a = media.stream
        self.ring.words[word + 18] = a | (media.stream_generation << 32)
        a = width
        self.ring.words[word + 19] = media.found_by | (a << 16)
        if width:
            self.copy_entry(word + 20, media.streams, media.entry)
        if raw:
            octets.copy(
                self.ring.memory, place + frame, self.decoder.buf, self.decoder.frame, self.decoder.frame_end
            )
        self.ring.commit(K_RTP, 0, self.facts.timestamp)
        return True

    def copy_entry(self, word: int, streams: StreamTable, entry: int) -> int:
        """The figures of a stream into the ring; only its own worker changes them."""
        for index in range(streams.width):
            self.ring.words[word + index] = streams.words[entry + index]
        return 0

    def reserve_stream(self, streams: StreamTable) -> bool:
        """Make room for stream()."""
        self.place = self.ring.reserve(RTP_LENGTH + 8 * streams.width)
        return self.place >= 0

    def stream(self, streams: StreamTable, slot: int) -> int:
        """The last figures of a stream: an RTP record of its newest packet, whose octets are gone by now.

        Behind reserve_stream().
        """
        entry = streams.place(slot)
        word = self.place >> 3
        for index in range(20):
            self.ring.words[word + index] = 0
        for index in range(4):
            self.ring.words[word + index] = streams.words[entry + KEY + index]
        ports = streams.words[entry + PORTS]
        a = 17
        self.ring.words[word + 4] = (a << 32) | (ports & LOW32)
        self.ring.words[word + 15] = streams.words[entry + STREAM_FLOW]
        a = streams.words[entry + STREAM_CODEC] & 0xFF
        b = streams.words[entry + STREAM_STOP] & 0xFFFF
        self.ring.words[word + 16] = ports >> 32
        self.ring.words[word + 17] = (a << 16) | b
        a = slot
        b = streams.words[entry + FACTS] >> 32
        self.ring.words[word + 18] = a | (b << 32)
        a = streams.width
        b = (streams.words[entry + FACTS] >> 8) & 0xFF
        self.ring.words[word + 19] = b | (LAST << 8) | (a << 16)
        self.copy_entry(word + 20, streams, entry)
        self.ring.commit(K_RTP, 0, streams.words[entry + STREAM_LATEST])
        return 0

    def octets(self, kind: int, start: int, end: int, slot: int, generation: int) -> bool:
        """A record whose body is the packet header and octets start..end of the buffer."""
        place = self.ring.reserve(HEADER + end - start)
        if place < 0:
            return False
        self.header(place >> 3, slot, generation, 0)
        if end > start:
            octets.copy(self.ring.memory, place + HEADER, self.decoder.buf, start, end)
        self.ring.commit(kind, 0, self.facts.timestamp)
        return True

    def made(self, kind: int, body: bytes) -> bool:
        """A record whose body is the packet header and `body`."""
        length = len(body)
        place = self.ring.reserve(HEADER + length)
        if place < 0:
            return False
        self.header(place >> 3, NO_FLOW, 0, 0)
        octets.put(self.ring.memory, place + HEADER, body)
        self.ring.commit(kind, 0, self.facts.timestamp)
        return True

    def sip(self, sip: SipParser, flags: int) -> bool:
        """The message that `sip` parsed last; `flags` are more P_* of the packet."""
        length = sip.end - sip.start
        place = self.ring.reserve(SIP_HEADER + length)
        if place < 0:
            return False
        word = place >> 3
        self.header(word, NO_FLOW, 0, flags)
        a = sip.status
        b = sip.error
        c = sip.headers
        d = sip.method
        e = sip.flags
        self.ring.words[word + 16] = (
            (a & 0xFFFF)
            | ((b & 0xFFFF) << 16)
            | ((c & 0xFFFF) << 32)
            | ((d & 0xFF) << 48)
            | ((e & 0xFF) << 56)
        )
        a = sip.cseq
        b = length
        self.ring.words[word + 17] = a | (b << 32)
        for index in range(SLOT_WORDS):
            a = sip.slots[2 * index]
            b = sip.slots[2 * index + 1]
            self.ring.words[word + 18 + index] = (a & LOW32) | ((b & LOW32) << 32)
        if length > 0:
            octets.copy(self.ring.memory, place + SIP_HEADER, self.decoder.buf, sip.start, sip.end)
        self.ring.commit(K_SIP, 0, self.facts.timestamp)
        return True
