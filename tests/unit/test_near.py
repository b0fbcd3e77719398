"""The name that was meant, at the end of an error about one that is not known."""

from __future__ import annotations

from pathlib import Path

import onnx_models
import pytest
from handmade import bound, message, refusal, signature_of

from inferd.errors import UnknownModel
from inferd.models import Model, Models
from inferd.near import hint
from inferd.repository import BrokenModel, Reader

KNOWN = ("images", "pixel_values", "attention_mask", "INPUT_0")
ROWS = signature_of({"pixel_values": ("FP32", [1]), "mask": ("FP32", [1])}, {"logits": ("FP32", [1])})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("image", "images"),
        ("pixel_value", "pixel_values"),
        ("atention_mask", "attention_mask"),
        ("IMAGES", "images"),
        ("input_0", "INPUT_0"),
        ("mages", "images"),
    ],
)
def test_a_slip_is_told_what_was_meant(name: str, meant: str) -> None:
    assert hint(name, KNOWN) == f"; did you mean {meant!r}?"


@pytest.mark.parametrize("name", ["", "y", "tokens", "i" * 65, "images" * 20])
def test_what_is_like_none_of_them_is_told_nothing(name: str) -> None:
    assert hint(name, KNOWN) == ""


def test_a_name_that_is_long_is_not_told() -> None:
    assert hint("a" * 60, ["a" * 65]) == ""


def test_inputs_and_outputs_of_a_request() -> None:
    x = ("mask", "FP32", [1], bytes(4))
    assert refusal(ROWS, message(x, ("pixel_value", "FP32", [1], bytes(4)))) == (
        "model 'm' has no input 'pixel_value'; did you mean 'pixel_values'?"
    )
    good = message(x, ("pixel_values", "FP32", [1], bytes(4)), wanted=["logit"])
    assert refusal(ROWS, good) == "model 'm' has no output 'logit'; did you mean 'logits'?"
    del good.outputs[:]
    assert bound(ROWS, good)


def test_an_input_is_not_mistaken_for_an_output() -> None:
    x = [(name, "FP32", [1], bytes(4)) for name in ("mask", "pixel_values")]
    assert refusal(ROWS, message(*x, wanted=["masks"])) == "model 'm' has no output 'masks'"


@pytest.mark.parametrize(("tells", "end"), [(True, "; did you mean 'resnet'?"), (False, "")])
def test_models_are_told_where_whoever_asks_may_know_them(tells: bool, end: str) -> None:
    models = Models(tells_names=tells)
    models.add(Model("resnet", 1, lambda _: None))
    with pytest.raises(UnknownModel) as caught:
        models.find("resnets", "")
    assert str(caught.value) == f"there is no model 'resnets' here{end}"


def test_fields_of_config_pbtxt(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config="dynamic_batching { prefered_batch_size: 4 }")
    found = Reader(tmp_path).find("m")
    assert isinstance(found, BrokenModel)
    assert "did you mean 'preferred_batch_size'? correct it, or remove the file" in found.reason


def test_parameters_of_config_pbtxt(tmp_path: Path) -> None:
    config = 'parameters { key: "intra_op_thread_counts" value { string_value: "1" } }'
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config=config)
    found = Reader(tmp_path).find("m")
    assert found is not None
    assert not isinstance(found, BrokenModel)
    assert found.decl.warnings == (
        "config.pbtxt: parameter 'intra_op_thread_counts' is not acted on; did you mean 'intra_op_thread_count'?",
    )
