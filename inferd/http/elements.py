"""The elements of a tensor: numbers and texts of JSON to and from the bytes that the protocol carries.

Everything goes in pieces, so that a large tensor on a worker thread lets the loop's thread work in between.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from inferd.errors import Internal, InvalidRequest

_FLOATS: Final[Mapping[str, Any]] = MappingProxyType(
    {"FP16": np.float16, "BF16": np.float32, "FP32": np.float32, "FP64": np.float64}
)
_INTEGERS: Final[Mapping[str, Any]] = MappingProxyType(
    {f"{sign}INT{bits}": np.dtype(f"{sign.lower()}int{bits}") for sign in ("U", "") for bits in (8, 16, 32, 64)}
)
BYTES_OF: Final[Mapping[str, int]] = MappingProxyType(
    {name: np.dtype(kind).itemsize for name, kind in (*_FLOATS.items(), *_INTEGERS.items())} | {"BOOL": 1, "BF16": 2}
)
"""The datatypes whose elements all have the same size, and that size."""

_NOT_NUMBERS: Final = ("NaN", "Infinity", "-Infinity")
_PIECE: Final = 4096
_DEPTH: Final = 64


def raw(data: Any, datatype: str, owner: str) -> bytes:
    """The bytes of a tensor from a list, flat or nested in row-major order. Raises InvalidRequest.

    How many there must be is not looked at here: the model's check does, and says it.
    """
    if not isinstance(data, list):
        raise InvalidRequest(f"{owner}: its data is not a list")
    elements = _flat(data, owner)
    if datatype == "BYTES":
        return b"".join(_prefixed(elements, owner))
    if datatype == "BOOL":
        return np.fromiter(_bools(elements, owner), np.bool_).tobytes()
    if datatype in _INTEGERS:
        kind = _INTEGERS[datatype]
        bounds = np.iinfo(kind)
        return np.fromiter(_ints(elements, int(bounds.min), int(bounds.max), datatype, owner), kind).tobytes()
    doubles = np.fromiter(_doubles(elements, owner), np.float64)
    with np.errstate(over="ignore", under="ignore"):
        made = doubles.astype(_FLOATS[datatype])
    if np.isinf(made).sum() != np.isinf(doubles).sum():
        raise InvalidRequest(f"{owner}: a number of its data is too large for {datatype}")
    return _half_of(made) if datatype == "BF16" else made.tobytes()


def text(content: bytes, datatype: str, owner: str) -> str:
    """The elements of a tensor as JSON, with commas between. Raises InvalidRequest for bytes that are no text."""
    if datatype == "BYTES":
        return ",".join(_quoted(content, owner))
    if datatype == "BF16":
        values: Any = (np.frombuffer(content, np.uint16).astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(content, _FLOATS.get(datatype, _INTEGERS.get(datatype, np.bool_)))
    return ",".join(_written(values[start : start + _PIECE]) for start in range(0, len(values), _PIECE))


# --- in ----------------------------------------------------------------------------------------------


def _flat(data: list[Any], owner: str) -> Iterator[Any]:
    """What is in the lists, from left to right."""
    lists = [iter(data)]
    while lists:
        for element in lists[-1]:
            if type(element) is list:
                if len(lists) == _DEPTH:
                    raise InvalidRequest(f"{owner}: its data is nested more than {_DEPTH} deep")
                lists.append(iter(element))
                break
            yield element
        else:
            lists.pop()


def _bools(elements: Iterable[Any], owner: str) -> Iterator[bool]:
    for element in elements:
        if type(element) is not bool:
            raise InvalidRequest(f"{owner}: {_shown(element)} in its data is neither true nor false")
        yield element


def _ints(elements: Iterable[Any], least: int, most: int, datatype: str, owner: str) -> Iterator[int]:
    for element in elements:
        if type(element) is not int or not least <= element <= most:
            raise InvalidRequest(f"{owner}: {_shown(element)} in its data is no {datatype}")
        yield element


def _doubles(elements: Iterable[Any], owner: str) -> Iterator[float]:
    for element in elements:
        if type(element) is float or type(element) is int:
            yield element
        elif element in _NOT_NUMBERS:
            yield float(element)
        else:
            raise InvalidRequest(f"{owner}: {_shown(element)} in its data is no number")


def _prefixed(elements: Iterable[Any], owner: str) -> Iterator[bytes]:
    for element in elements:
        if type(element) is not str:
            raise InvalidRequest(f"{owner}: {_shown(element)} in its data is no text")
        encoded = element.encode()
        yield struct.pack("<I", len(encoded)) + encoded


def _half_of(values: Any) -> bytes:
    """The upper halves of 32-bit floats, rounded to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16).tobytes()


def _shown(element: Any) -> str:
    written = json.dumps(element)
    return written if len(written) <= 32 else written[:32] + "..."


# --- out ---------------------------------------------------------------------------------------------


def _written(values: Any) -> str:
    if values.dtype.kind != "f":
        return json.dumps(values.tolist(), separators=(",", ":"))[1:-1]
    if np.isfinite(values).all():
        # As text numpy writes the shortest that reads back the same; as Python's floats 0.1 would have 17 digits.
        return ",".join(values.astype("U32").tolist())
    return ",".join(one if one[-1].isdigit() else _special(one) for one in values.astype("U32").tolist())


def _special(one: str) -> str:
    return {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"'}[one.lower()]


def _quoted(content: bytes, owner: str) -> Iterator[str]:
    at = 0
    while at < len(content):
        (size,) = struct.unpack_from("<I", content, at)
        at += 4 + size
        if at > len(content):
            raise Internal(f"{owner}: a text of the answer is cut")
        try:
            yield json.dumps(content[at - size : at].decode())
        except UnicodeDecodeError:
            raise InvalidRequest(
                f"{owner} holds bytes that are no UTF-8 text; ask for it with the parameter binary_data: true"
            ) from None
