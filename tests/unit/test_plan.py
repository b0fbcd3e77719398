"""The simulation behind `inferd plan`, against queueing theory and what no queue can break; and the command."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import pytest
from click.testing import CliRunner

from inferd.errors import StartError
from inferd.plan.command import command
from inferd.plan.pod import Pod, Timings, earned
from inferd.plan.search import Wanted, plan
from inferd.plan.simulation import BALANCERS, Balancer, Load, _State, simulate

MS = 1e6
ONE_MS = Pod(Timings({1: MS}), max_rows=1)
# Eight rows in the time of two.
BATCHING = Pod(Timings({1: MS, 8: 2 * MS}), max_rows=8)
VARIED = Pod(Timings({1: MS, 8: 2 * MS}, spread=(0.8, 1.0, 1.0, 1.6)), max_rows=8, request_ns=20e3, hop_ns=50e3)


@pytest.mark.parametrize("used", [0.2, 0.5, 0.8])
def test_one_server_without_batches_is_the_queue_of_the_books(used: float) -> None:
    # M/D/1 by Pollaczek and Khinchine: W = s + rho s / (2 (1 - rho)).
    found = simulate(ONE_MS, Load(used * 1000, pods=1, requests=60_000, seed=1))
    assert found.mean_ns == pytest.approx(MS * (1 + used / (2 * (1 - used))), rel=0.05)
    assert found.busy == pytest.approx(used, rel=0.02)


def test_two_threads_wait_less_than_half_as_long_as_two_servers_at_random() -> None:
    shared = simulate(Pod(Timings({1: MS}), 1, instances=2), Load(1600, pods=1, requests=30_000))
    apart = simulate(ONE_MS, Load(1600, pods=2, requests=30_000, balancer="random"))
    assert shared.mean_ns - MS < (apart.mean_ns - MS) / 2


@pytest.mark.parametrize("balancer", BALANCERS)
@pytest.mark.parametrize("pod", [ONE_MS, BATCHING, VARIED], ids=["alone", "batching", "varied"])
def test_what_arrives_leaves_and_littles_law_holds(pod: Pod, balancer: Balancer) -> None:
    found = simulate(pod, Load(2000, pods=3, requests=15_000, balancer=balancer))
    assert found.arrived == found.answered == 15_000
    assert found.refused == 0
    # L = lambda W; L by the clock, W by the requests.
    by_requests = found.answered / found.elapsed_ns * found.mean_ns
    assert found.mean_in_flight == pytest.approx(by_requests, rel=0.05)


def test_batches_grow_with_the_load_and_no_further_than_what_pays() -> None:
    sizes = [simulate(BATCHING, Load(rate, pods=1, requests=20_000)).batch_requests for rate in (100, 1500, 3500, 9000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == pytest.approx(1, abs=0.2)
    assert sizes[-1] == pytest.approx(8, abs=0.2)


def test_what_is_too_much_leaves_at_the_limit_and_the_rest_is_refused() -> None:
    pod = Pod(Timings({1: MS, 8: 2 * MS}), max_rows=8, max_queue_rows=64)
    assert pod.limits(1) == {"model runs": pytest.approx(4000)}
    found = simulate(pod, Load(8000, pods=1, requests=40_000))
    assert found.answered + found.refused == 40_000
    assert found.answered / found.elapsed_ns * 1e9 == pytest.approx(4000, rel=0.02)
    # No one waits longer than the queue is.
    assert found.p99_ns <= (64 / 8 + 2) * 2 * MS


def test_a_request_that_finds_nobody_is_not_made_to_wait() -> None:
    found = simulate(BATCHING, Load(1, pods=1, requests=1000))
    assert found.p50_ns == MS


def test_a_delay_is_waited_out_alone_and_not_when_the_batch_is_full() -> None:
    pod = Pod(Timings({1: MS, 8: 2 * MS}), max_rows=8, max_delay_ns=5 * MS)
    assert simulate(pod, Load(1, pods=1, requests=1000)).p50_ns == pytest.approx(6 * MS)
    busy = simulate(pod, Load(3500, pods=1, requests=20_000))
    assert busy.batch_requests > 7
    assert busy.p50_ns < 6 * MS


def test_on_the_event_loop_requests_and_runs_share_one_thread() -> None:
    pod = Pod(Timings({1: 10e3, 64: 50e3}), max_rows=64, inline=True, request_ns=5e3)
    assert pod.limits(1) == {"event loop": pytest.approx(64 / (50e3 + 64 * 5e3) * 1e9)}
    found = simulate(pod, Load(50_000, pods=1, requests=50_000))
    assert found.busy == found.loop_busy
    assert found.loop_busy < 1


def test_the_less_busy_of_two_beats_chance() -> None:
    waits = {one: simulate(ONE_MS, Load(8500, pods=10, requests=20_000, balancer=one)).p99_ns for one in BALANCERS}
    assert waits["least_request"] < waits["random"] / 2
    # Turns are as even as it gets where every call is the same length.
    assert waits["round_robin"] < waits["least_request"]


def test_the_same_seed_gives_the_same_outcome_and_another_another() -> None:
    one, again = (simulate(VARIED, Load(3000, pods=2, requests=5000, seed=3)) for _ in range(2))
    assert one == again
    assert simulate(VARIED, Load(3000, pods=2, requests=5000, seed=4)) != one


def test_slow_runs_that_follow_each_other_cost_more_than_the_same_ones_apart() -> None:
    # 64 of 2048 runs take 16 times as long as the others; in their order they come together.
    spread = (0.5,) * (31 * 64) + (8.0,) * 64
    apart, together = (
        simulate(Pod(Timings({1: MS}, spread, stretch), 1), Load(600, pods=1, requests=40_000, seed=2))
        for stretch in (1, 64)
    )
    assert together.p99_ns > 2 * apart.p99_ns


def test_a_stretch_is_what_was_measured_in_its_order() -> None:
    state, timings, random = _State(1), Timings({1: MS}, tuple(map(float, range(1, 11))), 4), Random(0)
    drawn = [int(state.spread(timings, random)) for _ in range(40)]
    for first in range(0, 40, 4):
        assert drawn[first : first + 4] == [(drawn[first] + n - 1) % 10 + 1 for n in range(4)]
    assert len(set(drawn[::4])) > 2


def test_a_plan_is_the_least_number_that_holds() -> None:
    made = plan(BATCHING, Wanted(20_000, 4 * MS, most_busy=0.9), Load(1, 1))
    assert made.pods is not None
    assert made.tried[made.pods].p99_ns <= 4 * MS
    assert made.breaks_first == "model runs"
    below = made.tried[made.pods - 1].p99_ns > 4 * MS
    assert below or (made.pods - 1) * 4000 * 0.9 < 20_000


def test_no_number_of_pods_makes_one_run_shorter() -> None:
    made = plan(BATCHING, Wanted(100, 0.5 * MS), Load(1, 1, requests=2000))
    assert made.pods is None
    assert "alone takes 1 ms" in made.reason


def test_between_sizes_that_were_measured_lines_are_drawn() -> None:
    timings = Timings({1: 1e6, 4: 2.5e6, 8: 4.5e6})
    assert [timings.of(rows) for rows in (1, 2, 4, 6, 8, 16)] == [1e6, 1.5e6, 2.5e6, 3.5e6, 4.5e6, 8.5e6]
    assert Timings({1: 1e6}).of(3) == 3e6


def test_single_runs_give_the_least_and_their_spread() -> None:
    found = earned([(1, 90), (1, 100), (1, 135), (2, 400), (4, 200)])
    # What was in the way of two rows was not the two rows.
    assert found == Timings({1: 90.0, 2: 200.0, 4: 200.0}, (1.0, 1.0, 1.0, 100 / 90, 1.5))


@pytest.mark.parametrize("run_ns", [{}, {0: 1.0}, {1: 0.0}])
def test_times_that_cannot_be_are_refused(run_ns: dict[int, float]) -> None:
    with pytest.raises(StartError, match="run times"):
        Timings(run_ns)


def test_the_command_tells_the_plan_as_text_and_as_json(tmp_path: Path) -> None:
    times = tmp_path / "times.json"
    times.write_text('{"model": "m", "run_ms": {"1": 1, "8": 2}}')
    arguments = [str(times), "--rate=20000", "--slo-ms=6", "--requests=5000"]
    text = CliRunner().invoke(command(), arguments, catch_exceptions=False, standalone_mode=False)
    made = json.loads(
        CliRunner().invoke(command(), [*arguments, "--json"], catch_exceptions=False, standalone_mode=False).output
    )
    assert f"{made['pods']} pod(s)" in text.output
    assert made["breaks_first"] == "model runs"
    assert made["by_pods"][str(made["pods"])]["p99_ms"] <= 6


def test_run_times_of_a_real_model_are_measured(tmp_path: Path) -> None:
    import onnx_models as models

    models.write(tmp_path, "mlp", models.mlp())
    arguments = [str(tmp_path), "--rate=1000", "--slo-ms=1000", "--requests=1000", "--json"]
    made = json.loads(CliRunner().invoke(command(), arguments, catch_exceptions=False, standalone_mode=False).output)
    assert made["pods"] == 1
    assert made["pod"]["run_ms"]["1"] > 0
    assert made["pod"]["on_the_loop"]


@pytest.mark.parametrize("text", ["{", "[]", '{"run_ms": {"x": 1}}', '{"run_ms": {"1": 1}, "max_row": 2}', "{}"])
def test_a_file_that_has_no_run_times_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "times.json").write_text(text)
    with pytest.raises(StartError, match="run times"):
        command().main([str(tmp_path / "times.json"), "--rate=1", "--slo-ms=1"], standalone_mode=False)
