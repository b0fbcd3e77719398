"""What the server does with the parameters of a request, its inputs and its outputs: obeys or refuses by name."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from handmade import bound, message, refusal, signature_of

from inferd.errors import NotOffered
from inferd.proto import inference_pb2 as pb

PAIR = signature_of({"a": ("FP32", [2, 3]), "b": ("INT64", [-1])})
A = ("a", "FP32", [2, 3], bytes(24))
B = ("b", "INT64", [1], bytes(8))


@pytest.mark.parametrize("key", ["shared_memory_region", "shared_memory_offset", "shared_memory_byte_size"])
def test_an_input_in_shared_memory_is_not_offered(key: str) -> None:
    made = message(A, B)
    made.inputs[1].parameters[key].int64_param = 0
    assert "input 'b' is in shared memory" in refusal(PAIR, made, NotOffered)


def test_an_output_in_shared_memory_is_not_offered() -> None:
    made = message(A, B, wanted=["y"])
    made.outputs[0].parameters["shared_memory_region"].string_param = "r"
    assert "output 'y' asks for shared memory" in refusal(PAIR, made, NotOffered)


def set_int64(value: int) -> Callable[[pb.InferParameter], None]:
    return lambda parameter: setattr(parameter, "int64_param", value)


def set_text(value: str) -> Callable[[pb.InferParameter], None]:
    return lambda parameter: setattr(parameter, "string_param", value)


def set_bool(parameter: pb.InferParameter) -> None:
    parameter.bool_param = True


def with_parameter(key: str, fill: Callable[[pb.InferParameter], None]) -> pb.ModelInferRequest:
    made = message(A, B)
    fill(made.parameters[key])
    return made


@pytest.mark.parametrize("fill", [set_int64(7), set_int64(-7), set_text("a")])
def test_a_sequence_is_not_offered(fill: Callable[[pb.InferParameter], None]) -> None:
    assert "no sequence batching" in refusal(PAIR, with_parameter("sequence_id", fill), NotOffered)


@pytest.mark.parametrize("fill", [set_int64(0), set_text("")])
def test_an_empty_sequence_id_is_no_sequence(fill: Callable[[pb.InferParameter], None]) -> None:
    bound(PAIR, with_parameter("sequence_id", fill))


@pytest.mark.parametrize(
    ("key", "fill"),
    [
        ("timeout", set_text("5")),
        ("timeout", set_int64(-1)),
        ("timeout", lambda parameter: setattr(parameter, "uint64_param", 1)),
        ("priority", set_bool),
        ("priority", set_int64(-1)),
        ("sequence_id", set_bool),
        ("sequence_id", lambda parameter: setattr(parameter, "double_param", 1.0)),
        ("sequence_start", set_int64(1)),
        ("sequence_end", set_text("true")),
        ("triton_enable_empty_final_response", set_int64(1)),
        ("triton_other", set_bool),
        ("timeout", lambda parameter: parameter.SetInParent()),
    ],
)
def test_a_parameter_of_the_protocol_with_a_wrong_type_or_value_is_refused_by_name(
    key: str, fill: Callable[[pb.InferParameter], None]
) -> None:
    assert f"parameter '{key}'" in refusal(PAIR, with_parameter(key, fill))


@pytest.mark.parametrize("key", ["headers", "tritonx", "custom", "triton"])
def test_other_parameters_are_left_alone(key: str) -> None:
    bound(PAIR, with_parameter(key, set_text("anything")))


@pytest.mark.parametrize(
    "fill",
    [
        set_int64(-1),
        set_text("3"),
        set_bool,
        lambda parameter: setattr(parameter, "uint64_param", 3),
        lambda parameter: parameter.SetInParent(),
    ],
)
def test_a_number_of_classes_that_is_none_is_refused_with_what_is_expected(
    fill: Callable[[pb.InferParameter], None],
) -> None:
    made = message(A, B, wanted=["y"])
    fill(made.outputs[0].parameters["classification"])
    assert refusal(PAIR, made) == (
        "parameter 'classification' of output 'y' is not an int64 of at least 1, or 0 for the values themselves"
    )


def test_strings_have_no_classes() -> None:
    words = signature_of({"a": ("FP32", [2, 3])}, {"words": ("BYTES", [4])})
    made = message(A, wanted=["words"])
    made.outputs[0].parameters["classification"].int64_param = 0
    bound(words, made)
    made.outputs[0].parameters["classification"].int64_param = 1
    assert "output 'words' is BYTES, which have no order of classes" in refusal(words, made)
