"""The messages that are sent: values for every input, made up or read from a file."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from inferd.bench import arrays
from inferd.bench.result import Tensor
from inferd.bench.shapes import Layout, settle
from inferd.bench.tensors import NUMPY_TYPES, Array, encode
from inferd.errors import StartError
from inferd.proto import inference_pb2 as pb

Parameter = bool | int | float | str

_LETTERS = np.frombuffer((string.ascii_letters + string.digits).encode(), "S1")


@dataclass(frozen=True, slots=True)
class Values:
    """Which values are made up: floats from 0 to 1, integers from a range by the input's name, or by "" for all."""

    zeros: bool = False
    distinct: int = 8
    seed: int = 0
    # 0 and 1 are token ids and categories that every vocabulary has.
    integers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    string_length: int = 16
    string: str | None = None

    def __str__(self) -> str:
        if self.zeros:
            return "zeros"
        return f"random, {self.distinct} distinct request(s), seed {self.seed}"


@dataclass(frozen=True, slots=True)
class Inputs:
    """The inputs of the requests to send: their shapes, and the values of each distinct request."""

    tensors: tuple[Tensor, ...]
    samples: tuple[Mapping[str, Array], ...]
    data: str

    def messages(self, model: str, version: str, parameters: Mapping[str, Parameter]) -> tuple[bytes, ...]:
        """One serialized ModelInferRequest per sample."""
        return tuple(
            self._message(model, version, parameters, index, sample) for index, sample in enumerate(self.samples)
        )

    def _message(
        self, model: str, version: str, parameters: Mapping[str, Parameter], index: int, sample: Mapping[str, Array]
    ) -> bytes:
        # A server that makes up an id for requests without one would answer the same request in ever different bytes.
        message = pb.ModelInferRequest(model_name=model, model_version=version, id=str(index))
        for name, value in parameters.items():
            _set(message.parameters[name], value)
        for tensor in self.tensors:
            message.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            message.raw_input_contents.append(encode(tensor.datatype, sample[tensor.name]))
        return message.SerializeToString()


def _set(parameter: pb.InferParameter, value: Parameter) -> None:
    if isinstance(value, bool):
        parameter.bool_param = value
    elif isinstance(value, int):
        parameter.int64_param = value
    elif isinstance(value, float):
        parameter.double_param = value
    else:
        parameter.string_param = value


def made_up(tensors: Sequence[Tensor], values: Values) -> Inputs:
    """Inputs with the same values for the same seed. Raises StartError for integers that a type, or no input, has."""
    if unknown := sorted(values.integers.keys() - {"", *(one.name for one in tensors)}):
        raise StartError(f"--int-range {unknown[0]}: there is no such input")
    random = np.random.default_rng(values.seed)
    count = 1 if values.zeros else values.distinct
    samples = tuple({one.name: _fill(one, values, random) for one in tensors} for _ in range(count))
    return Inputs(tuple(tensors), samples, str(values))


def _fill(tensor: Tensor, values: Values, random: np.random.Generator) -> Array:
    shape, dtype = tensor.shape, np.dtype(NUMPY_TYPES[tensor.datatype])
    if tensor.datatype == "BYTES":
        if values.zeros or values.string is not None:
            return np.full(shape, "" if values.string is None else values.string, object)
        letters = random.choice(_LETTERS, (*shape, values.string_length))
        return letters.view(f"S{values.string_length}")[..., 0] if values.string_length else np.full(shape, "", object)
    if values.zeros:
        return np.zeros(shape, dtype)
    if dtype.kind == "f":
        return random.random(shape, np.float32).astype(dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    low, high = values.integers.get(tensor.name) or values.integers.get("") or (0, 2)
    limits = np.iinfo(dtype)
    if low < limits.min or high - 1 > limits.max:
        told = f"input '{tensor.name}' is {tensor.datatype}, from {limits.min} to {limits.max}"
        raise StartError(f"--int-range {low}:{high}: {told}")
    return random.integers(low, high, shape, dtype.newbyteorder("=").type)


def stored(
    path: Path,
    model: str,
    declared: Sequence[Tensor],
    layout: Layout,
    rows: int,
    given: Mapping[str, tuple[int, ...]],
) -> Inputs:
    """Inputs from an .npz file, whose arrays also settle what the model leaves open.

    A server that names no inputs gets the arrays as they are. Raises StartError if they do not fit the model.
    """
    found = arrays.read(path)
    declared = declared or arrays.described(found)
    arrays.require(path, found, [one.name for one in declared])
    parts: dict[str, list[Array]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for one in declared:
        parts[one.name] = arrays.split(path, one, arrays.cast(path, one, found[one.name]), layout, rows)
        shapes[one.name] = parts[one.name][0].shape
    samples = arrays.requests(path, parts)
    # Checked against the model as if the flags had said so; a flag that says something else is refused.
    for name in given.keys() & shapes.keys():
        if given[name] not in (shapes[name], shapes[name][1:]):
            raise StartError(f"--shape {name}: {path} has {list(shapes[name])}; leave the flag out")
    tensors = settle(model, declared, layout, rows, {**given, **shapes})
    return Inputs(tensors, tuple(samples), f"{path.name}, {len(samples)} request(s)")
