"""Connections as the settings have them: how long they live, what and how much they carry, where they come from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, code_of, request, rows, slow
from .conftest import Refusal
from .process import CHANNEL_OPTIONS, POLL_S, Server, free_ports
from .scrape import counted

LIMIT_S = 20


@pytest.fixture
def scale(repository: Path, server: Callable[..., Server]) -> Callable[..., Server]:
    """Starts a server whose one model doubles what it is given."""
    models.write(repository, "scale", models.scale())
    return lambda *flags: server(repository, *flags)


class Watched:
    """A client that looks, between its calls, whether its connection is still there."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel, self.stub = channel, GRPCInferenceServiceStub(channel)
        self.times_lost = 0

    async def is_answered(self, seed: int) -> None:
        answer = await self.stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
        np.testing.assert_array_equal(arrays(answer)["y"], 2 * rows(seed))
        self.look()

    def look(self) -> None:
        self.times_lost += self.channel.get_state() is not grpc.ChannelConnectivity.READY


def watching(address: str, body: Callable[[Watched], Awaitable[None]]) -> None:
    async def main() -> None:
        async with grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS) as channel, asyncio.timeout(LIMIT_S):
            await body(Watched(channel))

    asyncio.run(main())


def test_a_client_is_sent_to_reconnect_and_loses_no_call(scale: Callable[..., Server]) -> None:
    one = scale("--grpc-max-connection-age-ms=300", "--grpc-max-connection-age-grace-ms=5000")

    async def body(watched: Watched) -> None:
        seed = 0
        while watched.times_lost < 4:
            await watched.is_answered(seed := seed + 1)
        assert seed > 4

    watching(one.address, body)


def test_a_call_that_outlives_its_connections_grace_is_cut(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "slow", models.slow())
    one = server(repository, "--grpc-max-connection-age-ms=200", "--grpc-max-connection-age-grace-ms=200")
    with one.stub() as stub:
        started = time.monotonic()
        call = stub.ModelInfer.future(slow(rows(1), 5000), timeout=LIMIT_S)
        # grpc.aio cuts the connection under it, the native transport says why.
        assert code_of(call) is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - started < 5


def test_an_idle_connection_is_closed_and_the_next_call_makes_another(scale: Callable[..., Server]) -> None:
    async def body(watched: Watched) -> None:
        await watched.is_answered(1)
        while not watched.times_lost:
            await asyncio.sleep(POLL_S)
            watched.look()
        await watched.is_answered(2)

    watching(scale("--grpc-max-connection-idle-ms=200").address, body)


def test_a_silent_client_that_answers_pings_keeps_its_connection(scale: Callable[..., Server]) -> None:
    async def body(watched: Watched) -> None:
        await watched.is_answered(1)
        await asyncio.sleep(0.5)  # ten pings' time: nothing may happen in it
        await watched.is_answered(2)
        assert watched.times_lost == 0

    watching(scale("--grpc-keepalive-time-ms=50", "--grpc-keepalive-timeout-ms=5000").address, body)


def test_metadata_beyond_the_limit_is_refused_and_less_is_not(scale: Callable[..., Server]) -> None:
    one = scale("--grpc-max-metadata-bytes=8192")
    # The client has a limit of its own.
    with one.channel(("grpc.max_metadata_size", 1 << 20), ("grpc.absolute_max_metadata_size", 1 << 20)) as channel:
        infer = GRPCInferenceServiceStub(channel).ModelInfer
        infer(request("scale", x=rows(1)), metadata=(("key", "x" * 6000),), timeout=LIMIT_S)
        call = infer.future(request("scale", x=rows(1)), metadata=(("key", "x" * 9000),), timeout=LIMIT_S)
        assert code_of(call) is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("compression", ["gzip", "deflate"])
def test_answers_that_are_compressed_are_read_by_stock_clients(scale: Callable[..., Server], compression: str) -> None:
    x = np.zeros((500, 4), np.float32)
    with scale(f"--grpc-compression={compression}").stub() as stub:
        for value in (x, rows(1)):  # one that becomes smaller, one that does not
            np.testing.assert_array_equal(arrays(stub.ModelInfer(request("scale", x=value)))["y"], 2 * value)


def test_calls_beyond_the_streams_of_a_connection_wait_in_the_client(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "slow", models.slow())
    one = server(repository, "--grpc-max-concurrent-streams=2")
    with one.stub() as stub:
        stub.ModelInfer(slow(rows(0), 0), timeout=LIMIT_S)  # from now on the client knows the limit
        calls = [stub.ModelInfer.future(slow(rows(seed), 20), timeout=LIMIT_S) for seed in range(8)]
        for seed, call in enumerate(calls):
            # gRPC's own server counts a stream for a moment after its client has the answer, and refuses the next one.
            while one.transport == "grpcio" and code_of(call) is grpc.StatusCode.UNAVAILABLE:
                call = stub.ModelInfer.future(slow(rows(seed), 20), timeout=LIMIT_S)
            np.testing.assert_array_equal(arrays(call.result())["y"], rows(seed))


def test_a_client_on_the_same_machine_may_come_by_a_unix_socket(
    scale: Callable[..., Server], refused: Callable[..., Refusal], repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "grpc.sock"
    one = scale(f"--grpc-unix-socket={path}")
    for address in (f"unix:{path}", one.address):
        watching(address, lambda watched: watched.is_answered(1))
    absent = tmp_path / "nowhere" / "grpc.sock"
    line = refused(repository, f"--grpc-unix-socket={absent}").lines[-1]  # gRPC has a line of its own before it
    assert str(absent) in line
    assert "--grpc-unix-socket" in line


def test_servers_that_are_told_to_share_a_port_do(repository: Path, launch: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    (port,) = free_ports(1)
    both = [launch(repository, "--grpc-reuse-port=true", f"--grpc-port={port}") for _ in range(2)]
    for one in both:
        one.wait_for_ports()
    end = time.monotonic() + LIMIT_S
    while not all(counted(one, "scale").codes for one in both):
        watching(f"127.0.0.1:{port}", lambda watched: watched.is_answered(1))
        assert time.monotonic() < end
