"""Requests and answers of the protocol as numpy arrays, without any client library."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import onnxruntime

from inferd.proto import inference_pb2 as pb

NUMPY_TYPES = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8",
    "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
DATATYPES = {np.dtype(numpy_type): name for name, numpy_type in NUMPY_TYPES.items()}

# Turns of the slow model's loop with which its speed is measured, some 10 ms; the fastest of so many runs counts.
TRIAL_TRIPS, TRIAL_RUNS = 10_000, 5


@cache
def trips_per_ms() -> float:
    """How many turns of the slow models' loop take about a millisecond here; nothing depends on more than "about"."""
    session = onnxruntime.InferenceSession(models.slow().SerializeToString())
    feed = {"x": np.zeros((1, 4), np.float32), "trips": np.full((1, 1), TRIAL_TRIPS, np.int64)}
    fastest_ns = min(_run_ns(session, feed) for _ in range(TRIAL_RUNS))
    return TRIAL_TRIPS * 1e6 / fastest_ns


def _run_ns(session: Any, feed: dict[str, Any]) -> int:
    begun_ns = time.perf_counter_ns()
    session.run(None, feed)
    return time.perf_counter_ns() - begun_ns


def trips_for(duration_ms: float) -> int:
    """How many turns of a slow model's loop take about so long."""
    return round(duration_ms * trips_per_ms())


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
    return request(model, x=x, trips=np.full((len(x), 1), trips_for(duration_ms), np.int64), **more)


def code_of(call: Any) -> grpc.StatusCode:
    """The code of the error that a call, made or started, ends with; OK if it ends well."""
    try:
        call.result() if hasattr(call, "result") else call()
    except grpc.RpcError as error:
        found: grpc.StatusCode = error.code()
        return found
    return grpc.StatusCode.OK
