"""More than the server can do: what cannot be done in time or at all is refused at once, and says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import occupy, queue_behind
from .calls import code_of, rows, slow
from .conftest import SLOW_ALONE
from .process import Server
from .scrape import samples, wait_for

RUN_MS = 60
LIMIT_S = 30.0


def refused(server: Server, reason: str) -> int:
    """Requests refused so far for a reason."""
    return int(
        sum(
            value
            for name, labels, value in samples(server)
            if name == "inferd_shed_requests_total" and labels["reason"] == reason
        )
    )


def test_a_request_that_cannot_be_answered_by_its_deadline_is_refused_at_once(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    end = time.monotonic() + LIMIT_S
    text = ""
    # What is known of run times is known only while something runs, so both go on until they meet.
    while "nothing was queued" not in text:
        assert time.monotonic() < end, text
        lazy_stub.ModelInfer(slow(rows(1), RUN_MS))
        with pytest.raises(grpc.RpcError) as late:
            lazy_stub.ModelInfer(with_timeout(slow(rows(2), RUN_MS), RUN_MS // 4 * 1000))
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        text = late.value.details()
    assert refused(lazy, "hopeless") == 1


def test_a_run_that_nobody_waits_for_is_stopped_and_the_model_answers_the_next_one(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    before = stopped(lazy)
    busy = occupy(lazy, lazy_stub, duration_ms=10 * 60 * 1000)
    waiting = queue_behind(lazy, lazy_stub, 1)
    busy.cancel()
    assert code_of(waiting[0]) is grpc.StatusCode.OK
    assert stopped(lazy) == before + 1
    # So is one whose deadline has passed.
    late = lazy_stub.ModelInfer.future(with_timeout(slow(rows(1), 10 * 60 * 1000), 300_000))
    assert code_of(late) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert code_of(lazy_stub.ModelInfer.future(slow(rows(2), 0), timeout=LIMIT_S)) is grpc.StatusCode.OK


def test_one_caller_that_sends_without_end_does_not_keep_another_waiting(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    greedy = [lazy_stub.ModelInfer.future(slow(rows(seed), 100)) for seed in range(40)]
    wait_for(lazy, "slow", lambda now: now.queue_rows > 30)
    with lazy.stub() as polite:
        assert code_of(polite.ModelInfer.future(slow(rows(99), 0), timeout=LIMIT_S)) is grpc.StatusCode.OK
    # In order of arrival all of them would have been first.
    assert not all(one.done() for one in greedy)
    for one in greedy:
        one.cancel()


def stopped(server: Server) -> int:
    """Runs that were stopped so far."""
    return int(sum(value for name, _, value in samples(server) if name == "inferd_stopped_batches_total"))


@pytest.fixture
def bounded(repository: Path, server: Callable[..., Server]) -> Server:
    """A server that works on three requests at a time."""
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    return server(repository, "--admission-max-requests=3")


def test_a_caller_leaves_room_for_others_and_a_full_server_says_when_to_come_back(bounded: Server) -> None:
    with bounded.stub() as greedy, bounded.stub() as other:
        busy = occupy(bounded, greedy)
        waiting = queue_behind(bounded, greedy, 1)
        assert reason_of(greedy) == "this caller has as many requests at the server as it may"
        waiting.append(other.ModelInfer.future(slow(rows(9), 0)))
        wait_for(bounded, "slow", lambda now: now.queue_rows == 2)
        assert reason_of(other) == "the server has as many requests as it takes at a time"
        assert bounded.health() == "SERVING"
        assert [code_of(one) for one in (busy, *waiting)] == [grpc.StatusCode.OK] * 3
        assert code_of(greedy.ModelInfer.future(slow(rows(1), 0))) is grpc.StatusCode.OK
    # Whatever made the model busy may have been refused as well.
    assert refused(bounded, "caller") >= 1
    assert refused(bounded, "requests") == 1


def test_a_request_of_a_stream_that_is_refused_says_so_in_its_place(bounded: Server) -> None:
    with bounded.stub() as stub:
        busy = occupy(bounded, stub)
        first, second = stub.ModelStreamInfer(iter([slow(rows(1), 0, id="in"), slow(rows(2), 0, id="out")]))
        assert (first.infer_response.id, first.error_message) == ("in", "")
        assert second.infer_response.id == "out"
        assert "this caller has as many requests" in second.error_message
        assert code_of(busy) is grpc.StatusCode.OK


def reason_of(stub: GRPCInferenceServiceStub) -> str:
    """Why a request is refused; checked for what every refusal has."""
    with pytest.raises(grpc.RpcError) as refusal:
        stub.ModelInfer(slow(rows(0), 0))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert int(dict(refusal.value.trailing_metadata())["grpc-retry-pushback-ms"]) > 0
    assert not refusal.value.initial_metadata()
    return str(refusal.value.details()).partition(" (")[0]


def with_timeout(message: Any, timeout_us: int) -> Any:
    """With the deadline told to the server only: by its own clock a client might be the first to give up."""
    message.parameters["timeout"].int64_param = timeout_us
    return message
