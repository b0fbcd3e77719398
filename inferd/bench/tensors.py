"""Tensors of the protocol as numpy arrays, and back, without any client library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inferd.proto import inference_pb2 as pb

Array = NDArray[np.generic] | NDArray[np.object_]

# BFLOAT16, which numpy does not know, is float32 here and loses its lower half on the wire.
NUMPY_TYPES: Final[Mapping[str, str]] = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "FP16": "<f2", "BF16": "<f4", "FP32": "<f4", "FP64": "<f8", "BYTES": "O",
}  # fmt: skip
_CONTENTS: Final[Mapping[str, str]] = {
    "BOOL": "bool_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip


def encode(datatype: str, values: Array) -> bytes:
    """The elements as raw_input_contents holds them."""
    if datatype == "BYTES":
        texts = [one if isinstance(one, bytes) else str(one).encode() for one in values.ravel().tolist()]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    numbers = np.ascontiguousarray(values, NUMPY_TYPES[datatype])
    if datatype == "BF16":
        return (numbers.view("<u4") >> 16).astype("<u2").tobytes()
    return numbers.tobytes()


def decode(datatype: str, shape: Sequence[int], raw: bytes) -> Array:
    """The array that raw_output_contents holds. Raises ValueError if the bytes do not fit the shape."""
    if datatype == "BYTES":
        return _objects(_texts(raw), shape)
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").reshape(shape)
    if datatype not in NUMPY_TYPES:
        raise ValueError(f"unknown datatype {datatype}")
    return np.frombuffer(raw, NUMPY_TYPES[datatype]).reshape(shape)


def _texts(raw: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(raw):
        end = at + 4 + int.from_bytes(raw[at : at + 4], "little")
        if end > len(raw):
            raise ValueError("a string is longer than its tensor")
        found.append(raw[at + 4 : end])
        at = end
    return found


def _objects(texts: Sequence[bytes], shape: Sequence[int]) -> NDArray[np.object_]:
    # Not np.array: of bytes it would make a fixed-width array, which drops zeros at their ends.
    made = np.empty(len(texts), object)
    made[:] = texts
    return made.reshape(shape)


def outputs(answer: bytes) -> dict[str, tuple[str, Array]]:
    """Datatype and values of every output in a serialized ModelInferResponse.

    Raises ValueError or protobuf's DecodeError if it is not one, or contradicts itself.
    """
    message = pb.ModelInferResponse.FromString(answer)
    raws = message.raw_output_contents
    if raws and len(raws) != len(message.outputs):
        raise ValueError(f"{len(message.outputs)} outputs with {len(raws)} raw contents")
    found: dict[str, tuple[str, Array]] = {}
    for index, tensor in enumerate(message.outputs):
        shape = tuple(tensor.shape)
        values = decode(tensor.datatype, shape, raws[index]) if raws else _typed(tensor, shape)
        found[tensor.name] = (tensor.datatype, values)
    return found


def _typed(tensor: pb.ModelInferResponse.InferOutputTensor, shape: tuple[int, ...]) -> Array:
    if tensor.datatype not in _CONTENTS:
        raise ValueError(f"{tensor.datatype} without raw contents")
    values = getattr(tensor.contents, _CONTENTS[tensor.datatype])
    if tensor.datatype == "BYTES":
        return _objects(list(values), shape)
    return np.array(values, NUMPY_TYPES[tensor.datatype]).reshape(shape)
