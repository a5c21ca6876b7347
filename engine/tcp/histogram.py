"""Log-linear buckets: 2 ** sub_bits for each power of two, the same in the kernel and here.

Values below 2 ** sub_bits have a bucket each. A value v >= 2 ** sub_bits with its highest bit at position p is in
bucket ((p - sub_bits + 1) << sub_bits) + ((v >> (p - sub_bits)) - 2 ** sub_bits). A bucket's upper bound (the
largest value that it holds) is at most 1 / 2 ** sub_bits above its lower one: that is the error of a quantile.
"""

from __future__ import annotations

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
