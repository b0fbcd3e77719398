"""The codec against protobuf's own parser: both read the same from a message, or both refuse it.

The differences there are, all of them: MAX_TENSORS and MAX_RANK are limits of the codec alone, and protobuf's
C implementation sets a map entry with unknown fields aside, which the codec does not (see oracle.py).
"""

from __future__ import annotations

import handmade as by_hand
import pytest
from generated import Generated, damaged, misfits, requests
from handmade import NUMBERS, delimited, group, nested_groups, number, tag, varint
from hypothesis import event, given
from hypothesis import strategies as st
from oracle import lost_any_parameter
from parity import assert_bound_alike, assert_same, decoded

from inferd._native.wire import decode
from inferd.errors import InvalidRequest


@given(requests())
def test_a_request_in_any_valid_encoding_is_read_and_laid_out_as_protobuf_and_numpy_do(made: Generated) -> None:
    read = assert_same(made.body)
    assert read is not None
    request, message = read
    reason = assert_bound_alike(request, message, made.inputs, batched=made.batched)
    event(f"bind: {reason or 'accepted'}")
    if not reason:
        for index, raw in enumerate(made.expected.values()):
            assert request.tensor_bytes(index) == raw


@given(st.data())
def test_a_request_that_does_not_fit_the_model_is_refused_when_the_oracle_refuses_it(data: st.DataObject) -> None:
    made = data.draw(requests())
    read = assert_same(made.body)
    assert read is not None
    reason = assert_bound_alike(*read, data.draw(misfits(made)), batched=made.batched)
    event(f"bind: {reason or 'accepted'}")


@given(damaged())
def test_a_damaged_request_is_read_alike_or_refused_by_both(body: bytes) -> None:
    read = assert_same(body)
    event("read" if read else "refused")
    if read is None or lost_any_parameter(read[1]):
        return
    inputs = {
        tensor.name: (tensor.datatype, [-1] * len(tensor.shape))
        for tensor in read[1].inputs
        if tensor.datatype in NUMBERS
    }
    assert_bound_alike(*read, inputs, batched=False)


@given(st.binary(max_size=40))
def test_random_bytes_are_read_alike_or_refused_by_both(body: bytes) -> None:
    assert_same(body)


@given(requests(), st.data())
def test_every_truncation_is_read_alike_or_refused_by_both(made: Generated, data: st.DataObject) -> None:
    assert_same(made.body[: data.draw(st.integers(0, len(made.body)))])


WRAPS = {
    "request": lambda inside: inside,
    "input": lambda inside: delimited(5, inside),
    "contents": lambda inside: delimited(5, delimited(5, inside)),
    "input parameter": lambda inside: delimited(5, delimited(4, inside)),
    "input parameter value": lambda inside: delimited(5, delimited(4, delimited(2, inside))),
    "parameter": lambda inside: delimited(4, inside),
    "parameter value": lambda inside: delimited(4, delimited(2, inside)),
    "output": lambda inside: delimited(6, inside),
    "output parameter value": lambda inside: delimited(6, delimited(2, delimited(2, inside))),
}


@pytest.mark.parametrize("depth", [1, 96, 97, 98, 99, 100, 101, 5000])
@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
def test_nesting_is_allowed_to_the_same_depth(wrap: object, depth: int) -> None:
    assert_same(wrap(nested_groups(depth)))  # type: ignore[operator]


@pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS.keys())
@pytest.mark.parametrize(
    "inside",
    [
        tag(9, by_hand.END_GROUP),
        tag(9, by_hand.GROUP) + tag(8, by_hand.END_GROUP),
        tag(9, by_hand.GROUP),
        tag(0, by_hand.VARINT) + b"\x01",
        b"\x56\x00",
        b"\x57\x00",
        delimited(1, b"\xff"),
        delimited(1, b"\xed\xa0\x80"),
        delimited(1, b"\xc0\x80"),
        delimited(1, b"\xf4\x90\x80\x80"),
        delimited(1, b"\xe2\x82"),
        delimited(1, "\U0010ffff\u0800\x7f" * 9),
        delimited(3, b"\xff\xff"),
        delimited(6, b"12345"),
        delimited(7, b"123456789"),
        number(1, 1)[:-1],
        tag(9, by_hand.FIXED32) + b"123",
        tag(9, by_hand.FIXED64) + b"1234567",
        tag(9, by_hand.LENGTH) + varint(1 << 63),
        tag(9, by_hand.LENGTH) + varint((1 << 64) - 1),
        tag(9, by_hand.LENGTH) + varint(1 << 31),
    ],
    ids=lambda inside: inside.hex()[:24],
)
def test_a_malformed_field_is_refused_wherever_protobuf_refuses_it(wrap: object, inside: bytes) -> None:
    assert_same(wrap(inside))  # type: ignore[operator]


def overlong(value: int, length: int, last: int = 0) -> bytes:
    """A varint padded to `length` bytes; `last` replaces the final one."""
    found = bytearray(0x80 | value >> 7 * index & 0x7F for index in range(length))
    found[-1] = last
    return bytes(found)


@pytest.mark.parametrize("last", [0, 1, 2, 0x7F])
@pytest.mark.parametrize("length", range(2, 13))
def test_overlong_varints_are_read_alike_as_tags_lengths_and_values(length: int, last: int) -> None:
    assert_same(overlong(1 << 3 | 2, length, last) + b"\x01a")
    assert_same(tag(1, by_hand.LENGTH) + overlong(1, length, last) + b"a")
    assert_same(tag(9, by_hand.VARINT) + overlong(1, length, last))
    assert_same(delimited(5, tag(3, by_hand.VARINT) + overlong(1, length, last)))
    assert_same(delimited(5, delimited(3, overlong(1, length, last))))
    assert_same(delimited(5, delimited(5, delimited(1, overlong(0, length, last)))))
    assert_same(delimited(4, delimited(1, "timeout") + delimited(2, tag(2, 0) + overlong(7, length, last))))


def test_a_dimension_keeps_its_low_64_bits_as_protobuf_keeps_them() -> None:
    read = assert_same(delimited(5, tag(3, by_hand.VARINT) + overlong(5, 10, 0x7E)))
    assert read is not None
    assert read[0].inputs()[0][2] == (5,)


def test_integers_of_32_bits_keep_their_low_32_bits_as_protobuf_keeps_them() -> None:
    values = varint((7 << 32) + 3) + varint((1 << 64) - 1) + varint(1 << 31)
    body = delimited(5, delimited(2, "INT32") + delimited(3, b"\x03") + delimited(5, delimited(2, values)))
    read = assert_same(body)
    assert read is not None
    assert not assert_bound_alike(*read, {"": ("INT32", [-1])}, batched=False)


def test_any_number_but_zero_is_true_in_a_typed_bool() -> None:
    values = b"".join(map(varint, (0, 1, 2, 256, 1 << 63)))
    body = delimited(5, delimited(2, "BOOL") + delimited(3, b"\x05") + delimited(5, delimited(1, values)))
    read = assert_same(body)
    assert read is not None
    assert not assert_bound_alike(*read, {"": ("BOOL", [-1])}, batched=False)
    assert read[0].tensor_bytes(0) == b"\0\1\1\1\1"


@pytest.mark.parametrize("wrong", [127 + 1, -129, 1 << 31, (1 << 32) - 129])
def test_a_typed_value_that_its_datatype_cannot_hold_is_refused(wrong: int) -> None:
    body = delimited(5, delimited(2, "INT8") + delimited(3, b"\x01") + delimited(5, number(2, wrong)))
    read = assert_same(body)
    assert read is not None
    assert assert_bound_alike(*read, {"": ("INT8", [-1])}, batched=False) == "value"


CHOICES = {
    "bool": number(1, 1),
    "int64": number(2, 7),
    "string": delimited(3, "s"),
    "double": tag(4, by_hand.FIXED64) + bytes(8),
    "uint64": number(5, 7),
}


@pytest.mark.parametrize("key", ["timeout", "priority", "sequence_id"])
@pytest.mark.parametrize("last", CHOICES)
@pytest.mark.parametrize("first", CHOICES)
def test_of_several_values_of_a_parameter_the_last_counts(first: str, last: str, key: str) -> None:
    inside = CHOICES[first] + CHOICES[last]
    for values in (delimited(2, inside), delimited(2, CHOICES[first]) + delimited(2, CHOICES[last])):
        read = assert_same(delimited(4, delimited(1, key) + values))
        assert read is not None
        assert_bound_alike(*read, {}, batched=False)
    entries = [delimited(4, delimited(1, key) + delimited(2, CHOICES[name])) for name in (first, last)]
    read = assert_same(b"".join(entries))
    assert read is not None
    assert_bound_alike(*read, {}, batched=False)


@pytest.mark.parametrize("field", [5, 6, 7])
def test_more_than_1024_entries_are_refused_although_protobuf_takes_them(field: int) -> None:
    assert decoded(delimited(field, b"") * 1024) is not None
    assert_same(delimited(field, b"") * 1024)
    with pytest.raises(InvalidRequest, match="more than 1024"):
        decode(delimited(field, b"") * 1025)


@pytest.mark.parametrize("packed", [True, False])
def test_more_than_64_dimensions_are_refused_although_protobuf_takes_them(packed: bool) -> None:
    def shape(rank: int) -> bytes:
        return delimited(5, delimited(1, "x") + (delimited(3, b"\x01" * rank) if packed else number(3, 1) * rank))

    assert_same(shape(64))
    with pytest.raises(InvalidRequest, match=r"input 'x' \(number 1\).* more than 64 dimensions"):
        decode(shape(64) + shape(65))


def test_a_parameter_with_unknown_fields_counts_although_protobufs_c_parser_sets_it_aside() -> None:
    entry = delimited(1, "timeout") + delimited(2, number(2, 9)) + group(20)
    assert decode(delimited(4, entry)).timeout_us == 9


def test_a_message_of_2_gib_is_refused_unread() -> None:
    with pytest.raises(InvalidRequest, match="2147483648 bytes"):
        decode(bytes(1 << 31))


def test_the_input_at_fault_is_named_with_its_number() -> None:
    good = delimited(5, delimited(1, "a"))
    with pytest.raises(InvalidRequest, match=r"input 'b' \(number 1\) .*not UTF-8"):
        decode(good + delimited(5, delimited(1, "b") + delimited(2, b"\xff")))
    with pytest.raises(InvalidRequest, match=r"input without a readable name \(number 1\)"):
        decode(good + delimited(5, b"\x08"))


def test_a_fault_after_the_last_input_blames_no_input() -> None:
    with pytest.raises(InvalidRequest, match=r"^the ModelInferRequest is malformed: a field runs past the end"):
        decode(delimited(5, delimited(1, "a")) + b"\x0a\x05a")


def test_a_decoded_request_keeps_its_bytes_and_nothing_else() -> None:
    body = bytes(delimited(1, "m"))
    request = decode(body)
    assert request.body is body
    assert (request.rows, request.nbytes, request.answer, request.error) == (0, 0, None, None)
