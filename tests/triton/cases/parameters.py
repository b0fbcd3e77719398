"""Parameters of a request: those that the protocol knows, in every type, and those that it does not."""

from __future__ import annotations

from typing import Any

from serve.calls import request, rows

from .case import Case, Difference, changed, infer, parameter

VALUES: tuple[tuple[str, Any], ...] = (
    ("int64_param", 1), ("int64_param", -1), ("uint64_param", 1), ("bool_param", True),
    ("string_param", "1"), ("double_param", 1.0), ("", None),
)  # fmt: skip
KNOWN = ("priority", "timeout", "sequence_id", "sequence_start", "sequence_end", "triton_enable_empty_final_response")
# What a timeout of a microsecond does depends on the model's queue policy. A sequence's number as uint64_param is
# refused by both, with different codes.
ELSEWHERE = (("timeout", "int64_param"), ("sequence_id", "uint64_param"))
# Not of those that the protocol's gRPC side knows, or not of a request: they go to the backend, and change nothing.
LOOSE = ("headers", "binary_data_output", "anything")

SEQUENCE = Difference(
    what="sequence_id of a model without sequence_batching",
    triton="OK",
    inferd="UNIMPLEMENTED",
    why="Triton ignores it there. inferd has no sequences, and a client that sends one counts on state being kept.",
)
UNREAD = Difference(
    what="a parameter that nobody knows, as uint64_param or without a value",
    triton="INVALID_ARGUMENT",
    inferd="OK",
    why="A parameter that nobody reads changes nothing, whatever its type.",
)


def on_request(name: str, kind: str, value: Any) -> Any:
    return changed(request("scale", x=rows(1)), lambda one: parameter(one, name, kind, value))


def on_input(name: str, kind: str, value: Any) -> Any:
    return changed(request("scale", x=rows(1)), lambda one: parameter(one.inputs[0], name, kind, value))


def on_output(name: str, kind: str, value: Any) -> Any:
    return changed(request("scale", x=rows(1), outputs=["y"]), lambda one: parameter(one.outputs[0], name, kind, value))


def meant(name: str, kind: str) -> Difference | None:
    """The difference that is to be seen, if any."""
    if name == "sequence_id" and kind in ("int64_param", "string_param"):
        return SEQUENCE
    return UNREAD if name in LOOSE and kind in ("uint64_param", "") else None


CASES = (
    *(
        Case(f"{name} as {kind or 'nothing'} {value}", infer(on_request(name, kind, value)), meant(name, kind))
        for name in (*KNOWN, *LOOSE)
        for kind, value in VALUES
        if (name, kind) not in ELSEWHERE
    ),
    Case("a timeout that does not pass", infer(on_request("timeout", "int64_param", 60_000_000))),
    Case("no timeout", infer(on_request("timeout", "int64_param", 0))),
    Case("a priority beyond all levels", infer(on_request("priority", "uint64_param", 99))),
    Case("the default priority", infer(on_request("priority", "uint64_param", 0))),
    Case("a sequence's name", infer(on_request("sequence_id", "string_param", "a sequence")), SEQUENCE),
    Case("an unknown key of Triton's", infer(on_request("triton_anything", "bool_param", True))),
    Case("a key of Triton's answers", infer(on_request("triton_final_response", "bool_param", True))),
    Case("an unknown parameter of an input", infer(on_input("anything", "string_param", "1"))),
    Case("an unknown parameter of an output", infer(on_output("anything", "string_param", "1"))),
    Case("HTTP's parameter of an input", infer(on_input("binary_data_size", "int64_param", 16))),
    Case("HTTP's parameter of an output", infer(on_output("binary_data", "bool_param", True))),
)
