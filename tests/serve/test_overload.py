"""More than the server can do: what cannot be done in time or at all is refused at once, and says why."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import grpc
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import rows, slow
from .conftest import SLOW_ALONE
from .process import Server
from .scrape import samples

RUN_MS = 60
LIMIT_S = 30.0


@pytest.fixture(scope="module")
def lazy(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with one slow model."""
    folder = tmp_path_factory.mktemp("lazy")
    models.write(folder / "repository", "slow", models.slow(), config=SLOW_ALONE)
    started = Server(folder / "repository", folder, transport, ("--warmup-budget-ms=0",), {})
    with started.while_ready():
        yield started


@pytest.fixture
def stub(lazy: Server) -> Iterator[GRPCInferenceServiceStub]:
    with lazy.stub() as connected:
        yield connected


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
    lazy: Server, stub: GRPCInferenceServiceStub
) -> None:
    end = time.monotonic() + LIMIT_S
    text = ""
    # What is known of run times is known only while something runs, so both go on until they meet.
    while "nothing was queued" not in text:
        assert time.monotonic() < end, text
        stub.ModelInfer(slow(rows(1), RUN_MS))
        with pytest.raises(grpc.RpcError) as late:
            stub.ModelInfer(with_timeout(slow(rows(2), RUN_MS), RUN_MS // 4 * 1000))
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        text = late.value.details()
    assert refused(lazy, "hopeless") == 1


def with_timeout(message: Any, timeout_us: int) -> Any:
    """With the deadline told to the server only: by its own clock a client might be the first to give up."""
    message.parameters["timeout"].int64_param = timeout_us
    return message
