"""Ten thousand requests of every kind of client at once, after which the server is as good as new."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest
from onnx_models import EMBEDDING

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, code_of, request, rows, slow
from .process import CHANNEL_OPTIONS, Server
from .scrape import Counted, counted, samples, wait_for

REQUESTS = 10_000
WORKERS = 48
CHANNELS = 6
SEED = 20_240_229
MODELS = ("scale", "embedding", "slow")
# The server may grow in the first part, while it learns how much memory it needs, and not after it. The bound is
# for allocators; one KiB kept for each request of the second part would be more.
WARM_UP = 2_000
GROWTH_BYTES = 6 << 20

OK, INVALID = grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT
HUNG_UP = {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}


@dataclass
class Crowd:
    """The clients: connections that may be closed under each other, and what came back."""

    address: str
    random: random.Random = field(default_factory=lambda: random.Random(SEED))
    channels: list[grpc.aio.Channel] = field(default_factory=list)
    codes: Counter[grpc.StatusCode] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    left: int = REQUESTS

    async def run(self) -> None:
        self.channels = [self.connect() for _ in range(CHANNELS)]
        try:
            await asyncio.gather(*(self.work() for _ in range(WORKERS)))
        finally:
            for channel in self.channels:
                await channel.close()

    def connect(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    async def work(self) -> None:
        kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
            self.good, self.embed, self.bad, self.unknown, self.poison,
            self.cancelled, self.hasty, self.close, self.garbage,
        ]  # fmt: skip
        weights = [450, 200, 100, 40, 40, 100, 50, 4, 6]
        while self.left > 0:
            self.left -= 1
            [kind] = self.random.choices(kinds, weights)
            await kind()

    # --- kinds of clients ----------------------------------------------------------------------------

    async def good(self) -> None:
        x = rows(self.random.randrange(1 << 30), self.random.randint(1, 4))
        answer = await self.ask(request("scale", x=x), {OK})
        if answer is not None and arrays(answer)["y"].tobytes() != (x * np.float32(2)).tobytes():
            self.wrong.append("an answer of the scale model")

    async def embed(self) -> None:
        index = self.random.randrange(len(EMBEDDING))
        answer = await self.ask(request("embedding", ids=np.array([[index]])), {OK})
        if answer is not None and not np.array_equal(arrays(answer)["vectors"][0, 0], EMBEDDING[index]):
            self.wrong.append("an answer of the embedding model")

    async def bad(self) -> None:
        message = request("scale", x=rows(1))
        spoil = self.random.randrange(4)
        if spoil == 0:
            message.raw_input_contents[0] = bytes(self.random.randrange(16))
        elif spoil == 1:
            message.inputs[0].shape[:] = [self.random.randint(-4, 0), 4]
        elif spoil == 2:
            message.inputs[0].name = "z"
        else:
            message.outputs.add(name="z")
        await self.ask(message, {INVALID})

    async def unknown(self) -> None:
        await self.ask(request(f"model_{self.random.random()}", x=rows(1)), {grpc.StatusCode.NOT_FOUND})

    async def poison(self) -> None:
        await self.ask(request("embedding", ids=np.array([[self.random.choice([-99, 99])]])), {INVALID})

    async def cancelled(self) -> None:
        call = self.start(slow(rows(1), self.random.random()))
        await asyncio.sleep(self.random.random() * 0.004)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
            await call
        self.codes[await call.code()] += 1

    async def hasty(self) -> None:
        late = {OK, grpc.StatusCode.DEADLINE_EXCEEDED}
        await self.ask(slow(rows(1), self.random.random()), late, timeout=self.random.random() * 0.01)

    async def close(self) -> None:
        """Hang up on everybody who shares the connection."""
        place = self.random.randrange(CHANNELS)
        old, self.channels[place] = self.channels[place], self.connect()
        await old.close()

    async def garbage(self) -> None:
        """A connection that speaks no HTTP/2, cut off with a reset."""
        host, port = self.address.split(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(self.random.choice([b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b""]) + self.random.randbytes(40))
        taken = writer.get_extra_info("socket")
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    # --- calls ---------------------------------------------------------------------------------------

    def start(self, message: Any, timeout: float | None = 30) -> Any:
        stub = GRPCInferenceServiceStub(self.random.choice(self.channels))
        return stub.ModelInfer(message, timeout=timeout)

    async def ask(self, message: Any, expected: set[grpc.StatusCode], timeout: float | None = 30) -> Any:
        """Call and note the code; None unless there is an answer. A neighbour may have closed the connection."""
        try:
            call = self.start(message, timeout)
            answer, code = await call, OK
        except grpc.aio.AioRpcError as error:
            answer, code = None, error.code()
        except (asyncio.CancelledError, grpc.aio.UsageError):
            answer, code = None, grpc.StatusCode.CANCELLED
        self.codes[code] += 1
        if code not in expected | HUNG_UP:
            self.wrong.append(f"{code} instead of {expected}")
        return answer


def resident_bytes(server: Server) -> float:
    [value] = [value for name, _, value in samples(server) if name == "process_resident_memory_bytes"]
    return value


def balanced(now: Counted) -> bool:
    """Nothing waits, and every request that was accepted has one code."""
    return now.queue_rows == 0 and now.requests == sum(now.codes.values())


@pytest.fixture
def crowded(repository: Path, server: Callable[..., Server]) -> Server:
    models.write(repository, "scale", models.scale())
    models.write(repository, "embedding", models.embedding())
    models.write(repository, "slow", models.slow())
    one = server(repository)
    with one.stub() as stub:
        for first in range(0, 500, 100):  # a burst beyond grpc.max_concurrent_streams may be refused
            for call in [stub.ModelInfer.future(request("scale", x=rows(seed))) for seed in range(first, first + 100)]:
                call.result()
    return one


def test_ten_thousand_requests_of_all_kinds_leave_a_healthy_server(crowded: Server) -> None:
    crowd = Crowd(crowded.address, left=WARM_UP)
    asyncio.run(crowd.run())
    before_bytes = resident_bytes(crowded)
    crowd.left = REQUESTS - WARM_UP
    asyncio.run(crowd.run())
    assert crowd.wrong == []

    # --- it answers as on the first day
    assert crowded.health() == "SERVING"
    assert crowded.http("/health") == (200, {"status": "alive"})
    with crowded.stub() as stub:
        for seed in range(8):
            y = arrays(stub.ModelInfer(request("scale", x=rows(seed))))["y"]
            assert np.array_equal(y, rows(seed) * np.float32(2))
        assert code_of(stub.ModelInfer.future(slow(rows(1), 1))) is OK
        assert stub.ServerReady(pb.ServerReadyRequest()).ready

    # --- its books are balanced
    total = Counter(counted(crowded, "").codes)
    for model in MODELS:
        total.update(wait_for(crowded, model, balanced).codes)
    assert "INTERNAL" not in total
    assert "UNKNOWN" not in total
    assert total["OK"] >= crowd.codes[OK] + 500 + 9
    assert sum(total.values()) <= REQUESTS + 500 + 9

    # --- it complains of values that a model refused, and of nothing else
    ours = [one for one in crowded.log() if one["logger"].startswith("inferd")]
    assert {one["message"] for one in ours if one["level"] != "info"} == {"run failed"}

    # --- it has not grown
    assert resident_bytes(crowded) - before_bytes < GROWTH_BYTES
