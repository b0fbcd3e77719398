from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.pace import ENOUGH, FAR, GAIN, PROOF_RUNS, RETRY_AFTER_RUNS, Pace, Shortness

Cost = Callable[[int], float]


def tabular(rows: int) -> float:
    """Calls cost, rows hardly: what small models on one thread look like."""
    return 20_000 + 300 * rows


def convolutional(rows: int) -> float:
    """Rows cost, calls hardly."""
    return 1_000 + 5_000_000 * rows


def plateau(rows: int) -> float:
    """No gain from 1 to 2, a large one from 4 on."""
    return {1: 100.0, 2: 199.0}.get(rows, 30.0 * rows)


def settle(pace: Pace, cost: Cost, most_runs: int = 200) -> None:
    for _ in range(most_runs):
        if pace.settled and pace.row_ns(pace.limit) is not None:
            return
        pace.observe(pace.limit, int(cost(pace.limit)))
    raise AssertionError("never settled")


def test_nothing_is_batched_before_anything_is_known() -> None:
    assert Pace(64).limit == 1


def test_a_model_whose_calls_cost_is_batched_to_the_full() -> None:
    pace = Pace(64)
    settle(pace, tabular)
    assert pace.limit == 64


def test_a_model_whose_rows_cost_is_not_batched() -> None:
    pace = Pace(64)
    settle(pace, convolutional)
    assert pace.limit == 1


def test_a_gain_behind_a_plateau_is_found() -> None:
    pace = Pace(16)
    settle(pace, plateau)
    assert pace.limit >= 4


def test_sizes_far_beyond_the_best_are_never_tried() -> None:
    tried = []
    pace = Pace(1024)
    for _ in range(100):
        tried.append(pace.limit)
        pace.observe(pace.limit, int(convolutional(pace.limit)))
    assert max(tried) <= 4


@pytest.mark.parametrize("max_rows", [1, 2, 3, 48, 64, 100])
def test_the_limit_never_passes_what_is_allowed(max_rows: int) -> None:
    pace = Pace(max_rows)
    settle(pace, tabular)
    assert pace.limit == max_rows


def test_a_size_between_two_known_ones_speaks_for_the_smaller() -> None:
    pace = Pace(8)
    for _ in range(ENOUGH):
        pace.observe(3, 300)
    assert pace.row_ns(2) == 100
    assert pace.row_ns(4) is None


def test_the_expected_run_time_scales_from_the_nearest_known_size_below() -> None:
    pace = Pace(8)
    for size, run_ns in ((1, 100), (2, 150)):
        for _ in range(ENOUGH):
            pace.observe(size, run_ns)
    assert pace.run_ns(1) == 100
    assert pace.run_ns(6) == 450
    assert Pace(8).run_ns(1) is None


def test_one_slow_run_does_not_change_a_verdict() -> None:
    pace = Pace(64)
    settle(pace, tabular)
    pace.observe(64, 10**9)
    assert pace.limit == 64


def test_a_model_that_has_become_worse_at_batching_loses_its_batches() -> None:
    pace = Pace(64)
    settle(pace, tabular)
    for size in pace.sizes:
        for _ in range(5):
            pace.observe(size, int(convolutional(size)))
    assert pace.limit == 1


def test_after_many_runs_a_larger_size_gets_another_chance() -> None:
    pace = Pace(4)
    settle(pace, convolutional)
    for _ in range(RETRY_AFTER_RUNS):
        pace.observe(1, int(tabular(1)))
    settle(pace, tabular)
    assert pace.limit == 4


@given(st.integers(1, 300), st.lists(st.tuples(st.integers(1, 300), st.integers(1, 10**10)), max_size=60))
def test_whatever_is_observed_the_limit_is_one_of_the_sizes_and_reachable(
    max_rows: int, runs: list[tuple[int, int]]
) -> None:
    pace = Pace(max_rows)
    for rows, run_ns in runs:
        pace.observe(min(rows, max_rows), run_ns)
        assert pace.limit in pace.sizes
        assert pace.best <= pace.limit <= max(pace.best * 4, 1)


@given(st.floats(1, 1e6), st.floats(1, 1e6))
def test_a_larger_size_is_used_only_if_it_wins_enough(per_call: float, per_row: float) -> None:
    def cost(rows: int) -> float:
        return 1000 * (per_call + per_row * rows)

    pace = Pace(64)
    settle(pace, cost)
    won = [cost(size) / size / (cost(pace.best) / pace.best) for size in pace.sizes if size < pace.best]
    assert all(gain > 1 for gain in won)
    assert not won or max(won[-2:]) > GAIN - 0.01


BOUND_NS = 200_000


def observe(pace: Pace, shortness: Shortness, rows: int, run_ns: int, times: int = 1) -> None:
    for _ in range(times):
        shortness.observe(run_ns, pace, judged=pace.observe(rows, run_ns))


def test_nothing_is_short_before_enough_runs_were() -> None:
    pace, shortness = Pace(8), Shortness(BOUND_NS)
    observe(pace, shortness, 1, 1000, PROOF_RUNS)
    assert shortness.rows == 0
    observe(pace, shortness, 1, 1000, ENOUGH)
    assert shortness.rows == 1


def test_batches_are_short_up_to_the_largest_size_within_the_bound() -> None:
    pace, shortness = Pace(8), Shortness(BOUND_NS)
    observe(pace, shortness, 1, 1000, PROOF_RUNS)
    for rows, run_ns in ((1, 60_000), (2, 100_000), (4, BOUND_NS), (8, BOUND_NS + 8)):
        observe(pace, shortness, rows, run_ns, ENOUGH)
    assert shortness.rows == 4


def test_runs_longer_than_the_bound_prove_nothing() -> None:
    pace, shortness = Pace(1), Shortness(BOUND_NS)
    observe(pace, shortness, 1, BOUND_NS + 1, 10 * PROOF_RUNS)
    assert shortness.rows == 0


def test_after_a_far_longer_run_twice_the_proof_is_asked_for() -> None:
    pace, shortness = Pace(1), Shortness(BOUND_NS)
    observe(pace, shortness, 1, 1000, PROOF_RUNS + ENOUGH)
    assert shortness.rows == 1
    observe(pace, shortness, 1, FAR * BOUND_NS + 1)
    assert shortness.rows == 0
    observe(pace, shortness, 1, 1000, 2 * PROOF_RUNS)
    assert shortness.rows == 0
    observe(pace, shortness, 1, 1000, ENOUGH)
    assert shortness.rows == 1


def test_a_run_that_others_on_the_machine_slowed_down_disproves_nothing() -> None:
    pace, shortness = Pace(1), Shortness(BOUND_NS)
    observe(pace, shortness, 1, 1000, PROOF_RUNS + ENOUGH)
    shortness.observe(1000, pace, judged=pace.observe(1, 100 * BOUND_NS))
    assert shortness.rows == 1
