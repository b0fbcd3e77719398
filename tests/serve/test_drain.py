"""SIGTERM: what was accepted is finished, what is new is sent elsewhere, and the process ends well and in time."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import occupy, queue_behind
from .calls import arrays, code_of, request, rows, slow
from .conftest import SLOW_ALONE
from .process import POLL_S, Server
from .scrape import wait_for

OK, UNAVAILABLE = grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE


@pytest.fixture
def lazy(repository: Path, server: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a server whose model is as slow as it is told to be."""
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    return lambda *flags: server(repository, *flags)


def refusal(server: Server, stub: GRPCInferenceServiceStub) -> grpc.StatusCode:
    """The code with which new requests, sent one after the other, come to be refused."""
    passing = {OK}
    if server.transport == "grpcio":
        # A call that arrives in the very moment of its stop() is cancelled by gRPC itself.
        passing.add(grpc.StatusCode.CANCELLED)
    end = time.monotonic() + 5
    while (code := code_of(stub.ModelInfer.future(slow(rows(9), 0), timeout=5))) in passing:
        assert time.monotonic() < end, "new requests are still taken"
        time.sleep(POLL_S)
    return code


def test_what_was_queued_is_answered_and_what_is_new_is_refused(lazy: Callable[..., Server]) -> None:
    one = lazy()
    with one.stub() as stub, one.stub() as late:
        busy = occupy(one, stub, duration_ms=1000)
        calls = queue_behind(one, stub, 6, duration_ms=50)
        one.terminate()
        assert refusal(one, late) is UNAVAILABLE
        assert not calls[-1].done()
        assert [call.code() for call in (busy, *calls)] == [OK] * 7
        for seed, call in enumerate(calls, start=1):
            assert np.array_equal(arrays(call.result())["y"], rows(seed))
    assert one.wait(timeout_s=5) == 0


def test_a_model_that_has_ended_is_not_said_to_be_unknown_while_others_end(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    models.write(repository, "scale", models.scale())
    one = server(repository)
    with one.stub() as stub:
        busy = occupy(one, stub, duration_ms=1500)
        one.terminate()
        seen = []
        with suppress(OSError):  # the HTTP port answers until all has ended, which may be seen a little late here
            while not busy.done():
                seen.append(one.http("/v2/models/scale")[0])
        assert busy.code() is OK
    assert set(seen) <= {200, 503}
    assert seen[-1] == 503


def test_a_delay_that_gathers_batches_is_not_waited_out(repository: Path, server: Callable[..., Server]) -> None:
    config = "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 20000000 }"
    models.write(repository, "patient", models.scale(), config=config)
    one = server(repository)
    with one.stub() as stub:
        waiting = stub.ModelInfer.future(request("patient", x=rows(1)), timeout=5)
        wait_for(one, "patient", lambda now: now.queue_rows == 1)
        one.terminate()
        assert waiting.code() is OK
    assert one.wait(timeout_s=5) == 0


def test_a_second_sigterm_changes_nothing(lazy: Callable[..., Server]) -> None:
    one = lazy()
    with one.stub() as stub:
        busy = occupy(one, stub, duration_ms=800)
        [waiting] = queue_behind(one, stub, 1)
        one.terminate()
        assert refusal(one, stub) is UNAVAILABLE
        one.terminate()
        assert [busy.code(), waiting.code()] == [OK, OK]
    assert one.wait(timeout_s=5) == 0


def test_work_longer_than_the_grace_is_cut_and_the_process_still_ends_well(lazy: Callable[..., Server]) -> None:
    one = lazy("--drain-grace-ms=300")
    with one.stub() as stub:
        busy = occupy(one, stub, duration_ms=20_000)
        [waiting] = queue_behind(one, stub, 1)
        one.terminate()
        assert one.wait(timeout_s=5) == 0
        assert OK not in (busy.code(), waiting.code())
    # The run that nobody waits for any more is stopped, so no thread is left in it.
    assert "a runner did not finish in time" not in [record["message"] for record in one.log()]


def test_in_the_lame_duck_time_requests_are_still_answered(lazy: Callable[..., Server]) -> None:
    one = lazy("--drain-lame-duck-ms=1500")
    with one.stub() as stub:
        one.terminate()
        end = time.monotonic() + 5
        while one.health() != "NOT_SERVING":
            assert time.monotonic() < end
            time.sleep(POLL_S)
        assert np.array_equal(arrays(stub.ModelInfer(slow(rows(1), 0)))["y"], rows(1))
    assert one.wait(timeout_s=10) == 0


def test_an_idle_connection_does_not_hold_up_the_end(lazy: Callable[..., Server]) -> None:
    one = lazy()
    with one.channel() as idle:
        grpc.channel_ready_future(idle).result(timeout=10)
        one.terminate()
        assert one.wait(timeout_s=5) == 0


def test_sigint_is_a_sigterm(lazy: Callable[..., Server]) -> None:
    one = lazy()
    with one.stub() as stub:
        busy = occupy(one, stub, duration_ms=300)
        one.process.send_signal(signal.SIGINT)
        assert busy.code() is OK
    assert one.wait(timeout_s=5) == 0
