"""The HDR histogram against sorted lists."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd._native.histogram import Histogram

DURATIONS_NS = st.lists(st.integers(0, 2**40 - 1), min_size=1, max_size=300)


def histogram(values: list[int]) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


@given(DURATIONS_NS, st.floats(0, 100))
def test_a_percentile_is_within_a_thousandth_above_the_value_that_stands_there(
    values: list[int], percent: float
) -> None:
    exact = sorted(values)[max(1, math.floor(percent / 100 * len(values) + 0.5)) - 1]
    assert exact <= histogram(values).percentile(percent) <= exact * (1 + 1 / 1024)


@given(DURATIONS_NS)
def test_count_sum_and_extremes_are_exact(values: list[int]) -> None:
    made = histogram(values)
    assert (made.count, made.total_ns, made.min_ns, made.max_ns) == (len(values), sum(values), min(values), max(values))
    assert made.mean_ns == sum(values) / len(values)


@given(DURATIONS_NS, DURATIONS_NS)
def test_merging_is_counting_both(one: list[int], other: list[int]) -> None:
    merged = histogram(one)
    merged.merge(histogram(other))
    both = histogram(one + other)
    assert list(merged.buckets()) == list(both.buckets())
    assert (merged.count, merged.total_ns, merged.min_ns, merged.max_ns) == (
        both.count, both.total_ns, both.min_ns, both.max_ns,
    )  # fmt: skip


@given(DURATIONS_NS)
def test_the_buckets_hold_every_value_once_and_in_order(values: list[int]) -> None:
    buckets = list(histogram(values).buckets())
    bounds = [bound for bound, _ in buckets]
    assert bounds == sorted(set(bounds))
    assert sum(count for _, count in buckets) == len(values)
    below = -1
    for bound, count in buckets:
        assert sum(below < value <= bound for value in values) == count
        below = bound


def test_merging_an_empty_one_changes_nothing() -> None:
    made = histogram([5, 7])
    made.merge(Histogram())
    assert (made.count, made.min_ns, made.max_ns) == (2, 5, 7)


def test_an_empty_histogram_has_no_percentiles_to_speak_of() -> None:
    assert (Histogram().percentile(99), Histogram().mean_ns, list(Histogram().buckets())) == (0, 0.0, [])


def test_what_is_longer_than_it_counts_lands_in_its_last_bucket_and_keeps_its_extreme() -> None:
    made = histogram([2**50])
    assert made.max_ns == made.percentile(100) == 2**50


@pytest.mark.parametrize("arguments", [(-1,), (1, -1)])
def test_a_negative_duration_or_count_is_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        Histogram().record(*arguments)


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan])
def test_a_percentile_beyond_all_and_nothing_is_refused(percent: float) -> None:
    with pytest.raises(ValueError, match="not a percentage"):
        Histogram().percentile(percent)
