"""Everything that a client can get wrong about a model, a version or a tensor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from serve.calls import request, rows

from .case import Case, Difference, changed, infer
from .inference import packed, two, typed, types

BAD_ROW = Difference(
    what="values that the model itself refuses, such as an index out of range",
    triton="INTERNAL",
    inferd="INVALID_ARGUMENT",
    why="The model is sound and the values are the caller's: a retry would fail again.",
)

NO_NUMBER = Difference(
    what="a version that is no number above 0, in any call",
    triton="INVALID_ARGUMENT",
    inferd="NOT_FOUND",
    why="There is no such version. Triton also takes '1x' and '01' for 1; inferd wants it as the folder has it.",
)


def scale(change: Callable[[Any], object]) -> Any:
    """A good request for scale, spoilt."""
    return changed(request("scale", x=rows(1)), change)


def one_type(datatype: str, change: Callable[[Any, Any], object]) -> Any:
    """A good request with every type raw, whose input of this type and its bytes are spoilt."""
    message = types(typed=False)
    [index] = [at for at, tensor in enumerate(message.inputs) if tensor.datatype == datatype]
    replaced = change(message.inputs[index], message.raw_input_contents[index])
    if isinstance(replaced, bytes):
        message.raw_input_contents[index] = replaced
    return message


def twice(message: Any) -> None:
    message.inputs.append(message.inputs[0])
    message.raw_input_contents.append(message.raw_input_contents[0])


def wordy(message: Any) -> None:
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])


def wrong_field(message: Any) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.int_contents.extend([1, 2, 3, 4])


def two_fields(message: Any) -> None:
    wrong_field(message)
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4])


CASES = (
    Case("an unknown model", infer(request("nothing", x=rows(1)))),
    Case("a model without a name", infer(request("", x=rows(1)))),
    Case("an unknown version", infer(request("scale", x=rows(1), version="2"))),
    Case("a version that is no number", infer(request("scale", x=rows(1), version="newest")), NO_NUMBER),
    Case("a negative version", infer(request("scale", x=rows(1), version="-1")), NO_NUMBER),
    Case("no inputs at all", infer(request("scale"))),
    Case("one of two inputs", infer(request("two_by_two", a=rows(1, 1, 3)))),
    Case("an input too many", infer(request("scale", x=rows(1), z=rows(1)))),
    Case("an input by a wrong name", infer(request("scale", z=rows(1)))),
    Case("an input twice", infer(scale(twice))),
    Case("an unknown output", infer(two(outputs=["nothing"]))),
    Case("more rows than a batch may have", infer(request("scale", x=rows(1, 5)))),
    Case("inputs of different rows", infer(request("two_by_two", a=rows(1, 2, 3), b=np.array([[4]], "i8")))),
    Case("a wrong shape", infer(request("scale", x=rows(1, 1, 5)))),
    Case("a dimension too few", infer(request("scale", x=rows(1)[0]))),
    Case("a dimension too many", infer(request("scale", x=rows(1)[None]))),
    Case("a batch for a model without", infer(request("plain", x=rows(1)))),
    Case("a negative dimension", infer(scale(lambda one: one.inputs[0].shape.__setitem__(0, -1)))),
    Case("another datatype", infer(request("scale", x=rows(1).astype("i4")))),
    Case("an unknown datatype", infer(scale(lambda one: setattr(one.inputs[0], "datatype", "FP31")))),
    Case("no datatype", infer(scale(lambda one: setattr(one.inputs[0], "datatype", "")))),
    Case("bytes too few", infer(scale(lambda one: one.raw_input_contents.__setitem__(0, b"123")))),
    Case("bytes too many", infer(scale(lambda one: one.raw_input_contents.__setitem__(0, bytes(20))))),
    Case("no data", infer(scale(lambda one: one.ClearField("raw_input_contents")))),
    Case("typed and raw contents", infer(scale(wordy))),
    Case("typed contents in a wrong field", infer(scale(wrong_field))),
    Case("typed contents in two fields", infer(scale(two_fields))),
    Case("typed contents too few", infer(typed([1, 2, 3]))),
    Case("typed contents too many", infer(typed([1, 2, 3, 4, 5]))),
    Case("FP16 without raw contents", infer(types(typed=True))),
    Case("texts too few", infer(one_type("BYTES", lambda tensor, raw: packed(b"a", b"b")))),
    Case("texts too many", infer(one_type("BYTES", lambda tensor, raw: packed(b"a", b"b", b"c", b"d")))),
    Case("a text cut short", infer(one_type("BYTES", lambda tensor, raw: raw[:-1]))),
    Case("a text's length cut short", infer(one_type("BYTES", lambda tensor, raw: raw + b"\x01"))),
    Case("an index out of range", infer(request("embedding", ids=np.array([[99]], "i8"))), BAD_ROW),
)
