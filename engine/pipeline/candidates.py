"""Flows that may be RTP although no SDP announced them.

A flow counts as RTP after ENOUGH packets in a row that agree: one SSRC, one payload type, sequence numbers
that rise by 1 to LARGEST_STEP, timestamps that rise by less than LARGEST_LEAP or stay, and rise at least
once, no pause of more than PATIENCE. Until then its packets are held as numbers, so that the figures of the
stream begin with the first of them.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from engine.shm.counters import index as counter

if TYPE_CHECKING:
    from engine.parsers.rtp import RtpParser

C_CANDIDATES_FULL = counter("candidates_full")
MASK32 = 0xFFFFFFFF
NEVER = 0xFFFFFFFFFFFFFFFF
SETS, WAYS = 256, 4
HELD = 16
CANDIDATE = 4 + 3 * HELD
ENOUGH = 5
ROSE = 256
PATIENCE = 2_000_000_000
LARGEST_STEP = 4
LARGEST_LEAP = 450_000
"""Five seconds of a clock of 90 kHz."""


class Candidates:
    """A table of fixed size in sets of WAYS; the oldest of a set makes room.

    Words of one: 0 its hash; 1 packets held; 2 how many agree, + ROSE where the timestamp rose; from 3 on
    three for each packet: its time, ns; timestamp << 32 | DSCP << 24 | marker << 23 | payload type << 16 |
    sequence number; octets of payload. Those of what hold() gave stay readable until its next call.
    """

    def __init__(self, counters: memoryview) -> None:
        self.counters = counters
        self.words = memoryview(array("Q", bytes(8 * SETS * WAYS * CANDIDATE)))
        self.count = 0
        """Packets of the candidate that hold() gave last."""

    def hold(self, tag: int, parser: RtpParser, dscp: int, now: int) -> int:
        """Hold the packet of `parser`, whose flow and SSRC hash to `tag` (not 0).

        -1, or the place of the candidate that is RTP now: its first packet's words; the table has it no more.
        """
        place = self.place_of(tag, now)
        count = self.words[place + 1]
        step = 0
        agree = self.words[place + 2]
        if count:
            last = self.words[place + 1 + 3 * count]
            step = (parser.sequence - (last & 0xFFFF)) & 0xFFFF
            leap = (parser.timestamp - (last >> 32)) & MASK32
            if (
                step > LARGEST_STEP
                or leap > LARGEST_LEAP
                or (step == 0 and leap)
                or ((last >> 16) & 0x7F) != parser.payload_type
                or now > self.words[place + 3 * count] + PATIENCE
                or count >= HELD
            ):
                count = 0
                agree = 0
            elif leap:
                agree |= ROSE
        if not count or step:
            # A packet that came twice is held, but proves nothing.
            agree += 1
        self.words[place + 2] = agree
        word = parser.timestamp
        word = (word << 32) | (dscp << 24) | (parser.marker << 23) | (parser.payload_type << 16)
        self.words[place + 3 + 3 * count] = now
        self.words[place + 4 + 3 * count] = word | parser.sequence
        self.words[place + 5 + 3 * count] = parser.octets
        self.words[place + 1] = count + 1
        if agree < ROSE + ENOUGH:
            return -1
        self.count = count + 1
        self.words[place] = 0
        self.words[place + 1] = 0
        return place + 3

    def place_of(self, tag: int, now: int) -> int:
        """Where a candidate is held; the oldest of its set makes room for a new one."""
        place = (tag % SETS) * WAYS * CANDIDATE
        best = place
        oldest = NEVER
        for _ in range(WAYS):
            if self.words[place] == tag:
                return place
            last = 0
            if self.words[place + 1]:
                last = self.words[place + 3 * self.words[place + 1]]
            if last < oldest:
                oldest = last
                best = place
            place += CANDIDATE
        if oldest and now < oldest + PATIENCE:
            self.counters[C_CANDIDATES_FULL] += 1
        self.words[best] = tag
        self.words[best + 1] = 0
        self.words[best + 2] = 0
        return best
