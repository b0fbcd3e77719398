"""Where an ONNX file says that its weights are: read out of the file, for versions of ONNX Runtime that do not look.

From 1.24 on ONNX Runtime refuses weights outside of the model's folder itself. Before, a file could name any other one
that the server can read, and have it answered as a tensor. Field numbers: onnx/onnx, onnx/onnx.proto.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from inferd.errors import ModelFailed

LENGTH: Final = 2
FIXED: Final[Mapping[int, int]] = MappingProxyType({1: 8, 5: 4})
# By message: the fields in which there may be tensors, and what message they are.
INSIDE: Final[Mapping[str, Mapping[int, str]]] = MappingProxyType(
    {
        "model": {7: "graph", 20: "training", 25: "function"},
        "training": {1: "graph", 2: "graph"},
        "function": {7: "node", 11: "attribute"},
        "graph": {1: "node", 5: "tensor", 15: "sparse"},
        "node": {5: "attribute"},
        "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
        "sparse": {1: "tensor", 2: "tensor"},
        "tensor": {13: "entry"},
    }
)
DEEPEST: Final = 200
"""Messages in messages; protobuf's own parsers stop at 100."""


def check_weights(path: Path) -> None:
    """Raise ModelFailed if the file names weights outside of its folder, or is none that can be read."""
    try:
        with path.open("rb") as file:
            if not os.fstat(file.fileno()).st_size:
                return
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                for location in _locations(data, 0, len(data), "model", 0):
                    if not _is_inside(location):
                        raise ModelFailed(
                            f"{path}: it names weights outside of its folder; put them beside it and save it again"
                        )
    except (IndexError, ValueError) as broken:
        raise ModelFailed(f"{path}: ONNX Runtime cannot load it: it is no ONNX file: {broken}") from broken
    except OSError as failure:
        raise ModelFailed(f"{path}: {failure.strerror}") from failure


def _is_inside(location: str) -> bool:
    return not os.path.isabs(location) and os.path.normpath(location).split(os.sep)[0] != os.pardir


def _locations(data: mmap.mmap, at: int, end: int, kind: str, depth: int) -> Iterator[str]:
    if depth > DEEPEST:
        raise ValueError("messages too deep in each other")
    inside = INSIDE[kind]
    for number, start, stop in _fields(data, at, end):
        found = inside.get(number)
        if found == "entry":
            key, value = _entry(data, start, stop)
            if key == b"location":
                yield value.decode("utf-8", "surrogateescape")
        elif found is not None:
            yield from _locations(data, start, stop, found, depth + 1)


def _entry(data: mmap.mmap, at: int, end: int) -> tuple[bytes, bytes]:
    """A key and its value; of each the last one counts."""
    said = {1: b"", 2: b""}
    for number, start, stop in _fields(data, at, end):
        if number in said:
            said[number] = data[start:stop]
    return said[1], said[2]


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields that have a length: number, and where each begins and ends. ValueError for what is no message."""
    while at < end:
        tag, at = _varint(data, at)
        wire_type = tag & 7
        if wire_type == LENGTH:
            length, at = _varint(data, at)
            if length > end - at:
                raise ValueError("a field that is longer than its message")
            yield tag >> 3, at, at + length
            at += length
        elif wire_type == 0:
            _, at = _varint(data, at)
        elif wire_type in FIXED:
            at += FIXED[wire_type]
        else:
            raise ValueError(f"wire type {wire_type}")
    if at > end:
        raise ValueError("a field that is longer than its message")


def _varint(data: mmap.mmap, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number that is too long")
