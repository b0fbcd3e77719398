"""The input and output sections of config.pbtxt: what clients see of each tensor, and what the model sees."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from inferd.proto.model_config_pb2 import DataType, ModelInput, ModelOutput
from inferd.repository.faults import fault

DATATYPES: Mapping[int, str] = MappingProxyType(
    {number: name.removeprefix("TYPE_") for name, number in DataType.items()}
    | {DataType.TYPE_STRING: "BYTES", DataType.TYPE_INVALID: ""}
)

MOST_DIMENSIONS = 64  # as many as a request may have


@dataclass(frozen=True, slots=True)
class TensorDecl:
    """One tensor as the file describes it: v2 datatype, dims without the batch axis, -1 for any length.

    What the file does not say is empty until it is completed from the model.
    """

    name: str
    datatype: str
    dims: tuple[int, ...]
    reshape: tuple[int, ...] | None = None
    """The shape that the model itself has, without the batch axis; () is a scalar, None the same as dims."""
    optional: bool = False
    """A request may leave this input out."""
    label_filename: str = ""
    """Below the model's folder: one label a line, for classification."""


def read_tensors(side: str, tensors: Iterable[ModelInput | ModelOutput]) -> tuple[TensorDecl, ...]:
    """What is declared on one side, "input" or "output". Raises RepositoryError for what cannot be."""
    found: dict[str, TensorDecl] = {}
    for tensor in tensors:
        if not tensor.name:
            raise fault(f"an {side} has no name")
        if tensor.name in found:
            raise fault(f"{side} {tensor.name!r} is there twice")
        found[tensor.name] = _tensor(f"{side} {tensor.name!r}", tensor)
    return tuple(found.values())


def _tensor(what: str, tensor: ModelInput | ModelOutput) -> TensorDecl:
    if tensor.data_type not in DATATYPES:
        raise fault(f"{what}: data_type {tensor.data_type} is unknown")
    dims = _shape(f"{what}: dims", tensor.dims)
    reshape = None
    if tensor.HasField("reshape"):
        reshape = _shape(f"{what}: reshape", tensor.reshape.shape)
        _check_reshape(what, dims, reshape)
    return TensorDecl(
        tensor.name,
        DATATYPES[tensor.data_type],
        dims,
        reshape=reshape,
        optional=isinstance(tensor, ModelInput) and tensor.optional,
        label_filename=_label_file(what, tensor.label_filename) if isinstance(tensor, ModelOutput) else "",
    )


def _shape(what: str, said: Iterable[int]) -> tuple[int, ...]:
    shape = tuple(said)
    if len(shape) > MOST_DIMENSIONS:
        raise fault(f"{what} must be at most {MOST_DIMENSIONS}, not {len(shape)}")
    if any(size < 1 and size != -1 for size in shape):
        raise fault(f"{what} must be 1 or more, or -1 for any length")
    return shape


def _check_reshape(what: str, dims: tuple[int, ...], reshape: tuple[int, ...]) -> None:
    """Both must hold as many elements: between any two open dimensions, before the first and after the last."""
    if not dims:
        raise fault(f"{what} has a reshape, so it needs dims: the shape that clients see")
    if _sections(dims) != _sections(reshape):
        raise fault(
            f"{what}: dims {list(dims)} and reshape {list(reshape)} do not hold the same number of elements, "
            "between their open dimensions (-1) if they have any"
        )


def _sections(shape: Sequence[int]) -> list[int]:
    """The number of elements between open dimensions."""
    sections: list[list[int]] = [[]]
    for size in shape:
        if size < 0:
            sections.append([])
        else:
            sections[-1].append(size)
    return [math.prod(section) for section in sections]


def _label_file(what: str, said: str) -> str:
    if said.startswith("/") or any(char in said for char in "\\\0") or ".." in said.split("/"):
        raise fault(f"{what}: label_filename must be a path below the model's folder, without '..', not {said!r}")
    return said
