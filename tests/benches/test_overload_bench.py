"""What `python -m bench overload` calls kept, and what is shown of it."""

from __future__ import annotations

import pytest

from bench import neighbour, overload
from bench.overload import Found, holds

GOOD = Found(
    work="cnn",
    peak=100.0,
    offered=500.0,
    goodputs=[0.8, 0.95, 0.9],
    goodput=0.9,
    goodput_beside=0.97,
    goodput_by_cpu=0.95,
    server_cpus=[1.8, 1.7],
    load_cpus=[0.1, 0.2],
    refused=0.8,
    refusal_ms=[0.05, 0.5],
    health_ms=[1.0, 9.0],
    calm_ms=4.0,
    polite_ms=[50.0, 200.0],
    polite_answered=1.0,
    most_rows=50,
    recovery_s=0.1,
)


def changed(**changes: object) -> Found:
    return GOOD | changes  # type: ignore[return-value,operator]


@pytest.mark.parametrize(
    "missed",
    [
        {"goodput": 0.8, "goodput_beside": 0.89},
        {"refusal_ms": [0.1, 10.0]},
        {"health_ms": [1.0, 101.0]},
        {"recovery_s": 2.5},
    ],
    ids=lambda missed: next(iter(missed)),
)
def test_each_goal_that_is_missed_fails(missed: dict[str, object]) -> None:
    assert holds(GOOD)
    assert not holds(changed(**missed))


def test_a_peak_beside_other_work_is_told_and_excuses_nothing() -> None:
    assert not holds(changed(goodput=0.8, goodput_beside=1.0))
    assert holds(changed(goodput=0.9, goodput_beside=0.8))


def test_a_table_has_a_line_for_each_model_and_a_cell_for_each_column() -> None:
    shown = overload.table([GOOD, changed(work="tabular", recovery_s=9.0)])
    assert [list(column.cells) for column in (shown.columns[0], shown.columns[-1])] == [
        ["cnn", "tabular"],
        ["holds", "FAILS"],
    ]
    beside = neighbour.Beside(
        work="tabular",
        streams=10_000,
        alone_ms=[1.0, 2.0],
        beside_ms=[2.0, 6.0],
        ratio=[2.0, 3.0],
        alone_failed=0.0,
        beside_failed=0.01,
        greedy_ok=1000.0,
        greedy_refused=2000.0,
        health_ms=[1.0, 5.0],
        most_rows=8192,
    )
    assert [next(iter(column.cells)) for column in neighbour.table([beside]).columns][:5] == [
        "tabular",
        "10,000",
        "1.0, 2.0",
        "2.0, 6.0",
        "2.0, 3.0",
    ]
