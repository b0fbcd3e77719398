"""Arrays to ModelInferRequest and ModelInferResponse to arrays, by the generated messages and numpy alone.

Written against the protocol's text and not against inferd's codec, which is what it is there to check.
"""

from __future__ import annotations

import struct

import numpy as np
from onnx import TensorProto

from inferd.proto import inference_pb2

from .onnx_backend_cases import Case, Tensors

DATATYPES = {
    TensorProto.FLOAT: "FP32", TensorProto.DOUBLE: "FP64", TensorProto.FLOAT16: "FP16", TensorProto.BFLOAT16: "BF16",
    TensorProto.INT8: "INT8", TensorProto.INT16: "INT16", TensorProto.INT32: "INT32", TensorProto.INT64: "INT64",
    TensorProto.UINT8: "UINT8", TensorProto.UINT16: "UINT16", TensorProto.UINT32: "UINT32",
    TensorProto.UINT64: "UINT64", TensorProto.BOOL: "BOOL", TensorProto.STRING: "BYTES",
}  # fmt: skip
LAYOUTS = {
    "FP32": "<f4", "FP64": "<f8", "FP16": "<f2", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8",
    "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "BOOL": "?",
}  # fmt: skip


def infer_request(case: Case, inputs: Tensors) -> inference_pb2.ModelInferRequest:
    """The request of one data set, with raw contents; it names no outputs, so it asks for all."""
    request = inference_pb2.ModelInferRequest(model_name=case.name, id=case.name)
    for info, values in zip(case.inputs, inputs, strict=True):
        datatype = DATATYPES[info.type.tensor_type.elem_type]
        request.inputs.add(name=info.name, datatype=datatype, shape=values.shape)
        request.raw_input_contents.append(_raw(datatype, values))
    return request


def answer_tensors(case: Case, answer: inference_pb2.ModelInferResponse) -> list[np.ndarray | None]:
    """The outputs in the model's order; None for one that is missing."""
    found = {
        output.name: _values(output.datatype, raw).reshape(tuple(output.shape))
        for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }
    return [found.get(info.name) for info in case.outputs]


def _raw(datatype: str, values: np.ndarray) -> bytes:
    if datatype == "BYTES":
        texts = [text.encode() for text in values.reshape(-1)]
        return b"".join(struct.pack("<I", len(text)) + text for text in texts)
    if datatype == "BF16":
        return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(LAYOUTS[datatype], casting="equiv").tobytes()


def _values(datatype: str, raw: bytes) -> np.ndarray:
    if datatype == "BYTES":
        return _texts(raw)
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(raw, LAYOUTS[datatype])


def _texts(raw: bytes) -> np.ndarray:
    texts, at = [], 0
    while at < len(raw):
        (length,) = struct.unpack_from("<I", raw, at)
        texts.append(raw[at + 4 : at + 4 + length].decode())
        at += 4 + length
    array = np.empty(len(texts), object)
    array[:] = texts
    return array
