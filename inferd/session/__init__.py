"""ONNX Runtime, and nothing else knows it: a loaded model, and slots in which batches of it run."""

from inferd.session.options import SessionOptions
from inferd.session.padding import prepared_rows
from inferd.session.runtime import RUNTIME_VERSION, runtime_build
from inferd.session.session import Session
from inferd.session.slot import MAX_PLANS, Slot
from inferd.session.tensors import BFLOAT16, ELEMENT_TYPES, NUMPY_TYPES, STRING, TensorInfo

__all__ = [
    "BFLOAT16",
    "ELEMENT_TYPES",
    "MAX_PLANS",
    "NUMPY_TYPES",
    "RUNTIME_VERSION",
    "STRING",
    "Session",
    "SessionOptions",
    "Slot",
    "TensorInfo",
    "prepared_rows",
    "runtime_build",
]
