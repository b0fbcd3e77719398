"""A client of another gRPC stack, in Go, that knows nothing but what reflection tells it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx_models as models
import pytest

from .process import Server

BESIDE_PYTHON = os.path.dirname(sys.executable)


@pytest.fixture(scope="module")
def grpcurl() -> str:
    found = shutil.which("grpcurl", path=os.pathsep.join([BESIDE_PYTHON, os.environ.get("PATH", "")]))
    if found is None:
        pytest.skip("grpcurl is not installed")
    return found


def ask(grpcurl: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [grpcurl, "-plaintext", "-max-time", "10", *arguments],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def answer(grpcurl: str, *arguments: str) -> str:
    done = ask(grpcurl, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def call(grpcurl: str, server: Server, method: str, message: Any) -> Any:
    return json.loads(answer(grpcurl, "-d", json.dumps(message), server.address, method))


def test_it_lists_the_services(grpcurl: str, zoo: Server) -> None:
    assert set(answer(grpcurl, zoo.address, "list").split()) == {
        "inference.GRPCInferenceService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_it_describes_a_method_and_its_message(grpcurl: str, zoo: Server) -> None:
    method = answer(grpcurl, zoo.address, "describe", "inference.GRPCInferenceService.ModelInfer")
    assert "rpc ModelInfer ( .inference.ModelInferRequest ) returns ( .inference.ModelInferResponse )" in method
    assert "raw_input_contents = 7" in answer(grpcurl, zoo.address, "describe", "inference.ModelInferRequest")


def test_it_describes_a_message_of_the_imported_file(grpcurl: str, zoo: Server) -> None:
    assert "max_batch_size = 4" in answer(grpcurl, zoo.address, "describe", "inference.ModelConfig")


def test_it_asks_whether_a_model_is_ready(grpcurl: str, zoo: Server) -> None:
    assert call(grpcurl, zoo, "inference.GRPCInferenceService/ModelReady", {"name": "mlp"}) == {"ready": True}


def test_it_asks_for_health(grpcurl: str, zoo: Server) -> None:
    assert call(grpcurl, zoo, "grpc.health.v1.Health/Check", {"service": "mlp/1"}) == {"status": "SERVING"}


def test_it_infers_with_typed_contents(grpcurl: str, zoo: Server) -> None:
    tensor = {"name": "IN", "datatype": "INT32", "shape": [1, 3], "contents": {"int_contents": [1, -2, 3]}}
    message = {"model_name": "identity_INT32", "inputs": [tensor]}
    got = call(grpcurl, zoo, "inference.GRPCInferenceService/ModelInfer", message)
    assert got["raw_output_contents"] == ["AQAAAP7///8DAAAA"]


def test_it_shows_code_and_message_of_an_error(grpcurl: str, zoo: Server) -> None:
    done = ask(grpcurl, "-d", '{"name": "nothing"}', zoo.address, "inference.GRPCInferenceService/ModelMetadata")
    assert done.returncode != 0
    assert "Code: NotFound" in done.stderr
    assert "there is no model 'nothing' here" in done.stderr


def test_without_reflection_it_learns_nothing(grpcurl: str, repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--grpc-reflection=false")
    done = ask(grpcurl, one.address, "list")
    assert done.returncode != 0
    assert "does not support the reflection API" in done.stderr
