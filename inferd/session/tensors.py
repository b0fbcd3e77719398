"""The tensors of a model as its file declares them, and ONNX Runtime's names for their types."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inferd._native.datatype import name_of, size_of
from inferd.errors import ModelFailed

ELEMENT_TYPES: Mapping[str, int] = {
    "tensor(float)": 1, "tensor(uint8)": 2, "tensor(int8)": 3, "tensor(uint16)": 4, "tensor(int16)": 5,
    "tensor(int32)": 6, "tensor(int64)": 7, "tensor(string)": 8, "tensor(bool)": 9, "tensor(float16)": 10,
    "tensor(double)": 11, "tensor(uint32)": 12, "tensor(uint64)": 13, "tensor(bfloat16)": 16,
}  # fmt: skip
STRING = 8
BFLOAT16 = 16
NUMPY_TYPES: Mapping[int, str] = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8",
    9: "?", 10: "<f2", 11: "<f8", 12: "<u4", 13: "<u8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output as the ONNX file declares it; -1 stands for any size, and the first one may have a name."""

    name: str
    element_type: int
    shape: tuple[int, ...]
    first_dimension: str | None = None
    sent: tuple[int, ...] | None = None
    """The shape that clients see, where config.pbtxt says another one; its open dimensions are those of `shape`."""

    optional: bool = False
    """A request may leave this input out: the file has a value for it."""

    @property
    def bound_type(self) -> Any:
        """What the binding is told: NumPy's type, which every version takes, or the number where NumPy has none."""
        name = NUMPY_TYPES.get(self.element_type)
        return self.element_type if name is None else np.dtype(name).type

    @property
    def wire(self) -> tuple[int, ...]:
        """The shape that clients see."""
        return self.shape if self.sent is None else self.sent

    @property
    def datatype(self) -> str:
        """The protocol's name of the element type."""
        return str(name_of(self.element_type))


def tensor_info(node: Any, what: str, path: Path) -> TensorInfo:
    """An input or output of a session; ModelFailed if the protocol has no tensors of its type."""
    if node.type not in ELEMENT_TYPES:
        raise ModelFailed(
            f"{path}: {what} '{node.name}' is {node.type}; the Open Inference Protocol carries tensors of numbers, "
            "booleans and strings only. Export the model without it (for scikit-learn: zipmap=False)"
        )
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    first = node.shape[0] if node.shape and isinstance(node.shape[0], str) else None
    return TensorInfo(node.name, ELEMENT_TYPES[node.type], shape, first)


def nbytes_of(element_type: int, shape: tuple[int, ...]) -> int:
    """The bytes of a tensor of numbers that is fully shaped."""
    nbytes = int(size_of(element_type))
    for dim in shape:
        nbytes *= dim
    return nbytes
