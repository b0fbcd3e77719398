"""Shapes on the wire that are not the model's: requests are read in the one, run in the other, answered in the one."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from handmade import NUMBERS, bound, message, refusal
from hypothesis import given
from hypothesis import strategies as st

from inferd._native.batch import Batch, alone
from inferd._native.queue import BatchQueue
from inferd._native.reply import OutputView, answer
from inferd._native.signature import Signature
from inferd._native.wire import Request
from inferd.errors import RunFailed
from inferd.proto import inference_pb2 as pb

INT8, FP32 = NUMBERS["INT8"], NUMBERS["FP32"]


def model(wire: Sequence[int], inner: Sequence[int] | None, *, batched: bool = False, max_rows: int = 8) -> Signature:
    """x and y have this shape on the wire and that one in the model; a second input and output are as they are."""
    plain = [-1, -1] if batched else [-1]
    return Signature(
        "m", "1", [("x", INT8, wire), ("also", FP32, plain)], [("y", INT8, wire), ("also", FP32, plain)],
        batched=batched, max_rows=max_rows, model_inputs=[inner, None], model_outputs=[inner],
    )  # fmt: skip


def request(signature: Signature, shape: Sequence[int], also: Sequence[int] = (0,)) -> Request:
    raw = bytes(index % 100 for index in range(math.prod(shape)))
    return bound(
        signature, message(("also", "FP32", also, bytes(4 * math.prod(also))), ("x", "INT8", shape, raw))
    )  # fmt: skip


def answered(batch: Batch, shape: Sequence[int], also: Sequence[int] = (0,)) -> list[pb.ModelInferResponse]:
    values = np.arange(math.prod(shape)).astype("i1")
    other = np.zeros(max(math.prod(also), 1), "<f4")
    views = [
        OutputView(INT8, shape, address=values.ctypes.data, owner=values),
        OutputView(FP32, also, address=other.ctypes.data, owner=other),
    ]
    answer(batch, views)
    return [pb.ModelInferResponse.FromString(one.answer or b"") for one in batch.members]


def shapes(told: pb.ModelInferResponse) -> list[list[int]]:
    return [list(output.shape) for output in told.outputs]


@pytest.mark.parametrize(
    ("wire", "inner", "sent", "seen"),
    [
        ((2, 3), (6,), (2, 3), (6,)),
        ((1,), (), (1,), ()),
        ((), (1, 1), (), (1, 1)),
        ((3, 224), (1, 3, 224), (3, 224), (1, 3, 224)),
        ((-1,), (1, -1), (5,), (1, 5)),
        ((2, -1, 6), (2, 1, -1, 2, 3), (2, 7, 6), (2, 1, 7, 2, 3)),
        ((-1, 4, -1), (-1, 2, 2, -1, 1), (0, 4, 9), (0, 2, 2, 9, 1)),
    ],
)
def test_a_request_is_run_in_the_models_shape_and_answered_in_the_clients(
    wire: Sequence[int], inner: Sequence[int], sent: Sequence[int], seen: Sequence[int]
) -> None:
    signature = model(wire, inner)
    made = request(signature, sent)
    assert made.inputs() == [("x", "INT8", tuple(seen)), ("also", "FP32", (0,))]
    batch = alone(signature, made)
    assert batch.input_shape(0) == list(seen)
    assert batch.input_shape(1) == [0]
    (told,) = answered(batch, seen)
    assert shapes(told) == [list(sent), [0]]


@given(st.data())
def test_the_elements_are_the_same_and_in_the_same_order(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.sampled_from([1, 2, 6, 12]), min_size=1, max_size=4))
    sizes = data.draw(st.lists(st.integers(0, 3), min_size=len(counts) - 1, max_size=len(counts) - 1))

    def side() -> tuple[list[int], list[int]]:
        """A pattern whose sections hold these counts, and the shape with these sizes."""
        pattern: list[int] = []
        for index, count in enumerate(counts):
            left = count
            while left > 1 or data.draw(st.booleans()):
                factor = data.draw(st.sampled_from([size for size in (1, 2, 3, left) if left % size == 0]))
                pattern.append(factor)
                left //= factor
                if len(pattern) > 20:
                    pattern.append(left)
                    break
            if index < len(sizes):
                pattern.append(-1)
        known = iter(sizes)
        return pattern, [next(known) if size < 0 else size for size in pattern]

    (wire, sent), (inner, seen) = side(), side()
    signature = model(wire, inner)
    made = request(signature, sent)
    assert made.inputs()[0][2] == tuple(seen)
    assert made.tensor_bytes(0) == bytes(index % 100 for index in range(math.prod(sent)))
    (told,) = answered(alone(signature, made), seen)
    assert shapes(told)[0] == sent
    assert told.raw_output_contents[0] == np.arange(math.prod(seen)).astype("i1").tobytes()


def test_requests_share_batches_by_the_models_shape() -> None:
    signature = model([-1, 2, -1], [-1, -1, 1, 2], batched=True)
    queue = BatchQueue(signature, batch_rows=64, max_queue_rows=64, max_queue_bytes=1 << 20)
    requests = [request(signature, [rows, 2, width], [rows, 3]) for rows, width in ((1, 5), (2, 4), (3, 5))]
    for one in requests:
        queue.put(one, 0)
    first, second = queue.take(0), queue.take(0)
    assert first is not None
    assert second is not None
    assert first.members == [requests[0], requests[2]]
    assert first.input_shape(0) == [4, 5, 1, 2]
    assert [shapes(told) for told in answered(first, [4, 5, 1, 2], [4, 3])] == [
        [[1, 2, 5], [1, 3]],
        [[3, 2, 5], [3, 3]],
    ]
    assert second.input_shape(0) == [2, 4, 1, 2]


def test_a_shape_that_only_the_model_has_is_refused_in_the_clients_terms() -> None:
    signature = model([2, 3], [6])
    text = refusal(signature, message(("x", "INT8", [6], bytes(6)), ("also", "FP32", [0], b"")))
    assert text == "input 'x' has shape [6]; model 'm' expects [2, 3]"


def test_sizes_and_rows_are_refused_in_the_clients_terms() -> None:
    signature = model([-1, 3], [-1, 3, 1], batched=True, max_rows=2)
    text = refusal(signature, message(("x", "INT8", [3, 3], bytes(9)), ("also", "FP32", [3, 0], b"")))
    assert text == "input 'x' has 3 rows; model 'm' takes at most 2 in one request"
    text = refusal(signature, message(("x", "INT8", [2, 3], bytes(5)), ("also", "FP32", [2, 0], b"")))
    assert text == "input 'x' of datatype INT8 and shape [2, 3] takes 6 bytes but has 5"


@pytest.mark.parametrize("shape", [[6], [2, 3, 1], [3, 2], [2, 4]])
def test_an_output_of_another_shape_than_was_said_is_no_answer(shape: list[int]) -> None:
    signature = model([6], [2, 3])
    with pytest.raises(RunFailed, match="output 'y' of model 'm' is not of the shape that its reshape"):
        answered(alone(signature, request(signature, [6])), shape)


def test_classes_of_a_reshaped_output_are_counted_over_all_of_a_row() -> None:
    signature = Signature(
        "m", "1", [("x", INT8, [-1, 1])], [("y", INT8, [-1, 4])],
        batched=True, max_rows=8, model_outputs=[[-1, 2, 2]],
    )  # fmt: skip
    made = message(("x", "INT8", [2, 1], bytes(2)), wanted=["y"])
    made.outputs[0].parameters["classification"].int64_param = 1
    one = bound(signature, made)
    values = np.array([[[1, 2], [3, 0]], [[9, 2], [3, 0]]], "i1")
    answer(alone(signature, one), [OutputView(INT8, [2, 2, 2], address=values.ctypes.data, owner=values)])
    told = pb.ModelInferResponse.FromString(one.answer or b"")
    assert shapes(told) == [[2, 1]]
    assert told.raw_output_contents[0] == b"\3\0\0\0003:2\3\0\0\0009:0"


def test_a_batch_axis_is_open_on_both_sides() -> None:
    with pytest.raises(ValueError, match="'x' has no open first dimension in the model"):
        model([-1, 4], [2, -1, 2], batched=True)
    with pytest.raises(ValueError, match="'x' has not as many open dimensions"):
        model([-1, 4], [-1, -1])


@pytest.mark.parametrize(("wire", "inner"), [([1] * 65, [1]), ([1], [1] * 65)])
def test_no_shape_has_more_dimensions_than_there_is_room_for(wire: list[int], inner: list[int]) -> None:
    with pytest.raises(ValueError, match="more than 64 dimensions"):
        model(wire, inner)
