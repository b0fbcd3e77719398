"""Streams: their answers, their errors, and in which order they come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from serve.calls import request, rows

from ..answers import Answer, Call
from .case import Case, Difference, changed, parameter

EMPTY_FINAL = "triton_enable_empty_final_response"
CLOSE_ON_ERROR = (("triton_grpc_error", "true"),)


def stream(*requests: Any, metadata: tuple[tuple[str, str], ...] = ()) -> tuple[Call, ...]:
    return (Call("ModelStreamInfer", list(requests), metadata),)


def good(id: str) -> Any:
    return request("scale", x=rows(1), id=id)


def with_parameter(id: str, name: str, kind: str, value: Any) -> Any:
    return changed(good(id), lambda one: parameter(one, name, kind, value))


UNKNOWN = request("nothing", x=rows(1), id="unknown")
MISSHAPEN = request("scale", x=rows(1, 1, 5), id="misshapen")
REFUSED_BY_MODEL = request("embedding", ids=np.array([[99]], "i8"), id="out of range")


def beside_the_error(answers: Sequence[Answer]) -> str:
    """What stands in the infer_response of the first error."""
    [answer] = answers
    failed = next(one.infer_response for one in answer.messages if one.error_message)
    return ", ".join(
        [field.name for field, _ in failed.ListFields() if field.name != "parameters"] + [*failed.parameters]
    )


MARKED_LAST = Difference(
    what="what comes with the error of a request in a stream that was refused before it ran",
    triton="id",
    inferd="id, triton_final_response",
    why="An error is the last that comes for a request, and is marked so.",
    seen=beside_the_error,
)
UNNAMED = Difference(
    what="what comes with the error of a request in a stream that was run",
    triton="model_name, id, triton_final_response",
    inferd="id, triton_final_response",
    why="All errors look the same.",
    seen=beside_the_error,
)
CLOSED = Difference(
    what="how a stream ends whose client sends `triton_grpc_error: true`, after a request for an unknown model",
    triton="OK",
    inferd="NOT_FOUND",
    why="Triton 2.51 heeds the header for errors of a run only; its documentation and inferd do for all.",
)

CASES = (
    Case("no request", stream()),
    Case("two requests", stream(good("1"), good("2"))),
    Case("requests for different models", stream(good("1"), request("plain", x=rows(1)[0], id="2"), good("3"))),
    Case("requests without ids", stream(request("scale", x=rows(1)), request("scale", x=rows(2)))),
    Case("many requests keep their order", stream(*(good(str(number)) for number in range(50)))),
    Case("an empty last answer is asked for", stream(with_parameter("1", EMPTY_FINAL, "bool_param", True))),
    Case("an empty last answer is not asked for", stream(with_parameter("1", EMPTY_FINAL, "bool_param", False))),
    Case("an unknown model", stream(UNKNOWN, good("after"))),
    Case("a wrong shape", stream(MISSHAPEN, good("after"))),
    Case("a wrong parameter", stream(with_parameter("1", "priority", "string_param", "1"), good("after"))),
    Case("an unknown key of Triton's", stream(with_parameter("1", "triton_x", "bool_param", True), good("after"))),
    Case("an error without an id", stream(request("nothing", x=rows(1)), good("after"))),
    Case("beside a refusal", stream(UNKNOWN), MARKED_LAST),
    Case("beside a failed run", stream(REFUSED_BY_MODEL), UNNAMED),
    Case("a failed run", stream(REFUSED_BY_MODEL, good("after"))),
    Case("errors that end a stream: unknown", stream(good("1"), UNKNOWN, metadata=CLOSE_ON_ERROR), CLOSED),
    # A failed run ends such a stream in Triton too, and at times Triton 2.51 itself; so it is not asked for.
    Case("errors that end a stream: none", stream(good("1"), good("2"), metadata=CLOSE_ON_ERROR)),
    Case("errors that end a stream, spelt wrong", stream(UNKNOWN, good("2"), metadata=(("triton_grpc_error", "1"),))),
)
