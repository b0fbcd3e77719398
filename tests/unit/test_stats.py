"""Counts and histograms as a scrape reads them."""

from __future__ import annotations

import time

import pytest
from handmade import signature_of
from hypothesis import given
from hypothesis import strategies as st
from queued import queue, request, taken

from inferd._native.batch import Batch
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
    times = {code: (one.counts, one.total) for code, one in stats.request_seconds_by_code.items()}
    assert times == {0: ((2, 0), 1.0), 3: ((1, 0), 0.5), 16: ((1, 0), 0.5)}


@pytest.mark.parametrize("code", [-1, 17, 1 << 30])
def test_a_code_that_there_is_not_counts_as_unknown(code: int) -> None:
    stats = ModelStats([1.0], [1])
    stats.finished(code, 2.0)
    stats.accept()
    stats.ended(code, 2.0)
    assert stats.requests_by_code == {2: 2}
    assert stats.failed_by_code == {2: 1}
    assert stats.request_seconds_by_code[2].counts == (0, 2)


@given(st.lists(st.sampled_from(["accept", "refuse", "end", "fail"]), max_size=60))
def test_what_was_accepted_has_ended_well_or_failed_or_is_in_flight(steps: list[str]) -> None:
    stats = ModelStats([1.0], [1])
    for step in steps:
        if step == "accept":
            stats.accept()
        elif step == "refuse":
            stats.finished(3, 0.1)
        elif stats.in_flight:
            stats.ended(0 if step == "end" else 4, 0.1)
    ok = stats.requests_by_code.get(0, 0)
    assert stats.accepted == ok + sum(stats.failed_by_code.values()) + stats.in_flight
    assert stats.accepted == steps.count("accept")
    assert stats.requests_by_code.get(3, 0) == steps.count("refuse")


def test_batches_are_counted_by_why_they_left_and_their_time_as_busy() -> None:
    stats = ModelStats([1.0], [1, 8])
    stats.batch(batch(1), 0, 1, 2, 300)
    stats.batch(batch(2), 0, 1, 2, 50)
    for single in batch(1, 1).split():
        stats.batch(single, 0, 1, 2, 5)
    stats.run_failed(100, 140)
    assert stats.batches_by_reason == {"ready": 2, "retry": 2}
    assert stats.busy_ns == 400


def batch(*rows: int) -> Batch:
    found = queue(batch_rows=sum(rows))
    for one in rows:
        found.put(request(one), 0)
    return taken(found.take(0))


def test_a_run_counts_its_rows_once_and_its_times_for_each_member() -> None:
    stats = ModelStats([1.0, 3.0], [1, 8])
    one = batch(2, 1, 3)
    stats.batch(one, 1_000_000_000, 1_500_000_000, 3_500_000_000, 8_500_000_000)
    assert (stats.batches, stats.rows, stats.batch_rows.counts) == (1, 6, (0, 1, 0))
    assert (stats.input_seconds.counts, stats.input_seconds.total) == ((3, 0, 0), 1.5)
    assert (stats.infer_seconds.counts, stats.infer_seconds.total) == ((0, 3, 0), 6.0)
    assert (stats.output_seconds.counts, stats.output_seconds.total) == ((0, 0, 3), 15.0)
    assert [member.run_ns for member in one.members] == [7_500_000_000] * 3


def test_the_last_run_is_told_by_the_time_of_day() -> None:
    stats = ModelStats([1.0], [1])
    assert stats.last_run_ms == 0
    before_ms = time.time_ns() // 1_000_000
    stats.batch(batch(1), 0, 1, 2, 3)
    assert before_ms <= stats.last_run_ms <= time.time_ns() // 1_000_000


def told(stats: ModelStats) -> list[tuple[int, ...]]:
    return [(one.rows, one.batches, one.input_ns, one.infer_ns, one.output_ns) for one in stats.sizes]


def test_batches_of_one_size_are_counted_together_and_told_by_size() -> None:
    stats = ModelStats([1.0], [1, 8])
    for rows in ((4,), (1,), (1, 3), (2,)):
        stats.batch(batch(*rows), 10, 11, 13, 17)
    assert told(stats) == [(1, 1, 1, 2, 4), (2, 1, 1, 2, 4), (4, 2, 2, 4, 8)]


@given(st.lists(st.integers(1, 64), max_size=50))
def test_the_rows_of_all_sizes_are_the_rows_that_were_counted(sizes: list[int]) -> None:
    stats = ModelStats([1.0], [1, 8])
    for rows in sizes:
        stats.batch(batch(rows), 0, 1, 2, 3)
    assert sum(one.rows * one.batches for one in stats.sizes) == stats.rows == sum(sizes)
    assert sum(one.batches for one in stats.sizes) == stats.batches == len(sizes)


def test_clients_that_choose_ever_new_sizes_do_not_make_the_counts_grow_for_ever() -> None:
    signature = signature_of({"x": ("FP32", [-1, 0])}, batched=True, max_rows=1, lenient=True)
    stats, line = ModelStats([1.0], [1]), queue(signature=signature)
    for rows in range(1, 5001):
        line.put(request(rows, 0, signature=signature), 0)
        stats.batch(taken(line.take(0)), 0, 1, 2, 3)
    assert (stats.batches, stats.rows) == (5000, 5000 * 5001 // 2)
    assert [one.rows for one in stats.sizes] == list(range(1, 4097))


def test_a_request_that_ran_counts_its_wait_and_its_run() -> None:
    found, one = queue(), request()
    found.put(one, 1_000_000_000)
    found.take(3_500_000_000)
    one.run_ns = 250_000_000
    stats = ModelStats([1.0, 3.0], [1])
    stats.ran(one, True)
    assert stats.wasted_rows == 0
    stats.ran(one, False)
    assert stats.wasted_rows == 1
    assert (stats.queue_seconds.counts, stats.queue_seconds.total) == ((0, 2, 0), 5.0)
    assert (stats.compute_seconds.counts, stats.compute_seconds.total) == ((2, 0, 0), 0.5)
