"""Two replicas behind a proxy: which of them gets calls, and that none is lost while they come and go."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ..calls import arrays, request, rows, trips_for
from ..process import Server, free_ports
from ..scrape import counted, wait_for
from .front import LIMIT_S, Envoy, Front, Nginx, until
from .trickle import trickling

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

LAME_DUCK = "--drain-lame-duck-ms=1000"
# As in the file, but for tests that shall not take seconds. A tenth of the lame duck.
QUICK = {
    "envoy": {
        "          interval: 1s": "          interval: 0.1s",
        "no_traffic_interval: 1s": "no_traffic_interval: 0.1s",
    },
    "nginx": {},
}
# A replica that is loading or draining is alive too: only trying again helps.
UNCHECKED = {"envoy": QUICK["envoy"] | {"service_name: readiness": "service_name: liveness"}, "nginx": {}}


@pytest.fixture
def loading(repository: Path, launch: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a server that listens, and is busy with another model before it comes to `scale`."""

    def start(busy_ms: int, *flags: str, grpc_port: int | None = None) -> Server:
        folder = repository.with_name("loading")
        models.write(folder, "a_slow_to_load", models.slow_to_load(trips_for(busy_ms)), config="max_batch_size: 0")
        models.write(folder, "scale", models.scale())
        one = launch(folder, *flags, grpc_port=grpc_port)
        one.wait_until_listening()
        return one

    return start


def test_clients_and_envoy_see_a_server_become_ready_and_drain(
    loading: Callable[..., Server], kind: str, fronting: Callable[..., Front]
) -> None:
    ports = free_ports(1)
    front = fronting(ports, QUICK[kind])
    one = loading(100, LAME_DUCK, grpc_port=ports[0])

    def is_known_as(*healthy: int) -> None:
        if isinstance(front, Envoy):
            until(lambda: front.healthy() == set(healthy), "a health check")

    with front.channel() as channel:
        asked = health_pb2.HealthCheckRequest(service="readiness")
        watch = health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=LIMIT_S)
        assert next(watch).status == NOT_SERVING
        is_known_as()
        assert next(watch).status == SERVING
        is_known_as(*ports)
        one.terminate()
        assert next(watch).status == NOT_SERVING
        is_known_as()
        # All of that in the lame duck.
        assert one.process.poll() is None
        assert list(watch) == []
        assert watch.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("kind", ["envoy"], indirect=True)
def test_envoy_tries_another_replica_if_one_refuses_before_any_work(
    kind: str, loading: Callable[..., Server], origin: Server, fronting: Callable[..., Envoy]
) -> None:
    late = loading(5000)
    envoy = fronting([late.grpc_port, origin.grpc_port], UNCHECKED[kind])
    assert envoy.healthy() == {late.grpc_port, origin.grpc_port}
    with envoy.stub() as stub:
        for seed in range(40):
            answer = stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
            assert np.array_equal(arrays(answer)["y"], rows(seed) * np.float32(2))
    # Envoy looks for a status only where it comes without an answer: these were such.
    refused = counted(late, "scale").codes
    assert set(refused) == {"UNAVAILABLE"}
    assert envoy.count("upstream_rq_retry_success") == refused["UNAVAILABLE"]


def test_a_replica_that_is_restarted_costs_no_call(
    scale: Path, server: Callable[..., Server], origin: Server, kind: str, fronting: Callable[..., Front]
) -> None:
    old = server(scale, LAME_DUCK)
    front = fronting([old.grpc_port, origin.grpc_port], QUICK[kind])
    with trickling(front) as trickle:
        assert counted(old, "scale").codes
        if isinstance(front, Nginx):
            front.mark_down(old.grpc_port)
        old.terminate()
        assert old.wait() == 0
        trickle.wait_for(30)
        new = server(scale, LAME_DUCK, grpc_port=old.grpc_port)
        if isinstance(front, Nginx):
            front.mark_down()
        wait_for(new, "scale", lambda now: now.codes.get("OK", 0) > 30, LIMIT_S)
    assert trickle.failures == []
    assert trickle.wrong == 0
    if isinstance(front, Envoy):
        # It was enough to look at their health.
        assert front.count("upstream_rq_retry") == 0


@pytest.mark.parametrize("kind", ["envoy"], indirect=True)
@pytest.mark.parametrize("restarts", [3, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(1800)])])
def test_restarts_one_after_another_cost_no_call(
    scale: Path, server: Callable[..., Server], origin: Server, kind: str, fronting: Callable[..., Front], restarts: int
) -> None:
    flags = ("--drain-lame-duck-ms=500",)
    replica = server(scale, *flags)
    front = fronting([replica.grpc_port, origin.grpc_port], QUICK[kind])
    with trickling(front) as trickle:
        for _ in range(restarts):
            # Only one that serves is restarted, as in a rollout.
            wait_for(replica, "scale", lambda now: now.codes.get("OK", 0) > 10, LIMIT_S)
            replica.terminate()
            replica.terminate()
            assert replica.wait() == 0
            replica = server(scale, *flags, grpc_port=replica.grpc_port)
        wait_for(replica, "scale", lambda now: now.codes.get("OK", 0) > 10, LIMIT_S)
    assert trickle.failures == []
    assert trickle.wrong == 0


def test_a_replica_that_stops_unannounced_costs_no_call(
    scale: Path, server: Callable[..., Server], origin: Server, kind: str, fronting: Callable[..., Front],
    transport: str,
) -> None:  # fmt: skip
    one = server(scale)
    front = fronting([one.grpc_port, origin.grpc_port], UNCHECKED[kind])
    # Without a pause, so that calls cross with the news.
    with trickling(front, pause_s=0) as trickle:
        assert counted(one, "scale").codes
        one.terminate()
        assert one.wait() == 0
        trickle.wait_for(30)
    # A call that arrives in the very moment of its stop() is cancelled by gRPC itself, and one just before it refused.
    passing = {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE} if transport == "grpcio" else set()
    assert [one for one in trickle.failures if one[0] not in passing] == []
    assert trickle.wrong == 0
