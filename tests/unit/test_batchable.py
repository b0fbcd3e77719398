from __future__ import annotations

from pathlib import Path

import onnx
import onnx_models
import pytest

from inferd import batchable
from inferd.device import CpuDevice
from inferd.errors import ModelFailed
from inferd.session import Session, SessionOptions


def session(tmp_path: Path, model: onnx.ModelProto) -> Session:
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return Session(path, SessionOptions(), CpuDevice())


@pytest.mark.parametrize(
    "make",
    [onnx_models.mlp, onnx_models.scale, onnx_models.two_by_two, onnx_models.sequence, onnx_models.embedding],
    ids=lambda make: make.__name__,
)
def test_rows_that_do_not_touch_each_other_may_share_a_run(tmp_path: Path, make: object) -> None:
    found = batchable.probe(session(tmp_path, make()), "m")  # type: ignore[operator]
    assert found.batched, found.reason


def test_strings_may_share_a_run(tmp_path: Path) -> None:
    assert batchable.probe(session(tmp_path, onnx_models.identity("BYTES", ("rows",))), "m").batched


def test_rows_that_depend_on_each_other_are_found_out_by_running_them(tmp_path: Path) -> None:
    found = batchable.probe(session(tmp_path, onnx_models.coupled()), "m")
    assert not found.batched
    assert "differ" in found.reason


def test_an_output_that_has_no_row_per_input_row_rules_batching_out(tmp_path: Path) -> None:
    assert not batchable.probe(session(tmp_path, onnx_models.nonzero()), "m").batched


def test_a_fixed_first_dimension_is_named_as_the_reason(tmp_path: Path) -> None:
    found = batchable.probe(session(tmp_path, onnx_models.identity("FP32", (3, 4))), "m")
    assert not found.batched
    assert "fixed first dimension 3" in found.reason


def test_a_scalar_is_named_as_the_reason(tmp_path: Path) -> None:
    found = batchable.probe(session(tmp_path, onnx_models.identity("FP32", ())), "m")
    assert not found.batched
    assert "is a scalar" in found.reason


def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelFailed, match="cannot load"):
        Session(path, SessionOptions(), CpuDevice())
