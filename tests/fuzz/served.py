"""What the receive target serves: methods of each kind in Python, and inference by a model that says its input."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
from handmade import signature_of

from inferd._native.admission import Admission
from inferd._native.batch import Batch
from inferd._native.doorbell import Doorbell
from inferd._native.gather import gather
from inferd._native.hub import Hub
from inferd._native.infer import Endpoint, InferMethod, settle
from inferd._native.infer_stream import InferStreamMethod
from inferd._native.queue import BatchQueue
from inferd._native.reply import OutputView, answer
from inferd._native.stats import ModelStats
from inferd._native.stream import Stream
from inferd.errors import InferdError, NotReady, RunFailed, UnknownModel
from inferd.rpc.boundary import trailing_metadata
from inferd.rpc.native.compression import accepts, packed, unpacked
from inferd.rpc.native.metadata import to_send

MESSAGE_BYTES = 32768
SERVICE = "test.Service"
INFER = f"/{SERVICE}/Infer".encode()
INFER_STREAM = f"/{SERVICE}/InferStream".encode()
SIGNATURE = signature_of(
    {"x": ("FP32", [-1, -1])}, {"y": ("FP32", [-1, -1])}, batched=True, max_rows=8, lenient=True
)  # fmt: skip


async def echo(request: bytes, context: Any) -> bytes:
    metadata = [(key, value) for key, value in context.invocation_metadata() if key == "x-bin"]
    await context.send_initial_metadata(metadata)
    context.set_trailing_metadata((("peer", context.peer()), ("left", str(context.time_remaining() is not None))))
    return request


async def spread(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for _ in range(3):
        yield request
    yield bytes(70_000)
    yield request


async def collect(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([request async for request in requests])


async def chat(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


async def fail(request: bytes, context: Any) -> bytes:
    await context.abort(grpc.StatusCode.ABORTED, request.decode("latin-1"), (("x-bin", request[:100]),))
    raise AssertionError


HANDLERS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Spread": grpc.unary_stream_rpc_method_handler(spread),
    "Collect": grpc.stream_unary_rpc_method_handler(collect),
    "Chat": grpc.stream_stream_rpc_method_handler(chat),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}


def trailers(failure: InferdError) -> list[tuple[bytes, bytes]]:
    return to_send(trailing_metadata(failure))


def unpack(stream: Stream, body: bytes) -> bytes:
    return unpacked(body, stream.compression, MESSAGE_BYTES)


def pack(stream: Stream, body: bytes) -> tuple[bytes, bytes] | None:
    smaller = packed(body, "gzip") if accepts(stream.metadata(), "gzip") else None
    return None if smaller is None else (smaller, b"gzip")


def encoding(stream: Stream) -> bytes | None:
    return b"gzip" if accepts(stream.metadata(), "gzip") else None


class Model:
    """A model that answers with its input, whose runner is the input of the fuzzer."""

    def __init__(self) -> None:
        self.queue = BatchQueue(SIGNATURE, batch_rows=4, max_queue_rows=12, max_queue_bytes=8192)
        self.stats, self.unknown = ModelStats((1.0,), (1,)), ModelStats((1.0,), (1,))
        self.admission = Admission(max_requests=20, max_bytes=16384)
        self.method = InferMethod(self.find, self.unknown, trailers, unpack, pack, 0, self.admission)
        self.streams = InferStreamMethod(self.method, encoding)
        self.other: int = 0
        self.running: list[Batch] = []

    def find(self, name: str, version: str) -> Endpoint:
        if name == "m":
            return Endpoint(self.queue, Doorbell(), self.stats)
        if name == "other" and self.other % 3:
            refusal = NotReady("it is leaving") if self.other % 3 == 1 else None
            return Endpoint(None if refusal else self.queue, Doorbell(), self.stats, refusal)
        raise UnknownModel("there is no such model")

    def turn(self) -> None:
        self.other += 1
        self.method.forget()

    def take(self, now_ns: int, hub: Hub) -> bool:
        settle(self.queue.expire(now_ns), self.stats, trailers, hub)
        batch = self.queue.take(now_ns)
        if batch is not None:
            self.running.append(batch)
        return batch is not None

    def settle(self, failing: int, hub: Hub) -> None:
        while self.running:
            batch = self.running.pop(0)
            data = np.empty(batch.input_nbytes(0), np.uint8)
            gather(batch, 0, data.ctypes.data, data.size)
            answer(batch, [OutputView(1, batch.input_shape(0), address=data.ctypes.data, owner=data)])
            for member in batch.members:
                member.run_ns = 1
                if failing & 1:
                    member.answer, member.error = None, RunFailed("it did not work")
                failing >>= 1
            settle(batch.members, self.stats, trailers, hub)
