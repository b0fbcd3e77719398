"""Requests and answers of the protocol as numpy arrays, without any client library."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import grpc
import numpy as np

from inferd.proto import inference_pb2 as pb

NUMPY_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
DATATYPES = {np.dtype(numpy_type): name for name, numpy_type in NUMPY_TYPES.items()}

# How many turns of the slow model's loop take about a millisecond; nothing depends on more than "about".
TRIPS_PER_MS = 800


def request(model: str, *, version: str = "", id: str = "", outputs: Iterable[str] = (), **inputs: Any) -> Any:
    """A ModelInferRequest with one input per keyword, a numpy array each."""
    message = pb.ModelInferRequest(model_name=model, model_version=version, id=id)
    for name, value in inputs.items():
        array = np.asarray(value)
        message.inputs.add(name=name, datatype=DATATYPES[array.dtype], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for name in outputs:
        message.outputs.add(name=name)
    return message


def arrays(answer: Any) -> dict[str, np.ndarray]:
    """The outputs of a ModelInferResponse by name."""
    return {
        tensor.name: np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
    }


def rows(seed: int, count: int = 1, width: int = 4) -> np.ndarray:
    """`count` rows of random floats, the same for the same seed."""
    return np.random.default_rng(seed).standard_normal((count, width), np.float32)


def slow(x: np.ndarray, duration_ms: float, model: str = "slow", **more: Any) -> Any:
    """A request that keeps a slow model busy for about `duration_ms`; its answer is `x`."""
    trips = np.full((len(x), 1), round(duration_ms * TRIPS_PER_MS), np.int64)
    return request(model, x=x, trips=trips, **more)


def code_of(call: Any) -> grpc.StatusCode:
    """The code of the error that a call, made or started, ends with; OK if it ends well."""
    try:
        call.result() if hasattr(call, "result") else call()
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()
        return found
    return grpc.StatusCode.OK
