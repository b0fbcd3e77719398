"""The codec: bytes of a ModelInferRequest, read, bound, batched, gathered and answered.

The first byte says what kind of model they meet; its inputs are those of the request itself. What protobuf's parser
and the oracle say is what must come out.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence

import numpy as np
from handmade import NUMBERS, Spec, signature_of
from oracle import SHARED_MEMORY, classes_of, lost_any_parameter
from parity import MAX_ROWS, assert_bound_alike, assert_same
from shared import memory

from inferd._native import live
from inferd._native.batch import Batch
from inferd._native.bind import bind
from inferd._native.gather import gather, strings
from inferd._native.queue import BatchQueue
from inferd._native.region import Regions
from inferd._native.reply import OutputView, answer
from inferd._native.signature import Signature
from inferd._native.wire import Request, decode
from inferd.errors import InvalidRequest, NotOffered, UnknownRegion
from inferd.proto import inference_pb2 as pb

BATCHED, FIXED, LENIENT, BROADCASTS, MISFIT, MANY_OUTPUTS, SHARING, OPTIONAL = (1 << bit for bit in range(8))
MEMBERS = 3
# What clients have registered, where there is shared memory.
MEMORY = {"x": b"\5\0\0\0hello\0\0\0\0" * 5, "y": bytes(48)}


class Sharing:
    """The regions of MEMORY."""

    def __init__(self) -> None:
        self.regions = Regions(len(MEMORY))
        self.paths = []
        for name, contents in MEMORY.items():
            with memory(contents) as made:
                self.regions.register(name, made.key, 0, len(contents))
                # The object lives on without its name.
                self.paths.append(os.open(made.path, os.O_RDWR))

    def restore(self) -> None:
        """Answers may have been written to it."""
        for file, contents in zip(self.paths, MEMORY.values(), strict=True):
            os.pwrite(file, contents, 0)

    def close(self) -> None:
        for file in self.paths:
            os.close(file)


def inputs_of(message: pb.ModelInferRequest, mode: int) -> dict[str, Spec]:
    """The inputs of a model for a request like this one, or in one thing unlike it."""
    found: dict[str, Spec] = {}
    for tensor in message.inputs:
        shape: Sequence[int] = [dim if mode & FIXED else -1 for dim in tensor.shape]
        if mode & BATCHED:
            if not shape:
                continue
            shape = [-1, *shape[1:]]
        found[tensor.name] = (tensor.datatype if tensor.datatype in NUMBERS else "FP32", shape)
    if mode & MISFIT and found:
        name, (datatype, shape) = found.popitem()
        found[name] = ("INT8" if datatype != "INT8" else "BYTES", shape)
    return found


def with_optional(inputs: dict[str, Spec], batched: bool) -> tuple[dict[str, Spec], list[str]]:
    """The inputs of a model that has two more, of which the request knows nothing, and what of all it may leave out."""
    more = {f"left out {where}": ("FP32", [-1, 2] if batched else [2]) for where in ("first", "last")}
    first, last = more
    inputs = {first: more[first], **inputs, last: more[last]}
    return inputs, [first, last, *list(inputs)[1:2]]


def codec(data: bytes, sharing: Sharing) -> None:
    mode, body = data[:1] or b"\0", data[1:]
    read = assert_same(body)
    if read is None:
        return
    request, message = read
    kind = mode[0]
    inputs = inputs_of(message, kind)
    batched = bool(kind & BATCHED)
    inputs, optional = with_optional(inputs, batched) if kind & OPTIONAL else (inputs, [])
    regions = sharing.regions if kind & SHARING else None
    if not kind & (LENIENT | BROADCASTS | MANY_OUTPUTS) and not lost_any_parameter(message):
        known = MEMORY if kind & SHARING else None
        assert_bound_alike(request, message, inputs, batched=batched, optional=optional, regions=regions, memory=known)
    names = [f"y{index}" for index in range(20)] if kind & MANY_OUTPUTS else ["y"]
    signature = signature_of(
        inputs,
        {name: ("FP32", [-1, 2]) for name in names},
        batched=batched,
        max_rows=MAX_ROWS,
        lenient=bool(kind & LENIENT),
        broadcasts=bool(kind & BROADCASTS),
        optional=optional,
    )
    run(signature, body, message, list(inputs), names, regions)
    sharing.restore()


def run(
    signature: Signature,
    body: bytes,
    message: pb.ModelInferRequest,
    inputs: list[str],
    outputs: list[str],
    regions: Regions | None,
) -> None:
    """Some copies of the request in a queue, and what a runner does with them."""
    queue = BatchQueue(signature, batch_rows=2 * MAX_ROWS, max_queue_rows=1 << 40, max_queue_bytes=1 << 40)
    requests = [decode(body) for _ in range(MEMBERS)]
    try:
        for request in requests:
            bind(signature, request, regions)
            queue.put(request, 0)
    except (InvalidRequest, NotOffered, UnknownRegion):
        assert not queue.requests
        return
    answered: list[Request] = []
    while batch := queue.take(1):
        for index, name in enumerate(inputs):
            if not batch.has_input(index):
                assert batch.input_nbytes(index) == 0
                continue
            check_gathered(batch, index, BYTES=message_datatype(message, name) == "BYTES")
        rows = batch.rows if batch.rows <= 2 * MAX_ROWS else 1
        result = np.arange(2 * rows, dtype="<f4")
        view = OutputView(1, [rows, 2], address=result.ctypes.data, owner=result)
        answer(batch, [view] * len(outputs))
        answered += batch.members
    assert answered == requests
    wanted = {output.name for output in message.outputs} or set(outputs)
    for request in requests:
        if request.error is not None:
            assert "of shared memory" in str(request.error)
            assert regions is not None
            continue
        told = pb.ModelInferResponse.FromString(request.answer)
        assert told.id == message.id
        assert [output.name for output in told.outputs] == [name for name in outputs if name in wanted]
        if not lost_any_parameter(message):
            check_outputs(message, told, request.rows if signature.batched and not request.apart else None)


def check_outputs(message: pb.ModelInferRequest, told: pb.ModelInferResponse, rows: int | None) -> None:
    """An output whose best classes were asked for has that many of them; one that went to shared memory is not sent."""
    asked = {output.name: classes_of(output) for output in message.outputs}
    shared = {output.name for output in message.outputs if SHARED_MEMORY & set(output.parameters)}
    for output, raw in zip(told.outputs, told.raw_output_contents, strict=True):
        classes = asked.get(output.name, 0)
        assert output.datatype == ("BYTES" if classes else "FP32")
        assert not (raw and output.name in shared)
        if classes and rows is not None:
            best = min(classes, 2)
            assert list(output.shape) == [rows, best]
            indices = [element.split(b":")[1] for element in elements_of(raw)]
            assert indices == [b"1", b"0"][:best] * rows


def elements_of(raw: bytes) -> list[bytes]:
    found = []
    while raw:
        end = 4 + int.from_bytes(raw[:4], "little")
        found.append(raw[4:end])
        raw = raw[end:]
    return found


def message_datatype(message: pb.ModelInferRequest, name: str) -> str:
    return next(tensor.datatype for tensor in message.inputs if tensor.name == name)


def check_gathered(batch: Batch, index: int, *, BYTES: bool) -> None:
    """The members' bytes lie one after the other, and their strings are what they say."""
    expected = b"".join(request.tensor_bytes(index) for request in batch.members)
    assert batch.input_nbytes(index) == len(expected)
    memory = np.full(len(expected), 0xAA, np.uint8)
    assert gather(batch, index, memory.ctypes.data, memory.size) == len(expected)
    assert memory.tobytes() == expected
    if BYTES:
        packed = [text.encode() for text in strings(batch, index)]
        assert b"".join(len(text).to_bytes(4, "little") + text for text in packed) == expected


class Codec:
    """The target."""

    def __init__(self) -> None:
        self.sharing = Sharing()

    def __call__(self, data: bytes) -> None:
        before = live.snapshot()
        codec(data, self.sharing)
        if live.snapshot() != before:
            gc.collect()
        assert live.snapshot() == before, f"left behind: {live.snapshot()}"

    def close(self) -> None:
        """Let go of what is shared."""
        self.sharing.close()
