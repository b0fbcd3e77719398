"""Calls and streams through a proxy: what is asked comes to the server, and what it answers to who asked."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from ..calls import arrays, request, rows
from ..process import CHANNEL_OPTIONS, Server
from .front import LIMIT_S, Envoy, Front, Nginx

ROWS_OF_3_MB = 200_000
TWO = np.float32(2)


def test_the_client_that_most_users_have_is_answered(front: Front) -> None:
    with triton.InferenceServerClient(front.address, channel_args=list(CHANNEL_OPTIONS)) as client:
        assert client.is_server_ready()
        assert client.get_model_metadata("scale").inputs[0].name == "x"
        x = triton.InferInput("x", [1, 4], "FP32")
        x.set_data_from_numpy(rows(1))
        answer = client.infer("scale", [x], request_id="7", client_timeout=LIMIT_S)
        assert answer.get_response().id == "7"
        assert np.array_equal(answer.as_numpy("y"), rows(1) * TWO)


@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip], ids=["plain", "gzip"])
@pytest.mark.parametrize("count", [1, ROWS_OF_3_MB], ids=["small", "large"])
def test_a_message_comes_through_whole(front: Front, count: int, compression: grpc.Compression | None) -> None:
    # Few values, so that it packs well, and none of its parts looks like another.
    x = np.arange(count * 4, dtype="f4").reshape(count, 4)
    with front.channel(compression=compression) as channel:
        answer = GRPCInferenceServiceStub(channel).ModelInfer(request("alone", x=x), timeout=LIMIT_S)
    assert np.array_equal(arrays(answer)["y"], x * TWO)


def test_calls_side_by_side_get_each_its_own_answer(front: Front) -> None:
    with front.stub() as one, front.stub() as two, front.stub() as three:
        calls = [
            (seed, stub.ModelInfer.future(request("scale", id=str(seed), x=rows(seed, 1 + seed % 7)), timeout=LIMIT_S))
            for seed, stub in zip(range(600), (one, two, three) * 200, strict=True)
        ]
        for seed, call in calls:
            answer = call.result()
            assert answer.id == str(seed)
            assert np.array_equal(arrays(answer)["y"], rows(seed, 1 + seed % 7) * TWO)
    if isinstance(front, Envoy):
        # One connection or two for each of its two threads.
        assert front.count("upstream_cx_active") <= 4
        assert front.count("upstream_rq_total") >= 600


# grpc.aio's server pings as it likes, and nginx connects to it anew for every few calls.
@pytest.mark.parametrize(("transport", "kind"), [("native", "nginx")], indirect=True)
def test_nginx_keeps_its_connection_from_call_to_call(
    front: Nginx, stub: GRPCInferenceServiceStub, origin: Server
) -> None:
    # It closes one on which anything comes between two calls.
    stub.ModelInfer(request("scale", x=rows(0)), timeout=LIMIT_S)
    before = connections(origin)
    for seed in range(20):
        stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
        stub.ModelInfer(request("alone", x=rows(seed, 20_000)), timeout=LIMIT_S)
    assert before
    assert connections(origin) == before


def connections(server: Server) -> set[Any]:
    """Who is connected to the server's gRPC port."""
    return {
        one.raddr
        for one in psutil.Process(server.process.pid).net_connections("tcp")
        if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == server.grpc_port
    }


def test_each_question_on_a_stream_is_answered_before_the_next_is_asked(channel: grpc.Channel) -> None:
    questions: queue.SimpleQueue[Any] = queue.SimpleQueue()
    asked: Iterator[Any] = iter(questions.get, None)
    answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(asked, timeout=LIMIT_S)
    questions.put(reflection_pb2.ServerReflectionRequest(list_services=""))
    services = {one.name for one in next(answers).list_services_response.service}
    assert "inference.GRPCInferenceService" in services
    for name in sorted(services):
        questions.put(reflection_pb2.ServerReflectionRequest(file_containing_symbol=name))
        assert next(answers).file_descriptor_response.file_descriptor_proto
    questions.put(None)
    assert list(answers) == []
    assert answers.code() is grpc.StatusCode.OK


def test_a_stream_of_requests_is_answered_in_their_order(channel: grpc.Channel) -> None:
    asked = [request("scale", id=str(seed), x=rows(seed)) for seed in range(20)]
    answers = list(GRPCInferenceServiceStub(channel).ModelStreamInfer(iter(asked), timeout=LIMIT_S))
    assert [answer.infer_response.id for answer in answers] == [one.id for one in asked]
    for seed, answer in enumerate(answers):
        assert np.array_equal(arrays(answer.infer_response)["y"], rows(seed) * TWO)


def test_a_watch_that_its_client_leaves_is_no_trouble_to_others(
    channel: grpc.Channel, stub: GRPCInferenceServiceStub
) -> None:
    watches = [
        health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=LIMIT_S)
        for name in ("readiness", "scale", "nothing") * 10
    ]
    assert {next(watch).status for watch in watches[0::3]} == {health_pb2.HealthCheckResponse.SERVING}
    assert {next(watch).status for watch in watches[2::3]} == {health_pb2.HealthCheckResponse.SERVICE_UNKNOWN}
    for watch in watches:
        watch.cancel()
    assert np.array_equal(arrays(stub.ModelInfer(request("scale", x=rows(1)), timeout=LIMIT_S))["y"], rows(1) * TWO)
