"""Calls other than inference, and calls that find nothing, as log, traces and metrics have them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import grpc
import onnx_models as models
import pytest

from inferd.proto import inference_pb2 as pb

from .calls import code_of, request, rows
from .collector import Collected, Received, over_grpc
from .conftest import UNLEARNT
from .process import POLL_S, Server, eventually
from .scrape import samples

TIMEOUT_S = 30.0
V2 = "inference.GRPCInferenceService"
SECRET = "do-not-write-this-down"
SERVER = 2  # a kind of spans


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    with over_grpc() as running:
        yield running


@pytest.fixture(scope="module")
def watched(transport: str, collected: Collected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs every call, and traces those whose callers do."""
    folder = tmp_path_factory.mktemp("watched")
    models.write(folder / "repository", "mlp", models.mlp())
    said = (
        "--log-access=true", "--tracing-enabled=true", f"--tracing-endpoint={collected.endpoint}",
        "--tracing-sample-rate=0", "--model-control-mode=explicit", "--load-model=*",
    )  # fmt: skip
    one = Server(folder / "repository", folder, transport, (*UNLEARNT, *said), {})
    with one.while_ready():
        yield one


class Traced:
    """Metadata of a caller that traces its call."""

    def __init__(self) -> None:
        self.trace_id, self.span_id = os.urandom(16).hex(), os.urandom(8).hex()
        self.metadata = (
            ("traceparent", f"00-{self.trace_id}-{self.span_id}-01"), ("tracestate", "vendor=1"),
            ("authorization", SECRET),
        )  # fmt: skip


def line_of(server: Server, trace_id: str) -> dict[str, Any]:
    """The line of the access log for the one call of a trace."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        found = [one for one in server.log() if one["logger"] == "inferd.access" and one.get("trace_id") == trace_id]
        if found:
            [line] = found
            return line
        assert time.monotonic() < end, server.stderr
        time.sleep(POLL_S)


def span_of(collected: Collected, trace_id: str) -> Received:
    collected.wait_for(lambda now: now.of_trace(trace_id) != [])
    [span] = collected.of_trace(trace_id)
    return span


def counts(server: Server) -> dict[tuple[str, str], float]:
    return {
        (labels["method"], labels["code"]): value for name, labels, value in samples(server)
        if name == "inferd_call_duration_seconds_count" and labels["carrier"] == "grpc"
    }  # fmt: skip


CALLS = [
    (f"{V2}/ServerMetadata", pb.ServerMetadataRequest(), "OK", None),
    (f"{V2}/ModelMetadata", pb.ModelMetadataRequest(name="mlp"), "OK", "mlp"),
    (f"{V2}/ModelConfig", pb.ModelConfigRequest(name="stranger"), "NOT_FOUND", "stranger"),
    (f"{V2}/RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="mlp"), "OK", "mlp"),
    (f"{V2}/SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest(name="r"), "UNIMPLEMENTED", None),
    (f"{V2}/RepositoryIndex", pb.RepositoryIndexRequest(repository_name="r"), "UNIMPLEMENTED", None),
]


@pytest.mark.parametrize(("method", "message", "code", "model"), CALLS, ids=[one[0].split("/")[1] for one in CALLS])
def test_a_call_is_a_line_a_span_and_an_observation(
    watched: Server, collected: Collected, method: str, message: Any, code: str, model: str | None
) -> None:
    before, traced = counts(watched), Traced()
    with watched.channel() as channel:
        call = channel.unary_unary(f"/{method}")
        assert code_of(lambda: call(message.SerializeToString(), metadata=traced.metadata)).name == code
    line, span = line_of(watched, traced.trace_id), span_of(collected, traced.trace_id)
    assert (line["method"], line["code"], line.get("model")) == (method, code, model)
    assert line["duration_ms"] >= 0
    assert line["span_id"] == span.span_id
    assert (span.name, span.kind, span.parent_id, span.state) == (method, SERVER, traced.span_id, "vendor=1")
    told = {
        "rpc.system.name": "grpc", "rpc.method": method, "rpc.response.status_code": code,
        "inferd.model.name": model, "error.type": "UNIMPLEMENTED" if code == "UNIMPLEMENTED" else None,
    }  # fmt: skip
    assert span.attributes == {key: value for key, value in told.items() if value is not None}
    assert span.status == (2 if code == "UNIMPLEMENTED" else 0)
    assert span.start_ns <= span.end_ns
    eventually(lambda: counts(watched).get((method, code)) == before.get((method, code), 0) + 1)
    assert SECRET not in watched.stderr


@pytest.mark.parametrize("path", [f"{V2}/Nothing", "some.Service/Method"])
def test_methods_that_are_not_here_have_one_name(watched: Server, collected: Collected, path: str) -> None:
    before, traced = counts(watched), Traced()
    with watched.channel() as channel:
        call = channel.unary_unary(f"/{path}")
        assert code_of(lambda: call(b"", metadata=traced.metadata)) is grpc.StatusCode.UNIMPLEMENTED
    line, span = line_of(watched, traced.trace_id), span_of(collected, traced.trace_id)
    assert (line["method"], line["method_original"], line["code"]) == ("_OTHER", path, "UNIMPLEMENTED")
    assert span.attributes == {
        "rpc.system.name": "grpc", "rpc.method": "_OTHER", "rpc.method_original": path,
        "rpc.response.status_code": "UNIMPLEMENTED", "error.type": "UNIMPLEMENTED",
    }  # fmt: skip
    key = ("_OTHER", "UNIMPLEMENTED")
    eventually(lambda: counts(watched).get(key) == before.get(key, 0) + 1)
    assert path not in watched.metrics_text()


def test_inference_for_a_model_that_is_not_here_is_told_too(watched: Server, collected: Collected) -> None:
    unary, streamed, garbled = Traced(), Traced(), Traced()
    message = request("stranger", id="lost", x=rows(1))
    with watched.stub() as stub:
        assert code_of(lambda: stub.ModelInfer(message, metadata=unary.metadata)).name == "NOT_FOUND"
        [answer] = list(stub.ModelStreamInfer(iter([message]), metadata=streamed.metadata))
        assert answer.error_message
    with watched.channel() as channel:
        call = channel.unary_unary(f"/{V2}/ModelInfer")
        assert code_of(lambda: call(b"\xff" * 9, metadata=garbled.metadata)).name == "INVALID_ARGUMENT"
    for traced, name in ((unary, "ModelInfer"), (streamed, "ModelStreamInfer")):
        line, span = line_of(watched, traced.trace_id), span_of(collected, traced.trace_id)
        assert (line["method"], line["code"]) == (f"{V2}/{name}", "NOT_FOUND")
        assert (line["model"], line["request_id"]) == ("stranger", "lost")
        assert span.name == f"{V2}/{name}"
        assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"
        assert span.attributes["inferd.model.name"] == "stranger"
    line = line_of(watched, garbled.trace_id)
    assert (line["code"], line.get("model")) == ("INVALID_ARGUMENT", None)
    assert span_of(collected, garbled.trace_id).attributes["rpc.response.status_code"] == "INVALID_ARGUMENT"
    assert "stranger" not in watched.metrics_text()


def test_health_checks_are_counted_and_not_logged_and_traced_for_those_who_trace(
    watched: Server, collected: Collected
) -> None:
    before, traced, last = counts(watched), Traced(), Traced()
    method = f"{V2}/ServerReady"
    with watched.channel() as channel:
        channel.unary_unary(f"/{method}")(b"", metadata=traced.metadata)
        channel.unary_unary(f"/{V2}/ServerMetadata")(b"", metadata=last.metadata)
    assert watched.health() == "SERVING"
    assert span_of(collected, traced.trace_id).name == method
    line_of(watched, last.trace_id)  # written after what came before it
    logged = {one["method"] for one in watched.log() if one["logger"] == "inferd.access"}
    assert not {method, "grpc.health.v1.Health/Check"} & logged
    check = ("grpc.health.v1.Health/Check", "OK")
    eventually(lambda: counts(watched).get(check, 0) > before.get(check, 0))
    eventually(lambda: counts(watched).get((method, "OK")) == before.get((method, "OK"), 0) + 1)
