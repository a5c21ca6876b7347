"""Log-linear buckets: 2 ** sub_bits for each power of two, the same in the kernel and here.

Values below 2 ** sub_bits have a bucket each. A value v >= 2 ** sub_bits with its highest bit at position p
is in bucket ((p - sub_bits + 1) << sub_bits) + ((v >> (p - sub_bits)) - 2 ** sub_bits). A bucket's upper
bound (the largest value that it holds) is at most 1 / 2 ** sub_bits above its lower one: that is the error of
a quantile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

VALUE_BITS = 40
"""Larger values count in the last bucket."""


def bucket_count(sub_bits: int) -> int:
    """Buckets that values of VALUE_BITS bits need."""
    return (VALUE_BITS - sub_bits + 1) << sub_bits


def bucket(value: int, sub_bits: int) -> int:
    """The bucket of a value; below 0 counts as 0."""
    value = max(0, min(value, (1 << VALUE_BITS) - 1))
    if value < 1 << sub_bits:
        return value
    top = value.bit_length() - 1
    return ((top - sub_bits + 1) << sub_bits) + (value >> (top - sub_bits)) - (1 << sub_bits)


def upper_bound(index: int, sub_bits: int) -> int:
    """The largest value in a bucket."""
    if index < 1 << sub_bits:
        return index
    shift = (index >> sub_bits) - 1
    return (((index & ((1 << sub_bits) - 1)) + (1 << sub_bits) + 1) << shift) - 1


def lower_bound(index: int, sub_bits: int) -> int:
    """The smallest value in a bucket."""
    return upper_bound(index - 1, sub_bits) + 1 if index else 0


def error(sub_bits: int) -> float:
    """How far a quantile may be off, as a share of its value."""
    return 1 / (1 << sub_bits)


def powers(pairs: Iterable[Sequence[int]]) -> dict[int, int]:
    """Power -> how many values are below 2 ** power and not below its half, out of (upper bound, count)."""
    found: dict[int, int] = {}
    for bound, count in pairs:
        power = int(bound).bit_length()
        found[power] = found.get(power, 0) + count
    return found


def add(buckets: list[int], value: int, sub_bits: int) -> None:
    """Count one value."""
    buckets[bucket(value, sub_bits)] += 1


def quantile(buckets: Sequence[int], share: float, sub_bits: int, largest: int | None = None) -> float | None:
    """The value below which `share` (0 to 1) of all values are; None where there are none.

    Off by at most error(sub_bits): the rank is found in its bucket, and its place in between is taken as the
    place between the bounds. Never above `largest`, where that is known.
    """
    count = sum(buckets)
    if not count:
        return None
    rank = max(share * count, 1.0)
    seen = 0
    for index, held in enumerate(buckets):
        if held and seen + held >= rank:
            low, high = lower_bound(index, sub_bits), upper_bound(index, sub_bits)
            value = low + (high - low) * (rank - seen) / held
            return value if largest is None else min(value, float(largest))
        seen += held
    return None
