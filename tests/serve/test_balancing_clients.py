"""Clients that spread their calls over replicas by themselves, without a proxy: restarts, a crash, a new replica."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, request, rows
from .conftest import UNLEARNT
from .process import POLL_S, Server, eventually, free_ports
from .scrape import counted

LIMIT_S = 30.0
CLIENTS = 4
CONNECTIONS = 32
# What docs/kubernetes.md has clients say: what was not begun, or refused before any work, is tried elsewhere.
TRYING_AGAIN = {
    "name": [{"service": "inference.GRPCInferenceService"}],
    "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "0.5s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}
# How soon a client looks again for a replica that was away. Until then it does not know that it is back.
SOON_BACK = [(f"grpc.{bound}_reconnect_backoff_ms", 100) for bound in ("initial", "min", "max")]
ROUND_ROBIN = json.dumps({"loadBalancingConfig": [{"round_robin": {}}], "methodConfig": [TRYING_AGAIN]})


@pytest.fixture
def scale(repository: Path) -> Path:
    models.write(repository, "scale", models.scale())
    return repository


@contextmanager
def balancing(*ports: int) -> Iterator[list[str]]:
    """Clients that call one after the other for as long as the block takes; what went wrong, one line for each."""
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    options = [("grpc.service_config", ROUND_ROBIN), ("grpc.use_local_subchannel_pool", 1), *SOON_BACK]
    wrong: list[str] = []
    stop = threading.Event()

    def client(seed: int) -> None:
        with grpc.insecure_channel(target, options) as channel:
            stub = GRPCInferenceServiceStub(channel)
            while not stop.wait(POLL_S):
                seed += 1
                try:
                    answer = stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
                except grpc.RpcError as error:
                    wrong.append(f"{error.code()}: {error.details()}")
                    continue
                if not np.array_equal(arrays(answer)["y"], rows(seed) * np.float32(2)):
                    wrong.append("a wrong answer")

    clients = [threading.Thread(target=client, args=(number * 1_000_000,)) for number in range(CLIENTS)]
    for one in clients:
        one.start()
    try:
        yield wrong
    finally:
        stop.set()
        for one in clients:
            one.join()


def answered(server: Server) -> int:
    return counted(server, "scale").codes.get("OK", 0)


def wait_for_more(server: Server, more: int = 40) -> None:
    """Until so many more calls were answered by it."""
    wanted = answered(server) + more
    eventually(lambda: answered(server) >= wanted, LIMIT_S)


def test_replicas_that_are_restarted_one_after_another_cost_no_call(
    scale: Path, server: Callable[..., Server], transport: str
) -> None:
    replicas = [server(scale, "--drain-lame-duck-ms=300") for _ in range(2)]
    with balancing(*(one.grpc_port for one in replicas)) as wrong:
        for number, old in enumerate(replicas):
            wait_for_more(old)
            old.terminate()
            assert old.wait() == 0
            replicas[number] = server(scale, "--drain-lame-duck-ms=300", grpc_port=old.grpc_port)
            # So many that it is each client that knows of it.
            wait_for_more(replicas[number], 200)
    # A call that arrives in the very moment of its stop() is cancelled by gRPC's own server.
    assert [one for one in wrong if transport == "native" or "CANCELLED" not in one] == []


def test_of_a_replica_that_is_killed_no_call_is_lost_that_may_be_tried_again(
    scale: Path, server: Callable[..., Server], transport: str, tmp_path: Path
) -> None:
    other = server(scale)
    mortal = Server(scale, tmp_path, transport, UNLEARNT, {})
    try:
        mortal.wait_until_ready()
        with balancing(mortal.grpc_port, other.grpc_port) as wrong:
            wait_for_more(mortal)
            mortal.process.kill()
            mortal.wait()
            wait_for_more(other)
    finally:
        mortal.process.kill()
        mortal.wait()
    assert wrong == []


def test_connections_that_end_with_their_age_spread_over_a_replica_that_is_new(
    scale: Path, launch: Callable[..., Server]
) -> None:
    (port,) = free_ports(1)
    shared = ("--grpc-reuse-port=true", f"--grpc-port={port}", "--grpc-max-connection-age-ms=1000")

    def replica() -> Server:
        started = launch(scale, *shared)
        started.wait_for_ports()
        return started

    old = replica()
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(f"127.0.0.1:{port}", options) for _ in range(CONNECTIONS)]

    def share_of(server: Server) -> int:
        """Of one call on each connection, those that this server answers; none may fail."""
        before = answered(server)
        calls = [GRPCInferenceServiceStub(one).ModelInfer.future(request("scale", x=rows(1))) for one in channels]
        for call in calls:
            call.result(timeout=LIMIT_S)
        return answered(server) - before

    try:
        assert share_of(old) == CONNECTIONS
        new = replica()
        # For each new connection the system picks one of the two.
        eventually(lambda: CONNECTIONS // 4 <= share_of(new) < CONNECTIONS, LIMIT_S)
    finally:
        for one in channels:
            one.close()
