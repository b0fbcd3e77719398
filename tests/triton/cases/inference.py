"""Requests that are right: tensors of every type, raw and typed, and what of an answer is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx_models import ELEMENT_TYPES
from serve.calls import NUMPY_TYPES, request, rows

from inferd.proto import inference_pb2 as pb

from .case import Case, Difference, infer

# What the Python backend of the oracle can carry.
DATATYPES = tuple(name for name in ELEMENT_TYPES if name != "BF16")
TYPED_FIELDS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents", "INT32": "int_contents",
    "INT64": "int64_contents", "UINT8": "uint_contents", "UINT16": "uint_contents", "UINT32": "uint_contents",
    "UINT64": "uint64_contents", "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
TEXTS = (b"a", b"", "\u00e9 \U0001f600".encode())

SCALAR = Difference(
    what="a scalar (a tensor of the model without dimensions), sent with shape []",
    triton="INVALID_ARGUMENT",
    inferd="OK",
    why="Triton writes a scalar as `dims: [ 1 ]` and wants shape [1]; ONNX has scalars, so they are taken and given.",
)
SURPLUS = Difference(
    what="more entries in raw_input_contents than there are inputs",
    triton="OK",
    inferd="INVALID_ARGUMENT",
    why="Triton drops the last ones unread. It is a client's mistake, and which entry was the surplus one is a guess.",
)
TWICE = Difference(
    what="one output asked for twice",
    triton="OK",
    inferd="INVALID_ARGUMENT",
    why="Each mention may have parameters of its own, and they may contradict each other.",
)


def two(**more: Any) -> Any:
    """A request for two_by_two."""
    return request("two_by_two", a=rows(1, 1, 3), b=np.array([[4]], "i8"), **more)


def packed(*texts: bytes) -> bytes:
    """BYTES as they are sent raw."""
    return b"".join(len(one).to_bytes(4, "little") + one for one in texts)


def values(datatype: str) -> np.ndarray:
    """Three values of a type, the extremes among them."""
    numpy_type = np.dtype(NUMPY_TYPES[datatype])
    if numpy_type.kind == "b":
        return np.array([True, False, True])
    info = np.finfo(numpy_type) if numpy_type.kind == "f" else np.iinfo(numpy_type)
    return np.array([info.min, 0, info.max], numpy_type)


def types(*, typed: bool) -> Any:
    """A request for the model with a tensor of each type. FP16 and typed contents do not go together."""
    message = pb.ModelInferRequest(model_name="types", id="every type")
    for datatype in DATATYPES:
        tensor = message.inputs.add(name=f"IN_{datatype}", datatype=datatype, shape=[1, 3])
        if not typed:
            raw = packed(*TEXTS) if datatype == "BYTES" else values(datatype).tobytes()
            message.raw_input_contents.append(raw)
        elif datatype != "FP16":
            sent = TEXTS if datatype == "BYTES" else values(datatype).tolist()
            getattr(tensor.contents, TYPED_FIELDS[datatype]).extend(sent)
    return message


def surplus() -> Any:
    """A request for scale with an entry too many."""
    message = request("scale", x=rows(1))
    message.raw_input_contents.append(b"more")
    return message


def typed(numbers: list[float]) -> Any:
    """A request for scale with typed contents."""
    message = pb.ModelInferRequest(model_name="scale")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 4]).contents.fp32_contents.extend(numbers)
    return message


CASES = (
    Case("one row", infer(request("scale", x=rows(1), id="an id"))),
    Case("without an id", infer(request("scale", x=rows(1)))),
    Case("as many rows as a batch may have", infer(request("scale", x=rows(2, 4)))),
    Case("a model without batches", infer(request("plain", x=rows(3)[0]))),
    Case("any rows for a model without batches", infer(request("any_rows", x=rows(3, 7)))),
    Case("every datatype raw", infer(types(typed=False))),
    Case("typed contents", infer(typed([1, 2, 3, 4]))),
    Case("both outputs without asking", infer(two())),
    Case("one of two outputs", infer(two(outputs=["product"]))),
    Case("outputs asked for backwards", infer(two(outputs=["product", "total"]))),
    Case("inputs sent backwards", infer(request("two_by_two", b=np.array([[4]], "i8"), a=rows(1, 1, 3)))),
    Case("the newest version if none is named", infer(request("versioned", x=rows(4)))),
    Case("an older version by its number", infer(request("versioned", x=rows(4), version="1"))),
    Case("a raw entry more than there are inputs", infer(surplus()), SURPLUS),
    Case("an output asked for twice", infer(two(outputs=["product", "product"])), TWICE),
    Case("a scalar", infer(request("scalar", x=np.float32(3))), SCALAR),
    Case("no rows in a batch", infer(request("scale", x=np.zeros((0, 4), "f4")))),
    Case("no rows for a model without batches", infer(request("any_rows", x=np.zeros((0, 4), "f4")))),
)
