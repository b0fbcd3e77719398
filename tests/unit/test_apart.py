"""Requests whose rows do not fit into a batch, where nobody told clients that there are batches."""

from __future__ import annotations

import pytest
from handmade import bound, message, signature_of
from queued import queue, taken

from inferd._native.signature import Signature
from inferd._native.wire import Request
from inferd.errors import InvalidRequest

TENSORS = {"x": ("UINT8", [-1, 2]), "z": ("UINT8", [-1])}
LENIENT = signature_of(TENSORS, batched=True, max_rows=4, lenient=True, broadcasts=True)
NAMED = signature_of(TENSORS, batched=True, max_rows=4, lenient=True)
STRICT = signature_of(TENSORS, batched=True, max_rows=4)

ODD = {"too many": (5, 5), "none": (0, 0), "different": (2, 1), "none of one": (3, 0)}


def request(signature: Signature, x_rows: int, z_rows: int) -> Request:
    tensors = (("x", "UINT8", [x_rows, 2], bytes(2 * x_rows)), ("z", "UINT8", [z_rows], bytes(z_rows)))
    return bound(signature, message(*tensors))


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD.keys())
def test_they_are_set_apart_if_the_signature_is_lenient(rows: tuple[int, int]) -> None:
    assert request(LENIENT, *rows).apart


@pytest.mark.parametrize("rows", ODD.values(), ids=ODD.keys())
def test_they_are_refused_if_it_is_not(rows: tuple[int, int]) -> None:
    with pytest.raises(InvalidRequest, match="rows"):
        request(STRICT, *rows)


def test_inputs_that_share_a_first_dimension_by_name_must_agree_on_it() -> None:
    with pytest.raises(InvalidRequest, match="input 'z' has 1 rows but input 'x' has 2"):
        request(NAMED, 2, 1)
    assert request(NAMED, 5, 5).apart


def test_a_request_whose_rows_fit_is_not_set_apart() -> None:
    assert not request(LENIENT, 4, 4).apart


def test_they_count_as_their_largest_number_of_rows_and_at_least_one() -> None:
    assert [request(LENIENT, *rows).rows for rows in ODD.values()] == [5, 1, 2, 3]


def test_a_shape_that_claims_rows_without_bytes_does_not_overflow_the_queue() -> None:
    signature = signature_of({"x": ("UINT8", [-1, -1])}, batched=True, max_rows=4, lenient=True)
    waiting = queue(signature=signature)
    for _ in range(2):
        claimed = bound(signature, message(("x", "UINT8", [2**62, 0], b"")))
        assert claimed.rows == 2**31 - 1
    waiting.put(claimed, now_ns=0)
    assert taken(waiting.take(now_ns=0)).members == [claimed]


def test_they_never_share_a_batch_with_anybody_and_keep_their_shapes() -> None:
    waiting = queue(signature=LENIENT)
    odd = [request(LENIENT, 2, 1) for _ in range(2)]
    even = [request(LENIENT, 2, 2) for _ in range(2)]
    for one in (even[0], odd[0], even[1], odd[1]):
        waiting.put(one, now_ns=0)
    assert taken(waiting.take(now_ns=0)).members == even
    for one in odd:
        batch = taken(waiting.take(now_ns=0))
        assert batch.members == [one]
        assert batch.apart
        assert [batch.input_shape(0), batch.input_shape(1)] == [[2, 2], [1]]
    assert waiting.requests == 0


def test_one_that_is_set_apart_can_be_dropped() -> None:
    waiting = queue(signature=LENIENT)
    odd = [request(LENIENT, 2, 1) for _ in range(3)]
    for one in odd:
        waiting.put(one, now_ns=0)
    assert waiting.drop(odd[1])
    assert [taken(waiting.take(now_ns=0)).members for _ in range(2)] == [[odd[0]], [odd[2]]]
