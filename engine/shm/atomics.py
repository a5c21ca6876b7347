"""Ordered access to shared 64-bit words, uncompiled: plain access, so one writer and a lock (`OTUS_PURE=1`).

Compiled modules `cimport` the twin in `atomics.pxd`, which uses acquire and release operations.
`words` is a memoryview of format Q (or I for the 32-bit pair); an index outside raises IndexError.
"""

from __future__ import annotations

MASK64 = 0xFFFFFFFFFFFFFFFF


def load(words: memoryview[int], index: int) -> int:
    """Read a word; nothing after it is read earlier."""
    return words[index]


def peek(words: memoryview[int], index: int) -> int:
    """Read a word without ordering."""
    return words[index]


def store(words: memoryview[int], index: int, value: int) -> int:
    """Write a word; nothing before it is written later."""
    words[index] = value
    return 0


def add(words: memoryview[int], index: int, value: int) -> int:
    """Add to a word, modulo 2**64; returns what it was."""
    old = words[index]
    words[index] = (old + value) & MASK64
    return old


def swap(words: memoryview[int], index: int, old: int, value: int) -> int:
    """Write `value` if the word is `old`; returns whether it was."""
    if words[index] != old:
        return 0
    words[index] = value
    return 1


def fence() -> int:
    """Nothing moves across, in either direction."""
    return 0


def load32(words: memoryview[int], index: int) -> int:
    """Read a 32-bit word; nothing after it is read earlier."""
    return words[index]


def store32(words: memoryview[int], index: int, value: int) -> int:
    """Write a 32-bit word; nothing before it is written later."""
    words[index] = value
    return 0


def prefetch32(words: memoryview[int], index: int) -> int:
    """Bring the cache line of a 32-bit word near; changes nothing."""
    return 0
