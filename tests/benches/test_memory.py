"""A real server holds no more memory after many requests than after a few; and a leak would be noticed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from bench.memory import (
    FIRST_SAMPLE,
    GROWTH_BOUND,
    LOAD,
    Growth,
    Mix,
    Taken,
    check_ends,
    growth,
    measure,
    memory,
    messages,
    milestones,
    serving,
)  # fmt: skip
from bench.memory_server import Sample, sample
from inferd.errors import Code, StartError
from inferd.proto.inference_pb2 import ModelInferRequest

TRANSPORTS = ("native", "grpcio")
LEAKING = ("-m", "tests.benches.leaking_server")
SHORT, LONG = 12_000, 1_000_000
# A server that has just started still fills caches; one object or a few bytes for every request would be far more.
BLOCKS_PER_REQUEST, HEAP_BYTES_PER_REQUEST = 0.2, 128.0


def run(tmp_path: Path, *arguments: str) -> tuple[int, str, Growth]:
    """The command, its exit code and output, and the samples it wrote."""
    path = tmp_path / "growth.json"
    done = CliRunner().invoke(memory, [*arguments, f"--json={path}"], catch_exceptions=False)
    found: Growth = json.loads(path.read_text())
    return done.exit_code, done.output, found


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_memory_does_not_grow_with_the_number_of_requests(transport: str, tmp_path: Path) -> None:
    code, output, found = run(tmp_path, f"--requests={SHORT}", f"--transport={transport}")
    assert code == 0, output
    assert found["requests"] == SHORT
    assert found["growth_ratio"] <= GROWTH_BOUND
    assert found["python_blocks_per_request"] < BLOCKS_PER_REQUEST
    assert (found["heap_bytes_per_request"] or 0) < HEAP_BYTES_PER_REQUEST
    first, last = found["samples"][0]["memory"], found["samples"][-1]["memory"]
    assert last["threads"] == first["threads"]
    # The connections of the load before may not have been closed yet, at either sample.
    assert last["files"] <= first["files"] + 2 * LOAD.connections


# Not on grpcio: gRPC's own server keeps some memory for each call that is cancelled.
def test_twenty_thousand_cancelled_calls_leave_nothing(tmp_path: Path) -> None:
    code, output, found = run(tmp_path, "--requests=20000", "--transport=native", f"--mix={Mix.CANCELLED}")
    assert code == 0, output
    assert found["python_blocks_per_request"] < BLOCKS_PER_REQUEST, output
    assert (found["heap_bytes_per_request"] or 0) < HEAP_BYTES_PER_REQUEST, output
    # One connection, which may not have been closed yet, at either sample.
    assert abs(found["samples"][-1]["memory"]["files"] - found["samples"][0]["memory"]["files"]) <= 2


def test_a_server_that_keeps_its_requests_is_found_out(tmp_path: Path) -> None:
    # Where Python code sees the requests; compiled code cannot be made to leak from a test.
    with serving(tmp_path, "grpcio", LEAKING) as server:
        found = measure(server, "grpcio", Mix.ERRORS, SHORT, reconnect=SHORT)
    assert found["growth_ratio"] > GROWTH_BOUND
    assert found["python_blocks_per_request"] > BLOCKS_PER_REQUEST
    assert (found["heap_bytes_per_request"] or HEAP_BYTES_PER_REQUEST + 1) > HEAP_BYTES_PER_REQUEST


@pytest.mark.long
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_memory_does_not_grow_over_a_million_requests(transport: str, tmp_path: Path) -> None:
    code, output, found = run(tmp_path, f"--requests={LONG}", f"--transport={transport}")
    assert code == 0, output
    assert found["requests"] == LONG


@pytest.mark.long
@pytest.mark.parametrize("mix", [Mix.ERRORS, Mix.CONNECTIONS])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_bad_requests_and_lost_connections_leave_nothing_behind(transport: str, mix: Mix, tmp_path: Path) -> None:
    # Not the resident set: either may have a transport start a thread, which has an arena of its own.
    _, output, found = run(tmp_path, f"--requests={LONG}", f"--transport={transport}", f"--mix={mix}")
    # One object or a kilobyte for each of the 4 connections in 1000 requests would be twice as much.
    assert found["python_blocks_per_request"] < 0.002, output
    assert (found["heap_bytes_per_request"] or 0) < 2, output


# --- what is sent, and what it means ---------------------------------------------------------------------------


def test_one_request_in_ten_is_bad_where_errors_are_asked_for() -> None:
    assert len(messages(Mix.PLAIN)) == 9
    assert len(messages(Mix.ERRORS)) == 30
    good = [message for message in messages(Mix.ERRORS) if message in messages(Mix.PLAIN)]
    assert len(good) == 27
    assert {tuple(ModelInferRequest.FromString(one).inputs[0].shape) for one in good} == {(n, 16) for n in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    ("mix", "ends"),
    [
        (Mix.PLAIN, {Code.OK: 100}),
        (Mix.CONNECTIONS, {Code.OK: 100}),
        (Mix.ERRORS, {Code.OK: 90, Code.INVALID_ARGUMENT: 7, Code.NOT_FOUND: 3}),
        (Mix.CANCELLED, {Code.OK: 90, Code.CANCELLED: 10}),
    ],
)
def test_requests_that_end_as_they_must_are_measured(mix: Mix, ends: dict[Code, int]) -> None:
    check_ends(mix, Counter(ends))


@pytest.mark.parametrize(
    ("mix", "ends"),
    [
        (Mix.PLAIN, {Code.OK: 99, Code.INVALID_ARGUMENT: 1}),
        (Mix.PLAIN, {Code.UNAVAILABLE: 100}),
        (Mix.ERRORS, {Code.OK: 100}),
        (Mix.ERRORS, {Code.OK: 90, Code.INTERNAL: 10}),
        (Mix.ERRORS, {Code.OK: 10, Code.INVALID_ARGUMENT: 90}),
        (Mix.CANCELLED, {Code.OK: 100}),
        (Mix.CANCELLED, {Code.OK: 80, Code.CANCELLED: 19, Code.UNAVAILABLE: 1}),
    ],
)
def test_requests_that_end_otherwise_prove_nothing(mix: Mix, ends: dict[Code, int]) -> None:
    with pytest.raises(StartError, match=r"requests did not end as they must: .*[A-Z_]+ \d+"):
        check_ends(mix, Counter(ends))


# --- samples ------------------------------------------------------------------------------------------------------


def test_samples_are_taken_when_the_server_is_warm_and_after_every_tenth() -> None:
    assert milestones(LONG) == [FIRST_SAMPLE, *range(LONG // 10, LONG + 1, LONG // 10)]
    assert milestones(20_000) == [10_000, 12_000, 14_000, 16_000, 18_000, 20_000]
    assert milestones(101) == [50, 60, 70, 80, 90, 101]


def held(rss: int, blocks: int = 0, heap: int | None = 0) -> Sample:
    return {**sample(), "rss": rss, "python_blocks": blocks, "heap": heap}


def test_growth_is_the_last_sample_against_the_first() -> None:
    samples: list[Taken] = [
        {"requests": 100, "memory": held(1000, blocks=50, heap=10)},
        {"requests": 200, "memory": held(5000, blocks=90, heap=90)},
        {"requests": 300, "memory": held(1100, blocks=70, heap=410)},
    ]
    found = growth(samples, "any", Mix.PLAIN)
    assert (found["rss_first"], found["rss_last"], found["requests"]) == (1000, 1100, 300)
    assert found["growth_ratio"] == pytest.approx(1.1)
    assert found["python_blocks_per_request"] == pytest.approx(0.1)
    assert found["heap_bytes_per_request"] == pytest.approx(2.0)


def test_what_this_c_library_cannot_tell_is_left_out() -> None:
    samples: list[Taken] = [
        {"requests": 100, "memory": held(1000, heap=None)},
        {"requests": 200, "memory": held(1000, heap=None)},
    ]
    assert growth(samples, "any", Mix.PLAIN)["heap_bytes_per_request"] is None


def test_a_sample_sees_what_is_allocated() -> None:
    before = sample()
    kept = [bytearray(100_000) for _ in range(100)]
    threads_before, after = before["threads"], sample()
    assert after["rss"] > 0
    assert after["python_blocks"] >= before["python_blocks"] + len(kept)
    assert after["threads"] == threads_before
    if before["heap"] is not None and after["heap"] is not None:
        assert after["heap"] - before["heap"] >= 9_000_000
