"""What shape each input of a request has: the model's, with its rows and its open dimensions settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd.bench.result import Tensor
from inferd.bench.tensors import NUMPY_TYPES
from inferd.errors import StartError


@dataclass(frozen=True, slots=True)
class Layout:
    """Whether axis 0 of a model's inputs counts rows, and how many the server allows in one request."""

    batched: bool
    max_rows: int | None = None

    @classmethod
    def of(cls, inputs: Sequence[Tensor], max_batch_size: int | None) -> Layout:
        """What the server says, or, if it does not batch this model itself, what the shapes allow."""
        if max_batch_size:
            return cls(True, max_batch_size)
        return cls(bool(inputs) and all(one.shape and one.shape[0] < 0 for one in inputs))

    def has_rows(self, tensor: Tensor) -> bool:
        """Whether axis 0 of this input or output counts rows."""
        return self.batched and bool(tensor.shape) and (tensor.shape[0] < 0 or self.max_rows is not None)


def settle(
    model: str, inputs: Sequence[Tensor], layout: Layout, rows: int, given: Mapping[str, tuple[int, ...]]
) -> tuple[Tensor, ...]:
    """The inputs with no dimension left open.

    A given shape has all dimensions, or all but the rows. Raises StartError naming what is missing or wrong.
    """
    if rows > 1 and not layout.batched:
        raise StartError(f"--batch {rows}: model '{model}' takes one row per request: axis 0 of its inputs is not open")
    if layout.max_rows is not None and rows > layout.max_rows:
        raise StartError(f"--batch {rows}: model '{model}' takes at most {layout.max_rows} rows per request")
    if unknown := sorted(given.keys() - {one.name for one in inputs}):
        names = ", ".join(one.name for one in inputs)
        raise StartError(f"--shape {unknown[0]}: model '{model}' has no such input; it has {names}")
    for one in inputs:
        if one.datatype not in NUMPY_TYPES:
            raise StartError(f"input '{one.name}' of model '{model}' has the unknown datatype '{one.datatype}'")
    settled = [_settle(one, layout.has_rows(one), rows, given.get(one.name)) for one in inputs]
    if missing := [flag for one, full in zip(inputs, settled, strict=True) if (flag := _missing(one, full, layout))]:
        raise StartError(
            f"model '{model}' leaves dimensions open; give a length for each ?: --shape {' --shape '.join(missing)}"
        )
    return tuple(settled)


def _settle(tensor: Tensor, has_rows: bool, rows: int, given: tuple[int, ...] | None) -> Tensor:
    declared = (rows, *tensor.shape[1:]) if has_rows else tensor.shape
    if given is None:
        return tensor.model_copy(update={"shape": declared})
    shape = (rows, *given) if has_rows and len(given) == len(declared) - 1 else given
    told = f"--shape {tensor.name}:{','.join(map(str, given))}"
    if len(shape) != len(declared):
        raise StartError(f"{told}: the input has {len(declared)} dimension(s): {_shown(tensor.shape)}")
    if has_rows and shape[0] != rows:
        raise StartError(f"{told}: has {shape[0]} row(s) where --batch says {rows}")
    if any(0 <= length != wanted for length, wanted in zip(declared, shape, strict=True)):
        raise StartError(f"{told}: does not fit the input's shape {_shown(tensor.shape)}")
    return tensor.model_copy(update={"shape": shape})


def _missing(declared: Tensor, settled: Tensor, layout: Layout) -> str:
    """The flag that would settle what is still open, without its rows; empty if nothing is."""
    if all(length >= 0 for length in settled.shape):
        return ""
    shape = settled.shape[1:] if layout.has_rows(declared) else settled.shape
    return f"{declared.name}:{','.join('?' if length < 0 else str(length) for length in shape)}"


def _shown(shape: Sequence[int]) -> str:
    return f"[{','.join(map(str, shape))}]"
