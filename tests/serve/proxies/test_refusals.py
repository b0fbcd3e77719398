"""What does not end well through a proxy: refusals arrive as they were sent, deadlines and cancels take effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from ..backlog import occupy, queue_behind
from ..calls import arrays, code_of, request, rows, slow
from ..process import Server, free_ports
from ..scrape import counted, wait_for
from .conftest import MAX_MESSAGE_BYTES
from .front import LIMIT_S, Front

BUSY_MS = 800
OK, CANCELLED = grpc.StatusCode.OK, grpc.StatusCode.CANCELLED
DEADLINE_EXCEEDED, UNAVAILABLE = grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE
RESOURCE_EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

# Envoy keeps deadlines itself, and would be as quick as the server.
DEADLINES_LEFT_ALONE = {
    "envoy": {"max_stream_duration: { grpc_timeout_header_max: 300s }": "max_stream_duration: {}"},
    "nginx": {},
}


@dataclass(frozen=True)
class Refusal:
    """What a client is told."""

    code: grpc.StatusCode
    words: str
    pushback: str | None


def refusal(stub: GRPCInferenceServiceStub, message: Any) -> Refusal:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message, timeout=LIMIT_S)
    metadata = dict(refused.value.trailing_metadata() or ())
    return Refusal(refused.value.code(), refused.value.details(), metadata.get("grpc-retry-pushback-ms"))


# --- statuses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (request("nobody 100% sûr\n", x=rows(1)), grpc.StatusCode.NOT_FOUND),
        (request("scale", version="7", x=rows(1)), grpc.StatusCode.NOT_FOUND),
        (request("scale", x=rows(1).astype("f8")), grpc.StatusCode.INVALID_ARGUMENT),
        (request("scale", y=rows(1)), grpc.StatusCode.INVALID_ARGUMENT),
    ],
    ids=["no model", "no version", "another type", "another input"],
)
def test_a_refusal_is_told_as_the_server_tells_it(
    stub: GRPCInferenceServiceStub, origin: Server, message: Any, code: grpc.StatusCode
) -> None:
    with origin.stub() as direct:
        expected = refusal(direct, message)
    assert expected.code is code
    assert expected.words
    assert refusal(stub, message) == expected


def test_a_message_that_the_server_refuses_while_it_comes_is_refused_with_its_words(
    stub: GRPCInferenceServiceStub, origin: Server
) -> None:
    message = request("alone", x=np.zeros((MAX_MESSAGE_BYTES // 16, 4), "f4"))
    with origin.stub() as direct:
        expected = refusal(direct, message)
    assert expected.code is RESOURCE_EXHAUSTED
    assert refusal(stub, message) == expected
    assert code_of(stub.ModelInfer.future(request("scale", x=rows(1)), timeout=LIMIT_S)) is OK


def test_a_full_queue_refuses_with_the_hint_when_to_come_back(stub: GRPCInferenceServiceStub, origin: Server) -> None:
    before = counted(origin, "slow_bounded")
    busy = occupy(origin, stub, "slow_bounded", BUSY_MS)
    waiting = queue_behind(origin, stub, 2, "slow_bounded")
    told = refusal(stub, slow(rows(3), 0, "slow_bounded"))
    assert told.code is RESOURCE_EXHAUSTED
    assert "'slow_bounded' is full" in told.words
    assert int(told.pushback or 0) > 0
    # And nobody on the way tried again.
    assert counted(origin, "slow_bounded").since(before).codes["RESOURCE_EXHAUSTED"] == 1
    assert code_of(busy) is OK
    for seed, call in zip((1, 2), waiting, strict=True):
        assert np.array_equal(arrays(call.result())["y"], rows(seed))


def test_what_the_proxy_refuses_itself_is_a_status_of_grpc(
    fronting: Callable[..., Front],
) -> None:
    with fronting(free_ports(1)).stub() as stub:
        assert code_of(stub.ModelInfer.future(request("scale", x=rows(1)), timeout=LIMIT_S)) is UNAVAILABLE


@pytest.mark.parametrize("kind", ["nginx"], indirect=True)
def test_a_message_beyond_nginxs_own_limit_is_refused_by_it(fronting: Callable[..., Front], origin: Server) -> None:
    front = fronting([origin.grpc_port], {"client_max_body_size 64m": "client_max_body_size 1m"})
    with front.stub() as stub:
        told = refusal(stub, request("alone", x=rows(1, 100_000)))
        assert told == Refusal(RESOURCE_EXHAUSTED, "the message is larger than client_max_body_size", None)


# --- time ----------------------------------------------------------------------------------------------


def test_a_deadline_that_passes_takes_the_request_out_of_the_queue(
    stub: GRPCInferenceServiceStub, origin: Server
) -> None:
    busy = occupy(origin, stub, duration_ms=BUSY_MS)
    late = stub.ModelInfer.future(slow(rows(1), 0), timeout=0.2)
    wait_for(origin, "slow", lambda now: now.queue_rows == 1)
    assert code_of(late) is DEADLINE_EXCEEDED
    wait_for(origin, "slow", lambda now: now.queue_rows == 0)
    assert not busy.done()
    assert code_of(busy) is OK


def test_the_server_itself_keeps_the_clients_deadline(
    kind: str, fronting: Callable[..., Front], origin: Server, transport: str
) -> None:
    front = fronting([origin.grpc_port], DEADLINES_LEFT_ALONE[kind])
    with front.stub() as stub:
        before = counted(origin, "slow")
        # As a header: with `timeout` the client would be as quick as the server.
        call = stub.ModelInfer.future(slow(rows(1), BUSY_MS), metadata=[("grpc-timeout", "100m")], timeout=None)
        assert code_of(call) is DEADLINE_EXCEEDED
        assert "deadline" in call.details().lower()
        # grpc.aio may be quicker than the service, which then finds the call cancelled.
        ends = {"DEADLINE_EXCEEDED"} if transport == "native" else {"DEADLINE_EXCEEDED", "CANCELLED"}
        ended = wait_for(origin, "slow", lambda now: now.since(before).codes != {}).since(before).codes
        assert set(ended) <= ends


@pytest.mark.parametrize("kind", ["envoy"], indirect=True)
def test_envoy_allows_no_longer_deadline_than_it_is_told(fronting: Callable[..., Front], origin: Server) -> None:
    front = fronting([origin.grpc_port], {"grpc_timeout_header_max: 300s": "grpc_timeout_header_max: 0.2s"})
    with front.stub() as stub:
        busy = occupy(origin, stub, duration_ms=BUSY_MS)
        late = stub.ModelInfer.future(slow(rows(1), 0), timeout=LIMIT_S)
        wait_for(origin, "slow", lambda now: now.queue_rows == 1)
        assert code_of(late) is DEADLINE_EXCEEDED
        wait_for(origin, "slow", lambda now: now.queue_rows == 0)
        # No deadline, no limit: what was begun without one goes on.
        assert not busy.done()
        assert code_of(busy) is OK


def test_who_cancels_or_vanishes_leaves_the_queue(front: Front, stub: GRPCInferenceServiceStub, origin: Server) -> None:
    busy = occupy(origin, stub, duration_ms=BUSY_MS)
    before = counted(origin, "slow")
    waiting = queue_behind(origin, stub, 3)
    waiting[1].cancel()
    with front.stub() as vanishing:
        lost = vanishing.ModelInfer.future(slow(rows(4), 0))
        wait_for(origin, "slow", lambda now: now.queue_rows == 3 and now.since(before).codes == {"CANCELLED": 1})
    wait_for(origin, "slow", lambda now: now.queue_rows == 2 and now.since(before).codes == {"CANCELLED": 2})
    assert not busy.done()
    assert [code_of(one) for one in (busy, lost)] == [OK, CANCELLED]
    for seed in (1, 3):
        assert np.array_equal(arrays(waiting[seed - 1].result())["y"], rows(seed))
