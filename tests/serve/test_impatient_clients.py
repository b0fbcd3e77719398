"""Clients that hang up, run out of time or come when the queue is full: they cost themselves, nobody else."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import BUSY_MS, occupy, queue_behind
from .calls import arrays, code_of, request, rows, slow
from .conftest import SLOW_ALONE
from .process import Server
from .scrape import counted, wait_for


def test_one_of_four_queued_requests_is_cancelled_and_the_others_are_right(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    busy = occupy(lazy, lazy_stub)
    before = counted(lazy, "slow")
    calls = queue_behind(lazy, lazy_stub, 4)
    assert calls[1].cancel()
    wait_for(lazy, "slow", lambda now: now.queue_rows == 3)
    for seed in (1, 3, 4):
        assert np.array_equal(arrays(calls[seed - 1].result())["y"], rows(seed))
    assert code_of(busy) is grpc.StatusCode.OK
    after = counted(lazy, "slow").since(before)
    assert after.codes == {"OK": 4, "CANCELLED": 1}
    assert after.rows == 4


def test_a_request_that_is_cancelled_while_it_runs_leaves_the_next_one_right(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    busy = occupy(lazy, lazy_stub, duration_ms=300)
    [waiting] = queue_behind(lazy, lazy_stub, 1)
    assert busy.cancel()
    assert np.array_equal(arrays(waiting.result())["y"], rows(1))


KILLED = """
import grpc, sys
address, body = sys.argv[1], sys.stdin.buffer.read()
with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
    channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(body)
"""


def test_a_client_that_is_killed_mid_call_leaves_the_server_healthy(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub, tmp_path: Path
) -> None:
    busy = occupy(lazy, lazy_stub, duration_ms=1500)
    before = counted(lazy, "slow")
    body = tmp_path / "body"
    body.write_bytes(slow(rows(0), BUSY_MS).SerializeToString())
    with (
        body.open("rb") as stdin,
        subprocess.Popen([sys.executable, "-c", KILLED, lazy.address], stdin=stdin) as client,
    ):
        try:
            wait_for(lazy, "slow", lambda now: now.queue_rows == 1)
            assert code_of(busy) is grpc.StatusCode.OK
            wait_for(lazy, "slow", lambda now: now.queue_rows == 0)
        finally:
            client.kill()
    assert np.array_equal(arrays(lazy_stub.ModelInfer(slow(rows(1), 0)))["y"], rows(1))
    after = wait_for(lazy, "slow", lambda now: now.since(before).requests == 3).since(before)
    assert after.codes == {"OK": 2, "CANCELLED": 1}
    assert lazy.health() == "SERVING"


def test_a_deadline_that_passes_in_the_queue_is_told_and_the_model_never_runs_the_request(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    busy = occupy(lazy, lazy_stub)
    before = counted(lazy, "slow")
    late = lazy_stub.ModelInfer.future(slow(rows(1), 0), timeout=0.1)
    assert code_of(late) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert not busy.done()
    assert code_of(busy) is grpc.StatusCode.OK
    assert np.array_equal(arrays(lazy_stub.ModelInfer(slow(rows(2), 0)))["y"], rows(2))
    after = counted(lazy, "slow").since(before)
    # The busy one and the last one; whether the client or the server was first to notice is a race.
    assert after.rows == 2
    assert after.codes.pop("OK") == 2
    assert sum(after.codes.values()) == 1
    assert set(after.codes) <= {"DEADLINE_EXCEEDED", "CANCELLED"}


def test_a_deadline_has_passed_before_the_request_arrives(lazy: Server, lazy_stub: GRPCInferenceServiceStub) -> None:
    # Slow, because the shortest time that gRPC can say is one in which a quick model may well answer.
    assert code_of(lazy_stub.ModelInfer.future(slow(rows(1), BUSY_MS), timeout=0)) is grpc.StatusCode.DEADLINE_EXCEEDED
    assert code_of(lazy_stub.ModelInfer.future(slow(rows(1), 0))) is grpc.StatusCode.OK


def test_a_client_without_a_deadline_gets_the_servers(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    one = server(repository, "--inference-timeout-ms=150")
    with one.stub() as stub:
        # Longer than the server's own limit, which a client's deadline replaces.
        busy = occupy(one, stub, timeout=20)
        before = counted(one, "slow")
        with pytest.raises(grpc.RpcError) as late:
            stub.ModelInfer(slow(rows(1), 0))
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "deadline" in late.value.details()
        assert code_of(busy) is grpc.StatusCode.OK
        assert counted(one, "slow").since(before).codes == {"DEADLINE_EXCEEDED": 1, "OK": 1}


def test_each_request_of_a_stream_without_a_deadline_gets_the_servers(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    one = server(repository, "--inference-timeout-ms=400")
    turn = threading.Semaphore(0)

    def requests() -> Iterator[Any]:
        yield slow(rows(1), 0, id="while it waits")
        turn.acquire()
        yield slow(rows(2), 1500, id="while it runs")
        turn.acquire()
        yield slow(rows(3), 0, id="in time")

    with one.stub() as stub:
        # Somebody who has a deadline of his own keeps the model busy for longer.
        busy = occupy(one, stub, duration_ms=1500, timeout=30)
        answers = stub.ModelStreamInfer(requests())
        for id in ("while it waits", "while it runs"):
            late = next(answers)
            assert late.infer_response.id == id
            assert "the deadline passed" in late.error_message
            assert code_of(busy) is grpc.StatusCode.OK
            turn.release()
        (last,) = answers
        assert np.array_equal(arrays(last.infer_response)["y"], rows(3))


def test_a_full_queue_refuses_with_a_hint_when_to_come_back(lazy: Server, lazy_stub: GRPCInferenceServiceStub) -> None:
    # Two rows may wait for this model.
    busy = occupy(lazy, lazy_stub, "slow_bounded")
    waiting = queue_behind(lazy, lazy_stub, 2, "slow_bounded")
    with pytest.raises(grpc.RpcError) as refused:
        lazy_stub.ModelInfer(slow(rows(3), 0, "slow_bounded"))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "'slow_bounded' is full" in refused.value.details()
    pushback = dict(refused.value.trailing_metadata())["grpc-retry-pushback-ms"]
    assert int(pushback) > 0
    assert code_of(busy) is grpc.StatusCode.OK
    for seed, call in zip((1, 2), waiting, strict=True):
        assert np.array_equal(arrays(call.result())["y"], rows(seed))
    assert code_of(lazy_stub.ModelInfer.future(slow(rows(4), 0, "slow_bounded"))) is grpc.StatusCode.OK


def test_cancelling_makes_room_in_a_full_queue(lazy: Server, lazy_stub: GRPCInferenceServiceStub) -> None:
    busy = occupy(lazy, lazy_stub, "slow_bounded")
    waiting = queue_behind(lazy, lazy_stub, 2, "slow_bounded")
    waiting[0].cancel()
    wait_for(lazy, "slow_bounded", lambda now: now.queue_rows == 1)
    late = lazy_stub.ModelInfer.future(slow(rows(3), 0, "slow_bounded"))
    assert [code_of(one) for one in (busy, waiting[1], late)] == [grpc.StatusCode.OK] * 3


def test_the_bound_in_bytes_refuses_too(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "slow", models.slow(), config="max_batch_size: 64")
    one = server(repository, "--batching-max-queue-bytes=4096", "--grpc-max-message-bytes=4096")
    with one.stub() as stub:
        busy = occupy(one, stub)
        # 60 rows of 24 bytes each are 1440 bytes: two requests fit, a third does not.
        waiting = [stub.ModelInfer.future(slow(rows(seed, 60), 0)) for seed in (1, 2)]
        wait_for(one, "slow", lambda now: now.queue_rows == 120)
        assert code_of(stub.ModelInfer.future(slow(rows(3, 60), 0))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert [code_of(call) for call in (busy, *waiting)] == [grpc.StatusCode.OK] * 3


def test_requests_that_cannot_be_right_are_refused_at_once_even_while_the_model_is_busy(
    lazy: Server, lazy_stub: GRPCInferenceServiceStub
) -> None:
    busy = occupy(lazy, lazy_stub)
    assert code_of(lazy_stub.ModelInfer.future(request("slow", x=rows(1)))) is grpc.StatusCode.INVALID_ARGUMENT
    assert not busy.done()
    assert code_of(busy) is grpc.StatusCode.OK
