"""What only Envoy does: health, retries where they are safe, mirroring, its one public page."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from serve.calls import request, rows
from serve.process import Server
from serve.proxies.front import LIMIT_S, until
from serve.scrape import counted

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceServicer, add_GRPCInferenceServiceServicer_to_server

from .certificates import Certificates
from .edges import Edge, Envoy, answer_of

Code = grpc.StatusCode


class Refusing(GRPCInferenceServiceServicer):  # type: ignore[misc]
    """A gRPC server whose health is good and which ends every inference with one status, before any answer."""

    def __init__(self) -> None:
        self.code, self.calls = Code.OK, 0
        self.health = health.HealthServicer()
        self.be(health_pb2.HealthCheckResponse.SERVING)
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_GRPCInferenceServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        self.port: int = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def be(self, status: Any) -> None:
        """What its readiness is from now on."""
        self.health.set("readiness", status)

    def ModelInfer(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.calls += 1
        context.abort(self.code, "as told")

    def ModelStreamInfer(self, requests: Any, context: grpc.ServicerContext) -> Any:
        self.calls += 1
        context.abort(self.code, "as told")

    def stop(self) -> None:
        self._server.stop(0).wait()


@pytest.fixture(scope="module")
def refusing() -> Iterator[Refusing]:
    started = Refusing()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def envoy(
    refusing: Refusing, servers: list[Server], certificates: Certificates, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Envoy]:
    """Envoy in front of one replica that works and one that refuses."""
    ports = [refusing.port, servers[0].grpc_port]
    started = Envoy(tmp_path_factory.mktemp("envoy"), certificates, ports, servers[2].grpc_port)
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.stop()


def codes(envoy: Edge, calls: int, call: Callable[[Any, int], Any]) -> list[Code]:
    """How so many calls on one connection ended."""
    with envoy.stub() as stub:
        return [answer_of(lambda seed=seed: call(stub, seed))[0] for seed in range(calls)]


def unary(stub: Any, seed: int) -> Any:
    return stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)


def stream(stub: Any, seed: int) -> Any:
    return list(stub.ModelStreamInfer(iter([request("scale", x=rows(seed))]), timeout=LIMIT_S))


def test_a_call_that_was_refused_before_any_work_is_tried_elsewhere(envoy: Envoy, refusing: Refusing) -> None:
    refusing.code, before = Code.UNAVAILABLE, refusing.calls
    assert codes(envoy, 40, unary) == [Code.OK] * 40
    assert refusing.calls > before


@pytest.mark.parametrize(
    "code", [Code.RESOURCE_EXHAUSTED, Code.DEADLINE_EXCEEDED, Code.INTERNAL, Code.INVALID_ARGUMENT, Code.CANCELLED]
)
def test_a_call_that_may_have_run_or_would_fail_again_is_not_repeated(
    envoy: Envoy, refusing: Refusing, code: Code
) -> None:
    refusing.code, before = code, refusing.calls
    ended = codes(envoy, 40, unary)
    assert set(ended) == {Code.OK, code}
    assert refusing.calls - before == ended.count(code)
    # Nor does a status cost a replica its place: a client with short deadlines would take all replicas down.
    assert refusing.port in envoy.healthy("inferd")


def test_a_stream_that_reached_a_replica_is_not_repeated(envoy: Envoy, refusing: Refusing) -> None:
    refusing.code, before = Code.UNAVAILABLE, refusing.calls
    ended = codes(envoy, 40, stream)
    assert set(ended) == {Code.OK, Code.UNAVAILABLE}
    assert refusing.calls - before == ended.count(Code.UNAVAILABLE)


def test_a_replica_that_is_not_ready_gets_no_calls_until_it_is(envoy: Envoy, refusing: Refusing) -> None:
    refusing.code = Code.RESOURCE_EXHAUSTED
    refusing.be(health_pb2.HealthCheckResponse.NOT_SERVING)
    try:
        until(lambda: refusing.port not in envoy.healthy("inferd"), "a health check")
        before = refusing.calls
        assert codes(envoy, 20, unary) == [Code.OK] * 20
        assert refusing.calls == before
    finally:
        refusing.be(health_pb2.HealthCheckResponse.SERVING)
    until(lambda: refusing.port in envoy.healthy("inferd"), "a health check")
    until(lambda: Code.RESOURCE_EXHAUSTED in codes(envoy, 5, unary), "a call to it")


def test_a_copy_of_each_call_goes_to_the_canary_and_its_answer_nowhere(
    envoy: Envoy, refusing: Refusing, servers: list[Server]
) -> None:
    refusing.code = Code.UNAVAILABLE
    before = counted(servers[2], "scale").codes.get("OK", 0)
    envoy.set_runtime(**{"inferd.mirror_percent": 100})
    try:
        assert codes(envoy, 30, unary) == [Code.OK] * 30
    finally:
        envoy.set_runtime(**{"inferd.mirror_percent": 0})
    until(lambda: counted(servers[2], "scale").codes.get("OK", 0) == before + 30, "the copies")


def test_answers_come_from_the_first_alone_though_the_copy_fails(
    refusing: Refusing, servers: list[Server], certificates: Certificates, tmp_path: Path
) -> None:
    refusing.code, before = Code.INTERNAL, refusing.calls
    own = Envoy(tmp_path, certificates, [servers[0].grpc_port], refusing.port)
    try:
        own.wait_until_ready()
        own.set_runtime(**{"inferd.mirror_percent": 100})
        first = counted(servers[0], "scale").codes.get("OK", 0)
        assert codes(own, 30, unary) == [Code.OK] * 30
        until(lambda: refusing.calls == before + 30, "the copies")
        assert counted(servers[0], "scale").codes.get("OK", 0) == first + 30
    finally:
        own.stop()


def test_prometheus_sees_one_page_of_the_admin_port_and_no_other(envoy: Envoy) -> None:
    assert "envoy_cluster_upstream_rq" in envoy.admin("/metrics", port=envoy.metrics_port)
    for path, method in (("/", "GET"), ("/quitquitquit", "POST"), ("/metrics", "POST"), ("/stats", "GET")):
        with pytest.raises(urllib.error.HTTPError) as refused:
            envoy.admin(path, method, port=envoy.metrics_port)
        refused.value.close()
        assert refused.value.code == 404


def test_renewed_certificates_are_taken_without_a_restart(servers: list[Server], tmp_path: Path) -> None:
    first, second = Certificates(tmp_path / "first"), Certificates(tmp_path / "second")
    # As Kubernetes mounts a secret: names that lead through one link, and a renewal turns that link.
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    (mounted / "..data").symlink_to(first.folder)
    for file in sorted(first.folder.iterdir()):
        (mounted / file.name).symlink_to(Path("..data", file.name))
    first.folder = mounted
    (tmp_path / "envoy").mkdir()
    port = servers[0].grpc_port
    own = Envoy(tmp_path / "envoy", first, [port], port)
    try:
        own.wait_until_ready()
        assert codes(own, 1, unary) == [Code.OK]
        (mounted / "..next").symlink_to(second.folder)
        (mounted / "..next").rename(mounted / "..data")
        own.certificates = second
        until(lambda: codes(own, 1, unary) == [Code.OK], "the renewed certificates")
    finally:
        own.stop()
