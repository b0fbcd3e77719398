"""The soonest that a request can be answered, and requests that are refused because that is too late."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued import OPEN, queue, request

from inferd._native.admission import Admission, Caller, let_go
from inferd._native.forecast import Forecast
from inferd._native.queue import BatchQueue
from inferd._native.wire import Request
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


def test_rows_that_the_same_caller_has_parked_are_waited_for_and_those_of_others_are_not() -> None:
    admission = Admission()
    greedy, polite = admission.connection(), admission.connection()

    def sent(caller: Caller, deadline_ms: int = 0, *, width: int = 1) -> Request:
        made = request(deadline_ns=NOW_NS + deadline_ms * MS if deadline_ms else 0, width=width)
        admission.admit(made, caller)
        return made

    line = deadline_queue(learnt({1: 10}))
    for caller in (greedy, polite, *[greedy] * 8):
        line.put(sent(caller), NOW_NS)
    # In line is one of each, and eight are parked.
    with pytest.raises(Hopeless):
        line.put(sent(greedy, 109), NOW_NS)
    line.put(sent(greedy, 110), NOW_NS)
    other = admission.connection()
    with pytest.raises(Hopeless):
        line.put(sent(other, 29), NOW_NS)
    line.put(sent(other, 30), NOW_NS)
    # Among parked ones of several shapes it is not known how many are of this one.
    line.put(sent(greedy, width=2), NOW_NS)
    line.put(sent(greedy, 40), NOW_NS)
    while (batch := line.take(NOW_NS)) is not None:
        for one in batch.members:
            let_go(one)


def test_short_batches_run_beside_the_threads() -> None:
    line = deadline_queue(learnt({1: 10}))
    line.set_short_rows(CLASS, 1)
    for _ in range(4):
        line.put(request(), NOW_NS)
    with pytest.raises(Hopeless):
        line.put(request(deadline_ns=NOW_NS + 29 * MS), NOW_NS)
    line.put(request(deadline_ns=NOW_NS + 30 * MS), NOW_NS)


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


def test_one_run_may_be_lucky_but_many_in_a_row_are_not() -> None:
    forecast = Forecast(instances=1, max_rows=64)
    for _ in range(32):
        for took_ms in (10, 30):
            forecast.observe(CLASS, 64, took_ms * MS, NOW_NS)
    # Runs ahead, and the one of the request's own rows, of which there are fewer.
    assert [
        forecast.least_ns(CLASS, 64, ahead=64 * runs, most=64, full=True, now_ns=NOW_NS) // MS
        for runs in (0, 1, 7, 8, 9, 16)
    ] == [10, 20, 80, 170, 180, 330]


def test_full_batches_are_enough_to_know_what_rows_ahead_take_and_smaller_ones_change_nothing() -> None:
    forecast = learnt({1: 1})
    for _ in range(128):
        forecast.observe(CLASS, 48, 20 * MS, NOW_NS)
        forecast.observe(CLASS, 40, 1 * MS, NOW_NS)
    assert forecast.least_ns(CLASS, 1, ahead=480, most=48, full=True, now_ns=NOW_NS) >= 180 * MS
    # How those leave that have several rows each is not known.
    assert forecast.least_ns(CLASS, 1, ahead=480, most=48, now_ns=NOW_NS) < 20 * MS


def test_what_many_runs_take_says_nothing_of_larger_ones() -> None:
    forecast = learnt({1: 10})
    assert forecast.least_ns(CLASS, 1, ahead=640, most=64, full=True, now_ns=NOW_NS) < 120 * MS


@given(past_ms=st.lists(st.integers(1, 50), min_size=8, max_size=64), ahead=st.integers(0, 60), start=st.integers(0, 7))
def test_what_came_once_could_come_again_and_is_not_called_hopeless(past_ms: list[int], ahead: int, start: int) -> None:
    forecast = learnt({})
    for took_ms in past_ms:
        forecast.observe(CLASS, 1, took_ms * MS, NOW_NS)
    # The machine does again what it did from some run on, as far as that was noted: in rows of eight.
    noted = past_ms[: len(past_ms) // 8 * 8]
    again = [noted[(8 * start + run) % len(noted)] for run in range(ahead + 1)]
    assert forecast.least_ns(CLASS, 1, ahead=ahead, most=1, full=True, now_ns=NOW_NS) <= sum(again) * MS


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
    full=st.booleans(),
)
def test_it_never_says_more_than_the_fastest_runs_would_take(
    times_ns: list[tuple[int, int]], rows: int, ahead: int, most: int, instances: int, full: bool
) -> None:
    forecast = Forecast(instances=instances, max_rows=64)
    for some, took_ns in times_ns:
        forecast.observe(CLASS, some, took_ns, NOW_NS)
    found = forecast.least_ns(CLASS, rows, ahead=ahead, most=most, full=full, now_ns=NOW_NS)
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
