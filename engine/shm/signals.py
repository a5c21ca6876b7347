"""What is rare about a media stream: telephone events and RTCP, in a second unit of 128 words.

Telephone events (RFC 4733): packets with one timestamp and one event are one, however often its end comes; a
long one goes on in segments (section 2.5.1.3). The newest EVENTS_KEPT stand here, the count is exact.

RTCP (RFC 3550, 3611) about one stream: what its sender says of itself, and what its receiver, the far end,
says of it. A round trip runs from here to one end and back, as Wireshark has it: a report arrives with the
middle of the NTP time of a sender report (LSR) that passed here, and how long the end had held it (DLSR);
the same with the reference time (RRT) and its answer (DLRR) of extended reports. Both trips together are
that between the ends.

Words of a unit:

     0 telephone events                     2 events, 2 words each: begin, ns; then timestamp << 32 |
                                              ms << 16 | event << 8 | segments << 1 | ended
    66 sender reports | receiver reports of the sender << 32      67 extended reports | others << 32
    68 newest sender report, ns    69 its NTP time    70 its timestamp | packets << 32    71 its octets
    72 NTP middle of the one before it     73 when that was
    75 report blocks of the far end | its SSRC << 32     76 newest, ns
    77 fraction lost | cumulative lost (24 bits) << 8 | highest sequence number << 32
    78 jitter | largest << 32      79 largest fraction lost
    81 round trips to the receiver | newest, us << 32    82 smallest | largest << 32    83 sum, us
    84 the same to the sender, 3 words
    87 newest reference time of the receiver (NTP middle)         88 when that was, ns
    89 BYE, ns     90 APP packets | newest name << 32             91 VoIP metrics blocks
    92 newest VoIP metrics, ns     93 its 28 octets (RFC 3611 section 4.7 behind the SSRC), 4 words
    97 CNAME, 63 octets, zero padded, 8 words
"""

from __future__ import annotations

UNIT = 128
EVENTS_KEPT = 32
LOOK_BACK = 4
LONGEST_SEGMENT = 0xFFFF
LONGEST_TRIP_US = 60_000_000
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
HIGH = 1 << 32
EVENTS, EVENT = 0, 2
REPORTS, OTHERS, SENT, NTP, STAMP, OCTETS, NTP_BEFORE, SENT_BEFORE = 66, 67, 68, 69, 70, 71, 72, 73
BLOCKS, BLOCK_AT, LOST, JITTER, WORST = 75, 76, 77, 78, 79
TO_RECEIVER, TO_SENDER, REFERENCE, REFERENCE_AT, BYE, APP, METRICS, METRICS_AT, METRICS_OCTETS, CNAME = (
    81, 84, 87, 88, 89, 90, 91, 92, 93, 97,
)  # fmt: skip
CNAME_OCTETS = 63
EVENTS_STORED = EVENTS_KEPT
FAR_TRIP, NEAR_TRIP = TO_RECEIVER, TO_SENDER
"""The same, visible from Python where this module is compiled."""


class Signals:
    """Units in shared memory; the caller holds the lock of the stream."""

    def __init__(self, memory: memoryview) -> None:
        """`memory`: octets of the region."""
        self.words = memory.cast("Q")
        self.octets = memory

    # ---- telephone events ----

    def event(
        self, unit: int, now: int, timestamp: int, clock: int, code: int, ended: int, length: int
    ) -> int:
        """One packet of an event; `length` in units of the clock."""
        count = self.words[unit + EVENTS]
        look = min(count, LOOK_BACK)
        for back in range(1, look + 1):
            place = unit + EVENT + 2 * ((count - back) % EVENTS_KEPT)
            word = self.words[place + 1]
            if (word >> 8) & 0xFF != code:
                continue
            begun = word >> 32
            segments = (word >> 1) & 0x7F
            if begun != timestamp:
                if back > 1 or word & 1:
                    continue
                # The next segment of a long event has a timestamp of its own, where the last one ended.
                apart = (timestamp - begun) & MASK32
                if apart != LONGEST_SEGMENT or segments == 0x7F:
                    continue
                segments += 1
            self.note(place, timestamp, clock, code, ended | (word & 1), length, segments)
            return 0
        place = unit + EVENT + 2 * (count % EVENTS_KEPT)
        self.words[place] = now
        self.words[place + 1] = 0
        self.words[unit + EVENTS] = count + 1
        self.note(place, timestamp, clock, code, ended, length, 0)
        return 0

    def note(
        self, place: int, timestamp: int, clock: int, code: int, ended: int, length: int, segments: int
    ) -> int:
        """Write an event; it never gets shorter."""
        length = (length + segments * LONGEST_SEGMENT) * 1000
        length = length // clock if clock else 0
        if length > 0xFFFF:
            length = 0xFFFF
        before = (self.words[place + 1] >> 16) & 0xFFFF
        if before > length:
            length = before
        self.words[place + 1] = (timestamp << 32) | (length << 16) | (code << 8) | (segments << 1) | ended
        return 0

    # ---- RTCP of the sender ----

    def sender(self, unit: int, now: int, ntp: int, timestamp: int, packets: int, octets: int) -> int:
        """A sender report of this stream."""
        self.words[unit + REPORTS] += 1
        if self.words[unit + SENT]:
            self.words[unit + NTP_BEFORE] = (self.words[unit + NTP] >> 16) & MASK32
            self.words[unit + SENT_BEFORE] = self.words[unit + SENT]
        self.words[unit + SENT] = now
        self.words[unit + NTP] = ntp
        self.words[unit + STAMP] = timestamp | (packets << 32)
        self.words[unit + OCTETS] = octets
        return 0

    def other(self, unit: int, extended: bool) -> int:
        """An extended report (or, `extended` false, anything else) of the sender."""
        self.words[unit + OTHERS] += 1 if extended else HIGH
        return 0

    def receiver(self, unit: int) -> int:
        """A receiver report of the sender."""
        self.words[unit + REPORTS] += HIGH
        return 0

    def bye(self, unit: int, now: int) -> int:
        """The sender said good-bye."""
        self.words[unit + BYE] = now
        return 0

    def app(self, unit: int, name: int) -> int:
        """An application-defined packet of the sender."""
        self.words[unit + APP] = (((self.words[unit + APP] & MASK32) + 1) & MASK32) | (name << 32)
        return 0

    def cname(self, unit: int, buf: memoryview | bytes, start: int, end: int) -> int:
        """The sender's name, cut at CNAME_OCTETS."""
        place = 8 * (unit + CNAME)
        length = min(CNAME_OCTETS, end - start)
        for index in range(CNAME_OCTETS):
            self.octets[place + index] = buf[start + index] if index < length else 0
        return 0

    # ---- RTCP of the receiver ----

    def block(
        self, unit: int, now: int, reporter: int, fraction: int, lost: int, highest: int, jitter: int
    ) -> int:
        """A report block about this stream."""
        self.words[unit + BLOCKS] = (((self.words[unit + BLOCKS] & MASK32) + 1) & MASK32) | (reporter << 32)
        self.words[unit + BLOCK_AT] = now
        self.words[unit + LOST] = fraction | (lost << 8) | (highest << 32)
        most = self.words[unit + JITTER] >> 32
        self.words[unit + JITTER] = jitter | ((max(jitter, most)) << 32)
        if fraction > self.words[unit + WORST]:
            self.words[unit + WORST] = fraction
        return 0

    def trip_of_report(self, unit: int, now: int, last: int, delay: int) -> int:
        """The round trip of a report with LSR and DLSR, us; -1 where the sender report did not pass here."""
        if last == 0:
            return -1
        if self.words[unit + SENT] and (self.words[unit + NTP] >> 16) & MASK32 == last:
            return self.trip_since(now, self.words[unit + SENT], delay)
        if self.words[unit + SENT_BEFORE] and self.words[unit + NTP_BEFORE] == last:
            return self.trip_since(now, self.words[unit + SENT_BEFORE], delay)
        return -1

    def trip_of_reference(self, unit: int, now: int, last: int, delay: int) -> int:
        """The round trip of a DLRR block, us; -1 where its reference time did not pass here."""
        if last and self.words[unit + REFERENCE_AT] and self.words[unit + REFERENCE] == last:
            return self.trip_since(now, self.words[unit + REFERENCE_AT], delay)
        return -1

    def reference(self, unit: int, now: int, ntp: int) -> int:
        """The receiver's reference time."""
        self.words[unit + REFERENCE] = (ntp >> 16) & MASK32
        self.words[unit + REFERENCE_AT] = now
        return 0

    def trip_since(self, now: int, then: int, delay: int) -> int:
        """now - then - delay (units of 1/65536 s) in us; -1 where that cannot be."""
        held = (delay * 15625) >> 10
        if now < then:
            return -1
        passed = (now - then) // 1000
        if passed < held:
            # The end's clock and ours may differ a little.
            return 0 if held - passed < 5000 else -1
        passed -= held
        return passed if passed < LONGEST_TRIP_US else -1

    def trip(self, place: int, trip: int) -> int:
        """Note a round trip, us, in the three words from `place` on."""
        count = self.words[place] & MASK32
        least = self.words[place + 1] & MASK32
        most = self.words[place + 1] >> 32
        if count == 0 or trip < least:
            least = trip
        if trip > most:
            most = trip
        self.words[place] = ((count + 1) & MASK32) | (trip << 32)
        self.words[place + 1] = least | (most << 32)
        self.words[place + 2] += trip
        return 0

    def metrics(self, unit: int, now: int, buf: memoryview | bytes, start: int) -> int:
        """A VoIP metrics block about this stream: 28 octets from `start` on."""
        self.words[unit + METRICS] += 1
        self.words[unit + METRICS_AT] = now
        place = 8 * (unit + METRICS_OCTETS)
        for index in range(28):
            self.octets[place + index] = buf[start + index]
        return 0
