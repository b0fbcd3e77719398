"""Every micro-benchmark measures what its name says: a case proves its work, and the proof can fail."""

from __future__ import annotations

import pytest

from bench.micro.case import Case, Work
from bench.micro.cases import all_cases
from bench.micro.measure import WrongWork, chosen, measured_ns
from bench.micro.traffic import IMAGE, TINY, TOKENS, Model
from inferd.proto.inference_pb2 import ModelInferRequest

CASES = {case.name: case for case in all_cases()}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count", [1, 3])
def test_a_case_does_what_its_name_says(name: str, count: int) -> None:
    assert measured_ns(CASES[name], count) > 0


@pytest.mark.parametrize("name", sorted(CASES.keys() - {"output view: tiny"}))
def test_work_that_was_not_done_is_noticed(name: str) -> None:
    work = CASES[name].prepare(2)
    assert not work.done(None)


def test_a_case_that_does_something_else_is_not_measured() -> None:
    with pytest.raises(WrongWork, match="nothing: at all"):
        measured_ns(Case("nothing", "at all", lambda count: Work([(int,)] * count, lambda last: last == 1)), 1)


def test_work_is_as_many_calls_as_were_prepared() -> None:
    seen: list[int] = []
    assert Work([(seen.append, 1), (seen.append, 2), (len, seen)], lambda _: True).run() == 2
    assert seen == [1, 2]


def test_names_are_different_and_choose_by_how_they_begin() -> None:
    assert len(CASES) == len(all_cases())
    assert [case.name for case in chosen(["gather: t", "encode: 6"])] == [
        "gather: tiny",
        "gather: tokens",
        "encode: 64 tiny",
    ]
    assert chosen(["nothing"]) == []
    assert len(chosen([])) == len(CASES)


def test_the_messages_are_of_the_sizes_that_the_documentation_tells() -> None:
    assert len(TINY.message()) == 89
    assert 602_112 <= len(IMAGE.message()) < 602_200
    sent = ModelInferRequest.FromString(TOKENS.message())
    assert [len(raw) for raw in sent.raw_input_contents] == [1024] * 3


@pytest.mark.parametrize("model", [TINY, TOKENS, IMAGE], ids=lambda model: model.name)
def test_typed_contents_are_the_raw_ones(model: Model) -> None:
    typed = ModelInferRequest.FromString(model.message(typed=True))
    assert not typed.raw_input_contents
    for sent, tensor in zip(typed.inputs, model.inputs, strict=True):
        values = sent.contents.fp32_contents or sent.contents.int64_contents
        assert list(values) == list(tensor.values)
