"""Health as probes, balancers and people see it: over gRPC, over HTTP, by command."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import onnx_models as models
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd.proto import inference_pb2 as pb
from inferd.rpc.health_list import list_messages

from .calls import code_of, request, rows, trips_for
from .process import START_TIMEOUT_S, Server, free_ports

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN

READY_NAMES = ["", "readiness", "inference.GRPCInferenceService"]


def check(channel: grpc.Channel, name: str) -> int:
    asked = health_pb2.HealthCheckRequest(service=name)
    return int(health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5).status)


def watching(channel: grpc.Channel, name: str) -> Any:
    return health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name), timeout=30)


@pytest.mark.parametrize("name", [*READY_NAMES, "liveness", "mlp", "mlp/1", "versioned/1", "versioned/3"])
def test_what_is_served_is_serving(channel: grpc.Channel, name: str) -> None:
    assert check(channel, name) == SERVING


@pytest.mark.parametrize("name", ["nothing", "mlp/2", "mlp/", "/1"])
def test_a_name_that_is_not_here_is_not_found(channel: grpc.Channel, name: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        check(channel, name)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_watch_on_an_unknown_name_says_so_and_stays_open(channel: grpc.Channel) -> None:
    watch = watching(channel, "nothing")
    try:
        assert next(watch).status == SERVICE_UNKNOWN
        assert watch.is_active()
    finally:
        watch.cancel()


def test_list_has_every_name(channel: grpc.Channel) -> None:
    request_type, answer_type = list_messages()
    ask = channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=request_type.SerializeToString,
        response_deserializer=answer_type.FromString,
    )
    listed = {name: one.status for name, one in ask(request_type(), timeout=5).statuses.items()}
    assert {*READY_NAMES, "liveness", "mlp", "mlp/1", "versioned", "versioned/1", "versioned/3"} <= set(listed)
    assert set(listed.values()) == {SERVING}


# --- before and after ----------------------------------------------------------------------------------


@pytest.fixture
def loading(repository: Path, launch: Callable[..., Server]) -> Server:
    """A server that listens and is busy loading, for a second or so."""
    models.write(repository, "a_quick", models.scale())
    models.write(repository, "slow_to_load", models.slow_to_load(trips_for(250)), config="max_batch_size: 0")
    started = launch(repository)
    started.wait_until_listening()
    return started


def test_a_server_that_is_loading_is_alive_and_not_ready(loading: Server) -> None:
    assert loading.health("slow_to_load/1") == "NOT_SERVING"
    assert [loading.health(name) for name in READY_NAMES] == ["NOT_SERVING"] * 3
    assert loading.health("liveness") == "SERVING"
    assert loading.http("/health")[0] == 200
    status, page = loading.http("/ready")
    assert status == 503
    assert {one["name"]: one["state"] for one in page["models"]}["slow_to_load"] == "LOADING"
    with loading.stub() as stub:
        assert stub.ServerLive(pb.ServerLiveRequest()).live
        assert not stub.ServerReady(pb.ServerReadyRequest()).ready
        assert not stub.ModelReady(pb.ModelReadyRequest(name="slow_to_load")).ready
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request("slow_to_load", x=rows(1)[0]))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_a_model_that_is_still_to_be_loaded_is_never_unknown(repository: Path, launch: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    one = launch(repository)
    codes = []
    end = time.monotonic() + START_TIMEOUT_S
    while not codes or codes[-1] is not grpc.StatusCode.OK:
        assert time.monotonic() < end, codes
        with socket.socket() as trial:
            # From another address, or it might happen to connect to itself.
            trial.bind(("127.0.0.2", 0))
            if trial.connect_ex(("127.0.0.1", one.grpc_port)) != 0:
                time.sleep(0.001)
                continue
        # Asked in the very moment that it listens: a channel that waits for that would come later.
        with one.stub() as stub:
            codes.append(code_of(stub.ModelInfer.future(request("scale", x=rows(1)), timeout=5)))
    assert set(codes) <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.OK}


def test_a_watch_sees_the_server_become_ready(loading: Server) -> None:
    with loading.channel() as channel:
        watch = watching(channel, "readiness")
        assert next(watch).status == NOT_SERVING
        assert next(watch).status == SERVING
        assert check(channel, "slow_to_load/1") == SERVING
        watch.cancel()
    assert loading.http("/ready")[0] == 200


@pytest.mark.parametrize("name", READY_NAMES)
def test_a_watch_sees_readiness_withdrawn_on_sigterm_and_then_ends(
    repository: Path, server: Callable[..., Server], name: str
) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository)
    with one.channel() as channel:
        watch = watching(channel, name)
        assert next(watch).status == SERVING
        one.terminate()
        assert [answer.status for answer in watch] == [NOT_SERVING]
        assert watch.code() is grpc.StatusCode.OK


def test_liveness_is_not_withdrawn_while_the_server_drains(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--drain-lame-duck-ms=1000")
    with one.channel() as channel:
        watch = watching(channel, "readiness")
        assert next(watch).status == SERVING
        one.terminate()
        assert next(watch).status == NOT_SERVING
        assert check(channel, "liveness") == SERVING
        assert one.http("/health")[0] == 200
        assert one.http("/ready")[0] == 503


# --- over HTTP and by command --------------------------------------------------------------------------


def test_http_says_that_it_is_alive(zoo: Server) -> None:
    assert zoo.http("/health") == (200, {"status": "alive"})


def test_http_says_that_it_is_ready_and_lists_the_models(zoo: Server) -> None:
    status, page = zoo.http("/ready")
    assert (status, page["status"]) == (200, "ready")
    assert {"name": "versioned", "version": "3", "state": "READY", "reason": ""} in page["models"]


def inferd_health(*arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "inferd", "health", *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_says_0_for_a_server_that_serves(zoo: Server) -> None:
    assert inferd_health("--address", zoo.address) == (0, "readiness SERVING\n", "")


def test_the_command_says_1_for_a_name_that_is_unknown(zoo: Server) -> None:
    assert inferd_health("--address", zoo.address, "--service", "nothing") == (1, "nothing SERVICE_UNKNOWN\n", "")


def test_the_command_says_1_for_a_server_that_is_loading(loading: Server) -> None:
    assert inferd_health("--address", loading.address) == (1, "readiness NOT_SERVING\n", "")


def test_the_command_says_2_in_one_line_where_nobody_listens() -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    code, stdout, stderr = inferd_health("--address", address)
    assert (code, stdout) == (2, "")
    assert stderr.startswith(f"inferd: {address} cannot be reached")
    assert stderr.count("\n") == 1
