"""What the codec must find in a request, told by protobuf's own parser, struct and numpy alone."""

from __future__ import annotations

import math
import struct
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from handmade import FIELDS, LENGTH, SIZES, Spec

from inferd.proto import inference_pb2 as pb

MAX_TENSORS = 1024
MAX_RANK = 64
SHARED_MEMORY = {"shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"}
CONTENTS = (
    "bool_contents", "int_contents", "int64_contents", "uint_contents", "uint64_contents",
    "fp32_contents", "fp64_contents", "bytes_contents",
)  # fmt: skip
NUMPY: Mapping[str, str] = {
    "BOOL": "?", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "UINT16": "<u2",
    "UINT32": "<u4", "UINT64": "<u8", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip


class Refused(Exception):
    """The request is wrong, or asks for what is not offered."""


def parsed(body: bytes) -> pb.ModelInferRequest | None:
    """What protobuf makes of the bytes; None if it refuses them."""
    try:
        return pb.ModelInferRequest.FromString(body)
    except DecodeError:
        return None


def beyond_limits(message: pb.ModelInferRequest) -> bool:
    """True for the two limits that the codec has and protobuf does not."""
    counts = len(message.inputs), len(message.outputs), len(message.raw_input_contents)
    return max(counts) > MAX_TENSORS or any(len(tensor.shape) > MAX_RANK for tensor in message.inputs)


def lost_a_map_entry(message: Any, field: int) -> bool:
    """True if protobuf put an entry of the map at `field` aside because the entry has unknown fields.

    That is a habit of its C implementation; the codec, like protobuf's other implementations, keeps it.
    """
    aside = UnknownFieldSet(message)
    found = [aside[index] for index in range(len(aside))]
    return any(unknown.field_number == field and unknown.wire_type == LENGTH for unknown in found)


def lost_any_parameter(message: pb.ModelInferRequest) -> bool:
    return (
        lost_a_map_entry(message, 4)
        or any(lost_a_map_entry(tensor, 4) for tensor in message.inputs)
        or any(lost_a_map_entry(output, 2) for output in message.outputs)
    )


def integer(message: pb.ModelInferRequest, key: str, *kinds: str) -> int:
    """A parameter that is an integer of at least 0 and of one of the kinds, else 0."""
    if key not in message.parameters:
        return 0
    kind = message.parameters[key].WhichOneof("parameter_choice")
    value = int(getattr(message.parameters[key], kind)) if kind in kinds else 0
    return max(value, 0)


def in_sequence(message: pb.ModelInferRequest) -> bool:
    if "sequence_id" not in message.parameters:
        return False
    found = message.parameters["sequence_id"]
    kind = found.WhichOneof("parameter_choice")
    return kind in ("int64_param", "uint64_param", "string_param") and bool(getattr(found, kind))


def check_parameters(message: pb.ModelInferRequest) -> None:
    """Raise Refused for a parameter of the protocol with a type or value that it cannot have."""
    types = {
        "timeout": ("int64_param",),
        "priority": ("int64_param", "uint64_param"),
        "sequence_id": ("int64_param", "uint64_param", "string_param"),
        "sequence_start": ("bool_param",),
        "sequence_end": ("bool_param",),
        "triton_enable_empty_final_response": ("bool_param",),
    }
    for key, value in message.parameters.items():
        wrong = value.WhichOneof("parameter_choice") not in types[key] if key in types else key.startswith("triton_")
        if wrong or (key in ("timeout", "priority") and value.int64_param < 0):
            raise Refused(key)


def laid_out(
    message: pb.ModelInferRequest,
    inputs: Mapping[str, Spec],
    *,
    batched: bool,
    max_rows: int,
    optional: Collection[str] = (),
    memory: Mapping[str, bytes] | None = None,
) -> dict[str, bytes]:
    """The raw bytes of every input, or Refused, for a model with these inputs and one output, y.

    Those that are `optional` and left out have none.
    `memory` is the shared memory that is registered, by name; None where there is none to register.
    """
    check_parameters(message)
    if in_sequence(message):
        raise Refused("a sequence")
    sent = {tensor.name: index for index, tensor in enumerate(message.inputs)}
    if len(sent) != len(message.inputs) or not inputs.keys() - set(optional) <= sent.keys() <= inputs.keys():
        raise Refused("names")
    raw = list(message.raw_input_contents)
    shared = {tensor.name for tensor in message.inputs if SHARED_MEMORY & set(tensor.parameters)}
    if raw and len(raw) != len(message.inputs) - len(shared):
        raise Refused("number of raw entries")
    entries = iter(raw)
    sent_raw = {tensor.name: next(entries) for tensor in message.inputs if raw and tensor.name not in shared}
    rows = set()
    found = {}
    for name, (datatype, spec) in inputs.items():
        if name not in sent:
            continue
        tensor = message.inputs[sent[name]]
        shape = list(tensor.shape)
        if tensor.datatype != datatype or len(shape) != len(spec) or min(shape, default=0) < 0:
            raise Refused("datatype or shape")
        if any(want >= 0 and want != have for want, have in zip(spec, shape, strict=True)):
            raise Refused("shape")
        rows.update(shape[:1] if batched else [])
        typed = [index for index, name in enumerate(CONTENTS, 1) if len(getattr(tensor.contents, name))]
        if (raw or name in shared) and typed:
            raise Refused("both raw and typed")
        elements = math.prod(shape)
        if name in shared:
            found[name] = raw_bytes(placed(tensor, memory), datatype, elements)
        elif raw:
            found[name] = raw_bytes(sent_raw[name], datatype, elements)
        else:
            found[name] = typed_bytes(tensor.contents, typed, datatype, elements)
    if batched and sent and (len(rows) != 1 or not 1 <= rows.pop() <= max_rows):
        raise Refused("rows")
    wanted = [output.name for output in message.outputs]
    if len(set(wanted)) != len(wanted) or not set(wanted) <= {"y"}:
        raise Refused("outputs")
    for output in message.outputs:
        if classes_of(output) < 0:
            raise Refused("classification")
        if SHARED_MEMORY & set(output.parameters):
            placed(output, memory)
            if classes_of(output):
                raise Refused("classification in shared memory")
    return found


def placed(tensor: Any, memory: Mapping[str, bytes] | None) -> bytes:
    """The bytes in shared memory that the parameters of an input or a requested output speak of."""
    said = {key: tensor.parameters[key] for key in SHARED_MEMORY & set(tensor.parameters)}
    kinds = {key: value.WhichOneof("parameter_choice") for key, value in said.items()}
    if kinds.pop("shared_memory_region", "") != "string_param" or "shared_memory_byte_size" not in kinds:
        raise Refused("an incomplete place")
    if set(kinds.values()) != {"int64_param"} or any(said[key].int64_param < 0 for key in kinds):
        raise Refused("an impossible place")
    region = said["shared_memory_region"].string_param
    if memory is None or region not in memory:
        raise Refused("shared memory that is not registered")
    start = said["shared_memory_offset"].int64_param if "shared_memory_offset" in said else 0
    end = start + said["shared_memory_byte_size"].int64_param
    if end > len(memory[region]):
        raise Refused("a place past the end")
    return memory[region][start:end]


def classes_of(output: pb.ModelInferRequest.InferRequestedOutputTensor) -> int:
    """How many classes are asked for: 0 is none, below 0 is not a number of them."""
    if "classification" not in output.parameters:
        return 0
    asked = output.parameters["classification"]
    return asked.int64_param if asked.WhichOneof("parameter_choice") == "int64_param" else -1


def raw_bytes(raw: bytes, datatype: str, elements: int) -> bytes:
    if datatype != "BYTES":
        if len(raw) != elements * SIZES[datatype]:
            raise Refused("number of bytes")
        return raw
    at, seen = 0, 0
    while at < len(raw):
        try:
            (length,) = struct.unpack_from("<I", raw, at)
            (element,) = struct.unpack_from(f"{length}s", raw, at + 4)
            element.decode("utf-8")
        except (struct.error, UnicodeDecodeError, OverflowError) as failure:
            raise Refused("elements") from failure
        at += 4 + length
        seen += 1
    if seen != elements:
        raise Refused("number of elements")
    return raw


def typed_bytes(contents: pb.InferTensorContents, typed: list[int], datatype: str, elements: int) -> bytes:
    if typed not in ([], [FIELDS.get(datatype)]):
        raise Refused("contents of another type")
    values = list(getattr(contents, CONTENTS[typed[0] - 1])) if typed else []
    if len(values) != elements:
        raise Refused("number of elements")
    if datatype == "BYTES":
        try:
            return b"".join(struct.pack("<I", len(value)) + value.decode().encode() for value in values)
        except UnicodeDecodeError as failure:
            raise Refused("elements") from failure
    if datatype not in NUMPY:
        return b""
    kind = np.dtype(NUMPY[datatype])
    if kind.kind in "iu" and any(not np.iinfo(kind).min <= value <= np.iinfo(kind).max for value in values):
        raise Refused("value")
    return np.array(values, kind).tobytes()
