"""Envoy with too little memory: it refuses calls in the words of gRPC, and goes on with all else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve.calls import request, rows
from serve.process import Server
from serve.proxies.front import LIMIT_S, until
from serve.scrape import counted

from .certificates import Certificates
from .edges import Envoy, answer_of

Code = grpc.StatusCode
SHIPPED_BYTES = "max_heap_size_bytes: 858993459"
OVERLOADED = "overload.envoy.overload_actions.stop_accepting_requests.active"
API = "type.googleapis.com/envoy.extensions.resource_monitors"
FIXED = f"{API}.fixed_heap.v3.FixedHeapConfig"
INJECTED = f"{API}.injected_resource.v3.InjectedResourceConfig"
Starter = Callable[[type[Any]], Any]


class Pressed(Envoy):
    """As shipped, but what it is told of its memory is in a file, which a test may write."""

    def write(self, replicas: list[int], canary: int) -> list[str]:
        arguments = super().write(replicas, canary)
        self._pressure = self.folder / "pressure"
        self.press(0.1)
        config = self.folder / "envoy.yaml"
        text = config.read_text()
        assert FIXED in text
        config.write_text(text.replace(FIXED, INJECTED).replace(SHIPPED_BYTES, f"filename: {self._pressure}"))
        return arguments

    def press(self, part: float) -> None:
        """So much of the memory is in use from now on. Envoy looks when a file takes the place of another."""
        other = self.folder / "next"
        other.write_text(f"{part}")
        other.rename(self._pressure)


class Small(Envoy):
    """As shipped, in a container whose memory Envoy alone fills."""

    def write(self, replicas: list[int], canary: int) -> list[str]:
        arguments = super().write(replicas, canary)
        config = self.folder / "envoy.yaml"
        text = config.read_text()
        assert SHIPPED_BYTES in text
        config.write_text(text.replace(SHIPPED_BYTES, "max_heap_size_bytes: 1048576"))
        return arguments


@pytest.fixture
def start(
    servers: list[Server], certificates: Certificates, tmp_path: Path
) -> Iterator[Callable[[type[Envoy]], Envoy]]:
    """Starts one, ready, in front of two replicas and the canary."""
    with ExitStack() as stack:

        def started(kind: type[Any]) -> Any:
            one = kind(tmp_path, certificates, [servers[0].grpc_port, servers[1].grpc_port], servers[2].grpc_port)
            stack.callback(one.stop)
            one.wait_until_ready()
            return one

        yield started


def ended(envoy: Envoy) -> Code:
    """How a call on a connection of its own ended."""
    with envoy.stub() as stub:
        return answer_of(lambda: stub.ModelInfer(request("scale", x=rows(1)), timeout=LIMIT_S))[0]


def answered(servers: list[Server]) -> int:
    return sum(counted(one, "scale").codes.get("OK", 0) for one in servers)


@pytest.mark.parametrize("kind", [Small, Pressed])
def test_calls_are_refused_in_the_words_of_grpc_and_all_else_goes_on(
    kind: type[Envoy], start: Starter, servers: list[Server]
) -> None:
    envoy = start(kind)
    if kind is Pressed:
        assert ended(envoy) is Code.OK
        envoy.press(0.96)
    until(lambda: envoy.count(OVERLOADED) == 1 and ended(envoy) is Code.UNAVAILABLE, "the overload")
    before = answered(servers)
    assert [ended(envoy) for _ in range(5)] == [Code.UNAVAILABLE] * 5
    # No replica had to do with it, and none is thought ill.
    assert answered(servers) == before
    until(lambda: envoy.healthy("inferd") == {one.grpc_port for one in servers[:2]}, "two that are healthy")
    checks = envoy.count("cluster.inferd.health_check.attempt")
    until(lambda: envoy.count("cluster.inferd.health_check.attempt") > checks, "another health check")
    assert json.loads(envoy.admin("/server_info"))["state"] == "LIVE"
    # And Prometheus can see why.
    assert "envoy_overload" in envoy.admin("/metrics", port=envoy.metrics_port)


def test_on_a_connection_that_is_open_calls_are_refused_and_taken_again(start: Starter) -> None:
    envoy = start(Pressed)
    with envoy.stub() as stub:

        def call() -> tuple[Code, str]:
            return answer_of(lambda: stub.ModelInfer(request("scale", x=rows(1)), timeout=LIMIT_S))

        for pressure, status in ((0.96, Code.UNAVAILABLE), (0.99, Code.UNAVAILABLE), (0.1, Code.OK)):
            envoy.press(pressure)
            until(lambda status=status: call()[0] is status, f"{status.name} at {pressure}")
            if status is not Code.OK:
                assert "overload" in call()[1]
