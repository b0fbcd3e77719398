"""Traces as a collector receives them over the wire, of both transports."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, code_of, request, rows, slow
from .collector import Collected, Received, over_grpc, over_http
from .conftest import BATCH_OF_4, SLOW_ALONE, UNLEARNT
from .process import Server
from .scrape import samples

INFER = "inference.GRPCInferenceService/ModelInfer"
STREAM = "inference.GRPCInferenceService/ModelStreamInfer"
PARTS = ["inferd.queue", "inferd.gather", "inferd.run", "inferd.encode"]
SERVER, INTERNAL = 2, 1  # kinds of spans
ERROR = 2
HIDDEN = {"OTEL_SERVICE_NAME": "", "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test"}


def flags(collected: Collected, *more: str) -> tuple[str, ...]:
    return ("--tracing-enabled=true", f"--tracing-endpoint={collected.endpoint}", *more)


@pytest.fixture(scope="module")
def collected() -> Iterator[Collected]:
    with over_grpc() as running:
        yield running


@pytest.fixture(scope="module")
def traced(transport: str, collected: Collected, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that traces only those whose callers do."""
    folder = tmp_path_factory.mktemp("traced")
    repository = folder / "repository"
    models.write(repository, "mlp", models.mlp())
    models.write(repository, "scale_by_4", models.scale(), config=BATCH_OF_4)
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    said = flags(collected, "--tracing-sample-rate=0", "--control-trace-settings=true")
    one = Server(repository, folder, transport, (*UNLEARNT, *said), HIDDEN)
    with one.while_ready():
        yield one


@pytest.fixture
def stub(traced: Server) -> Iterator[GRPCInferenceServiceStub]:
    with traced.stub() as opened:
        yield opened


def ids() -> tuple[str, str]:
    return os.urandom(16).hex(), os.urandom(8).hex()


def parent(trace_id: str, span_id: str, flag: str = "01") -> tuple[str, str]:
    return ("traceparent", f"00-{trace_id}-{span_id}-{flag}")


def spans_of(collected: Collected, trace_id: str, count: int) -> dict[str, Received]:
    collected.wait_for(lambda now: len(now.of_trace(trace_id)) >= count)
    found = collected.of_trace(trace_id)
    assert len(found) == count, [span.name for span in found]
    return {span.name: span for span in found}


def test_a_traced_request_is_a_server_span_with_its_measured_parts(
    stub: GRPCInferenceServiceStub, collected: Collected
) -> None:
    trace_id, span_id = ids()
    metadata = (parent(trace_id, span_id), ("tracestate", "vendor=1"))
    stub.ModelInfer(request("mlp", id="one", x=rows(1)), metadata=metadata)
    spans = spans_of(collected, trace_id, 5)
    assert set(spans) == {INFER, *PARTS}
    server = spans[INFER]
    assert (server.kind, server.parent_id, server.status, server.state) == (SERVER, span_id, 0, "vendor=1")
    assert server.resource["service.name"] == "inferd"
    assert server.resource["deployment.environment.name"] == "test"
    told = {key: server.attributes[key] for key in server.attributes if not key.startswith("inferd.batch")}
    assert told == {
        "rpc.system.name": "grpc", "rpc.method": INFER, "rpc.response.status_code": "OK",
        "inferd.model.name": "mlp", "inferd.model.version": "1", "inferd.request.id": "one",
    }  # fmt: skip
    parts = [spans[name] for name in PARTS]
    assert {(part.parent_id, part.kind) for part in parts} == {(server.span_id, INTERNAL)}
    # They follow each other, inside of the whole.
    edges = [server.start_ns, *(edge for part in parts for edge in (part.start_ns, part.end_ns)), server.end_ns]
    assert edges == sorted(edges)


def test_the_batch_is_a_span_that_links_every_member(traced: Server, collected: Collected) -> None:
    members = [ids() for _ in range(4)]
    with traced.stub() as stub:
        calls = [stub.ModelInfer.future(request("scale_by_4", x=rows(1)), metadata=(parent(*one),)) for one in members]
        for call in calls:
            call.result()
    servers = [spans_of(collected, trace_id, 5)[INFER] for trace_id, _ in members]
    for server in servers:
        batch_id = server.attributes["inferd.batch.trace_id"]
        collected.wait_for(lambda now, batch_id=batch_id: now.of_trace(batch_id) != [])  # type: ignore[misc]
        [batch] = collected.of_trace(batch_id)
        assert (batch.name, batch.kind, batch.parent_id) == ("inferd.batch", INTERNAL, "")
        assert batch.span_id == server.attributes["inferd.batch.span_id"]
        together = [one for one in servers if one.attributes["inferd.batch.trace_id"] == batch_id]
        assert sorted(batch.links) == sorted((one.trace_id, one.span_id) for one in together)
        assert batch.attributes["inferd.batch.rows"] == batch.attributes["inferd.batch.requests"] == len(together)
        assert batch.attributes["inferd.batch.padding_ratio"] == 0
        assert batch.attributes["inferd.batch.close_reason"] in ("ready", "full", "delay")


def test_whose_caller_does_not_trace_it_is_not_traced(stub: GRPCInferenceServiceStub, collected: Collected) -> None:
    unsampled, malformed, sampled = ids()[0], ids()[0], ids()[0]
    stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(unsampled, ids()[1], "00"),))
    stub.ModelInfer(request("mlp", x=rows(1)), metadata=(("traceparent", f"00-{malformed}-01"),))
    stub.ModelInfer(request("mlp", x=rows(1)))
    stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(sampled, ids()[1]),))
    spans_of(collected, sampled, 5)  # traces are sent in the order of their ends
    assert collected.of_trace(unsampled) == collected.of_trace(malformed) == []


def test_a_request_that_fails_is_traced_with_its_code(stub: GRPCInferenceServiceStub, collected: Collected) -> None:
    wrong, late = ids(), ids()
    call = stub.ModelInfer.future(request("mlp", x=rows(1, width=3)), metadata=(parent(*wrong),))
    assert code_of(call) is grpc.StatusCode.INVALID_ARGUMENT
    server = spans_of(collected, wrong[0], 1)[INFER]
    assert (server.attributes["rpc.response.status_code"], server.status) == ("INVALID_ARGUMENT", 0)
    assert "error.type" not in server.attributes
    busy = stub.ModelInfer.future(slow(rows(1), 400))
    call = stub.ModelInfer.future(slow(rows(1), 1), metadata=(parent(*late),), timeout=0.15)
    assert code_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    busy.result()
    collected.wait_for(lambda now: any(one.name == INFER for one in now.of_trace(late[0])))
    [server] = [one for one in collected.of_trace(late[0]) if one.name == INFER]
    # Whether the client or the server was first to notice is a race.
    assert server.attributes["rpc.response.status_code"] in ("DEADLINE_EXCEEDED", "CANCELLED")


def test_each_request_of_a_stream_is_traced(stub: GRPCInferenceServiceStub, collected: Collected) -> None:
    trace_id, span_id = ids()
    messages = [request("mlp", id=str(number), x=rows(number)) for number in range(3)]
    answers = list(stub.ModelStreamInfer(iter(messages), metadata=(parent(trace_id, span_id),)))
    assert len(answers) == 3
    collected.wait_for(lambda now: len(now.of_trace(trace_id)) >= 15)
    servers = [span for span in collected.of_trace(trace_id) if span.name == STREAM]
    assert sorted(span.attributes["inferd.request.id"] for span in servers) == ["0", "1", "2"]
    assert {span.parent_id for span in servers} == {span_id}


def setting(stub: GRPCInferenceServiceStub, model: str = "", **said: list[str]) -> dict[str, str]:
    message = pb.TraceSettingRequest(model_name=model)
    for key, value in said.items():
        message.settings[key].value.extend(value)
        message.settings[key].SetInParent()
    answer = stub.TraceSetting(message)
    return {key: " ".join(found.value) for key, found in answer.settings.items()}


def test_clients_steer_what_is_traced_of_one_model(stub: GRPCInferenceServiceStub, collected: Collected) -> None:
    first, tag = setting(stub), ids()[1]
    assert first == {"trace_level": "TIMESTAMPS", "trace_rate": "0", "trace_count": "-1", "trace_mode": "opentelemetry"}
    assert "trace" in stub.ServerMetadata(pb.ServerMetadataRequest()).extensions
    told = setting(stub, "mlp", trace_rate=["1"], trace_count=["2"])
    assert (told["trace_rate"], told["trace_count"]) == ("1", "2")
    assert setting(stub) == first
    try:
        for number in range(4):
            stub.ModelInfer(request("mlp", id=f"{tag} {number}", x=rows(1)))
        assert setting(stub, "mlp")["trace_count"] == "0"
    finally:
        told = setting(stub, "mlp", trace_rate=[], trace_count=[])
    assert told == first
    last = ids()
    stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(*last),))
    spans_of(collected, last[0], 5)
    steered = [span.attributes.get("inferd.request.id", "") for span in collected.named(INFER)]
    assert [one for one in steered if one.startswith(tag)] == [f"{tag} 0", f"{tag} 1"]


def test_tracing_can_be_switched_off_and_on(stub: GRPCInferenceServiceStub, collected: Collected) -> None:
    dark, light = ids(), ids()
    try:
        assert setting(stub, trace_level=["OFF"])["trace_level"] == "OFF"
        stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(*dark),))
    finally:
        assert setting(stub, trace_level=["TIMESTAMPS"])["trace_level"] == "TIMESTAMPS"
    stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(*light),))
    spans_of(collected, light[0], 5)
    assert collected.of_trace(dark[0]) == []


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"trace_level": ["TENSORS"]}, "UNIMPLEMENTED"),
        ({"trace_level": ["EVERYTHING"]}, "INVALID_ARGUMENT"),
        ({"trace_rate": ["-1"]}, "INVALID_ARGUMENT"),
        ({"trace_rate": ["1", "2"]}, "INVALID_ARGUMENT"),
        ({"trace_count": ["many"]}, "INVALID_ARGUMENT"),
        ({"trace_file": ["/tmp/x"]}, "UNIMPLEMENTED"),
        ({"colour": ["red"]}, "INVALID_ARGUMENT"),
    ],
)
def test_settings_that_cannot_be_are_refused_and_change_nothing(
    stub: GRPCInferenceServiceStub, said: dict[str, list[str]], code: str
) -> None:
    before = setting(stub)
    with pytest.raises(grpc.RpcError) as failure:
        setting(stub, **said)
    assert failure.value.code().name == code
    assert setting(stub) == before


def test_a_traced_request_is_an_exemplar_of_its_bucket(
    traced: Server, stub: GRPCInferenceServiceStub, collected: Collected
) -> None:
    trace_id, span_id = ids()
    stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(trace_id, span_id),))
    spans_of(collected, trace_id, 5)
    assert f'trace_id="{trace_id}"' in traced.metrics_text(accept="application/openmetrics-text")
    assert trace_id not in traced.metrics_text()


def test_traces_go_over_http_and_the_rest_of_them_when_the_server_stops(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "mlp", models.mlp())
    with over_http() as collected:
        said = flags(collected, "--tracing-protocol=http", "--tracing-sample-rate=1")
        one = server(repository, *said, env=HIDDEN | {"OTEL_SERVICE_NAME": "fraud"})
        with one.stub() as stub:
            for number in range(20):
                stub.ModelInfer(request("mlp", id=str(number), x=rows(1)))
            with pytest.raises(grpc.RpcError) as failure:
                setting(stub, trace_level=["OFF"])
            assert failure.value.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "trace" not in stub.ServerMetadata(pb.ServerMetadataRequest()).extensions
        one.stop()
        found = collected.named(INFER)
    assert sorted(int(span.attributes["inferd.request.id"]) for span in found) == list(range(20))
    assert {span.resource["service.name"] for span in found} == {"fraud"}
    assert len({span.trace_id for span in found}) == 20


def test_a_collector_that_hangs_costs_traces_and_nothing_else(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "mlp", models.mlp())
    with over_grpc() as collected:
        collected.block.set()
        said = flags(collected, "--tracing-sample-rate=1", "--tracing-max-pending=5", "--tracing-timeout-ms=200")
        one = server(repository, *said)
        with one.stub() as stub:
            x = rows(1)
            wanted = arrays(stub.ModelInfer(request("mlp", x=x)))["y"]
            for _ in itertools.repeat(None, 50):
                assert np.array_equal(arrays(stub.ModelInfer(request("mlp", x=x)))["y"], wanted)
            wait_until_dropped(one, 40, stub)
        collected.block.clear()
        one.stop()


def test_a_server_without_a_collector_serves_and_stops(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "mlp", models.mlp())
    secret = "secret-word"
    endpoint = f"http://user:{secret}@127.0.0.1:1/v1/traces?key={secret}"
    said = ("--tracing-enabled=true", f"--tracing-endpoint={endpoint}", "--tracing-sample-rate=1", "--log-level=debug")
    one = server(repository, *said, "--tracing-timeout-ms=100", "--tracing-protocol=http")
    with one.stub() as stub:
        stub.ModelInfer(request("mlp", x=rows(1)))
        wait_until_dropped(one, 1, stub)
    one.stop()
    assert secret not in one.stderr + one.stdout


def test_a_server_that_does_not_trace_says_so(zoo: Server) -> None:
    with zoo.stub() as stub:
        with pytest.raises(grpc.RpcError) as failure:
            setting(stub)
        assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED
        stub.ModelInfer(request("mlp", x=rows(1)), metadata=(parent(*ids()),))


def wait_until_dropped(server: Server, count: int, stub: GRPCInferenceServiceStub) -> None:
    """Ask until so many traces were dropped."""
    end = time.monotonic() + 30
    while dropped(server) < count:
        assert time.monotonic() < end
        stub.ModelInfer(request("mlp", x=rows(1)))


def dropped(server: Server) -> float:
    return sum(
        value for name, labels, value in samples(server)
        if name == "inferd_traces_total" and labels["result"] == "dropped"
    )  # fmt: skip
