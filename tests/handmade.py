"""Protobuf encodings made by hand, and small signatures and requests for tests of the codec and the queue."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import pytest

from inferd._native.bind import bind
from inferd._native.region import Regions
from inferd._native.signature import Signature
from inferd._native.wire import Request, decode
from inferd.errors import InvalidRequest
from inferd.proto import inference_pb2 as pb

VARINT, FIXED64, LENGTH, GROUP, END_GROUP, FIXED32 = range(6)

# The protocol's datatypes by the numbers that ONNX has for them.
NUMBERS: Mapping[str, int] = {
    "FP32": 1, "UINT8": 2, "INT8": 3, "UINT16": 4, "INT16": 5, "INT32": 6, "INT64": 7, "BYTES": 8, "BOOL": 9,
    "FP16": 10, "FP64": 11, "UINT32": 12, "UINT64": 13, "BF16": 16,
}  # fmt: skip
SIZES: Mapping[str, int] = {
    "FP32": 4, "UINT8": 1, "INT8": 1, "UINT16": 2, "INT16": 2, "INT32": 4, "INT64": 8, "BOOL": 1,
    "FP16": 2, "FP64": 8, "UINT32": 4, "UINT64": 8, "BF16": 2,
}  # fmt: skip
# The field of InferTensorContents that carries a datatype; the half floats have none.
FIELDS: Mapping[str, int] = {
    "BOOL": 1, "INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5,
    "FP32": 6, "FP64": 7, "BYTES": 8,
}  # fmt: skip

Spec = tuple[str, Sequence[int]]


def varint(value: int) -> bytes:
    """The shortest varint of a number; a negative one takes ten bytes, as int32 and int64 fields do."""
    value &= (1 << 64) - 1
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def tag(field: int, wire_type: int) -> bytes:
    return varint(field << 3 | wire_type)


def number(field: int, value: int) -> bytes:
    return tag(field, VARINT) + varint(value)


def delimited(field: int, payload: bytes | str) -> bytes:
    payload = payload.encode() if isinstance(payload, str) else payload
    return tag(field, LENGTH) + varint(len(payload)) + payload


def group(field: int, payload: bytes = b"") -> bytes:
    return tag(field, GROUP) + payload + tag(field, END_GROUP)


def nested_groups(depth: int) -> bytes:
    return tag(9, GROUP) * depth + tag(9, END_GROUP) * depth


def packed_strings(elements: Sequence[bytes]) -> bytes:
    """BYTES elements as raw contents have them."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def signature_of(
    inputs: Mapping[str, Spec],
    outputs: Mapping[str, Spec] | None = None,
    *,
    batched: bool = False,
    max_rows: int = 8,
    lenient: bool = False,
    broadcasts: bool = False,
    optional: Collection[str] = (),
) -> Signature:
    """A model 'm', version 1, with tensors given as name -> (datatype, shape)."""
    outputs = {"y": ("FP32", [-1, 2])} if outputs is None else outputs
    return Signature(
        "m",
        "1",
        [(name, NUMBERS[datatype], shape) for name, (datatype, shape) in inputs.items()],
        [(name, NUMBERS[datatype], shape) for name, (datatype, shape) in outputs.items()],
        batched=batched,
        max_rows=max_rows,
        lenient=lenient,
        broadcasts=broadcasts,
        optional=optional,
    )


def message(*tensors: tuple[str, str, Sequence[int], bytes | None], wanted: Sequence[str] = ()) -> pb.ModelInferRequest:
    """A request for model 'm'; tensors are (name, datatype, shape, raw contents or None for no raw entry)."""
    made = pb.ModelInferRequest(model_name="m", id="42")
    for name, datatype, shape, raw in tensors:
        made.inputs.add(name=name, datatype=datatype, shape=shape)
        if raw is not None:
            made.raw_input_contents.append(raw)
    for name in wanted:
        made.outputs.add(name=name)
    return made


def bound(signature: Signature, made: pb.ModelInferRequest, regions: Regions | None = None) -> Request:
    """The message decoded and bound."""
    request = decode(made.SerializeToString())
    bind(signature, request, regions)
    return request


def refusal(signature: Signature, made: pb.ModelInferRequest, kind: type[Exception] = InvalidRequest) -> str:
    """The words with which bind refuses the message."""
    request = decode(made.SerializeToString())
    with pytest.raises(kind) as refused:
        bind(signature, request)
    return str(refused.value)
