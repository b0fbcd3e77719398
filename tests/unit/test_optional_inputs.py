"""Inputs that config.pbtxt calls optional: a request may leave them to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from handmade import NUMBERS, bound, message, packed_strings, refusal

from inferd._native.batch import Batch, alone
from inferd._native.queue import BatchQueue
from inferd._native.reply import answer
from inferd._native.signature import Signature
from inferd._native.wire import Request
from inferd.config import Settings
from inferd.device import Devices
from inferd.errors import ModelFailed
from inferd.loading import Loaded, load
from inferd.proto import inference_pb2 as pb
from inferd.repository import Reader

FP32 = NUMBERS["FP32"]
OPTIONAL = 'input { name: "scale" optional: true } input { name: "shift" optional: true }'


def signature(*, batched: bool = True, optional: Sequence[str] = ("a", "c")) -> Signature:
    shape = [-1, 2] if batched else [2]
    return Signature(
        "m", "1", [(name, FP32, shape) for name in "abcd"], [("y", FP32, shape)],
        batched=batched, max_rows=8, optional=optional,
    )  # fmt: skip


def request(made: Signature, names: str, rows: int = 1) -> Request:
    """Each input holds numbers of its own."""
    return bound(made, message(*(tensor(name, rows) for name in names)))


def tensor(name: str, rows: int = 1) -> tuple[str, str, list[int], bytes]:
    return name, "FP32", [rows, 2], np.full((rows, 2), ord(name), "<f4").tobytes()


def queue(made: Signature) -> BatchQueue:
    return BatchQueue(
        made,
        batch_rows=8,
        max_queue_rows=100,
        max_queue_bytes=1 << 20,
        max_delay_ns=0,
        preferred_rows=(),
        schedule=None,
    )


def loaded(tmp_path: Path, model: onnx.ModelProto, config: str = OPTIONAL) -> Loaded:
    onnx_models.write(tmp_path, "m", model, config=config)
    (directory,) = Reader(tmp_path).scan().models
    return load(directory.decl, directory.versions[0], Settings(), 1, Devices())


def ran(made: Loaded, batch: Batch) -> list[np.ndarray]:
    """What each member of a batch is answered."""
    answer(batch, made.slots[0].run(batch))
    answers = [pb.ModelInferResponse.FromString(one.answer or b"") for one in batch.members]
    return [np.frombuffer(one.raw_output_contents[0], "<f4").reshape(one.outputs[0].shape) for one in answers]


# --- what may be left out ------------------------------------------------------------------------------


@pytest.mark.parametrize("names", ["bd", "db", "abd", "dcb", "abcd", "dcba"])
def test_any_of_the_optional_inputs_may_be_left_out_in_whatever_order_the_others_come(names: str) -> None:
    made = request(signature(), names, rows=3)
    assert [name for name, _, _ in made.inputs()] == sorted(names)
    assert made.rows == 3
    assert made.nbytes == len(names) * 24
    for index, name in enumerate("abcd"):
        expected = np.full(6, ord(name), "<f4").tobytes() if name in names else b""
        assert made.tensor_bytes(index) == expected


def test_typed_contents_may_leave_inputs_out_too() -> None:
    sent = pb.ModelInferRequest(model_name="m")
    for name in "db":
        sent.inputs.add(name=name, datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([ord(name), 0])
    made = bound(signature(), sent)
    assert np.frombuffer(made.tensor_bytes(1), "<f4").tolist() == [ord("b"), 0]
    assert np.frombuffer(made.tensor_bytes(3), "<f4").tolist() == [ord("d"), 0]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("b", "model 'm' takes 4 inputs but the request has 1; missing: 'd'"),
        ("", "model 'm' takes 4 inputs but the request has 0; missing: 'b', 'd'"),
        ("acd", "model 'm' takes 4 inputs but the request has 3; missing: 'b'"),
        ("bdx", "model 'm' has no input 'x'"),
        ("bdd", "input 'd' appears more than once"),
        ("bddc", "input 'd' appears more than once"),
        ("bdcx", "model 'm' has no input 'x'"),
        ("abcdx", "model 'm' has no input 'x'"),
    ],
)
def test_what_is_not_optional_must_be_there_once(names: str, expected: str) -> None:
    assert refusal(signature(), message(*map(tensor, names))) == expected


def test_raw_entries_are_those_of_what_was_sent() -> None:
    sent = message(tensor("b"), tensor("d"))
    sent.raw_input_contents.append(b"")
    assert refusal(signature(), sent) == "raw_input_contents has 3 entries for 2 inputs"


# --- who shares a run ----------------------------------------------------------------------------------


def test_requests_share_a_run_with_those_that_leave_out_the_same() -> None:
    made = signature()
    waiting = queue(made)
    for names in ("bd", "abd", "bd", "abd", "bcd", "bd"):
        waiting.put(request(made, names), 0)
    found = []
    while (batch := waiting.take(1)) is not None:
        found.append(["".join(name for name, _, _ in one.inputs()) for one in batch.members])
    assert found == [["bd"] * 3, ["abd"] * 2, ["bcd"]]


def test_each_set_of_inputs_has_a_key_of_its_own() -> None:
    made = signature(batched=False)
    plain = {"b": [2], "d": [2], "a": [2], "c": [2]}
    keys = {
        alone(made, bound(made, message(*((n, "FP32", plain[n], bytes(8)) for n in names)))).shape_key
        for names in ("bd", "abd", "bcd", "abcd")
    }
    assert len(keys) == 4


def test_without_any_input_a_request_of_a_batched_model_runs_alone() -> None:
    made = signature(optional="abcd")
    first, second = request(made, ""), request(made, "")
    assert first.apart
    waiting = queue(made)
    waiting.put(first, 0)
    waiting.put(second, 0)
    batch = waiting.take(1)
    assert batch is not None
    assert batch.members == [first]


# --- with real models ----------------------------------------------------------------------------------


def test_the_model_has_its_own_value_for_what_is_left_out(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.with_defaults())
    assert made.signature.batched
    assert [tensor.name for tensor in made.decl.inputs if tensor.optional] == ["scale", "shift"]
    x = np.arange(8, dtype="<f4").reshape(2, 4)
    scale, shift = np.array([[3], [4]], "<f4"), np.array([[1], [2]], "<f4")
    sent = {
        name: (name, "FP32", array.shape, array.tobytes())
        for name, array in (("x", x), ("scale", scale), ("shift", shift))
    }
    for names, expected in (
        (("x",), x * 2 + 0.5),
        (("scale", "x"), x * scale + 0.5),
        (("shift", "x"), x * 2 + shift),
        (("scale", "shift", "x"), x * scale + shift),
        (("x",), x * 2 + 0.5),
    ):
        (found,) = ran(made, alone(made.signature, bound(made.signature, message(*(sent[name] for name in names)))))
        assert np.array_equal(found, expected), names


def test_rows_of_requests_that_leave_out_the_same_are_run_together(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.with_defaults())
    waiting = queue(made.signature)
    for number in range(4):
        x = np.full((1, 4), number, "<f4")
        own = np.full((1, 1), 10 * number, "<f4")
        tensors = [("x", "FP32", x.shape, x.tobytes())]
        if number % 2:
            tensors.append(("scale", "FP32", own.shape, own.tobytes()))
        waiting.put(bound(made.signature, message(*tensors)), 0)
    even, odd = waiting.take(1), waiting.take(1)
    assert even is not None
    assert odd is not None
    assert [found[0, 0] for found in ran(made, even)] == [0.5, 4.5]
    assert [found[0, 0] for found in ran(made, odd)] == [10.5, 90.5]


def test_a_model_of_strings_has_values_of_its_own_too(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.text_with_default(), 'input { name: "TAIL" optional: true }')
    for tail, expected in ((None, [b"a", b"b", b"!"]), ([b"?"], [b"a", b"b", b"?"])):
        tensors = [("IN", "BYTES", [2], packed_strings([b"a", b"b"]))]
        if tail is not None:
            tensors.append(("TAIL", "BYTES", [1], packed_strings(tail)))
        batch = alone(made.signature, bound(made.signature, message(*tensors)))
        answer(batch, made.slots[0].run(batch))
        told = pb.ModelInferResponse.FromString(batch.members[0].answer or b"")
        assert told.raw_output_contents[0] == packed_strings(expected)


def test_an_input_with_a_value_in_the_file_need_not_be_optional(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.with_defaults(), 'input { name: "scale" }')
    assert [tensor.name for tensor in made.decl.inputs] == ["x", "scale"]
    x = ("x", "FP32", [1, 4], bytes(16))
    assert "missing: 'scale'" in refusal(made.signature, message(x))


def test_what_the_file_does_not_name_is_no_input(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.with_defaults(), "")
    assert [tensor.name for tensor in made.decl.inputs] == ["x"]


def test_an_input_that_the_model_has_no_value_for_cannot_be_optional(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed) as caught:
        loaded(tmp_path, onnx_models.scale(), 'input { name: "x" optional: true }')
    assert str(caught.value) == (
        "config.pbtxt says input 'x' is optional, but the model has no value of its own for it; "
        "remove optional, or export the model with an initializer of that name among the graph's inputs"
    )


def test_an_optional_input_without_rows_keeps_the_model_from_batching(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.with_defaults(rows=1))
    assert not made.batching.batched
    assert made.batching.reason == "input 'scale' has the fixed first dimension 1"
