"""input and output in config.pbtxt: shapes that clients and the model see differently, labels, optional inputs."""

from __future__ import annotations

import pytest

from inferd.errors import RepositoryError
from inferd.repository import TensorDecl, parse
from inferd.repository.tensors import read_tensors


def tensor(said: str, side: str = "input") -> TensorDecl:
    config = parse(f'{side} {{ name: "x" data_type: TYPE_FP32 {said} }}')
    (found,) = read_tensors(side, config.input or config.output)
    return found


def fault(said: str, side: str = "input") -> str:
    with pytest.raises(RepositoryError) as caught:
        tensor(said, side)
    return str(caught.value)


def test_what_is_not_said_is_told_from_a_scalar() -> None:
    assert tensor("dims: 1").reshape is None
    assert tensor("dims: 1 reshape { }").reshape == ()
    assert tensor("dims: [ 1, 1 ] reshape { shape: [ ] }", "output").reshape == ()


@pytest.mark.parametrize(
    ("dims", "reshape"),
    [
        ((3, 224, 224), (1, 3, 224, 224)),
        ((1000,), (1, 1000, 1, 1)),
        ((4, 6), (2, 12)),
        ((-1,), (1, -1)),
        ((2, -1, 6), (2, 1, -1, 2, 3)),
        ((-1, -1), (-1, 1, -1)),
    ],
)
def test_a_reshape_that_keeps_the_elements_is_read(dims: tuple[int, ...], reshape: tuple[int, ...]) -> None:
    assert tensor(f"dims: {list(dims)} reshape {{ shape: {list(reshape)} }}").reshape == reshape


@pytest.mark.parametrize(
    ("dims", "reshape"),
    [((4,), (2,)), ((2,), ()), ((-1,), (4,)), ((4,), (-1,)), ((2, -1), (-1, 2)), ((-1, -1), (-1,))],
)
def test_a_reshape_that_changes_the_number_of_elements_is_refused(
    dims: tuple[int, ...], reshape: tuple[int, ...]
) -> None:
    reason = fault(f"dims: {list(dims)} reshape {{ shape: {list(reshape)} }}")
    assert f"input 'x': dims {list(dims)} and reshape {list(reshape)} do not hold the same number" in reason


def test_a_reshape_with_sizes_that_nothing_can_have_is_refused() -> None:
    assert "output 'x': reshape must be 1 or more, or -1" in fault("dims: 1 reshape { shape: 0 }", "output")


def test_a_reshape_needs_dims() -> None:
    assert "input 'x' has a reshape, so it needs dims" in fault("reshape { shape: 1 }")


def test_an_input_may_be_optional() -> None:
    assert tensor("dims: 1 optional: true").optional
    assert not tensor("dims: 1").optional


@pytest.mark.parametrize("said", ["labels.txt", "labels/en.txt", "la..bels.txt"])
def test_labels_lie_below_the_models_folder(said: str) -> None:
    assert tensor(f'dims: 1 label_filename: "{said}"', "output").label_filename == said


@pytest.mark.parametrize("said", ["../labels.txt", "/etc/passwd", "a/../../b", "..", "a\\\\b", "a\\000b"])
def test_labels_from_elsewhere_are_refused(said: str) -> None:
    reason = fault(f'dims: 1 label_filename: "{said}"', "output")
    assert "label_filename must be a path below the model's folder" in reason


def test_more_dimensions_than_a_request_may_have_are_refused() -> None:
    assert len(tensor(f"dims: {[1] * 64}").dims) == 64
    assert "input 'x': dims must be at most 64, not 65" in fault(f"dims: {[1] * 65}")
    assert "input 'x': reshape must be at most 64, not 65" in fault(f"dims: 1 reshape {{ shape: {[1] * 65} }}")
