"""REST as log, traces and metrics have it: a request is a server span of HTTP, with the parts of its inference."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Iterator
from typing import Any

import onnx_models as models
import pytest

from .collector import Collected, Received, over_grpc
from .conftest import UNLEARNT
from .process import POLL_S, Server, eventually
from .scrape import samples

TIMEOUT_S = 30.0
SECRET = "do-not-write-this-down"
INFER = "/v2/models/{model}/infer"
METHOD = "inference.GRPCInferenceService/ModelInfer"
PARTS = {"inferd.queue", "inferd.gather", "inferd.run", "inferd.encode"}
SERVER, INTERNAL = 2, 1
BODY = {"id": "one", "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1.0, 2.0, 3.0, 4.0]}]}


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    with over_grpc() as running:
        yield running


@pytest.fixture(scope="module")
def watched(transport: str, collected: Collected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that logs every request, and traces those whose callers do."""
    folder = tmp_path_factory.mktemp("watched")
    models.write(folder / "repository", "mlp", models.mlp())
    said = ("--log-access=true", "--tracing-enabled=true", f"--tracing-endpoint={collected.endpoint}",
            "--tracing-sample-rate=0")  # fmt: skip
    one = Server(folder / "repository", folder, transport, (*UNLEARNT, *said), {})
    with one.while_ready():
        yield one


def traced(server: Server, path: str, body: Any = None, method: str = "", flag: str = "01") -> tuple[int, str, str]:
    """The status of a request that is part of a trace, and the ids of that and of the caller's span."""
    trace_id, span_id = os.urandom(16).hex(), os.urandom(8).hex()
    headers = {"traceparent": f"00-{trace_id}-{span_id}-{flag}", "tracestate": "vendor=1", "authorization": SECRET}
    sent = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=TIMEOUT_S)
    try:
        connection.request(method or ("GET" if sent is None else "POST"), path, sent, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status, trace_id, span_id
    finally:
        connection.close()


def line_of(server: Server, trace_id: str) -> dict[str, Any]:
    end = time.monotonic() + TIMEOUT_S
    while not (found := [one for one in server.log() if one.get("trace_id") == trace_id]):
        assert time.monotonic() < end, server.stderr
        time.sleep(POLL_S)
    [line] = found
    return line


def spans_of(collected: Collected, trace_id: str, count: int) -> dict[str, Received]:
    collected.wait_for(lambda now: len(now.of_trace(trace_id)) >= count)
    return {span.name: span for span in collected.of_trace(trace_id)}


def count(server: Server, method: str, code: str) -> float:
    return sum(
        value for name, labels, value in samples(server)
        if name == "inferd_call_duration_seconds_count"
        and (labels["carrier"], labels["method"], labels["code"]) == ("http", method, code)
    )  # fmt: skip


def test_an_inference_is_a_span_with_the_parts_of_its_run(watched: Server, collected: Collected) -> None:
    before = count(watched, METHOD, "OK")
    status, trace_id, parent = traced(watched, "/v2/models/mlp/infer", BODY)
    assert status == 200
    spans = spans_of(collected, trace_id, 5)
    assert set(spans) == {f"POST {INFER}", *PARTS}
    server = spans[f"POST {INFER}"]
    assert (server.kind, server.parent_id, server.status, server.state) == (SERVER, parent, 0, "vendor=1")
    told = {key: value for key, value in server.attributes.items() if not key.startswith("inferd.batch")}
    assert told == {
        "http.request.method": "POST", "http.route": INFER, "http.response.status_code": 200,
        "url.path": "/v2/models/mlp/infer", "url.scheme": "http", "network.protocol.version": "1.1",
        "inferd.model.name": "mlp", "inferd.model.version": "1", "inferd.request.id": "one",
    }  # fmt: skip
    parts = [spans[name] for name in ("inferd.queue", "inferd.gather", "inferd.run", "inferd.encode")]
    assert {(part.parent_id, part.kind) for part in parts} == {(server.span_id, INTERNAL)}
    edges = [server.start_ns, *(edge for part in parts for edge in (part.start_ns, part.end_ns)), server.end_ns]
    assert edges == sorted(edges)
    batch_id = server.attributes["inferd.batch.trace_id"]
    [batch] = spans_of(collected, batch_id, 1).values()
    assert (server.trace_id, server.span_id) in batch.links
    line = line_of(watched, trace_id)
    assert (line["method"], line["http_method"], line["route"], line["http_status"]) == (METHOD, "POST", INFER, 200)
    assert (line["model"], line["version"], line["code"], line["request_id"]) == ("mlp", "1", "OK", "one")
    assert (line["rows"], line["span_id"]) == (1, server.span_id)
    assert 0 <= line["queue_ms"] <= line["duration_ms"]
    assert 0 < line["compute_ms"] <= line["duration_ms"]
    eventually(lambda: count(watched, METHOD, "OK") == before + 1)
    assert f'trace_id="{trace_id}"' in watched.metrics_text(accept="application/openmetrics-text")
    assert SECRET not in watched.stderr


ENDS = [
    ("/v2/models/stranger/infer", BODY, "", 404, "NOT_FOUND", f"POST {INFER}", METHOD),
    ("/v2/models/mlp/infer", b"{", "", 400, "INVALID_ARGUMENT", f"POST {INFER}", METHOD),
    ("/v2/models/mlp/infer", None, "GET", 405, "UNIMPLEMENTED", f"GET {INFER}", METHOD),
    ("/v2/models/mlp", None, "", 200, "OK", "GET /v2/models/{model}", "inference.GRPCInferenceService/ModelMetadata"),
    ("/no/such/path?token=x", None, "", 404, "NOT_FOUND", "GET", "_OTHER"),
    ("/v2", None, "FETCH", 405, "UNIMPLEMENTED", "HTTP /v2", "inference.GRPCInferenceService/ServerMetadata"),
    ("/v2/health/ready", None, "", 200, "OK", "GET /v2/health/ready", "inference.GRPCInferenceService/ServerReady"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "body", "method", "status", "code", "name", "of"), ENDS)
def test_every_request_is_a_span_and_counted(
    watched: Server, collected: Collected, path: str, body: Any, method: str, status: int, code: str, name: str, of: str
) -> None:
    before = count(watched, of, code)
    found, trace_id, parent = traced(watched, path, body, method)
    assert found == status
    [span] = spans_of(collected, trace_id, 1).values()
    assert (span.name, span.kind, span.parent_id, span.status) == (name, SERVER, parent, 0)
    assert span.attributes["http.response.status_code"] == status
    assert "error.type" not in span.attributes
    assert "token" not in json.dumps(span.attributes)
    if method == "FETCH":
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.attributes["http.request.method_original"] == "FETCH"
    eventually(lambda: count(watched, of, code) == before + 1)
    if of.endswith("ServerReady"):
        return
    line = line_of(watched, trace_id)
    assert (line["method"], line["http_status"], line["code"]) == (of, status, code)
    assert line.get("model", "") in path


def test_a_caller_that_does_not_sample_is_heeded_and_probes_are_not_logged(
    watched: Server, collected: Collected
) -> None:
    _, dark, _ = traced(watched, "/v2/models/mlp/infer", BODY, flag="00")
    _, probe, _ = traced(watched, "/health")
    _, light, _ = traced(watched, "/v2")
    line_of(watched, light)
    assert set(spans_of(collected, probe, 1)) == {"GET /health"}
    spans_of(collected, light, 1)
    assert collected.of_trace(dark) == []
    assert not [one for one in watched.log() if one.get("method") == "inferd.Http/Health"]
