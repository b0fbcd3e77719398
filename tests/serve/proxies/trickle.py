"""A few clients that call one after the other while something happens to the servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from ..calls import arrays, request, rows
from .front import LIMIT_S, Front, until

CLIENTS = 4


@dataclass
class Trickle:
    """How the calls went so far. Clients try no call again, whatever it ended with."""

    answered: int = 0
    wrong: int = 0
    failures: list[tuple[grpc.StatusCode, str]] = field(default_factory=list)

    def wait_for(self, more: int) -> None:
        """Until so many more calls have ended well."""
        wanted = self.answered + more
        until(lambda: self.answered >= wanted or bool(self.failures), f"{more} calls")


@contextmanager
def trickling(front: Front, pause_s: float = 0.01) -> Iterator[Trickle]:
    """Calls for as long as the block takes; each client waits for so long after each of its own."""
    trickle, stop, lock = Trickle(), threading.Event(), threading.Lock()

    def client(seed: int) -> None:
        with front.stub() as stub:
            while not stop.wait(pause_s):
                seed += 1
                call(stub, seed)

    def call(stub: GRPCInferenceServiceStub, seed: int) -> None:
        try:
            answer = stub.ModelInfer(request("scale", x=rows(seed)), timeout=LIMIT_S)
        except grpc.RpcError as error:
            with lock:
                trickle.failures.append((error.code(), error.details()))
            return
        with lock:
            trickle.answered += 1
            trickle.wrong += not np.array_equal(arrays(answer)["y"], rows(seed) * np.float32(2))

    clients = [threading.Thread(target=client, args=(number * 1_000_000,)) for number in range(CLIENTS)]
    for one in clients:
        one.start()
    try:
        trickle.wait_for(10 * CLIENTS)
        yield trickle
    finally:
        stop.set()
        for one in clients:
            one.join()
