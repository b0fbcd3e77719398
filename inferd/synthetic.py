"""Requests nobody sent, for probes and warm-up: they take the same path as a client's."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from inferd._native.bind import bind
from inferd._native.datatype import NAMES, size_of
from inferd._native.signature import Signature
from inferd._native.wire import Request, decode
from inferd.proto import inference_pb2
from inferd.session import BFLOAT16, NUMPY_TYPES, STRING, TensorInfo

# Lengths to try for dimensions that the file leaves open, until the model runs: models that subsample
# want multiples of 32, text recognisers a height of 48, others any small number or just one.
LENGTHS = (32, 48, 64, 16, 1, 8, 4, 2, 224, 256)

# Strings are beginnings of this, all short in one row and longer in another: in a model that splits them, at
# whatever character, rows then differ in their number of words, and the probe sees it pad them to the longest.
TEXT = b"a b,c-d_e;f.g " * 8

# A warm-up with rows of megabytes must not keep one for each place in its largest batch.
DISTINCT_ROWS = 16

STRING_HEADER = 4  # each element of raw BYTES begins with its length

_ELEMENT_TYPES: Mapping[str, int] = MappingProxyType({name: number for number, name in NAMES.items()})


class Rows:
    """What requests of generated rows are made of: small random values, with `length` for every open dimension.

    Optional inputs are left to the model, as most clients do, unless `complete`. Row r always has the same values for
    the same seed and length, so that rows can be compared between runs of different sizes. Each is drawn once, and
    they begin anew after DISTINCT_ROWS.
    """

    def __init__(
        self, signature: Signature, inputs: Sequence[TensorInfo], length: int, seed: int = 0, *, complete: bool = False
    ) -> None:
        """Draws nothing yet."""
        self._signature, self._seed = signature, seed
        self._inputs = [
            (info, [length if dim < 0 else dim for dim in info.wire])
            for info in inputs
            if complete or not info.optional
        ]
        self._drawn: dict[int, list[bytes]] = {}

    def request(self, rows: int, first_row: int = 0) -> Request:
        """A bound request of rows from `first_row` on; of a model that does not batch, of all that it takes."""
        batched = self._signature.batched
        parts = [self._row(row % DISTINCT_ROWS) for row in range(first_row, first_row + (rows if batched else 1))]
        return bound(
            self._signature,
            (
                (info.name, info.datatype, [rows, *shape[1:]] if batched else shape, b"".join(raws))
                for (info, shape), raws in zip(self._inputs, zip(*parts, strict=True), strict=True)
            ),
        )

    def _row(self, row: int) -> list[bytes]:
        known = self._drawn.get(row)
        if known is None:
            batched = self._signature.batched
            known = self._drawn[row] = [
                _raw(
                    info.element_type,
                    _values(
                        info.element_type,
                        [1, *shape[1:]] if batched else shape,
                        [self._seed, index, row] if batched else [self._seed, index],
                    ),
                )
                for index, (info, shape) in enumerate(self._inputs)
            ]
        return known


def request(
    signature: Signature,
    inputs: Sequence[TensorInfo],
    rows: int,
    length: int,
    seed: int = 0,
    first_row: int = 0,
) -> Request:
    """A single request of Rows."""
    return Rows(signature, inputs, length, seed).request(rows, first_row)


def bound(signature: Signature, tensors: Iterable[tuple[str, str, Sequence[int], bytes]]) -> Request:
    """The request of a client that sends these: name, datatype, shape, raw contents. Raises what bind raises."""
    message = inference_pb2.ModelInferRequest(model_name=signature.model)
    for name, datatype, shape, contents in tensors:
        message.inputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_input_contents.append(contents)
    made: Request = decode(message.SerializeToString())
    bind(signature, made)
    return made


def raw(datatype: str, shape: Sequence[int], seed: int | None) -> bytes:
    """Raw contents for one tensor: small random values, or without a seed zeros and empty strings."""
    element_type = _ELEMENT_TYPES[datatype]
    if seed is not None:
        return _raw(element_type, _values(element_type, list(shape), [seed]))
    return bytes(nbytes(datatype, shape) or STRING_HEADER * math.prod(shape))


def nbytes(datatype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a tensor's raw contents; None for strings, which have lengths of their own."""
    return math.prod(shape) * size_of(_ELEMENT_TYPES[datatype]) or None


def _values(element_type: int, shape: list[int], seed: list[int]) -> np.ndarray:
    random = np.random.default_rng(seed)
    if element_type == STRING:
        return random.integers(1, 1 + 2 ** random.integers(0, len(TEXT).bit_length()), shape)
    if element_type == 9 or np.dtype(NUMPY_TYPES.get(element_type, "f4")).kind in "iu":
        # 0 and 1 are token ids, categories and lengths that every vocabulary has.
        return random.integers(0, 2, shape)
    return random.random(shape, np.float32)


def _raw(element_type: int, values: np.ndarray) -> bytes:
    if element_type == STRING:
        return b"".join(int(length).to_bytes(4, "little") + TEXT[: int(length)] for length in values.ravel())
    if element_type == BFLOAT16:
        return (np.ascontiguousarray(values, "<f4").view("<u4") >> 16).astype("<u2").tobytes()
    return values.astype(NUMPY_TYPES[element_type]).tobytes()
