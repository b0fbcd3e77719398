"""Which requests are traced, and what their spans are made of."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from queued import queue, request, taken

from inferd._native.stats import ModelStats
from inferd._native.trace import Sampling, Trace, Traces
from inferd.telemetry.sampling import Samplings, TraceChange

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
GOOD = f"00-{TRACE}-{SPAN}-01"


def sampling(rate: float = 0.0, most: int = 100) -> Sampling:
    made = Sampling(Traces(most))
    made.on = True
    made.set_rate(rate)
    return made


def begun(parent: str, rate: float = 0.0) -> Trace | None:
    return sampling(rate).begin_at(5, parent.encode())


@pytest.mark.parametrize(
    "parent", [GOOD, f"00-{TRACE}-{SPAN}-03", f"cc-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01-more"]
)
def test_a_callers_trace_goes_on_here(parent: str) -> None:
    trace = begun(parent)
    assert trace is not None
    assert trace.parent_id is not None
    assert (trace.trace_id.hex(), trace.parent_id.hex(), trace.begun_ns) == (TRACE, SPAN, 5)
    assert trace.span_id != trace.parent_id


@pytest.mark.parametrize("rate", [0.0, 1.0])
@pytest.mark.parametrize("flag", ["00", "02", "fe"])
def test_a_caller_that_does_not_sample_is_heeded_whatever_the_rate(flag: str, rate: float) -> None:
    assert begun(f"00-{TRACE}-{SPAN}-{flag}", rate) is None


@pytest.mark.parametrize(
    "parent",
    [
        "", "00", GOOD[:-1], f"{GOOD}0", f"{GOOD}-", f"ff-{TRACE}-{SPAN}-01", f"cc-{TRACE}-{SPAN}-01x",
        f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", GOOD.upper(), GOOD.replace("-", "_"),
        f"00-{TRACE[:-1]}g-{SPAN}-01", f"0g-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-0g",
    ],
)  # fmt: skip
def test_a_traceparent_that_cannot_be_read_is_none(parent: str) -> None:
    assert begun(parent, 0.0) is None
    trace = begun(parent, 1.0)
    assert trace is not None
    assert trace.parent_id is None
    assert trace.trace_id.hex() != TRACE


@given(st.binary(max_size=80))
def test_any_bytes_at_all_are_a_traceparent_or_none(parent: bytes) -> None:
    trace = sampling().begin_at(0, parent)
    assert trace is None or len(trace.trace_id) == 16


def test_the_rate_is_the_part_of_what_begins_here() -> None:
    some = sampling(0.25)
    found = sum(some.begin_at(0) is not None for _ in range(20_000))
    assert 4_500 < found < 5_500  # eight standard deviations


def test_no_more_are_traced_than_were_asked_for() -> None:
    few = sampling(1.0)
    few.left = 3
    assert [few.begin_at(0) is not None for _ in range(5)] == [True, True, True, False, False]


def test_traces_that_nobody_takes_are_dropped_and_counted() -> None:
    some = sampling(1.0, most=2)
    for _ in range(5):
        trace = some.begin_at(0)
        assert trace is not None
        trace.end(0, 1)
        trace.end(4, 2)  # only the first end counts
    assert len(some.traces.take()) == 2
    assert (some.traces.dropped, some.traces.take()) == (3, [])


def test_members_of_a_run_share_its_times_and_it_knows_them() -> None:
    some, line, stats = sampling(1.0), queue(), ModelStats([1.0], [1])
    members = [request(), request(2), request()]
    for member in members[:2]:
        member.trace = some.begin_at(0)
    for member in members:
        line.put(member, 0)
    stats.batch(taken(line.take(0)), 10, 20, 50, 60, 12)
    first, second = (member.trace for member in members[:2])
    assert first is not None
    assert second is not None
    run = first.execution
    assert run is not None
    assert second.execution is run
    assert (run.started_ns, run.gathered_ns, run.computed_ns, run.ended_ns) == (10, 20, 50, 60)
    assert (run.rows, run.padded_rows, run.requests, run.close_reason) == (4, 12, 3, "ready")
    assert (stats.rows, stats.padded_rows) == (4, 12)
    assert run.members == [(first.trace_id, first.span_id), (second.trace_id, second.span_id)]


def test_a_model_follows_the_server_but_in_what_was_said_of_it() -> None:
    all_of_them = Samplings(Traces(1), 0.5)
    none = frozenset[str]()
    all_of_them.change(TraceChange(rate=0.1), none, "m")
    all_of_them.change(TraceChange(on=False), none)
    assert (all_of_them.of("m").on, all_of_them.of("m").rate) == (False, 0.1)
    assert (all_of_them.of("other").on, all_of_them.of("other").rate) == (False, 0.5)
    all_of_them.change(TraceChange(rate=1.0), none)
    assert (all_of_them.of("m").rate, all_of_them.of("other").rate) == (0.1, 1.0)
    all_of_them.change(TraceChange(), frozenset({"rate"}), "m")
    assert all_of_them.of("m").rate == 1.0
    all_of_them.change(TraceChange(), frozenset({"rate", "on"}))
    assert all_of_them.settings("m") == all_of_them.settings("other")
    assert (all_of_them.settings().rate, all_of_them.settings().on) == (0.5, True)
