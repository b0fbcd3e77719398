"""Every way in which a client can be wrong about its tensors is refused with the tensor, the want and the have."""

from __future__ import annotations

import resource
import struct

import numpy as np
import pytest
from handmade import NUMBERS, SIZES, bound, message, packed_strings, refusal, signature_of

from inferd._native.bind import bind
from inferd._native.signature import Signature
from inferd._native.wire import Request, decode
from inferd.errors import InvalidRequest
from inferd.proto import inference_pb2 as pb

PAIR = signature_of({"a": ("FP32", [2, 3]), "b": ("INT64", [-1])})
ROWS = signature_of({"a": ("FP32", [-1, 2]), "b": ("INT8", [-1])}, batched=True, max_rows=4)
STRINGS = signature_of({"s": ("BYTES", [-1])})
A = ("a", "FP32", [2, 3], bytes(24))
B = ("b", "INT64", [1], bytes(8))


# --- the set of inputs ------------------------------------------------------------------------------


def test_a_missing_input_is_named() -> None:
    assert refusal(PAIR, message(A)) == "model 'm' takes 2 inputs but the request has 1; missing: 'b'"


def test_an_input_that_the_model_does_not_have_is_named() -> None:
    assert refusal(PAIR, message(A, B, ("c", "FP32", [1], bytes(4)))) == "model 'm' has no input 'c'"


def test_an_input_in_the_place_of_another_is_named() -> None:
    assert refusal(PAIR, message(A, ("c", "INT64", [1], bytes(8)))) == "model 'm' has no input 'c'"


def test_an_input_sent_twice_is_named() -> None:
    assert refusal(PAIR, message(A, A)) == "input 'a' appears more than once"
    assert refusal(PAIR, message(A, B, A)) == "input 'a' appears more than once"


def test_a_request_without_inputs_for_a_model_with_some_names_them_all() -> None:
    assert refusal(PAIR, message()).endswith("missing: 'a', 'b'")


def test_inputs_may_come_in_any_order() -> None:
    first = ("a", "FP32", [2, 3], bytes(range(24)))
    second = ("b", "INT64", [1], bytes(range(8)))
    request = bound(PAIR, message(second, first))
    assert [name for name, _, _ in request.inputs()] == ["a", "b"]
    assert request.tensor_bytes(0) == bytes(range(24))
    assert request.tensor_bytes(1) == bytes(range(8))


def test_more_inputs_outputs_and_dimensions_than_fit_in_place_are_kept() -> None:
    count, rank = 40, 20
    names = [f"x{index}" for index in range(count)]
    signature = signature_of({name: ("UINT8", [-1] * rank) for name in names}, {name: ("UINT8", [1]) for name in names})
    tensors = [(name, "UINT8", [1] * (rank - 1) + [index], bytes([index]) * index) for index, name in enumerate(names)]
    request = bound(signature, message(*reversed(tensors), wanted=names))
    assert request.inputs() == [(name, "UINT8", tuple(shape)) for name, _, shape, _ in tensors]
    assert [request.tensor_bytes(index) for index in range(count)] == [raw for *_, raw in tensors]
    assert request.nbytes == sum(range(count))


def test_a_model_without_inputs_takes_an_empty_request() -> None:
    request = bound(signature_of({}), message())
    assert (request.rows, request.nbytes, request.inputs()) == (1, 0, [])


def test_a_model_without_inputs_refuses_any() -> None:
    assert refusal(signature_of({}), message(A)) == "model 'm' has no input 'a'"


# --- datatype and shape ---------------------------------------------------------------------------


def test_another_datatype_is_refused_with_the_one_expected() -> None:
    text = refusal(PAIR, message(("a", "FP64", [2, 3], bytes(48)), B))
    assert text == "input 'a' has datatype FP64; model 'm' expects FP32"


@pytest.mark.parametrize("datatype", ["", "FLOAT32", "fp32", "FP320", "FP3"])
def test_an_unknown_datatype_is_refused_with_the_one_expected(datatype: str) -> None:
    text = refusal(PAIR, message(("a", datatype, [2, 3], bytes(24)), B))
    assert text == f"input 'a' has the unknown datatype {datatype!r}; expected FP32"


@pytest.mark.parametrize("shape", [[], [6], [2, 3, 1], [2, 4], [3, 2], [0, 3]])
def test_another_rank_or_fixed_dimension_is_refused_with_both_shapes(shape: list[int]) -> None:
    text = refusal(PAIR, message(("a", "FP32", shape, bytes(24)), B))
    assert text == f"input 'a' has shape {shape}; model 'm' expects [2, 3]"


@pytest.mark.parametrize("shape", [[-1], [-(1 << 63)], [-2]])
def test_a_negative_dimension_is_refused(shape: list[int]) -> None:
    text = refusal(PAIR, message(A, ("b", "INT64", shape, b"")))
    assert text == f"input 'b' has a negative dimension in its shape {shape}"


HUGE = [
    [1 << 62, 4],
    [1 << 32, 1 << 32],
    [(1 << 63) - 1, 1],
    [(1 << 63) - 1, (1 << 63) - 1],
    [1 << 61, 1],
    [1 << 34, 1],
    [3, (1 << 63) // 3 + 1],
]


@pytest.mark.parametrize("typed", [True, False])
@pytest.mark.parametrize("datatype", ["FP64", "UINT8", "BYTES"])
@pytest.mark.parametrize("shape", HUGE, ids=str)
def test_a_huge_shape_is_refused_and_nothing_is_allocated_for_it(shape: list[int], datatype: str, typed: bool) -> None:
    signature = signature_of({"x": (datatype, [-1, -1])})
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    text = refusal(signature, message(("x", datatype, shape, None if typed else bytes(8))))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 64 * 1024
    assert "input 'x'" in text
    assert str(shape) in text


@pytest.mark.parametrize("place", range(3))
def test_huge_dimensions_beside_a_zero_are_an_empty_tensor(place: int) -> None:
    shape = [1 << 62] * 3
    shape[place] = 0
    request = bound(signature_of({"x": ("FP64", [-1, -1, -1])}), message(("x", "FP64", shape, b"")))
    assert request.tensor_bytes(0) == b""


def test_a_scalar_has_one_element() -> None:
    signature = signature_of({"x": ("FP32", [])})
    assert bound(signature, message(("x", "FP32", [], b"abcd"))).tensor_bytes(0) == b"abcd"
    assert "takes 4 bytes but has 0" in refusal(signature, message(("x", "FP32", [], b"")))


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("raw", [b"", None], ids=["raw", "typed"])
def test_a_tensor_without_elements_may_come_raw_or_with_no_contents(datatype: str, raw: bytes | None) -> None:
    request = bound(signature_of({"x": (datatype, [-1, 3])}), message(("x", datatype, [0, 3], raw)))
    assert (request.tensor_bytes(0), request.nbytes, request.rows) == (b"", 0, 1)


# --- rows -------------------------------------------------------------------------------------------


def rows_message(a_rows: int, b_rows: int) -> pb.ModelInferRequest:
    return message(("a", "FP32", [a_rows, 2], bytes(8 * a_rows)), ("b", "INT8", [b_rows], bytes(b_rows)))


def test_a_batched_request_counts_its_rows() -> None:
    assert bound(ROWS, rows_message(3, 3)).rows == 3


def test_no_rows_are_refused() -> None:
    assert refusal(ROWS, rows_message(0, 0)) == "input 'a' has no rows; a request brings at least one"


def test_more_rows_than_the_model_takes_are_refused_with_both_numbers() -> None:
    assert refusal(ROWS, rows_message(5, 5)) == "input 'a' has 5 rows; model 'm' takes at most 4 in one request"


def test_inputs_with_different_numbers_of_rows_are_refused_with_both_names() -> None:
    assert "input 'b' has 2 rows but input 'a' has 3" in refusal(ROWS, rows_message(3, 2))


def test_2_to_the_62_rows_are_refused_before_they_are_added_to_anything() -> None:
    assert "takes at most 4" in refusal(ROWS, message(("a", "FP32", [1 << 62, 2], b""), ("b", "INT8", [1 << 62], b"")))


# --- raw contents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("datatype", SIZES)
@pytest.mark.parametrize("off_by", [-1, 1])
def test_one_byte_too_few_or_too_many_is_refused_with_both_numbers(datatype: str, off_by: int) -> None:
    expected = 3 * SIZES[datatype]
    text = refusal(signature_of({"x": (datatype, [-1])}), message(("x", datatype, [3], bytes(expected + off_by))))
    assert text == f"input 'x' of datatype {datatype} and shape [3] takes {expected} bytes but has {expected + off_by}"


def test_fewer_raw_entries_than_inputs_are_refused_with_the_first_without_one() -> None:
    text = refusal(PAIR, message(A, ("b", "INT64", [1], None)))
    assert text == "raw_input_contents has 1 entries for 2 inputs (the first without one is 'b')"


def test_more_raw_entries_than_inputs_are_refused() -> None:
    made = message(A, B)
    made.raw_input_contents.append(b"")
    assert refusal(PAIR, made) == "raw_input_contents has 3 entries for 2 inputs"


def test_raw_and_typed_contents_together_are_refused() -> None:
    made = message(A, B)
    made.inputs[1].contents.int64_contents.append(1)
    assert refusal(PAIR, made).startswith("input 'b' has typed contents although the request has raw_input_contents")


# --- strings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"\x05\0\0\0abcd", "element 0 of input 's' claims 5 bytes but 4 are left"),
        (b"\x01\0\0\0a\xff\xff\xff\xff", "element 1 of input 's' claims 4294967295 bytes but 0 are left"),
        (b"\0\0\0\x80", "element 0 of input 's' claims 2147483648 bytes but 0 are left"),
        (b"\x01\0\0", "input 's' of datatype BYTES ends inside the length of element 0"),
        (b"\x01\0\0\0a\x01", "input 's' of datatype BYTES ends inside the length of element 1"),
        (packed_strings([b"a"]), "input 's' of shape [2] takes 2 elements but has 1"),
        (packed_strings([b"a"] * 3), "input 's' of shape [2] takes 2 elements but has 3"),
        (b"", "input 's' of shape [2] takes 2 elements but has 0"),
    ],
)
def test_raw_strings_that_do_not_add_up_are_refused(raw: bytes, words: str) -> None:
    assert refusal(STRINGS, message(("s", "BYTES", [2], raw))) == words


@pytest.mark.parametrize("wrong", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82"])
@pytest.mark.parametrize("typed", [True, False])
def test_a_string_that_is_not_utf_8_is_refused_by_its_place(wrong: bytes, typed: bool) -> None:
    elements = [b"fine", wrong]
    made = message(("s", "BYTES", [2], None if typed else packed_strings(elements)))
    if typed:
        made.inputs[0].contents.bytes_contents.extend(elements)
    assert refusal(STRINGS, made).startswith("element 1 of input 's' is not UTF-8")


def test_a_string_may_hold_nul_and_any_other_character() -> None:
    raw = packed_strings(["a\0b\U0001f600".encode(), b""])
    assert bound(STRINGS, message(("s", "BYTES", [2], raw))).tensor_bytes(0) == raw


# --- typed contents ---------------------------------------------------------------------------------


def typed_message(datatype: str, shape: list[int], **contents: list[object]) -> pb.ModelInferRequest:
    made = message(("x", datatype, shape, None))
    for field, values in contents.items():
        getattr(made.inputs[0].contents, field).extend(values)
    return made


def test_an_input_without_data_is_refused_as_such() -> None:
    text = refusal(PAIR, message(("a", "FP32", [2, 3], None), ("b", "INT64", [1], None)))
    assert text == "input 'a' of shape [2, 3] takes 6 elements but has 0; no data was sent for it"


@pytest.mark.parametrize("count", [2, 4])
def test_typed_contents_of_another_number_of_elements_are_refused_with_both(count: int) -> None:
    made = typed_message("FP32", [3], fp32_contents=[0.0] * count)
    text = refusal(signature_of({"x": ("FP32", [-1])}), made)
    assert text == f"input 'x' of shape [3] takes 3 elements but has {count}"


def test_typed_contents_of_another_type_are_refused() -> None:
    text = refusal(signature_of({"x": ("FP32", [-1])}), typed_message("FP32", [1], fp64_contents=[0.0]))
    assert text == "input 'x' of datatype FP32 has typed contents of another type"


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_typed_contents_of_two_types_are_refused(datatype: str) -> None:
    made = typed_message(datatype, [1], fp64_contents=[0.0], fp32_contents=[0.0])
    assert "typed contents of another type" in refusal(signature_of({"x": (datatype, [-1])}), made)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_travel_in_raw_contents_only(datatype: str) -> None:
    signature = signature_of({"x": (datatype, [-1])})
    made = typed_message(datatype, [1], fp32_contents=[0.0])
    assert refusal(signature, made).endswith("this datatype travels only in raw_input_contents")
    assert "no data was sent" in refusal(signature, typed_message(datatype, [1]))


@pytest.mark.parametrize(
    ("datatype", "field", "values"),
    [
        ("INT8", "int_contents", [-129]),
        ("INT8", "int_contents", [128]),
        ("INT16", "int_contents", [-32769]),
        ("INT16", "int_contents", [1 << 15]),
        ("UINT8", "uint_contents", [256]),
        ("UINT16", "uint_contents", [1 << 16]),
    ],
)
def test_a_typed_value_out_of_range_is_refused(datatype: str, field: str, values: list[object]) -> None:
    text = refusal(signature_of({"x": (datatype, [-1])}), typed_message(datatype, [1], **{field: values}))
    assert text == f"input 'x' has a value out of range for {datatype}"


def test_not_a_number_infinity_and_denormals_keep_their_bits() -> None:
    bits = np.array([0x7FA00001, 0xFFC00000, 0x7F800000, 0x00000001, 0x80000000], "<u4").tobytes()
    raw = message(("x", "FP32", [5], bits))
    assert bound(signature_of({"x": ("FP32", [-1])}), raw).tensor_bytes(0) == bits


# --- outputs ----------------------------------------------------------------------------------------


def test_an_output_that_the_model_does_not_have_is_named() -> None:
    assert refusal(PAIR, message(A, B, wanted=["z"])) == "model 'm' has no output 'z'"


def test_an_output_asked_for_twice_is_named() -> None:
    assert refusal(PAIR, message(A, B, wanted=["y", "y"])) == "output 'y' is asked for more than once"


# --- names nobody should trust ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["\n[error] forged", "\x1b[31m", "\u202egnp", "a" * 65536, "\U0001f600" * 65, "\x00", "'quoted\"", "\u2028"],
)
def test_a_hostile_name_is_escaped_and_shortened_wherever_it_is_shown(name: str) -> None:
    texts = [
        refusal(PAIR, message(A, (name, "INT64", [1], bytes(8)))),
        refusal(PAIR, message(A, B, wanted=[name])),
        refusal(PAIR, message(("a", name, [2, 3], bytes(24)), B)),
    ]
    for text in texts:
        assert text.isprintable()
        assert len(text) < 400
        assert (repr(name[:64])[1:-1] + "..." in text) == (len(name) > 64)


# --- bugs of ours -------------------------------------------------------------------------------------


def test_a_request_is_bound_once() -> None:
    request = bound(PAIR, message(A, B))
    with pytest.raises(ValueError, match="bound twice"):
        bind(PAIR, request)


def test_a_request_that_was_refused_is_not_bound_again() -> None:
    request = decode(message(B, A, A).SerializeToString())
    with pytest.raises(InvalidRequest):
        bind(PAIR, request)
    with pytest.raises(ValueError, match="bound twice"):
        bind(PAIR, request)


@pytest.mark.parametrize("shape", [[], [4, 2]])
def test_a_batched_signature_needs_an_open_first_dimension_everywhere(shape: list[int]) -> None:
    with pytest.raises(ValueError, match="'x' has no open first dimension"):
        signature_of({"x": ("FP32", shape)}, batched=True)
    with pytest.raises(ValueError, match="'x' has no open first dimension"):
        signature_of({}, {"x": ("FP32", shape)}, batched=True)


def test_a_signature_with_an_element_type_that_the_protocol_lacks_is_refused() -> None:
    with pytest.raises(KeyError):
        Signature("m", "1", [("x", 14, [1])], [], batched=False, max_rows=1)


def test_a_bound_request_has_no_tensor_beyond_its_last() -> None:
    request: Request = bound(PAIR, message(A, B))
    for index in (-1, 2):
        with pytest.raises(IndexError):
            request.tensor_bytes(index)


def test_the_layout_is_little_endian() -> None:
    made = typed_message("INT16", [2], int_contents=[-2, 258])
    assert bound(signature_of({"x": ("INT16", [-1])}), made).tensor_bytes(0) == struct.pack("<hh", -2, 258)
