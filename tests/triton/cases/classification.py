"""Outputs as their best classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from serve.calls import request

from .case import Case, Difference, infer, parameter
from .inference import types

SCORES = np.array([[0, 2, 4], [3, 1, 3], [-1e-7, 123456789, 0.125]], "f4")

NARROW = Difference(
    what="classes of an output that is BOOL or FP16",
    triton="INVALID_ARGUMENT",
    inferd="OK",
    why="They have an order.",
)

NONE = Difference(
    what="0 classes of an output",
    triton="INVALID_ARGUMENT",
    inferd="OK",
    why="As it is to the clients of Triton, 0 is not to ask for classes.",
)


def classes(scores: np.ndarray, count: int, model: str = "animals", kind: str = "int64_param") -> Any:
    message = request(model, IN=scores, outputs=["OUT"])
    parameter(message.outputs[0], "classification", kind, count)
    return message


def of_type(datatype: str, count: int = 2) -> Any:
    message = types(typed=False)
    output = message.outputs.add(name=f"OUT_{datatype}")
    parameter(output, "classification", "int64_param", count)
    return message


def beside_another() -> Any:
    message = request("two_by_two", a=SCORES, b=np.array([[2], [3], [4]], "i8"), outputs=["product", "total"])
    parameter(message.outputs[0], "classification", "int64_param", 2)
    return message


def without_batches() -> Any:
    message = request("plain", x=np.array([1, 3, 2, 0], "f4"), outputs=["y"])
    parameter(message.outputs[0], "classification", "int64_param", 2)
    return message


def of_many_axes() -> Any:
    message = request("embedding", ids=np.array([[1], [3]], "i8"), outputs=["vectors"])
    parameter(message.outputs[0], "classification", "int64_param", 2)
    return message


CASES = (
    Case("the best", infer(classes(SCORES[:1], 1))),
    Case("the two best of each row", infer(classes(SCORES, 2))),
    Case("all", infer(classes(SCORES, 3))),
    Case("more than there are", infer(classes(SCORES, 9))),
    Case("without labels", infer(of_type("FP32"))),
    *(
        Case(f"of {datatype}", infer(of_type(datatype)))
        for datatype in ("INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP64")
    ),
    # A Triton that is asked for classes of BYTES ends with a segmentation fault.
    *(Case(f"of {datatype}", infer(of_type(datatype)), NARROW) for datatype in ("BOOL", "FP16")),
    Case("beside an output as it is", infer(beside_another())),
    Case("of a model without batches", infer(without_batches())),
    Case("of an output with more axes", infer(of_many_axes())),
    Case("none", infer(classes(SCORES, 0)), NONE),
    Case("less than none", infer(classes(SCORES, -1))),
    *(
        Case(f"a number as {kind or 'nothing'}", infer(classes(SCORES, value, kind=kind)))
        for kind, value in (("uint64_param", 1), ("string_param", "1"), ("bool_param", True), ("", None))
    ),
)
