"""The figures of every media stream, in shared memory: one entry for each SSRC of each five-tuple.

A table of engine.shm.slots, written by the workers and read by everyone. The figures are those of RFC 3550 in
the way Wireshark computes them (ui/tap-rtp-analysis.c), so that they equal those of `tshark -z rtp,streams`:

- expected is last - first sequence number + 1 + 65536 for each cycle; lost is expected - packets, so it
  is below 0 where packets came twice.
- jitter in ms: J += (|D| - J) / 16 at each packet but the first, D by the clock rate of the packet's
  payload type; packets of unknown clock rate, of telephone events and with a timestamp before the
  first one leave it alone. Its mean and largest value and the deltas leave out packets with marker,
  comfort noise (types 13 and 19), the packet behind comfort noise, and those before the first timestamp.

Words behind those of engine.shm.slots (index of the 64-bit word):

    32 time to live, ns (0: for ever)    33 version: number of looks at what changed
    64 tags and places of the entries, then the entries:

     1 generation << 32 | found by << 8 | 1      2 source port | destination port << 16 | SSRC << 32
     8 packets   9 octets of payload   10 first packet, ns   11 newest packet, ns
    12 first sequence number     13 sequence number of the newest packet
    14 highest sequence number, extended   15 bits of the 64 sequence numbers up to it that were seen
    16 cycles << 1 | in the first half of a cycle, top bit: jitter is known     17 first timestamp
    18 newest packet in time order, ns     19 its nominal time, ms (double)
    20 jitter   21 mean   22 largest   24 delta   25 largest   27 mean (double, ms)
    28 codec of the newest packet: payload type | kind << 8 | clock rate << 32     29 what it was taken from
    30 version at the newest packet      31 out of order      32 duplicates      33 sequence resets
    34 packets with marker << 32 | comfort noise     35 telephone events << 32 | timestamps before the first
    36 payload types seen, 2 words       38 flow generation << 32 | flow slot
    39 codec name, 11 octets, 2 words    41 changes of the payload type of the medium
    42 DSCP | payload type of the medium + 1 << 8 | number of its codec in engine.shm.emodel << 16
    43 end of this second, ns    44 its smallest transit    45 transit that is too late (double, ms)
    46 shift of the sender's clock (double, ms)     48 Call-ID, 127 octets, zero padded

Behind the entries, in the same order, a unit of engine.shm.quality for each and one of engine.shm.signals;
behind these an index by SSRC, a word a slot: hash << 32 | slot + 1.
"""

from __future__ import annotations

from engine.shm import atomics
from engine.shm.quality import JUMP_MS, LATE_MS, NO_TRANSIT, PAUSE_NS
from engine.shm.region import Region
from engine.shm.slots import create_region
from engine.shm.stream_units import MORE_WORDS, StreamUnits

VERSION = 3
SEED0, BUSY = 17, 27
"""Words of a SlotTable."""
TTL, VERSION_WORD = 32, 33
TAGS = 64
TOP = 0x8000000000000000
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
SPREAD = 0x9E3779B97F4A7C15
ONE = 1
HIGH = 1 << 32
HALF = 1 << 31
FACTS, PORTS, KEY, DOMAIN, PACKETS, OCTETS, FIRST, LATEST = 1, 2, 3, 7, 8, 9, 10, 11
START_SEQUENCE, STOP_SEQUENCE, HIGHEST, WINDOW, CYCLES, FIRST_TIMESTAMP = 12, 13, 14, 15, 16, 17
IN_ORDER_TIME, NOMINAL, JITTER, MEAN_JITTER, MAX_JITTER = 18, 19, 20, 21, 22
DELTA, MAX_DELTA, MEAN_DELTA, CODEC, CODEC_OF, STAMP = 24, 25, 27, 28, 29, 30
OUT_OF_ORDER, DUPLICATES, RESETS, MARKERS, EVENTS, SEEN, FLOW, NAME, TYPE_CHANGES = (
    31, 32, 33, 34, 35, 36, 38, 39, 41,
)  # fmt: skip
LABEL, TICK, LEAST, LIMIT, SHIFT = 42, 43, 44, 45, 46
CALL = 48
FAR, LATE, JUMP, PAUSE = NO_TRANSIT, LATE_MS, JUMP_MS, PAUSE_NS
SECOND = 1_000_000_000
MILLISECOND = 1_000_000
UNIT = 128
VIDEO_CLOCK = 90_000
TOO_LATE, JUMPED, DSCP_NOW, CODEC_CHANGES, LATE_NOW = 9, 9, 15, 17, 26
"""Words of a unit of engine.shm.quality."""
PLACE_CODEC, PLACE_CODEC_OF, PLACE_LATEST, PLACE_STOP, PLACE_FLOW = (
    CODEC,
    CODEC_OF,
    LATEST,
    STOP_SEQUENCE,
    FLOW,
)
PLACE_PORTS = PORTS
"""The same, visible from Python where this module is compiled."""
NORMAL, COMFORT_NOISE, EVENT = 0, 1, 2
EVENT_KIND = EVENT
"""Kinds of payload types: a medium, comfort noise (RFC 3389), telephone events (RFC 4733)."""
LARGEST_MISORDER = 3000
"""A sequence number further off than this begins a new sequence (RFC 3550 appendix A.1, MAX_DROPOUT)."""


class StreamTable(StreamUnits):
    """The table as one worker writes it, or as a reader maps it."""

    def __init__(self, region: Region, writer: int = 0) -> None:
        """Map the table; `writer` is the worker's index, below 65,535."""
        super().__init__(region, writer, TAGS)
        self.salt = self.words[SEED0]
        self.reals = region.memory.cast("d")
        self.ttl = self.words[TTL]

    @classmethod
    def create(cls, task: str, writer: int, slots: int, ttl_ns: int = 0) -> StreamTable:
        """A new table for at least `slots` streams (a power of two; 1.5 KiB each, touched when used).

        `ttl_ns` after its newest packet an entry may go; 0: never.
        """
        region = create_region("streams", VERSION, task, writer, slots, TAGS, more=MORE_WORDS)
        region.words[TTL] = ttl_ns
        return cls(region, writer)

    @classmethod
    def open(cls, fd: int, writer: int = 0) -> StreamTable:
        """Map the table behind an inherited descriptor."""
        return cls(Region(fd, "streams", VERSION), writer)

    # ---- the table ----

    def is_stream(
        self, word: int, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int
    ) -> bool:
        """Whether the entry at `word` has this key; `ports` is source | destination << 16 | SSRC << 32."""
        if word <= 0 or (
            self.words[word + PORTS] != ports
            or self.words[word + KEY + 2] != dst0
            or self.words[word + KEY + 3] != dst1
            or self.words[word + KEY] != src0
            or self.words[word + KEY + 1] != src1
            or self.words[word + DOMAIN] != domain
            or not self.words[word + FACTS] & 0xFF
        ):
            return False
        self.generation = self.words[word + FACTS] >> 32
        return True

    def tag_of(self, flow_tag: int, ssrc: int) -> int:
        """The hash of a stream from the keyed one of its flow."""
        ssrc = ((flow_tag ^ self.salt) + (ssrc + 1) * SPREAD) & MASK64
        ssrc = ((ssrc ^ (ssrc >> 32)) * SPREAD) & MASK64
        ssrc = ((ssrc ^ (ssrc >> 29)) * SPREAD) & MASK64
        return (ssrc ^ (ssrc >> 32)) | TOP

    def find(self, flow_tag: int, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int) -> int:
        """The slot of a stream, or -1; `flow_tag` is FlowTable.tag_of() the flow. Sets `generation`."""
        return self.probe(self.tag_of(flow_tag, ports >> 32), ports, src0, src1, dst0, dst1, domain)

    def add(
        self, flow_tag: int, src0: int, src1: int, dst0: int, dst1: int, ports: int, domain: int, now: int
    ) -> int:
        """Enter a stream; its slot, or -1 where the table is full there. Then label() and count()."""
        tag = self.tag_of(flow_tag, ports >> 32)
        slot = self.enter(tag, 1, ports, src0, src1, dst0, dst1, domain, now)
        if slot < 0:
            return -1
        if self.fresh:
            word = self.place(slot)
            self.words[word + LATEST] = now
            unit = self.unit(word)
            for index in range(UNIT):
                self.words[unit + index] = 0
            self.unlock(word)
            slot = self.publish(slot, tag)
            self.enter_source(slot, ports >> 32, domain)
        self.look(self.place(slot))
        return slot

    def expired(self, slot: int, now: int) -> bool:
        """Whether an entry may make room."""
        latest = self.words[self.place(slot) + LATEST]
        ttl = self.words[TTL]
        return ttl != 0 and now > latest + ttl

    def mend(self, slot: int) -> int:
        """A killed worker was counting a packet of this stream: it stays, a packet more or less."""
        return 0

    # ---- counting ----

    def label(
        self,
        slot: int,
        found_by: int,
        flow: int,
        codec_of: int,
        payload_type: int,
        clock: int,
        kind: int,
        name0: int,
        name1: int,
        words: memoryview,
        call: int,
    ) -> int:
        """What the flow says of the stream: before its first packet, at another payload type, after an SDP.

        `flow`: generation << 32 | slot; `codec_of`: any word that changes with the flow's codecs; `clock` in
        Hz, 0 unknown; the name as two little-endian words; `words[call:call + 16]` the Call-ID, kept from
        the first SDP on.
        """
        word = self.place(slot)
        if not self.lock(word):
            return 0
        if ((self.words[word + FACTS] >> 8) & 0xFF) != 1:
            self.words[word + FACTS] = (self.words[word + FACTS] & ~0xFF00 & MASK64) | (found_by << 8)
            for index in range(16):
                self.words[word + CALL + index] = words[call + index]
        self.words[word + FLOW] = flow
        self.words[word + CODEC_OF] = codec_of
        if clock >= 1000 and (self.words[word + CODEC] >> 32) < 1000 and self.words[word + PACKETS]:
            self.reals[word + NOMINAL] /= float(clock // 1000)
        self.words[word + CODEC] = payload_type | (kind << 8) | (clock << 32)
        self.words[word + SEEN + (payload_type >> 6)] |= ONE << (payload_type & 63)
        if kind == NORMAL:
            self.label_medium(word, payload_type, name0, name1)
        self.unlock(word)
        return 0

    def label_medium(self, word: int, payload_type: int, name0: int, name1: int) -> int:
        """The payload type and the codec of the medium itself, which events and noise do not change."""
        before = (self.words[word + LABEL] >> 8) & 0xFF
        codec = (self.words[word + LABEL] >> 16) & 0xFF
        known = self.words[word + NAME] != 0
        if before and before != payload_type + 1:
            self.words[word + TYPE_CHANGES] += 1
        if name0 != self.words[word + NAME] or name1 != self.words[word + NAME + 1]:
            if name0 or not known:
                self.words[word + NAME] = name0
                self.words[word + NAME + 1] = name1
            codec = self.quality.model.codec(name0, name1)
            unit = self.unit(word)
            if known and name0 and self.words[word + PACKETS]:
                self.words[unit + CODEC_CHANGES] += 1
            self.words[unit + LATE_NOW] = (self.words[unit + LATE_NOW] & MASK32) | (codec << 32)
        self.words[word + LABEL] = (
            (self.words[word + LABEL] & 0xFF) | ((payload_type + 1) << 8) | (codec << 16)
        )
        return 0

    def count(
        self,
        word: int,
        now: int,
        sequence: int,
        timestamp: int,
        marker: int,
        octets: int,
        dscp: int = 0,
    ) -> int:
        """One packet of the stream at `word`, labelled for its payload type; 1: it could not be counted."""
        if not self.lock(word):
            return 1
        if not self.words[word + FACTS] & 0xFF:
            # Another worker found it expired just now: this packet's successor enters it anew.
            self.unlock(word)
            atomics.add(self.words, BUSY, 1)
            return 1
        self.words[word + STAMP] = atomics.peek(self.words, VERSION_WORD)
        self.words[word + OCTETS] += octets
        if marker:
            self.words[word + MARKERS] += HIGH
        codec = self.words[word + CODEC]
        clock = codec >> 32
        kind = (codec >> 8) & 0xFF
        if kind == COMFORT_NOISE:
            self.words[word + MARKERS] += 1
        elif kind == EVENT:
            self.words[word + EVENTS] += HIGH
        if self.words[word + PACKETS]:
            self.follow(word, now, sequence, timestamp, clock, kind, marker, dscp)
        else:
            self.open_stream(word, now, sequence, timestamp, clock, kind, dscp)
        self.unlock(word)
        return 0

    def open_stream(
        self, word: int, now: int, sequence: int, timestamp: int, clock: int, kind: int, dscp: int
    ) -> int:
        """The first packet of a stream."""
        self.words[word + FIRST] = now
        self.words[word + LATEST] = now
        self.words[word + IN_ORDER_TIME] = now
        self.words[word + START_SEQUENCE] = sequence
        self.words[word + STOP_SEQUENCE] = sequence | (kind << 32)
        self.words[word + HIGHEST] = 0x10000 | sequence
        self.words[word + WINDOW] = 1
        self.words[word + FIRST_TIMESTAMP] = timestamp
        self.words[word + PACKETS] = 1
        self.words[word + LABEL] = (self.words[word + LABEL] & ~0xFF & MASK64) | dscp
        self.words[word + TICK] = now + SECOND
        timed = clock >= 1000 and kind == NORMAL
        self.reals[word + LEAST] = 0.0 if timed else FAR
        self.reals[word + LIMIT] = LATE if timed else FAR
        return self.quality.begin(
            self.unit(word), now, 0x10000 | sequence, dscp, (self.words[word + LABEL] >> 16) & 0xFF
        )

    def follow(
        self,
        word: int,
        now: int,
        sequence: int,
        timestamp: int,
        clock: int,
        kind: int,
        marker: int,
        dscp: int,
    ) -> int:
        """Any later packet of a stream."""
        if now >= self.words[word + TICK]:
            self.tick(word, now)
        if dscp != self.words[word + LABEL] & 0xFF:
            self.words[word + LABEL] = (self.words[word + LABEL] & ~0xFF & MASK64) | dscp
            self.words[self.unit(word) + DSCP_NOW] += HIGH
        before = (self.words[word + STOP_SEQUENCE] >> 32) & 0xFF
        if now > self.words[word + LATEST] + PAUSE or before == COMFORT_NOISE or (marker and kind == NORMAL):
            self.pause(word, now, sequence, before, kind, marker and clock != VIDEO_CLOCK)
        timestamp = (timestamp - self.words[word + FIRST_TIMESTAMP]) & MASK32
        if timestamp < HALF:
            self.cycle(word, sequence)
            steady = not marker and kind != COMFORT_NOISE and before != COMFORT_NOISE  # noqa: PLR1714 -- compiled
            self.timing(word, now, timestamp, clock, kind, steady)
        else:
            self.words[word + EVENTS] += 1
        self.order(word, sequence)
        self.words[word + STOP_SEQUENCE] = sequence | (kind << 32)
        if now > self.words[word + LATEST]:
            self.words[word + LATEST] = now
        self.words[word + PACKETS] += 1
        return 0

    def timing(self, word: int, now: int, timestamp: int, clock: int, kind: int, steady: bool) -> int:
        """Delta and jitter of a packet `timestamp` behind the first; in their means where it is `steady`."""
        latest = self.words[word + IN_ORDER_TIME]
        if now >= latest:  # noqa: SIM108 -- unsigned
            delta = (now - latest) * 0.000001
        else:
            delta = (latest - now) * -0.000001
        self.words[word + IN_ORDER_TIME] = now
        self.reals[word + DELTA] = delta
        jitter = 0.0
        timed = clock >= 1000 and kind != EVENT
        if clock < 1000:
            # Until an SDP names the clock: label() makes ms of it.
            self.reals[word + NOMINAL] = timestamp
        elif timed:
            nominal = timestamp / float(clock // 1000)
            jitter = delta - (nominal - self.reals[word + NOMINAL])
            if jitter < 0:
                jitter = -jitter
            jitter = (15.0 * self.reals[word + JITTER] + jitter) / 16.0
            self.reals[word + JITTER] = jitter
            self.reals[word + NOMINAL] = nominal
            if kind == NORMAL and now >= self.words[word + FIRST]:
                transit = (now - self.words[word + FIRST]) * 0.000001 - nominal + self.reals[word + SHIFT]
                if transit < self.reals[word + LEAST] or transit > self.reals[word + LIMIT]:
                    self.unusual(word, transit)
        if steady:
            count = float(self.words[word + PACKETS])
            share = 1.0 / count
            count -= 1.0
            if delta > self.reals[word + MAX_DELTA]:
                self.reals[word + MAX_DELTA] = delta
            self.reals[word + MEAN_DELTA] = (self.reals[word + MEAN_DELTA] * count + delta) * share
            if timed:
                if jitter > self.reals[word + MAX_JITTER]:
                    self.reals[word + MAX_JITTER] = jitter
                self.reals[word + MEAN_JITTER] = (self.reals[word + MEAN_JITTER] * count + jitter) * share
                self.words[word + CYCLES] |= TOP
        return 0

    def cycle(self, word: int, sequence: int) -> int:
        """Count the cycles of the sequence number, as Wireshark does (rtppacket_analyse())."""
        cycles = self.words[word + CYCLES]
        start = self.words[word + START_SEQUENCE]
        if not cycles & 1:
            if sequence < start or (sequence == 0 and (self.words[word + STOP_SEQUENCE] & 0xFFFF) == 0xFFFF):
                self.words[word + CYCLES] = (cycles + 2) | 1
        elif sequence > start:
            self.words[word + CYCLES] = cycles - 1
        return 0

    def order(self, word: int, sequence: int) -> int:
        """Tell late packets from duplicates by the 64 sequence numbers up to the highest one."""
        highest = self.words[word + HIGHEST]
        window = self.words[word + WINDOW]
        ahead = (sequence - highest) & 0xFFFF
        if ahead == 1:
            self.words[word + HIGHEST] = highest + 1
            self.words[word + WINDOW] = ((window << 1) & MASK64) | 1
            if not window >> 63:
                self.quality.lose(self.unit(word), highest - 63, 1)
            return 0
        back = 0x10000 - ahead
        if ahead == 0:
            self.words[word + DUPLICATES] += 1
        elif ahead < LARGEST_MISORDER:
            self.quality.leave(self.unit(word), highest, window, ahead)
            self.words[word + HIGHEST] = highest + ahead
            if ahead < 64:
                self.words[word + WINDOW] = ((window << ahead) & MASK64) | 1
            else:
                self.words[word + WINDOW] = 1
        elif back < 64 and (self.words[word + WINDOW] >> back) & 1:
            self.words[word + DUPLICATES] += 1
        elif back <= LARGEST_MISORDER:
            self.words[word + OUT_OF_ORDER] += 1
            if back < 64:
                self.words[word + WINDOW] |= ONE << back
        else:
            self.words[word + RESETS] += 1
            self.quality.restart(self.unit(word), highest, window, ahead)
            self.words[word + HIGHEST] = highest + ahead
            self.words[word + WINDOW] = 1
        return 0

    def tick(self, word: int, now: int) -> int:
        """A second of a stream is over."""
        began = self.words[word + TICK] - SECOND - self.words[word + FIRST]
        self.quality.tick(
            self.unit(word),
            now,
            (now - self.words[word + FIRST]) // MILLISECOND,
            self.words[word + HIGHEST],
            began // MILLISECOND,
            self.reals[word + LEAST],
        )
        self.words[word + TICK] = now + SECOND
        if self.reals[word + LEAST] < FAR:
            self.reals[word + LIMIT] = self.reals[word + LEAST] + LATE
        self.reals[word + LEAST] = FAR
        return 0

    def pause(self, word: int, now: int, sequence: int, before: int, kind: int, marker: int) -> int:
        """A packet behind silence, or the first one of a talk spurt."""
        latest = self.words[word + LATEST]
        silent = now - latest if now > latest else 0
        in_order = (sequence - self.words[word + STOP_SEQUENCE]) & 0xFFFF == 1
        speech = kind == NORMAL and (before == COMFORT_NOISE or marker != 0 or (silent > PAUSE and in_order))
        self.quality.pause(self.unit(word), silent, latest, before == COMFORT_NOISE, in_order, speech)
        return 0

    def unusual(self, word: int, transit: float) -> int:
        """A packet faster than all others of its second, or one that is late, or a new start of the clock."""
        limit = self.reals[word + LIMIT]
        unit = self.unit(word)
        if limit < FAR and (transit > limit + JUMP or transit < limit - LATE - JUMP):
            self.reals[word + SHIFT] += limit - LATE - transit
            self.words[unit + JUMPED] += HIGH
            return 0
        if transit > limit:
            self.words[unit + TOO_LATE] += 1
            self.words[unit + LATE_NOW] += 1
        if transit < self.reals[word + LEAST]:
            self.reals[word + LEAST] = transit
            if transit + LATE < limit:
                self.reals[word + LIMIT] = transit + LATE
        return 0

    # ---- cold readers ----

    def slots_since(self, version: int) -> list[int]:
        """Slots with packets at or after `version`, a number that changed() gave."""
        found = []
        for slot in range(self.slots):
            if self.words[self.tags + 2 * slot] >= TOP and self.words[self.place(slot) + STAMP] >= version:
                found.append(slot)  # noqa: PERF401 -- compiled
        return found

    def changed(self, since: int) -> tuple[int, list[int]]:
        """(version, slots with packets since that version); 0 gives all, and some slots are given twice."""
        version = int(atomics.add(self.words, VERSION_WORD, 1)) + 1
        # A worker may have taken its stamp just before this look and write its figures just behind it.
        return version, self.slots_since(max(0, since - 1))
