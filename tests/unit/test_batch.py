"""Batches, and the misuse of them and of the queue that would be a bug of ours."""

from __future__ import annotations

import sys

import pytest
from handmade import signature_of
from queued import OPEN, queue, request, taken

from inferd._native.batch import Batch, alone
from inferd._native.queue import BatchQueue
from inferd._native.wire import Request, decode


def put(found: BatchQueue, *requests: Request) -> list[Request]:
    for one in requests:
        found.put(one, 0)
    return list(requests)


def test_a_batch_knows_the_shape_and_bytes_of_its_inputs() -> None:
    found = queue()
    put(found, request(2, 3), request(1, 3))
    batch = taken(found.take(0))
    assert batch.signature is OPEN
    assert batch.input_shape(0) == [3, 3]
    assert batch.input_nbytes(0) == 36
    assert batch.shape_key == alone(OPEN, request(3, 3)).shape_key
    assert batch.shape_key != alone(OPEN, request(3, 4)).shape_key
    for index in (-1, 1):
        with pytest.raises(IndexError):
            batch.input_shape(index)
        with pytest.raises(IndexError):
            batch.input_nbytes(index)


def test_a_batch_splits_into_one_batch_per_member() -> None:
    found = queue()
    members = put(found, request(2), request())
    singles = taken(found.take(0)).split()
    assert [(single.members, single.rows, single.close_reason) for single in singles] == [
        ([members[0]], 2, "retry"),
        ([members[1]], 1, "retry"),
    ]


def test_only_the_queue_makes_batches() -> None:
    with pytest.raises(TypeError, match=r"BatchQueue\.take"):
        Batch()


# --- bugs of ours -----------------------------------------------------------------------------------------


def test_a_request_that_was_not_bound_is_neither_queued_nor_run() -> None:
    one = decode(b"")
    with pytest.raises(ValueError, match="not bound"):
        queue().put(one, 0)
    with pytest.raises(ValueError, match="not bound"):
        alone(OPEN, one)


def test_a_request_of_another_model_is_not_queued() -> None:
    other = signature_of({"x": ("FP32", [-1, -1])}, batched=True)
    with pytest.raises(ValueError, match="not bound to the signature"):
        queue().put(request(signature=other), 0)


def test_a_request_is_put_once_also_into_another_queue() -> None:
    found = queue()
    (member,) = put(found, request())
    for one in (found, queue()):
        with pytest.raises(ValueError, match="put twice"):
            one.put(member, 0)
    found.take(0)
    with pytest.raises(ValueError, match="put twice"):
        found.put(member, 0)


@pytest.mark.parametrize("leave", ["take", "drop", "expire", "queue dies"])
def test_the_queue_gives_back_its_reference_however_a_request_leaves(leave: str) -> None:
    found = queue()
    member = request(deadline_ns=1)
    before = sys.getrefcount(member)
    found.put(member, 0)
    assert sys.getrefcount(member) == before + 1
    match leave:
        case "take":
            found.take(0)
        case "drop":
            found.drop(member)
        case "expire":
            found.expire(1)
        case _:
            del found
    assert sys.getrefcount(member) == before
