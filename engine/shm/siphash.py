"""SipHash-1-3 of six words with a random seed: chosen keys cannot crowd one place of a table."""

from __future__ import annotations

import os

MASK64 = 0xFFFFFFFFFFFFFFFF
INIT0, INIT1, INIT2, INIT3 = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573
"""SipHash's initial state (Aumasson and Bernstein, 2012)."""


class SipHash:
    """A keyed hash of six 64-bit words; the seed is of this process unless it is given."""

    def __init__(self, seed: bytes = b"") -> None:
        """`seed`: 16 octets."""
        drawn = seed or os.urandom(16)
        self.seed0 = int.from_bytes(drawn[:8], "little")
        self.seed1 = int.from_bytes(drawn[8:16], "little")

    def hash(self, a: int, b: int, c: int, d: int, e: int, f: int) -> int:
        """64 bits; one compression round a word, three at the end."""
        v0 = self.seed0 ^ INIT0
        v1 = self.seed1 ^ INIT1
        v2 = self.seed0 ^ INIT2
        v3 = self.seed1 ^ INIT3
        for step in range(9):
            m = 0
            if step == 0:
                m = a
            elif step == 1:
                m = b
            elif step == 2:
                m = c
            elif step == 3:
                m = d
            elif step == 4:
                m = e
            elif step == 5:
                m = f
            elif step == 6:
                v2 ^= 0xFF
            v3 ^= m
            v0 = (v0 + v1) & MASK64
            v1 = ((v1 << 13) | (v1 >> 51)) & MASK64
            v1 ^= v0
            v0 = ((v0 << 32) | (v0 >> 32)) & MASK64
            v2 = (v2 + v3) & MASK64
            v3 = ((v3 << 16) | (v3 >> 48)) & MASK64
            v3 ^= v2
            v0 = (v0 + v3) & MASK64
            v3 = ((v3 << 21) | (v3 >> 43)) & MASK64
            v3 ^= v0
            v2 = (v2 + v1) & MASK64
            v1 = ((v1 << 17) | (v1 >> 47)) & MASK64
            v1 ^= v2
            v2 = ((v2 << 32) | (v2 >> 32)) & MASK64
            v0 ^= m
        return v0 ^ v1 ^ v2 ^ v3
