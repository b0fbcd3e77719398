"""A slow model made busy, and requests that have to wait for it."""

from __future__ import annotations

import time
from typing import Any

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import rows, slow
from .process import POLL_S, Server
from .scrape import counted, wait_for

BUSY_MS = 1000


def occupy(
    server: Server,
    stub: GRPCInferenceServiceStub,
    model: str = "slow",
    duration_ms: float = BUSY_MS,
    timeout: float | None = None,
) -> Any:
    """Give an idle model something to do and wait until it does it: what comes next has to queue."""
    before = counted(server, model)
    busy = stub.ModelInfer.future(slow(rows(0), duration_ms, model), timeout=timeout)
    probes = []
    # What runs is counted nowhere until it has run; but that something waits shows that something runs.
    while counted(server, model).queue_rows == 0:
        assert not busy.done(), "it was over before anything could be seen"
        probes.append(stub.ModelInfer.future(slow(rows(0), 0, model)))
        time.sleep(POLL_S)
    for probe in probes:
        probe.cancel()
    wait_for(server, model, lambda now: now.queue_rows == 0 and now.requests == before.requests + len(probes))
    return busy


def queue_behind(
    server: Server, stub: GRPCInferenceServiceStub, count: int, model: str = "slow", duration_ms: float = 0
) -> list[Any]:
    """Requests that wait, in the order of their seeds 1, 2, 3 ..."""
    calls = []
    for seed in range(1, count + 1):
        calls.append(stub.ModelInfer.future(slow(rows(seed), duration_ms, model)))
        wait_for(server, model, lambda now, queued=seed: now.queue_rows == queued)
    return calls
