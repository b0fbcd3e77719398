"""Hypothesis strategies for requests as no client would write them and every parser must read them."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import handmade as by_hand
import numpy as np
from handmade import FIELDS, FIXED32, FIXED64, NUMBERS, SIZES, VARINT
from hypothesis import strategies as st

Draw = st.DrawFn
Piece = tuple[str, bytes]

names = st.text(st.characters(codec="utf-8"), max_size=6)
# Field numbers that no message of the protocol has.
foreign_fields = st.sampled_from([20, 1000, (1 << 29) - 1])


@dataclass(frozen=True)
class Generated:
    """The bytes of a request, the inputs that a fitting model has, and the raw bytes that must come out."""

    body: bytes
    inputs: dict[str, by_hand.Spec]
    batched: bool
    expected: dict[str, bytes]


@st.composite
def unknown(draw: Draw, depth: int = 0) -> bytes:
    """A field that the protocol does not have: a foreign number, or a known one as a group."""
    field = draw(foreign_fields)
    kind = draw(st.sampled_from(["varint", "fixed32", "fixed64", "bytes", "group"]))
    if kind == "varint":
        return by_hand.number(field, draw(st.integers(0, (1 << 64) - 1)))
    if kind == "fixed32":
        return by_hand.tag(field, FIXED32) + draw(st.binary(min_size=4, max_size=4))
    if kind == "fixed64":
        return by_hand.tag(field, FIXED64) + draw(st.binary(min_size=8, max_size=8))
    if kind == "bytes":
        return by_hand.delimited(field, draw(st.binary(max_size=5)))
    inside = b"".join(draw(st.lists(unknown(depth + 1), max_size=2))) if depth < 3 else b""
    return by_hand.group(draw(st.sampled_from([1, 5, 8, field])), inside)


@st.composite
def shuffled(draw: Draw, pieces: Sequence[Piece]) -> bytes:
    """The pieces in any order in which those of the same name keep theirs, with unknown fields between them."""
    pieces = [*pieces, *(("", field) for field in draw(st.lists(unknown(), max_size=2)))]
    order = draw(st.permutations([name for name, _ in pieces]))
    waiting = {name: iter([made for known, made in pieces if known == name]) for name in order}
    return b"".join(next(waiting[name]) for name in order)


@st.composite
def string_field(draw: Draw, field: int, value: str) -> list[Piece]:
    """A singular string, perhaps sent before with another value: the last one counts."""
    decoys = draw(st.lists(names, max_size=1))
    return [(f"string {field}", by_hand.delimited(field, text)) for text in [*decoys, value]]


@st.composite
def parameters(draw: Draw, field: int) -> list[Piece]:
    """Entries of a parameter map, of every kind and some of the protocol's own keys."""
    keys = st.sampled_from(
        ["timeout", "priority", "sequence_id", "sequence_start", "triton_enable_empty_final_response", "a", ""]
    ) | st.sampled_from(["shared_memory_region", "classification", "triton_x"])
    made = []
    for key in draw(st.lists(keys, max_size=2)):
        values = draw(st.lists(parameter_value(), max_size=2))
        entry = draw(st.permutations([by_hand.delimited(1, key), *(by_hand.delimited(2, value) for value in values)]))
        made.append(("parameter", by_hand.delimited(field, b"".join(entry))))
    return made


@st.composite
def parameter_value(draw: Draw) -> bytes:
    kind = draw(st.sampled_from([0, 1, 2, 2, 3, 4, 5]))
    if kind == 0:
        return b""
    if kind == 3:
        return by_hand.delimited(3, draw(names))
    if kind == 4:
        return by_hand.tag(4, FIXED64) + draw(st.binary(min_size=8, max_size=8))
    return by_hand.number(kind, draw(st.sampled_from([0, 1, 5, -1, 1 << 63]) | st.integers(0, 1 << 64)))


@st.composite
def split(draw: Draw, items: Sequence[bytes]) -> list[list[bytes]]:
    """The items in order, cut into runs."""
    runs: list[list[bytes]] = [[]]
    for item in items:
        if draw(st.booleans()):
            runs.append([])
        runs[-1].append(item)
    return runs


@st.composite
def repeated(draw: Draw, field: int, wire_type: int, items: Sequence[bytes]) -> list[Piece]:
    """A repeated scalar as any mix of packed and unpacked runs."""
    made = []
    for run in draw(split(items)):
        if draw(st.booleans()):
            made.append((f"field {field}", by_hand.delimited(field, b"".join(run))))
        else:
            made.append((f"field {field}", b"".join(by_hand.tag(field, wire_type) + item for item in run)))
    return made


def elements_of(datatype: str, raw: bytes) -> list[bytes]:
    """Raw contents as the scalars of a repeated field."""
    size = SIZES[datatype]
    items = [raw[at : at + size] for at in range(0, len(raw), size)]
    if FIELDS[datatype] >= 6:
        return items
    return [by_hand.varint(int.from_bytes(item, "little", signed=datatype.startswith("INT"))) for item in items]


@st.composite
def typed_contents(draw: Draw, datatype: str, raw: bytes, strings: Sequence[bytes]) -> list[Piece]:
    """The contents field, in one message or in several that a parser must merge."""
    field = FIELDS[datatype]
    if datatype == "BYTES":
        pieces = [("bytes", by_hand.delimited(8, element)) for element in strings]
    else:
        wire_type = {6: FIXED32, 7: FIXED64}.get(field, VARINT)
        pieces = draw(repeated(field, wire_type, elements_of(datatype, raw)))
    made = []
    for run in draw(split([encoded for _, encoded in pieces])):
        made.append(("contents", by_hand.delimited(5, draw(shuffled([("values", piece) for piece in run])))))
    return made


@st.composite
def values_of(draw: Draw, datatype: str, count: int, *, typed: bool) -> tuple[bytes, list[bytes]]:
    """Raw contents of `count` elements, and for BYTES the elements."""
    if datatype == "BYTES":
        strings = [draw(names).encode() for _ in range(count)]
        return by_hand.packed_strings(strings), strings
    if datatype == "BOOL" and typed:
        return bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))), []
    size = count * SIZES[datatype]
    raw = draw(st.binary(min_size=size, max_size=size))
    if datatype in ("FP32", "FP64") and draw(st.booleans()):
        special = struct.pack("<f", float("nan")) if datatype == "FP32" else struct.pack("<d", float("-inf"))
        raw = special * count
    return raw, []


@st.composite
def requests(draw: Draw) -> Generated:
    """A request that fits the model beside it, unless one of its parameters is wrong; its encoding is any valid one."""
    batched = draw(st.booleans())
    rows = draw(st.integers(1, 3))
    typed = draw(st.booleans())
    datatypes = st.sampled_from([name for name in NUMBERS if name in FIELDS or not typed])
    inputs: dict[str, by_hand.Spec] = {}
    expected: dict[str, bytes] = {}
    pieces: list[Piece] = []
    for name in draw(st.lists(names, max_size=4, unique=True)):
        datatype = draw(datatypes)
        shape = ([rows] if batched else []) + draw(st.lists(st.integers(0, 3), max_size=2))
        spec = [-1 if (batched and axis == 0) or draw(st.booleans()) else dim for axis, dim in enumerate(shape)]
        raw, strings = draw(values_of(datatype, int(np.prod(shape)), typed=typed))
        inputs[name], expected[name] = (datatype, spec), raw
        tensor = [
            *draw(string_field(1, name)),
            *draw(string_field(2, datatype)),
            *draw(repeated(3, VARINT, [by_hand.varint(dim) for dim in shape])),
            *(draw(parameters(4)) if draw(st.integers(0, 5)) == 0 else []),
            *(draw(typed_contents(datatype, raw, strings)) if typed else []),
        ]
        pieces.append(("input", by_hand.delimited(5, draw(shuffled(tensor)))))
        if not typed:
            pieces.append(("raw", by_hand.delimited(7, raw)))
    for field in (1, 2, 3):
        pieces.extend(draw(string_field(field, draw(names))))
    pieces.extend(draw(parameters(4)))
    for name in draw(st.lists(st.sampled_from(["y", "y", "z"]), max_size=1)):
        output = [*draw(string_field(1, name)), *(draw(parameters(2)) if draw(st.booleans()) else [])]
        pieces.append(("output", by_hand.delimited(6, draw(shuffled(output)))))
    return Generated(draw(shuffled(pieces)), inputs, batched, expected)


@st.composite
def misfits(draw: Draw, made: Generated) -> dict[str, by_hand.Spec]:
    """The inputs of a model that the request may not fit, by one change to those it does."""
    inputs = dict(made.inputs)
    change = draw(st.sampled_from(["none", "drop", "add", "rename", "datatype", "rank", "dim"]))
    if change == "add":
        inputs[draw(names)] = ("FP32", [-1])
    if not inputs or change in ("none", "add"):
        return inputs
    name = draw(st.sampled_from(list(inputs)))
    datatype, spec = inputs.pop(name)
    if change == "rename":
        inputs[draw(names)] = (datatype, spec)
    elif change == "datatype":
        inputs[name] = (draw(st.sampled_from(list(NUMBERS))), spec)
    elif change == "rank":
        inputs[name] = (datatype, [*spec, 1])
    elif change == "dim" and len(spec) > 1:
        inputs[name] = (datatype, [*spec[:-1], draw(st.integers(0, 3))])
    return inputs


@st.composite
def damaged(draw: Draw) -> bytes:
    """A request with some bytes cut off, changed, put in or repeated."""
    body = bytearray(draw(requests()).body)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(body)))
        length = draw(st.integers(0, 6))
        match draw(st.sampled_from(["cut", "change", "insert", "remove", "repeat"])):
            case "cut":
                del body[at:]
            case "change":
                body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "insert":
                body[at:at] = draw(st.binary(max_size=6))
            case "remove":
                del body[at : at + length]
            case _:
                body[at:at] = body[at : at + length]
    return bytes(body)
