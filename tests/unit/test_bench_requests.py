"""The requests that the load runner makes: shapes, values, messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inferd.bench import arrays, inputs
from inferd.bench.result import Tensor
from inferd.bench.shapes import Layout, settle
from inferd.bench.tensors import NUMPY_TYPES, decode, encode, outputs
from inferd.errors import StartError
from inferd.proto import inference_pb2 as pb


def tensor(name: str, datatype: str, *shape: int) -> Tensor:
    return Tensor(name=name, datatype=datatype, shape=shape)


X, STATE = tensor("x", "FP32", -1, 4), tensor("state", "FP32", 2, -1, 128)
IDS = tensor("ids", "INT64", -1, -1)
BATCHED, FREE, ALONE = Layout.of([X], 8), Layout.of([X], 0), Layout.of([X, STATE], 0)


def settled(*declared: Tensor, rows: int = 1, **given: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [one.shape for one in settle("m", declared, Layout.of(declared, 0), rows, given)]


# --- shapes ------------------------------------------------------------------------------------------


def test_rows_go_where_the_server_batches_or_every_first_axis_is_open() -> None:
    assert settled(X, rows=3) == [(3, 4)]
    assert settle("m", [tensor("x", "FP32", -1, 4)], BATCHED, 8, {})[0].shape == (8, 4)
    assert not ALONE.batched


def test_several_rows_are_refused_where_an_axis_0_is_not_open() -> None:
    with pytest.raises(StartError, match="--batch 2: model 'm' takes one row per request"):
        settled(X, STATE, rows=2, x=(1, 4), state=(2, 1, 128))


def test_more_rows_than_the_server_takes_are_refused() -> None:
    with pytest.raises(StartError, match="--batch 9: model 'm' takes at most 8 rows"):
        settle("m", [X], BATCHED, 9, {})


def test_open_dimensions_are_refused_with_the_flags_to_give() -> None:
    with pytest.raises(StartError) as refused:
        settled(IDS, tensor("image", "FP32", -1, 3, -1, -1), X)
    assert str(refused.value).endswith("give a length for each ?: --shape ids:? --shape image:3,?,?")
    with pytest.raises(StartError, match=r"--shape x:\?,4 --shape state:2,\?,128$"):
        settled(X, STATE)


@pytest.mark.parametrize("given", [(16,), (2, 16)])
def test_a_shape_is_given_with_or_without_the_rows(given: tuple[int, ...]) -> None:
    assert settled(IDS, rows=2, ids=given) == [(2, 16)]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((3, 16), "has 3 row.s. where --batch says 2"),
        ((1, 2, 16), "has 2 dimension"),
        ((), "has 2 dimension"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(given: tuple[int, ...], told: str) -> None:
    with pytest.raises(StartError, match=told):
        settled(IDS, rows=2, ids=given)


def test_a_shape_that_contradicts_the_model_is_refused() -> None:
    with pytest.raises(StartError, match=r"--shape x:5: does not fit the input's shape \[-1,4\]"):
        settled(X, x=(5,))


def test_a_shape_for_an_unknown_input_is_refused() -> None:
    with pytest.raises(StartError, match="--shape y: model 'm' has no such input; it has x"):
        settled(X, y=(4,))


# --- values ------------------------------------------------------------------------------------------


def message(made: inputs.Inputs, index: int = 0) -> pb.ModelInferRequest:
    return pb.ModelInferRequest.FromString(made.messages("m", "", {})[index])


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
@pytest.mark.parametrize("zeros", [True, False])
def test_every_datatype_is_made_in_its_shape(datatype: str, zeros: bool) -> None:
    made = inputs.made_up([tensor("x", datatype, 2, 3)], inputs.Values(zeros=zeros))
    sent = message(made)
    values = decode(datatype, sent.inputs[0].shape, sent.raw_input_contents[0])
    assert (sent.inputs[0].datatype, list(sent.inputs[0].shape), values.shape) == (datatype, [2, 3], (2, 3))
    assert zeros == (set(values.ravel().tolist()) <= {0, b""})


def test_the_same_seed_makes_the_same_distinct_requests() -> None:
    def made(seed: int) -> tuple[bytes, ...]:
        return inputs.made_up([tensor("x", "FP32", 2, 3)], inputs.Values(seed=seed)).messages("m", "", {})

    assert made(1) == made(1) != made(2)
    assert len(set(made(1))) == 8


def test_integers_keep_to_their_range_by_input() -> None:
    values = inputs.Values(integers={"": (5, 7), "b": (-3, -2)})
    sample = inputs.made_up([tensor("a", "INT8", 100), tensor("b", "INT64", 100)], values).samples[0]
    assert (set(sample["a"].tolist()), set(sample["b"].tolist())) == ({5, 6}, {-3})


@pytest.mark.parametrize("integers", [{"": (0, 257)}, {"": (-1, 1)}, {"y": (0, 1)}])
def test_integers_that_no_input_can_hold_are_refused(integers: dict[str, tuple[int, int]]) -> None:
    with pytest.raises(StartError, match="--int-range"):
        inputs.made_up([tensor("x", "UINT8", 1)], inputs.Values(integers=integers))


@pytest.mark.parametrize("length", [0, 1, 300])
def test_strings_have_the_length_asked_for(length: int) -> None:
    made = inputs.made_up([tensor("x", "BYTES", 2, 2)], inputs.Values(string_length=length))
    texts = decode("BYTES", (2, 2), message(made).raw_input_contents[0]).ravel().tolist()
    assert {len(text) for text in texts} == {length}


def test_one_string_is_sent_as_it_is() -> None:
    made = inputs.made_up([tensor("x", "BYTES", 1)], inputs.Values(string="größer"))
    assert decode("BYTES", (1,), message(made).raw_input_contents[0]).tolist() == ["größer".encode()]


def test_bfloat16_is_the_upper_half_of_a_float() -> None:
    assert encode("BF16", np.array([1.0, -2.5], "f4")) == b"\x80\x3f\x20\xc0"
    assert decode("BF16", (2,), b"\x80\x3f\x20\xc0").tolist() == [1.0, -2.5]


def test_parameters_keep_their_type() -> None:
    made = inputs.made_up([X.model_copy(update={"shape": (1, 4)})], inputs.Values())
    sent = pb.ModelInferRequest.FromString(made.messages("m", "2", {"a": True, "b": 3, "c": 0.5, "d": "x"})[0])
    kinds = {name: one.WhichOneof("parameter_choice") for name, one in sent.parameters.items()}
    assert kinds == {"a": "bool_param", "b": "int64_param", "c": "double_param", "d": "string_param"}
    assert sent.model_version == "2"


# --- values from files --------------------------------------------------------------------------------


def stored(path: Path, layout: Layout, *declared: Tensor, rows: int = 1, **values: np.ndarray) -> inputs.Inputs:
    np.savez(path / "in.npz", **values)
    return inputs.stored(path / "in.npz", "m", declared, layout, rows, {})


def test_rows_of_a_file_become_requests_of_so_many_rows(tmp_path: Path) -> None:
    made = stored(tmp_path, BATCHED, X, rows=2, x=np.arange(24, dtype="f4").reshape(6, 4))
    assert [sample["x"].tolist()[0][0] for sample in made.samples] == [0.0, 8.0, 16.0]
    assert made.tensors[0].shape == (2, 4)


def test_one_row_without_its_axis_fills_every_row(tmp_path: Path) -> None:
    made = stored(tmp_path, BATCHED, X, rows=3, x=np.arange(4, dtype="f4"))
    assert made.samples[0]["x"].tolist() == [[0, 1, 2, 3]] * 3


def test_a_file_settles_open_dimensions(tmp_path: Path) -> None:
    made = stored(tmp_path, Layout.of([IDS], 8), IDS, rows=1, ids=np.zeros((2, 16), "i8"))
    assert (made.tensors[0].shape, len(made.samples)) == ((1, 16), 2)


def test_without_rows_an_extra_axis_counts_requests_and_what_has_none_is_in_all(tmp_path: Path) -> None:
    rate = tensor("rate", "INT64")
    made = stored(
        tmp_path,
        Layout.of([STATE, rate], 0),
        *(STATE, rate),
        state=np.zeros((5, 2, 1, 128), "f4"),
        rate=np.array(16000),
    )
    assert len(made.samples) == 5
    assert all(sample["rate"] == 16000 for sample in made.samples)


def test_a_server_that_names_no_inputs_gets_the_arrays_as_they_are(tmp_path: Path) -> None:
    made = stored(tmp_path, Layout.of([], None), a=np.zeros((2, 3), "f2"), b=np.array([["x"]]))
    assert [(one.name, one.datatype, one.shape) for one in made.tensors] == [
        ("a", "FP16", (2, 3)),
        ("b", "BYTES", (1, 1)),
    ]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({}, "has no array 'x'; it has none"),
        ({"y": np.zeros((2, 4), "f4")}, "has no array 'x'; it has y"),
        ({"x": np.zeros((3, 4), "f4")}, "has 3 row.s., no multiple of the 2"),
        ({"x": np.zeros((2, 5), "f4")}, "has shape .2, 5., the model says .-1, 4."),
        ({"x": np.zeros((2, 2, 2, 4), "f4")}, "has shape .2, 2, 2, 4."),
        ({"x": np.zeros((2, 4), "S3")}, "is .S3, the model takes FP32"),
        ({"x": np.zeros((2, 4), "c8")}, "is complex64, the model takes FP32"),
        ({"x": np.full((2, 4), None)}, "save strings as numpy's S or U type"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, values: dict[str, np.ndarray], told: str) -> None:
    with pytest.raises(StartError, match=told):
        stored(tmp_path, BATCHED, X, rows=2, **values)


def test_arrays_for_different_numbers_of_requests_are_refused(tmp_path: Path) -> None:
    other = tensor("y", "FP32", -1, 1)
    with pytest.raises(StartError, match=r"'y' is enough for 2 request\(s\), 'x' for 3"):
        stored(tmp_path, Layout.of([X, other], 8), X, other, x=np.zeros((3, 4), "f4"), y=np.zeros((2, 1), "f4"))


@pytest.mark.parametrize("content", [None, b"", b"no archive"])
def test_a_file_that_is_no_npz_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartError, match=r"x\.npz: "):
        arrays.read(path)


# --- answers -----------------------------------------------------------------------------------------


def test_outputs_are_read_from_raw_and_from_typed_contents() -> None:
    raw = pb.ModelInferResponse()
    raw.outputs.add(name="y", datatype="INT16", shape=[2])
    raw.raw_output_contents.append(b"\x01\x00\xff\xff")
    typed = pb.ModelInferResponse()
    typed.outputs.add(name="y", datatype="INT16", shape=[2]).contents.int_contents.extend([1, -1])
    for answer in (raw, typed):
        datatype, values = outputs(answer.SerializeToString())["y"]
        assert (datatype, values.dtype, values.tolist()) == ("INT16", np.dtype("i2"), [1, -1])


@pytest.mark.parametrize("raw", [b"\x05\x00\x00\x00abc", b"\x01", b"\x00\x00\x00\x00" * 2])
def test_strings_that_contradict_their_tensor_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"longer|reshape"):
        decode("BYTES", (1,), raw)
