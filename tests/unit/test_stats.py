"""Counts and histograms as a scrape reads them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued import queue, request

from inferd._native.stats import Histogram, ModelStats


def test_a_histogram_counts_each_value_in_the_first_bucket_that_holds_it() -> None:
    found = Histogram([1, 2.5])
    for value in (0.5, 1.0, 1.5, 2.5, 2.6, 100.0):
        found.observe(value)
    assert found.bounds == (1.0, 2.5)
    assert found.counts == (2, 2, 2)
    assert found.total == pytest.approx(108.1)


def test_a_histogram_without_bounds_has_one_bucket() -> None:
    found = Histogram([])
    found.observe(3)
    assert (found.bounds, found.counts) == ((), (1,))


def test_bounds_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="could not convert"):
        Histogram(["a"])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        Histogram(None)  # type: ignore[arg-type]


@given(st.lists(st.floats(-10, 10), unique=True).map(sorted), st.lists(st.floats(-20, 20)))
def test_a_histogram_agrees_with_counting_by_hand(bounds: list[float], values: list[float]) -> None:
    found = Histogram(bounds)
    for value in values:
        found.observe(value)
    below = [sum(value <= bound for value in values) for bound in bounds]
    cumulative = [sum(found.counts[: index + 1]) for index in range(len(bounds) + 1)]
    assert cumulative == [*below, len(values)]


def test_finished_requests_are_counted_by_code() -> None:
    stats = ModelStats([1.0], [1])
    for code in (0, 0, 3, 16):
        stats.finished(code, 0.5)
    assert stats.requests_by_code == {0: 2, 3: 1, 16: 1}
    assert stats.request_seconds.counts == (4, 0)
    assert stats.request_seconds.total == 2.0


@pytest.mark.parametrize("code", [-1, 17, 1 << 30])
def test_a_code_that_there_is_not_still_took_its_time(code: int) -> None:
    stats = ModelStats([1.0], [1])
    stats.finished(code, 2.0)
    assert stats.requests_by_code == {}
    assert stats.request_seconds.counts == (0, 1)


def test_a_run_counts_its_rows() -> None:
    stats = ModelStats([1.0], [1, 8])
    for rows in (1, 5, 9):
        stats.batch(rows)
    assert (stats.batches, stats.rows) == (3, 15)
    assert stats.batch_rows.counts == (1, 1, 1)


def test_a_request_that_ran_counts_its_wait_and_its_run() -> None:
    found, one = queue(), request()
    found.put(one, 1_000_000_000)
    found.take(3_500_000_000)
    one.run_ns = 250_000_000
    stats = ModelStats([1.0, 3.0], [1])
    stats.ran(one)
    assert (stats.queue_seconds.counts, stats.queue_seconds.total) == ((0, 1, 0), 2.5)
    assert (stats.compute_seconds.counts, stats.compute_seconds.total) == ((1, 0, 0), 0.25)
