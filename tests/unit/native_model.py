"""A queue behind the compiled inference methods, without a runner: the test runs the batches itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from handmade import message
from queued import queue

from inferd._native.admission import Admission
from inferd._native.doorbell import Doorbell
from inferd._native.hub import Hub
from inferd._native.infer import Endpoint, InferMethod, settle
from inferd._native.queue import BatchQueue
from inferd._native.stats import ModelStats
from inferd._native.stream import Stream
from inferd._native.wire import Request
from inferd.errors import InferdError, UnknownModel
from inferd.rpc.native.compression import unpacked

BODY = message(("x", "FP32", [1, 2], bytes(8))).SerializeToString()


def trailers(failure: InferdError) -> list[tuple[bytes, bytes]]:
    return [(b"kind", type(failure).__name__.encode())]


def unpack(stream: Stream, body: bytes) -> bytes:
    return unpacked(body, stream.compression, 1 << 20)


Packed = Callable[[Stream, bytes], tuple[bytes, bytes] | None]


class Model:
    """One model, called m, and who answers for it."""

    def __init__(
        self, *, packed: Packed | None = None, timeout_ns: int = 0, admission: Admission | None = None, **limits: Any
    ) -> None:
        self.queue: BatchQueue = queue(**limits)
        self.stats, self.unknown = ModelStats((1.0,), (1,)), ModelStats((1.0,), (1,))
        self.refusal: InferdError | None = None
        self._admission = admission
        self.lookups = 0
        self.hub: Hub | None = None  # with one, answers leave at once
        self.method = InferMethod(self.find, self.unknown, trailers, unpack, packed, timeout_ns, admission)

    def find(self, name: str, version: str) -> Endpoint:
        self.lookups += 1
        if name != "m":
            raise UnknownModel("there is no such model")
        return Endpoint(None if self.refusal else self.queue, Doorbell(), self.stats, self.refusal)

    @property
    def admission(self) -> Admission:
        assert self._admission is not None
        return self._admission

    async def queued(self, count: int = 1) -> None:
        while self.queue.requests != count:
            await asyncio.sleep(0)

    def take(self) -> list[Request]:
        batch = self.queue.take(0)
        assert batch is not None
        return list(batch.members)

    def settle(self, members: list[Request], finish: Callable[[Request], None]) -> None:
        for member in members:
            finish(member)
            member.run_ns = 1
        settle(members, self.stats, trailers, self.hub)

    async def counted(self, codes: dict[int, int]) -> None:
        while {code: count for code, count in self.stats.requests_by_code.items() if count} != codes:
            await asyncio.sleep(0)


def answer(request: Request) -> None:
    request.answer = b"answer"
