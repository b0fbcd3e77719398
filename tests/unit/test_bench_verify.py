"""Whether an answer is right."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from inferd.bench.result import Tensor
from inferd.bench.shapes import Layout
from inferd.bench.tensors import encode
from inferd.bench.verify import MAX_VARIANTS, Judge, Truth, from_answers, from_file
from inferd.errors import StartError
from inferd.proto import inference_pb2 as pb

Y = Tensor(name="y", datatype="FP32", shape=(-1, 2))


def answer(*, name: str = "y", datatype: str = "FP32", id: str = "", values: object) -> bytes:
    array = np.array(values, {"FP32": "f4", "INT64": "i8", "BYTES": "O"}[datatype])
    message = pb.ModelInferResponse(id=id)
    message.outputs.add(name=name, datatype=datatype, shape=array.shape)
    message.raw_output_contents.append(encode(datatype, array))
    return message.SerializeToString()


GOOD = answer(values=[[1.0, 2.0]])
TRUTH = from_answers([GOOD], rtol=1e-3, atol=1e-5)


def test_an_answer_within_the_tolerance_is_right() -> None:
    assert TRUTH.wrong(0, answer(values=[[1.0005, 2.0]])) is None


def test_a_wrong_answer_names_output_index_expected_and_got() -> None:
    assert TRUTH.wrong(0, answer(values=[[1.0, 2.5]])) == "request 0: output 'y'[0, 1]: expected 2.0, got 2.5"
    told = TRUTH.wrong(0, answer(values=[[3.0, 2.5]]))
    assert told == "request 0: output 'y'[0, 0]: expected 1.0, got 3.0, and 1 more"


@pytest.mark.parametrize(
    ("got", "told"),
    [
        (answer(values=[[1.0, 2.0]] * 2), r"expected shape \[1, 2\], got \[2, 2\]"),
        (answer(name="z", values=[[1.0, 2.0]]), "output 'y' is not in the answer"),
        (b"\xff\xff", "cannot be decoded"),
        (GOOD[:-4], "cannot be decoded"),
        (answer(values=[[np.nan, 2.0]]), "expected 1.0, got nan"),
        (answer(datatype="BYTES", values=[["1", "2"]]), "expected 1.0, got b'1'"),
    ],
)
def test_an_answer_of_another_kind_is_wrong(got: bytes, told: str) -> None:
    wrong = TRUTH.wrong(0, got)
    assert wrong is not None
    assert re.search(told, wrong)


def test_integers_and_strings_have_no_tolerance() -> None:
    integers = from_answers([answer(datatype="INT64", values=[10**6])], 0.1, 10)
    assert integers.wrong(0, answer(datatype="INT64", values=[10**6 + 1])) is not None
    strings = Truth([{"y": np.array(["grün"])}])
    assert strings.wrong(0, answer(datatype="BYTES", values=["grün"])) is None
    assert strings.wrong(0, answer(datatype="BYTES", values=["gruen"])) is not None


def test_not_a_number_is_right_where_it_was_expected() -> None:
    assert from_answers([answer(values=[[np.nan, 2.0]])], 0, 0).wrong(0, answer(values=[[np.nan, 2.0]])) is None


# --- expected outputs from a file -----------------------------------------------------------------------------


def test_rows_of_a_file_belong_to_the_requests_with_the_same_rows(tmp_path: Path) -> None:
    np.savez(tmp_path / "out.npz", y=np.arange(8, dtype="f4").reshape(4, 2))
    truth = from_file(tmp_path / "out.npz", [Y], Layout(True, 8), 2, 2, 0, 0)
    assert truth.wrong(1, answer(values=[[4, 5], [6, 7]])) is None
    assert truth.wrong(0, answer(values=[[4, 5], [6, 7]])) is not None


def test_outputs_that_are_not_in_the_file_are_not_looked_at(tmp_path: Path) -> None:
    np.savez(tmp_path / "out.npz", y=np.array([[1.0, 2.0]], "f4"))
    other = Tensor(name="z", datatype="FP32", shape=(-1, 2))
    truth = from_file(tmp_path / "out.npz", [Y, other], Layout(True, 8), 1, 1, 0, 0)
    assert truth.wrong(0, GOOD) is None


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"z": np.zeros((1, 2))}, "'z' is no output of the model; it has y"),
        ({"y": np.zeros((3, 2))}, "'y' is enough for 3 request.s. of 2"),
        ({"y": np.zeros((2, 3))}, "has shape"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, values: dict[str, np.ndarray], told: str) -> None:
    np.savez(tmp_path / "out.npz", **values)
    with pytest.raises(StartError, match=told):
        from_file(tmp_path / "out.npz", [Y], Layout(True, 8), 1, 2, 0, 0)


# --- counting -----------------------------------------------------------------------------------------------


@dataclass
class Part:
    odd: list[tuple[int, bytes]] = field(default_factory=list)
    right: int = 0
    unjudged: int = 0


@dataclass
class Generator:
    accepted: list[tuple[int, bytes]] = field(default_factory=list)

    def accept(self, request: int, answer: bytes) -> None:
        self.accepted.append((request, answer))


def test_right_answers_are_made_known_once_and_wrong_ones_are_told_by_the_first() -> None:
    judge, generator = Judge(TRUTH), Generator()
    wrong = answer(values=[[9.0, 2.0]])
    judge.look(Part([(0, GOOD), (0, GOOD), (0, wrong)], right=5, unjudged=2), generator)  # type: ignore[arg-type]
    judge.look(Part([(0, answer(values=[[8.0, 2.0]]))]), generator)  # type: ignore[arg-type]
    found = judge.answers
    assert (found.right, found.wrong, found.unjudged) == (7, 2, 2)
    assert found.first_wrong == "request 0: output 'y'[0, 0]: expected 1.0, got 9.0"
    assert generator.accepted == [(0, GOOD)]


def test_variants_beyond_the_bound_are_judged_and_not_remembered() -> None:
    judge, generator = Judge(TRUTH), Generator()
    for index in range(MAX_VARIANTS + 5):
        judge.look(Part([(0, answer(id=str(index), values=[[1.0, 2.0]]))]), generator)  # type: ignore[arg-type]
    assert (judge.right, len(generator.accepted)) == (MAX_VARIANTS + 5, MAX_VARIANTS)
