"""When `bench check` fails: beyond the bound and not before, by instructions where there are any."""

from __future__ import annotations

import pytest

from bench.micro.verdict import Side, Verdict, explanation, judge, noise

QUIET = (100.0, 101.0, 102.0)
LOUD = (100.0, 130.0, 110.0)


def test_the_noise_is_twice_what_the_base_differs_from_itself() -> None:
    assert noise(LOUD) == pytest.approx(2 * 30 / 110)


def test_rounds_that_agree_by_luck_do_not_make_the_bound_nothing() -> None:
    assert noise([100.0, 100.0, 100.0]) == 0.05


@pytest.mark.parametrize(
    ("base", "head", "verdict"),
    [
        (1000.0, 1000.0, Verdict.SAME),
        (1000.0, 1019.0, Verdict.SAME),
        (1000.0, 1021.0, Verdict.DEARER),
        (1000.0, 985.0, Verdict.SAME),
        (1000.0, 979.0, Verdict.CHEAPER),
    ],
)
def test_instructions_decide_whatever_the_time_says(base: float, head: float, verdict: Verdict) -> None:
    change = judge("x", Side(QUIET, base), Side((500.0, 500.0, 500.0), head))
    assert (change.verdict, change.decided_by) == (verdict, "instructions")
    assert change.time_ratio == pytest.approx(500 / 101)


@pytest.mark.parametrize(("factor", "verdict"), [(1.0, Verdict.SAME), (1.04, Verdict.SAME), (1.06, Verdict.DEARER)])
def test_time_decides_where_no_instructions_were_counted(factor: float, verdict: Verdict) -> None:
    change = judge("x", Side(QUIET), Side(tuple(factor * one for one in QUIET), 1000.0))
    assert (change.verdict, change.decided_by) == (verdict, "time")


def test_a_noisy_base_widens_the_bound() -> None:
    head = Side(tuple(1.3 * one for one in LOUD))
    assert judge("x", Side(LOUD), head).verdict is Verdict.SAME
    assert judge("x", Side(QUIET), head).verdict is Verdict.DEARER


def test_a_case_that_the_base_lacks_is_new() -> None:
    assert judge("x", Side(lacking=True, failure="no module"), Side(QUIET, 1.0)).verdict is Verdict.NEW


def test_a_case_that_failed_at_the_base_cannot_be_compared() -> None:
    change = judge("x", Side(failure="TypeError: 3 arguments"), Side(QUIET, 1.0))
    assert change.verdict is Verdict.INCOMPARABLE
    assert not change.verdict.is_regression


@pytest.mark.parametrize("lacking", [False, True])
def test_what_the_base_could_do_and_the_head_cannot_is_a_regression(lacking: bool) -> None:
    change = judge("decode: tiny", Side(QUIET, 1.0), Side(lacking=lacking, failure="no decode"))
    assert change.verdict.is_regression
    assert explanation(change) == "decode: tiny: cannot be done any more: no decode"


def test_what_neither_has_is_no_regression() -> None:
    absent = Side(lacking=True, failure="no module")
    assert judge("x", absent, absent).verdict is Verdict.INCOMPARABLE


def test_a_regression_is_told_with_both_figures_and_their_ratio() -> None:
    counted = judge("decode: tiny", Side(QUIET, 1500.0), Side(QUIET, 1800.0))
    assert explanation(counted) == (
        "decode: tiny: 1,500 -> 1,800 instructions, 1.200 times the base; the bound is 1.020"
    )
    timed = judge("decode: tiny", Side(QUIET), Side((202.0, 202.0)))
    assert explanation(timed) == "decode: tiny: 101 -> 202 ns, 2.000 times the base; the bound is 1.050"
