"""What a media stream went through: losses in a row, lateness, pauses, its clock; 128 words a stream.

Nothing here runs for an ordinary packet: engine.shm.streams comes when something was lost, came late, stood
still or changed, and once a second. All counts are those of sequence numbers that left a window of 64, so a
packet that only came out of order was not lost. Readers finish the window on a copy (`settle()`).

- Bursts and gaps are those of RFC 3611 section 4.7.2 with Gmin = 16: a burst begins and ends with a lost
  packet and has fewer than Gmin received ones in a row in it; a loss with Gmin or more on both sides lies
  in a gap. The counts are exact, not those of the Markov model of its appendix.
- Transit is arrival minus timestamp, ms, of packets of the medium. LATE_MS above the smallest transit of this
  and the last second is too late for a jitter buffer. A shift of more than JUMP_MS is taken for a new
  start of the sender's clock.
- The clock: the smallest transit of each second (POINTS of them, then of 2, 4, ... seconds); the skew is the
  median of the slopes between all pairs (Theil and Sen), so queues and single outliers do not move it.
- Intervals of 10 s with what was expected, lost and late: SPANS of them, then pairs become one. The worst
  single one is kept apart.
- A pause is PAUSE_NS without a packet. Silence is what follows comfort noise, and pauses in which no sequence
  number is missing. A talk spurt begins behind silence, or with a marker on sound.

Words of a unit:

     0 whether there is a unit of engine.shm.signals        1 extended number at which this sequence began
     2 newest loss (extended number), 0: none        3 first loss of the burst that may go on
     4 lost in it | in a row now << 32               5 bursts | lost in gaps << 32
     6 lost in bursts | packets of bursts << 32      7 longest run of losses | runs << 32
     8 numbers jumped over by resets                 9 late | jumps of the sender's clock << 32
    10 pauses | talk spurts << 32    11 paused, ns   12 longest pause, ns   13 its begin, ns   14 silence, ns
    15 first DSCP | changes << 32    16 changes of SSRC to this one | SSRC before << 32
    17 changes of codec                               18 runs of 1, 2, ... 9, 10 and more losses, 10 of u32
    23 end of the interval, ns       24 extended number at its begin      25 lost | runs << 32
    26 late | codec << 32     27 its begin, ms since the first packet
    28 intervals kept | held by the newest << 32
    29 worst interval, 2 words    31 points kept | held by the newest << 32     32 room for one, 2 words
    40 points: ms since the first packet | transit, us (signed) << 32, 16 words
    64 intervals: 100 ms since the first packet | expected << 32, then lost (20 bits) | late (20) |
       runs of losses (16) | codec (8); 32 of 2 words
"""

from __future__ import annotations

from engine.shm.emodel import EModel

UNIT = 128
GMIN = 16
LATE_MS = 60.0
JUMP_MS = 1000.0
BIG = NO_TRANSIT = 1e300
SECOND = 1_000_000_000
INTERVAL = 10_000_000_000
PAUSE_NS = PAUSE = 500_000_000
POINTS, SPANS = 16, 32
LEAST_EXPECTED = 50
"""An interval of fewer packets is not the worst one, and gives no rating of its own."""
MASK64 = 0xFFFFFFFFFFFFFFFF
MASK32 = 0xFFFFFFFF
MASK20, MASK16 = 0xFFFFF, 0xFFFF
HIGH = 1 << 32
ONE = 1
(
    REST, ORIGIN, LAST_LOSS, BURST, RUNNING, BURSTS, BURST_LOST, RUNS, SKIPPED, LATE, PAUSES, PAUSED,
    LONGEST, LONGEST_AT, SILENCE, DSCP, SOURCES, CODECS, LENGTHS,
) = range(19)  # fmt: skip
ENDS, BEGAN_AT, LOST_NOW, LATE_NOW, BEGAN, KEPT, WORST, POINTS_KEPT, SPARE, POINT, SPAN = (
    23, 24, 25, 26, 27, 28, 29, 31, 32, 40, 64,
)  # fmt: skip


class Quality:
    """Units in shared memory, or in a copy of one; the caller holds the lock of the stream."""

    def __init__(self, memory: memoryview) -> None:
        """`memory`: octets of the region."""
        self.words = memory.cast("Q")
        self.reals = memory.cast("d")
        self.model = EModel()

    def begin(self, unit: int, now: int, highest: int, dscp: int, codec: int) -> int:
        """The first packet of a stream, at `now`, with extended number `highest`."""
        self.words[unit + ORIGIN] = highest
        self.words[unit + DSCP] = dscp
        self.words[unit + ENDS] = now + INTERVAL
        self.words[unit + BEGAN_AT] = highest - 1
        self.words[unit + LATE_NOW] = codec << 32
        self.words[unit + PAUSES] = HIGH
        return 0

    # ---- losses ----

    def lose(self, unit: int, position: int, count: int) -> int:
        """`count` packets in a row from extended number `position` on never came, or far too late."""
        if position < self.words[unit + ORIGIN]:
            return 0
        last = self.words[unit + LAST_LOSS]
        if last and position - last <= GMIN:
            running = self.words[unit + RUNNING]
            if position - last == 1:
                running += (count << 32) + count
            else:
                self.end_run(unit)
                running = ((running & MASK32) + count) | (count << 32)
                self.words[unit + LOST_NOW] += HIGH
        else:
            self.end_burst(unit)
            self.words[unit + BURST] = position
            running = count | (count << 32)
            self.words[unit + LOST_NOW] += HIGH
        self.words[unit + RUNNING] = running
        self.words[unit + LAST_LOSS] = position + count - 1
        self.words[unit + LOST_NOW] += count
        return 0

    def end_run(self, unit: int) -> int:
        """The losses in a row so far are a run."""
        run = self.words[unit + RUNNING] >> 32
        if run == 0:
            return 0
        runs = self.words[unit + RUNS] + HIGH
        if run > runs & MASK32:
            runs = (runs & ~MASK32 & MASK64) | run
        self.words[unit + RUNS] = runs
        place = run - 1 if run < 10 else 9
        self.words[unit + LENGTHS + (place >> 1)] += ONE << (32 * (place & 1))
        return 0

    def end_burst(self, unit: int) -> int:
        """Gmin packets or more have come since the newest loss: the burst is over, or was none."""
        running = self.words[unit + RUNNING]
        lost = running & MASK32
        if lost == 0:
            return 0
        self.end_run(unit)
        if lost == 1:
            self.words[unit + BURSTS] += HIGH
        else:
            self.words[unit + BURSTS] += 1
            length = self.words[unit + LAST_LOSS] - self.words[unit + BURST] + 1
            self.words[unit + BURST_LOST] += lost | (length << 32)
        self.words[unit + RUNNING] = 0
        return 0

    def leave(self, unit: int, highest: int, window: int, ahead: int) -> int:
        """The window moves `ahead` numbers on: what leaves it and was not seen is lost."""
        steps = 64
        if ahead < 64:
            steps = ahead
        position = highest - 63
        for _ in range(steps):
            if not window >> 63:
                self.lose(unit, position, 1)
            window = (window << 1) & MASK64
            position += 1
        if ahead > 64:
            self.lose(unit, highest + 1, ahead - 64)
        return 0

    def restart(self, unit: int, highest: int, window: int, ahead: int) -> int:
        """The sequence goes on `ahead` numbers from `highest`, which is a new beginning and no loss."""
        self.leave(unit, highest, window, 64)
        self.end_burst(unit)
        self.words[unit + LAST_LOSS] = 0
        self.words[unit + ORIGIN] = highest + ahead
        self.words[unit + SKIPPED] += ahead - 1
        self.words[unit + BEGAN_AT] += ahead - 1
        return 0

    # ---- time ----

    def tick(self, unit: int, now: int, since_ms: int, highest: int, began_ms: int, transit: float) -> int:
        """A second that began `began_ms` after the first packet is over; `transit`: its smallest, or BIG."""
        if transit < BIG:
            self.point(unit, began_ms, transit)
        if now >= self.words[unit + ENDS]:
            self.close(unit, highest)
            self.words[unit + BEGAN] = since_ms
            self.words[unit + ENDS] = now + INTERVAL
        return 0

    def point(self, unit: int, since_ms: int, transit: float) -> int:
        """One more point of the sender's clock."""
        if transit > 2_000_000.0:
            transit = 2_000_000.0
        elif transit < -2_000_000.0:
            transit = -2_000_000.0
        # Moved up, so that the smaller of two is also the smaller number.
        value = int((transit + 2_100_000.0) * 1000.0)
        word = (since_ms & MASK32) | (value << 32)
        kept = self.words[unit + POINTS_KEPT] & 0xFF
        level = (self.words[unit + POINTS_KEPT] >> 8) & 0xFF
        held = self.words[unit + POINTS_KEPT] >> 32
        if kept and held < ONE << level:
            place = unit + POINT + kept - 1
            if value < self.words[place] >> 32:
                self.words[place] = word
            held += 1
        else:
            if kept == POINTS:
                for index in range(POINTS // 2):
                    place = unit + POINT + 2 * index
                    if self.words[place + 1] >> 32 < self.words[place] >> 32:
                        place += 1
                    self.words[unit + POINT + index] = self.words[place]
                kept = POINTS // 2
                level += 1
            self.words[unit + POINT + kept] = word
            kept += 1
            held = 1
        self.words[unit + POINTS_KEPT] = kept | (level << 8) | (held << 32)
        return 0

    def close(self, unit: int, highest: int) -> int:
        """The interval is over; one without packets is not kept."""
        expected = 0
        if highest > self.words[unit + BEGAN_AT]:
            expected = highest - self.words[unit + BEGAN_AT]
        lost = self.words[unit + LOST_NOW] & MASK32
        late = self.words[unit + LATE_NOW] & MASK32
        codec = self.words[unit + LATE_NOW] >> 32
        if expected or lost or late:
            runs = self.words[unit + LOST_NOW] >> 32
            self.keep(unit, self.words[unit + BEGAN] // 100, expected, lost, late, runs, codec)
        self.words[unit + BEGAN_AT] = highest
        self.words[unit + LOST_NOW] = 0
        self.words[unit + LATE_NOW] = codec << 32
        return 0

    def keep(self, unit: int, began: int, expected: int, lost: int, late: int, runs: int, codec: int) -> int:
        """One more interval."""
        if expected > MASK32:
            expected = MASK32
        first = (began & MASK32) | (expected << 32)
        second = self.second_word(lost, late, runs, codec)
        # Both at the most that their words have room for.
        lost = second & MASK20
        late = (second >> 20) & MASK20
        if expected >= LEAST_EXPECTED:
            before = self.words[unit + WORST + 1]
            gone = (before & MASK20) + ((before >> 20) & MASK20)
            if (
                not self.words[unit + WORST] >> 32
                or (lost + late) * (self.words[unit + WORST] >> 32) > gone * expected
            ):
                self.words[unit + WORST] = first
                self.words[unit + WORST + 1] = second
        self.words[unit + SPARE] = first
        self.words[unit + SPARE + 1] = second
        kept = self.words[unit + KEPT] & 0xFF
        level = (self.words[unit + KEPT] >> 8) & 0xFF
        held = self.words[unit + KEPT] >> 32
        if kept == SPANS and held >= ONE << level:
            for index in range(SPANS // 2):
                self.join(unit + SPAN + 2 * index, unit + SPAN + 4 * index, unit + SPAN + 4 * index + 2)
            kept = SPANS // 2
            level += 1
            held = ONE << level
        if kept and held < ONE << level:
            self.join(unit + SPAN + 2 * kept - 2, unit + SPAN + 2 * kept - 2, unit + SPARE)
            held += 1
        else:
            self.words[unit + SPAN + 2 * kept] = first
            self.words[unit + SPAN + 2 * kept + 1] = second
            kept += 1
            held = 1
        self.words[unit + KEPT] = kept | (level << 8) | (held << 32)
        return 0

    def join(self, place: int, one: int, other: int) -> int:
        """Two intervals as one; its codec is that of the larger."""
        first = self.words[one]
        second = self.words[one + 1]
        first2 = self.words[other]
        second2 = self.words[other + 1]
        codec = second >> 56
        if first2 >> 32 > first >> 32:
            codec = second2 >> 56
        expected = (first >> 32) + (first2 >> 32)
        lost = (second & MASK20) + (second2 & MASK20)
        late = ((second >> 20) & MASK20) + ((second2 >> 20) & MASK20)
        runs = ((second >> 40) & MASK16) + ((second2 >> 40) & MASK16)
        if expected > MASK32:
            expected = MASK32
        self.words[place] = (first & MASK32) | (expected << 32)
        self.words[place + 1] = self.second_word(lost, late, runs, codec)
        return 0

    def second_word(self, lost: int, late: int, runs: int, codec: int) -> int:
        """The second word of an interval: its counts, each at most what there is room for, and its codec."""
        if lost > MASK20:
            lost = MASK20
        if late > MASK20:
            late = MASK20
        if runs > MASK16:
            runs = MASK16
        return lost | (late << 20) | (runs << 40) | (codec << 56)

    def pause(self, unit: int, silent: int, latest: int, noise: int, in_order: int, speech: int) -> int:
        """Nothing came for `silent` ns after `latest`; `noise`: behind comfort noise; `speech` follows."""
        long = silent > PAUSE
        if long:
            self.words[unit + PAUSES] += 1
            self.words[unit + PAUSED] += silent
            if silent > self.words[unit + LONGEST]:
                self.words[unit + LONGEST] = silent
                self.words[unit + LONGEST_AT] = latest
        if noise or (long and in_order):
            self.words[unit + SILENCE] += silent
        if speech:
            self.words[unit + PAUSES] += HIGH
        return 0

    # ---- readers, on a copy ----

    def settle(self, unit: int, highest: int, window: int) -> int:
        """Finish what goes on: the window, the burst and the interval."""
        self.leave(unit, highest, window, 64)
        self.end_burst(unit)
        expected = highest - self.words[unit + BEGAN_AT] if highest > self.words[unit + BEGAN_AT] else 0
        if expected >= LEAST_EXPECTED or not self.words[unit + KEPT] & 0xFF:
            # One with few packets says nothing beside others.
            self.close(unit, highest)
        return 0

    def skew(self, unit: int) -> float:
        """How transit grows, ms in a ms: the median slope between points; BIG where they are too few."""
        kept = self.words[unit + POINTS_KEPT] & 0xFF
        if kept < 4:
            return BIG
        slopes = []
        for one in range(kept):
            for other in range(one + 1, kept):
                first = self.words[unit + POINT + one]
                second = self.words[unit + POINT + other]
                elapsed = float(second & MASK32) - float(first & MASK32)
                if elapsed > 0:
                    slopes.append((float(second >> 32) - float(first >> 32)) / 1000.0 / elapsed)
        if not slopes:
            return BIG
        slopes.sort()
        middle = len(slopes) // 2
        if len(slopes) & 1:
            return slopes[middle]
        return (slopes[middle - 1] + slopes[middle]) / 2.0

    def score(self, first: int, second: int, delay_ms: float) -> float:
        """MOS of an interval; below 0 where it is unknown."""
        impairment = self.model.impairment(
            second >> 56, first >> 32, second & MASK20, (second >> 20) & MASK20, (second >> 40) & MASK16
        )
        if impairment < 0:
            return -1.0
        return self.model.mos(self.model.rating(impairment, delay_ms))

    def interval_score(self, unit: int, index: int, delay_ms: float) -> float:
        """MOS of one of the intervals that are kept."""
        word = unit + SPAN + 2 * index
        return self.score(self.words[word], self.words[word + 1], delay_ms)

    def scores(self, unit: int, delay_ms: float) -> tuple[float, float, float]:
        """MOS: mean by packets, of the newest interval, of the worst; below 0 where unknown."""
        kept = self.words[unit + KEPT] & 0xFF
        total = 0.0
        packets = 0.0
        newest = -1.0
        least = BIG
        for index in range(kept):
            first = self.words[unit + SPAN + 2 * index]
            newest = self.score(first, self.words[unit + SPAN + 2 * index + 1], delay_ms)
            expected = float(first >> 32)
            packets += expected
            total += newest * expected
            if newest < least:
                least = newest
        if packets <= 0 or least < 0:
            return (-1.0, newest, -1.0)
        if self.words[unit + WORST] >> 32:
            score = self.score(self.words[unit + WORST], self.words[unit + WORST + 1], delay_ms)
            if 0 <= score < least:
                least = score
        return (total / packets, newest, least)
