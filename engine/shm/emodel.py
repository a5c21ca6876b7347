"""The E-model: how a listener would rate speech, from what was lost (ITU-T G.107, its codec factors from
G.113).

    R      = 93.2 - Idd - Ie_eff
    Ie_eff = Ie + (95 - Ie) * Ppl / (Ppl / BurstR + Bpl)                                   G.107 (7-29)
    Idd    = 0 up to Ta = 100 ms, else 25 * ((1 + X^6)^(1/6) - 3 * (1 + (X/3)^6)^(1/6) + 2),
             X = log2(Ta / 100 ms)                                                       G.107 (7-27), (7-28)
    MOS    = 1 below R = 0, 4.5 above R = 100, else 1 + 0.035 R + 7e-6 R (R - 60) (100 - R)  G.107 Annex B

93.2 is R of G.107's default values; echo is taken for cancelled, so of the delay only Idd is left, and
nothing is added for advantage. Ppl, per cent, counts what never came and what came too late for a jitter
buffer (LATE_MS of engine.shm.quality). BurstR is the mean number of packets lost in a row over that of
random loss of the same rate, 1 / (1 - Ppl), at least 1 and at most 8 (G.107 (7-30)); it was validated up to
2, and beyond where less than 2 % are lost: what burstier loss costs is an extrapolation. Ta is the
network's one-way delay, half of the round trip between the two ends where RTCP tells it, else
DEFAULT_DELAY_MS; and the jitter buffer and the packet time on top of it.

Ie and Bpl are the provisional planning values of G.113 Appendix I. Table I.4 has both, for five codecs:
G.711 with packet loss concealment, as telephones have it, 0 and 25.1 (without it 4.3), G.729A with silence
suppression 11 and 19.0, G.723.1 at 6.3 kbit/s with it 15 and 16.1, GSM EFR 5 and 10.0. G.729 without it has
Ie 10 and G.723.1 at 5.3 kbit/s 19, and no Bpl of their own; RTP's names do not tell them apart. Of others
there is only Ie: G.726 50, 25, 7 and 2 at 16, 24, 32 and 40 kbit/s (G.721 is the one of 32), G.728 7 at 16
kbit/s, GSM FR 20, GSM HR 23; they are rated while nothing is lost.

The values were checked against public reprints of these tables, not against the Recommendation itself:
course material on G.107 (2015) and G.113 (2024) has all but the Ie of GSM, which a telephony database's
list of codecs has; other monitors use the same ones for G.711 and G.729A; and the listening results of
G.113 (1999), which the formula was fitted to, are in tests/unit/test_quality.py. No source was found that
gives narrow-band values of ITU-T for AMR, iLBC or Speex. Wide-band codecs (G.722, Opus, AMR-WB, EVS) are on
the scales of G.107.1 and G.107.2, not on this one. No value is made up: their MOS is unknown, as that of
every codec that is not in the table, of video and of encrypted media whose codec nobody named.
"""

from __future__ import annotations

import math
from array import array

DEFAULT_DELAY_MS = 50.0
"""One way through the network, where it was not measured."""
UNKNOWN = -1.0
LONGEST_BURST_RATIO = 8.0

CODEC_FACTORS: dict[str, tuple[float, float]] = {
    "PCMU": (0.0, 25.1),
    "PCMA": (0.0, 25.1),
    "G729": (11.0, 19.0),
    "G729A": (11.0, 19.0),
    "G723": (15.0, 16.1),
    "GSM-EFR": (5.0, 10.0),
    "GSM": (20.0, 0.0),
    "GSM-HR-08": (23.0, 0.0),
    "G728": (7.0, 0.0),
    "G721": (7.0, 0.0),
    "G726-16": (50.0, 0.0),
    "G726-24": (25.0, 0.0),
    "G726-32": (7.0, 0.0),
    "G726-40": (2.0, 0.0),
}
"""Ie and Bpl by RTP's encoding name (RFC 3551); Bpl 0: not in G.113."""
CODEC_NAMES = ("", *CODEC_FACTORS)
"""By number, as kept in shared memory; 0 is every other codec."""


def _names() -> memoryview:
    words = array("Q", bytes(16 * len(CODEC_NAMES)))
    for number, name in enumerate(CODEC_NAMES):
        octets = name.encode().ljust(16, b"\0")
        words[2 * number] = int.from_bytes(octets[:8], "little")
        words[2 * number + 1] = int.from_bytes(octets[8:], "little")
    return memoryview(words).toreadonly()


def _factors() -> memoryview:
    values = array("d", bytes(16 * len(CODEC_NAMES)))
    for number, name in enumerate(CODEC_NAMES):
        values[2 * number], values[2 * number + 1] = CODEC_FACTORS.get(name, (UNKNOWN, 0.0))
    return memoryview(values).toreadonly()


COUNT = len(CODEC_NAMES)
NAMES = _names()
FACTORS = _factors()


class EModel:
    """The formulas; no state."""

    def codec(self, name0: int, name1: int) -> int:
        """The number of a codec by its upper-case name in two little-endian words; 0: it is not rated."""
        for number in range(1, COUNT):
            if NAMES[2 * number] == name0 and NAMES[2 * number + 1] == name1:
                return number
        return 0

    def impairment(self, codec: int, expected: int, lost: int, late: int, runs: int) -> float:
        """Ie_eff of some packets of a codec; below 0: unknown. `runs`: losses in a row count once."""
        if codec <= 0 or codec >= COUNT or expected <= 0:
            return UNKNOWN
        own = FACTORS[2 * codec]
        robust = FACTORS[2 * codec + 1]
        gone = lost + late
        if gone <= 0:
            return own
        if robust <= 0:
            return UNKNOWN
        if gone > expected:
            gone = expected
        share = float(gone) / float(expected)
        ratio = 1.0
        if runs > 0 and lost > runs:
            ratio = float(lost) / float(runs) * (1.0 - share)
            if ratio < 1.0:
                ratio = 1.0
            elif ratio > LONGEST_BURST_RATIO:
                ratio = LONGEST_BURST_RATIO
        share = 100.0 * share
        share = own + (95.0 - own) * share / (share / ratio + robust)
        # With bursts, and far more loss than the 20 % that G.107 is made for, it would go beyond the scale.
        return min(95.0, share)

    def delay_impairment(self, delay_ms: float) -> float:
        """Idd of a one-way delay, mouth to ear."""
        if delay_ms <= 100.0:
            return 0.0
        x = math.log(delay_ms / 100.0) / math.log(2.0)
        near = math.pow(1.0 + math.pow(x, 6.0), 1.0 / 6.0)
        far = math.pow(1.0 + math.pow(x / 3.0, 6.0), 1.0 / 6.0)
        return 25.0 * (near - 3.0 * far + 2.0)

    def rating(self, impairment: float, delay_ms: float) -> float:
        """R of an Ie_eff and a one-way delay."""
        return 93.2 - self.delay_impairment(delay_ms) - impairment

    def mos(self, rating: float) -> float:
        """The mean opinion score of an R, 1 to 4.5."""
        if rating <= 0.0:
            return 1.0
        if rating >= 100.0:
            return 4.5
        score = 1.0 + 0.035 * rating + 0.000007 * rating * (rating - 60.0) * (100.0 - rating)
        # Between R = 0 and 6.5 the polynomial falls below its lowest value.
        return max(1.0, score)
