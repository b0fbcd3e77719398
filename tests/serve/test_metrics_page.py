"""The metrics page of a running server: it parses, and what it counts adds up."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import request, rows
from .process import Server
from .scrape import counted, samples


def test_every_request_is_counted_once_under_its_code(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    before = counted(zoo, "two_by_two")
    for _ in range(3):
        stub.ModelInfer(request("two_by_two", a=np.zeros((2, 3), "f4"), b=np.zeros((2, 1), "i8")))
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(request("two_by_two", a=np.zeros((2, 3), "f4")))
    after = counted(zoo, "two_by_two").since(before)
    assert after.codes == {"OK": 3, "INVALID_ARGUMENT": 1}
    assert after.requests == 4
    assert after.rows == 6
    assert after.queue_rows == 0


def test_requests_for_unknown_models_are_counted_without_their_names(
    zoo: Server, stub: GRPCInferenceServiceStub
) -> None:
    before = counted(zoo, "")
    for name in ("a", "b", "../c"):
        with contextlib.suppress(grpc.RpcError):
            stub.ModelInfer(request(name, x=rows(1)))
    assert counted(zoo, "").since(before).codes == {"NOT_FOUND": 3}


def test_every_model_of_the_repository_is_on_the_page(zoo: Server) -> None:
    ready = {labels["model"]: value for name, labels, value in samples(zoo) if name == "inferd_model_ready"}
    assert {"mlp", "slow", "identity_BF16", "versioned"} <= set(ready)
    assert set(ready.values()) == {1.0}


def test_the_versions_that_answer_are_on_the_page(zoo: Server) -> None:
    [build] = [labels for name, labels, _ in samples(zoo) if name == "inferd_build_info"]
    assert set(build) == {"version", "python", "onnxruntime"}
    assert all(build.values())


def test_the_page_can_be_turned_off(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--metrics-enabled=false")
    with pytest.raises(OSError, match="refused"):
        one.metrics_text()
