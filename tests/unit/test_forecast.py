"""The soonest that a request can be answered, and requests that are refused because that is too late."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued import OPEN, queue, request

from inferd._native.forecast import Forecast
from inferd._native.queue import BatchQueue
from inferd.errors import Hopeless

MS = 1_000_000
CLASS = 3  # rows of one FP32 element are four bytes, which are three bits
NOW_NS = 10**12


def learnt(times_ms: dict[int, float], *, instances: int = 1, max_rows: int = 64) -> Forecast:
    """A forecast that has seen enough runs of each number of rows, all of the same time."""
    forecast = Forecast(instances=instances, max_rows=max_rows)
    for rows, took_ms in times_ms.items():
        for _ in range(8):
            forecast.observe(CLASS, rows, int(took_ms * MS), NOW_NS)
    return forecast


def deadline_queue(forecast: Forecast, batch_rows: int = 1) -> BatchQueue:
    return BatchQueue(
        OPEN, batch_rows=batch_rows, max_queue_rows=1000, max_queue_bytes=1 << 20, forecast=forecast
    )  # fmt: skip


def test_a_deadline_sooner_than_the_fastest_run_is_refused_before_it_is_queued() -> None:
    line = deadline_queue(learnt({1: 10}))
    with pytest.raises(Hopeless, match="sooner than model 'm' can answer"):
        line.put(request(deadline_ns=NOW_NS + 9 * MS), NOW_NS)
    assert (line.requests, line.rows, line.bytes) == (0, 0, 0)
    assert line.take(NOW_NS) is None
    line.put(request(deadline_ns=NOW_NS + 10 * MS), NOW_NS)
    line.put(request(), NOW_NS)
    assert line.requests == 2


def test_rows_ahead_are_waited_for() -> None:
    line = deadline_queue(learnt({1: 10}))
    for _ in range(5):
        line.put(request(), NOW_NS)
    with pytest.raises(Hopeless):
        line.put(request(deadline_ns=NOW_NS + 59 * MS), NOW_NS)
    line.put(request(deadline_ns=NOW_NS + 60 * MS), NOW_NS)


def test_rows_ahead_are_shared_out_among_the_instances() -> None:
    line = deadline_queue(learnt({1: 10}, instances=5))
    for _ in range(5):
        line.put(request(), NOW_NS)
    with pytest.raises(Hopeless):
        line.put(request(deadline_ns=NOW_NS + 19 * MS), NOW_NS)
    line.put(request(deadline_ns=NOW_NS + 20 * MS), NOW_NS)


def test_rows_that_may_share_the_run_are_not_waited_for() -> None:
    line = deadline_queue(learnt({1: 10}), batch_rows=8)
    for _ in range(7):
        line.put(request(), NOW_NS)
    line.put(request(deadline_ns=NOW_NS + 10 * MS), NOW_NS)


def test_rows_of_another_shape_are_not_waited_for() -> None:
    line = deadline_queue(learnt({1: 10}))
    for _ in range(5):
        line.put(request(width=400), NOW_NS)
    line.put(request(deadline_ns=NOW_NS + 10 * MS), NOW_NS)


def test_a_request_that_brings_many_rows_needs_the_time_of_many() -> None:
    line = deadline_queue(learnt({1: 1, 32: 20}), batch_rows=64)
    line.put(request(31, deadline_ns=NOW_NS + 1 * MS), NOW_NS)
    with pytest.raises(Hopeless):
        line.put(request(32, deadline_ns=NOW_NS + 19 * MS), NOW_NS)


def test_without_a_forecast_nothing_is_refused() -> None:
    line = queue()
    line.put(request(deadline_ns=1), NOW_NS)
    assert line.requests == 1


def test_a_few_runs_say_nothing() -> None:
    forecast = Forecast(instances=1, max_rows=64)
    for _ in range(7):
        forecast.observe(CLASS, 1, 10 * MS, NOW_NS)
    assert forecast.least_ns(CLASS, 1, now_ns=NOW_NS) == 0


def test_the_fastest_of_the_last_runs_counts_and_not_a_slow_while() -> None:
    forecast = learnt({1: 10})
    for _ in range(30):
        forecast.observe(CLASS, 1, 500 * MS, NOW_NS)
    assert forecast.least_ns(CLASS, 1, now_ns=NOW_NS) == 10 * MS


def test_a_slow_while_is_forgotten_and_so_is_a_fast_one() -> None:
    forecast = learnt({1: 10})
    for _ in range(128):
        forecast.observe(CLASS, 1, 500 * MS, NOW_NS)
    assert forecast.least_ns(CLASS, 1, now_ns=NOW_NS) == 500 * MS
    forecast.observe(CLASS, 1, 10 * MS, NOW_NS)
    assert forecast.least_ns(CLASS, 1, now_ns=NOW_NS) == 10 * MS


def test_what_is_known_of_large_runs_is_found_anew_even_while_only_small_ones_come() -> None:
    forecast = learnt({1: 1, 64: 500})
    for _ in range(128):
        forecast.observe(CLASS, 1, 1 * MS, NOW_NS)
    assert forecast.least_ns(CLASS, 64, now_ns=NOW_NS) == 1 * MS


def test_while_nothing_runs_nothing_is_known() -> None:
    forecast = learnt({1: 10})
    assert forecast.least_ns(CLASS, 1, now_ns=NOW_NS + 1000 * MS) == 10 * MS
    assert forecast.least_ns(CLASS, 1, now_ns=NOW_NS + 1050 * MS) == 0


@given(
    times_ns=st.lists(st.tuples(st.integers(1, 64), st.integers(1, 10**9)), max_size=300),
    rows=st.integers(1, 64),
    ahead=st.integers(0, 1000),
    most=st.integers(1, 64),
    instances=st.integers(1, 4),
)
def test_it_never_says_more_than_the_fastest_runs_would_take(
    times_ns: list[tuple[int, int]], rows: int, ahead: int, most: int, instances: int
) -> None:
    forecast = Forecast(instances=instances, max_rows=64)
    for some, took_ns in times_ns:
        forecast.observe(CLASS, some, took_ns, NOW_NS)
    found = forecast.least_ns(CLASS, rows, ahead=ahead, most=most, now_ns=NOW_NS)
    # Rows are sent through in runs of `most`, each as fast as the fastest that was ever seen of as many rows or fewer
    # (of at least that many where none was), on all instances at once.
    fastest = run_times(times_ns)
    whole_runs = -(-max(ahead + rows - most if rows <= most else ahead, 0) // most)
    assert found <= fastest(rows) + whole_runs * fastest(most) / instances + 1


def run_times(seen: list[tuple[int, int]]) -> Callable[[int], float]:
    """The times of a machine on which `seen` could have been measured and which is never slower with fewer rows."""

    def time_ns(rows: int) -> float:
        return max((took for some, took in seen if some <= rows), default=0)

    return time_ns
