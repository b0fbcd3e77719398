"""Ratios of `bench compare` and what `bench goals` makes of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.goals import GOALS, Growth, goals, read_growth, verdicts
from bench.ratios import ratio, ratios
from bench.result import Comparison, Entrant, Kind, Turn, WorkFound
from bench.show import show
from inferd.bench.machine import this_machine
from inferd.bench.result import Load
from inferd.errors import StartError

INFERD = "inferd (grpcio)"


def entrant(name: str, kind: Kind, *rates: float | None, cpu_us: float = 10.0) -> Entrant:
    turns = tuple(
        Turn(round=number, seconds=1.0, ok=1, requests_per_second=rate, cpu_us_per_request=cpu_us, alone_p50_ns=1000)
        for number, rate in enumerate(rates, 1)
    )
    return Entrant(name=name, kind=kind, status="measured", turns=turns)


def comparison(*entrants: Entrant, work: str = "mlp") -> Comparison:
    found = WorkFound(
        name=work, title="", model="", model_sha256="", request_bytes=1, answer_bytes=1,
        loaded=Load(connections=1, streams=1), threads=1, tolerance=0.0,
        entrants=entrants, ratios=tuple(ratios(entrants)),
    )  # fmt: skip
    return Comparison(
        started="", command="", machine=this_machine(), rounds=3, seconds=1.0, versions={}, works=(found,)
    )


def states(found: Comparison, *growths: Growth) -> dict[tuple[str, str], str]:
    return {(one.text.partition(",")[0], one.against): one.state for one in verdicts(found, growths)}


# --- ratios --------------------------------------------------------------------------------------------------


def test_a_ratio_is_formed_within_each_round_and_not_between_medians() -> None:
    # The machine is three times slower in round 2; the ratio is the same all along but for one round.
    formed = ratio("requests_per_second", entrant("a", "inferd", 30, 10, 90), entrant("b", "peer", 15, 5, 30))
    assert formed is not None
    assert formed.rounds == (2.0, 2.0, 3.0)
    assert (formed.median, formed.low, formed.high) == (2.0, 2.0, 3.0)


def test_a_round_that_one_of_the_two_has_no_figure_for_is_left_out() -> None:
    formed = ratio("requests_per_second", entrant("a", "inferd", 30, None, 90), entrant("b", "peer", 10, 5))
    assert formed is not None
    assert formed.rounds == (3.0,)


def test_a_figure_of_zero_divides_nothing() -> None:
    assert ratio("requests_per_second", entrant("a", "inferd", 30), entrant("b", "peer", 0)) is None


def test_every_transport_is_compared_with_everybody_else() -> None:
    entrants = (entrant("inferd (a)", "inferd", 2), entrant("inferd (b)", "inferd", 1), entrant("triton", "peer", 4))
    rates = {(one.subject, one.against): one.median for one in ratios(entrants) if one.figure == "requests_per_second"}
    assert rates == {
        ("inferd (a)", "inferd (b)"): 2.0,
        ("inferd (b)", "inferd (a)"): 0.5,
        ("inferd (a)", "triton"): 0.5,
        ("inferd (b)", "triton"): 0.25,
    }


# --- goals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rate", "state"), [(99.0, "missed"), (100.0, "met"), (101.0, "met")])
def test_a_goal_of_at_least_is_met_from_its_bar_on(rate: float, state: str) -> None:
    found = comparison(entrant(INFERD, "inferd", rate), entrant("triton", "peer", 10))
    assert states(found)["throughput", "triton, mlp"] == state


def test_the_median_decides_and_a_round_that_says_otherwise_is_told() -> None:
    found = comparison(entrant(INFERD, "inferd", 120, 110, 90), entrant("triton", "peer", 10, 10, 10))
    (verdict,) = [one for one in verdicts(found) if one.against == "triton, mlp"]
    assert (verdict.state, verdict.found) == ("met", "11x (9..12), not in every round")


@pytest.mark.parametrize(("cpu_us", "state"), [(19.0, "met"), (20.0, "met"), (21.0, "missed")])
def test_a_goal_of_at_most_is_met_up_to_its_bar(cpu_us: float, state: str) -> None:
    found = comparison(entrant(INFERD, "inferd", 1, cpu_us=cpu_us), entrant("nghttpd", "floor", 1, cpu_us=10.0))
    assert states(found)["CPU per request", "nghttpd, mlp"] == state


def test_a_goal_whose_peer_is_absent_is_not_measured_and_says_why() -> None:
    absent = Entrant(name="triton", kind="peer", status="absent", reason="no wheel for this Python")
    (verdict,) = [one for one in verdicts(comparison(entrant(INFERD, "inferd", 1), absent)) if "triton" in one.against]
    assert (verdict.state, verdict.found) == ("not measured", "triton absent: no wheel for this Python")


def test_a_work_that_was_not_run_leaves_its_goals_not_measured() -> None:
    found = comparison(entrant(INFERD, "inferd", 1), entrant("nghttpd", "floor", 1), work="tabular")
    assert set(states(found).values()) == {"not measured"}


def test_every_goal_names_a_work_and_an_entrant_that_exist() -> None:
    from bench.limits import Bare
    from bench.peers import known
    from bench.works import works

    assert {goal.work for goal in GOALS} <= set(works())
    assert {goal.against for goal in GOALS} <= {Bare.name, *known()}


@pytest.mark.parametrize(
    ("ratio", "requests", "state"),
    [(1.02, 1_000_000, "met"), (1.03, 1_000_000, "missed"), (1.03, 20_000, "missed"), (1.0, 20_000, "not measured")],
)
def test_memory_must_hold_for_all_the_requests(ratio: float, requests: int, state: str) -> None:
    found = states(comparison(entrant(INFERD, "inferd", 1)), Growth(requests, "grpcio", ratio))
    assert found["RSS after the last request vs after 10", "itself"] == state


def test_memory_of_another_transport_says_nothing_of_this_one() -> None:
    found = states(comparison(entrant(INFERD, "inferd", 1)), Growth(1_000_000, "native", 1.0))
    assert found["RSS after the last request vs after 10", "itself"] == "not measured"


def test_the_goals_of_a_stored_comparison_can_be_printed(tmp_path: Path) -> None:
    path, memory = tmp_path / "result.json", tmp_path / "memory.json"
    found = comparison(entrant(INFERD, "inferd", 50), entrant("triton", "peer", 10))
    path.write_text(found.model_dump_json(by_alias=True))
    memory.write_text(
        json.dumps({"requests": 1_000_000, "transport": "grpcio", "rss_first": 1000, "rss_last": 1001, "mix": "plain"})
    )
    done = CliRunner().invoke(goals, [str(path), "--memory", str(memory)], catch_exceptions=False)
    assert "5x (5..5)" in done.output
    assert "1.0010x after 1,000,000" in done.output


def test_a_file_that_is_no_memory_run_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text('{"rss_first": 0, "rss_last": 1, "requests": 1, "transport": "grpcio"}')
    with pytest.raises(StartError, match=r"memory\.json is not what"):
        read_growth(path)


def test_the_documentation_has_what_the_stored_comparison_says() -> None:
    stored = Path(__file__).parents[2] / "bench" / "results"
    newest = max(stored.glob("????-??-??.json"))
    memories = [f"--memory={path}" for path in sorted(stored.glob(f"{newest.stem}-memory-*.json"), reverse=True)]
    done = CliRunner().invoke(show, [str(newest), *memories, "--markdown"], catch_exceptions=False)
    assert done.exit_code == 0
    page = (stored.parents[1] / "docs" / "benchmarks.md").read_text()
    assert [line for line in done.output.splitlines() if line not in page.splitlines()] == []
