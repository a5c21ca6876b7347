"""Histograms of the TCP observer: bounds, the stated error, windows as differences, Prometheus."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.tcp import histogram, prometheus, summary
from engine.tcp.backend import Histogram, Reading
from engine.tcp.windows import Windows, subtract

VALUES = st.integers(0, (1 << histogram.VALUE_BITS) - 1)
BITS = st.integers(1, 5)


def filled(values: list[int], sub_bits: int) -> Histogram:
    one = Histogram([0] * histogram.bucket_count(sub_bits))
    for value in values:
        histogram.add(one.buckets, value, sub_bits)
        one.total += value
        one.largest = max(one.largest, value)
    return one


@given(VALUES, BITS)
def test_a_value_lies_in_its_bucket_and_the_bucket_is_narrow(value: int, bits: int) -> None:
    index = histogram.bucket(value, bits)
    low, high = histogram.lower_bound(index, bits), histogram.upper_bound(index, bits)
    assert low <= value <= high
    assert high - low <= low * histogram.error(bits)
    assert 0 <= index < histogram.bucket_count(bits)


@given(st.integers(), BITS)
def test_every_value_has_a_bucket(value: int, bits: int) -> None:
    assert 0 <= histogram.bucket(value, bits) < histogram.bucket_count(bits)


@given(BITS, st.integers(0, 2000))
def test_buckets_join(bits: int, index: int) -> None:
    index = min(index, histogram.bucket_count(bits) - 2)
    assert histogram.upper_bound(index, bits) + 1 == histogram.lower_bound(index + 1, bits)


@given(st.lists(VALUES, min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]), BITS)
def test_a_quantile_is_within_the_stated_error(values: list[int], share: float, bits: int) -> None:
    found = histogram.quantile(filled(values, bits).buckets, share, bits, max(values))
    assert found is not None
    true = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
    assert abs(found - true) <= max(true, 1) * histogram.error(bits)


def test_no_values_no_quantile() -> None:
    assert histogram.quantile([0] * 40, 0.5, 3) is None
    assert summary.histogram_object(filled([], 3), 3) == {
        "count": 0, "sum": 0, "p50": None, "p90": None, "p99": None, "max": None, "buckets": [],
    }  # fmt: skip


@given(st.lists(VALUES, max_size=60), st.lists(VALUES, max_size=60))
def test_a_window_holds_what_was_added(before: list[int], added: list[int]) -> None:
    window = subtract(filled(before + added, 3), filled(before, 3))
    assert window.buckets == filled(added, 3).buckets
    assert window.total == sum(added)
    assert window.largest == max(before + added, default=0)


@given(st.lists(st.integers(1, 40), min_size=2, max_size=120), st.sampled_from([1.0, 10.0, 60.0]))
def test_windows_are_as_long_as_was_asked(steps: list[int], length: float) -> None:
    """Readings every 0.1 to 4 s; a window is off by at most half a step, or is all that there is."""
    time_ns = counter = 0
    windows = Windows(Reading(0, {"n": 0}), 0)
    for step in steps:
        time_ns += step * 100_000_000
        counter += step
        windows.add(Reading(time_ns, {"n": counter}), time_ns)
    window = windows.last(length)
    # One octet a tick: what was counted is as long as the window says.
    assert window.reading.counters["n"] == round(window.seconds * 10)
    largest = max(steps) / 10 + 0.5
    assert window.seconds >= min(length, time_ns / 1e9) - largest
    assert window.seconds <= length + largest
    assert windows.run().reading.counters["n"] == counter


@given(st.lists(st.integers(0, 1 << 30), max_size=200))
def test_prometheus_buckets_are_exact_at_their_bounds(values: list[int]) -> None:
    document = summary.histogram_object(filled(values, 3), 3)
    bounds = [2**power for power in range(4, 23)]
    for text, count in prometheus.rebucket(document["buckets"], bounds, 1)[:-1]:
        assert count == sum(value <= float(text) for value in values)
    for text, count in prometheus.rebucket(document["buckets"], bounds, 1e6)[:-1]:
        assert count == sum(value < round(float(text) * 1e6) for value in values)
    assert prometheus.rebucket(document["buckets"], bounds, 1)[-1] == ("+Inf", float(len(values)))


def test_one_segment_sent_again_is_at_most_one() -> None:
    document = summary.histogram_object(filled([0, 0, 1, 2, 3], 3), 3)
    found = dict(prometheus.rebucket(document["buckets"], [1, 2, 4], 1))
    assert found == {"0.0": 2.0, "1.0": 3.0, "3.0": 5.0, "+Inf": 5.0}


@pytest.mark.parametrize("scale", [1, 8])
def test_scaled_histograms_keep_count_and_order(scale: int) -> None:
    found = summary.histogram_object(filled([1, 7, 100, 10_000], 3), 3, scale)
    assert found["count"] == 4
    assert found["sum"] == 10_108 * scale
    assert found["max"] == 10_000 * scale
    assert [bound for bound, _ in found["buckets"]] == sorted(bound for bound, _ in found["buckets"])
