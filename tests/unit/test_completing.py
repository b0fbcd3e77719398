"""A config.pbtxt that says little is completed from the model, and one that contradicts it is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from google.protobuf import text_format
from handmade import bound, message, refusal

from inferd._native.batch import alone
from inferd.config import Settings, Warmup
from inferd.device import Devices
from inferd.errors import ModelFailed
from inferd.loading import Loaded, load
from inferd.proto.model_config_pb2 import ModelConfig
from inferd.repository import Reader, TensorDecl
from inferd.rpc.model_config import describe

QUICKLY = Settings(warmup=Warmup(budget_ms=0))


def loaded(tmp_path: Path, model: onnx.ModelProto, config: str = "", settings: Settings = QUICKLY) -> Loaded:
    onnx_models.write(tmp_path, "m", model, config=config)
    (directory,) = Reader(tmp_path).scan().models
    return load(directory.decl, directory.versions[0], settings, 1, Devices())


def failure(tmp_path: Path, model: onnx.ModelProto, config: str) -> str:
    with pytest.raises(ModelFailed) as caught:
        loaded(tmp_path, model, config)
    return str(caught.value)


A, B = TensorDecl("a", "FP32", (3,)), TensorDecl("b", "INT64", (1,))
TOTAL, PRODUCT = TensorDecl("total", "FP32", (3,)), TensorDecl("product", "FP32", (3,))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "max_batch_size: 4",
        'input { name: "b" }',
        'input { name: "b" data_type: TYPE_INT64 }',
        'input { name: "b" dims: 1 }',
        'input { name: "b" dims: [ -1, 1 ] }',
        'output { name: "product" data_type: TYPE_FP32 dims: -1 } max_batch_size: 4',
        """
        input [ { name: "b" data_type: TYPE_INT64 dims: 1 }, { name: "a" data_type: TYPE_FP32 dims: 3 } ]
        output [ { name: "product" data_type: TYPE_FP32 dims: 3 }, { name: "total" data_type: TYPE_FP32 dims: 3 } ]
        """,
    ],
)
def test_whatever_a_file_leaves_out_comes_from_the_model(tmp_path: Path, config: str) -> None:
    made = loaded(tmp_path, onnx_models.two_by_two(), config)
    assert made.decl.inputs == (A, B)
    assert made.decl.outputs == (TOTAL, PRODUCT)
    assert made.signature.batched


def test_where_there_is_no_batch_the_dims_are_whole(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.two_by_two(), 'max_batch_size: 0 input { name: "a" dims: [ -1, -1 ] }')
    assert made.decl.inputs == (TensorDecl("a", "FP32", (-1, 3)), TensorDecl("b", "INT64", (-1, 1)))


def test_the_configuration_is_shown_as_it_was_completed(tmp_path: Path) -> None:
    made = loaded(
        tmp_path,
        onnx_models.sequence(),
        """
        max_batch_size: 4
        input { name: "ids" format: FORMAT_NHWC dims: 16 }
        instance_group { count: 2 }
        metric_tags { key: "team" value: "red" }
        """,
    )
    assert describe(made) == text_format.Parse(
        """
        name: "m" platform: "onnxruntime_onnx" backend: "onnxruntime" default_model_filename: "model.onnx"
        version_policy { latest { num_versions: 1 } }
        max_batch_size: 4
        input { name: "ids" format: FORMAT_NHWC data_type: TYPE_INT64 dims: 16 }
        output { name: "out" data_type: TYPE_INT64 dims: -1 }
        instance_group { count: 2 }
        dynamic_batching { }
        metric_tags { key: "team" value: "red" }
        """,
        ModelConfig(),
    )


def test_a_size_that_only_the_file_fixes_is_held_against_requests(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.sequence(), 'max_batch_size: 4 input { name: "ids" dims: 5 }')
    bound(made.signature, message(("ids", "INT64", [2, 5], bytes(80))))
    assert "[2,6]" in refusal(made.signature, message(("ids", "INT64", [2, 6], bytes(96)))).replace(" ", "")


def test_a_size_that_only_the_file_fixes_is_what_is_warmed_up(tmp_path: Path) -> None:
    sizes = "max_batch_size: 4 dynamic_batching { preferred_batch_size: 4 } "
    config = sizes + 'input { name: "ids" dims: 777 }'
    made = loaded(tmp_path, onnx_models.sequence(), config, Settings(warmup=Warmup(budget_ms=60_000)))
    assert made.open_length is None
    for rows in (1, 2, 3, 4):
        ids = np.zeros((rows, 777), "i8").tobytes()
        batch = alone(made.signature, bound(made.signature, message(("ids", "INT64", [rows, 777], ids))))
        assert made.slots[0].has_prepared(batch)


def test_an_output_that_is_not_as_large_as_the_file_says_is_answered_as_it_is(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.sequence(), 'max_batch_size: 4 output { name: "out" dims: 9 }')
    batch = alone(made.signature, bound(made.signature, message(("ids", "INT64", [1, 2], bytes(16)))))
    made.slots[0].run(batch)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            'input { name: "c" }',
            "config.pbtxt names the input 'c', which model 'm' does not have; it has 'a', 'b'",
        ),
        (
            'output { name: "sum" }',
            "config.pbtxt names the output 'sum', which model 'm' does not have; it has 'total', 'product'",
        ),
        (
            'input { name: "a" data_type: TYPE_FP16 }',
            "config.pbtxt says input 'a' is FP16; the model says FP32",
        ),
        (
            'max_batch_size: 4 input { name: "a" dims: 4 }',
            "config.pbtxt says input 'a' has dims [4]; the model says [3] without the batch dimension",
        ),
        (
            'max_batch_size: 4 input { name: "a" dims: [ -1, 3 ] }',
            "config.pbtxt says input 'a' has dims [-1, 3]; the model says [3] without the batch dimension",
        ),
        (
            'max_batch_size: 0 output { name: "total" dims: 3 }',
            "config.pbtxt says output 'total' has dims [3]; the model says [-1, 3]",
        ),
        (
            'input { name: "a" dims: 4 }',
            "config.pbtxt says input 'a' has dims [4]; the model says [3] without the batch dimension",
        ),
    ],
)
def test_a_file_that_contradicts_the_model_is_told_what_both_say(tmp_path: Path, config: str, reason: str) -> None:
    assert failure(tmp_path, onnx_models.two_by_two(), config) == reason


def test_dims_without_a_batch_that_the_model_does_not_have_are_refused(tmp_path: Path) -> None:
    reason = failure(tmp_path, onnx_models.coupled(), 'input { name: "x" dims: 4 }')
    assert reason.startswith(
        "config.pbtxt says input 'x' has dims [4]; the model says [-1, 4], and it is not batched: "
    )
    assert reason.endswith("Write all dims, or set max_batch_size")


# --- shapes that clients see otherwise ---------------------------------------------------------------


def test_the_shapes_that_clients_see_are_as_narrow_as_the_models(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        onnx_models.scale(dims=(3, "length", 4)),
        "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 1, -1, 4 ] reshape { shape: [ -1, -1, 4 ] } }"
        "output { name: 'y' data_type: TYPE_FP32 dims: [ -1, 4, 2 ] reshape { shape: [ -1, 2, 4 ] } }",
    )
    assert found.decl.inputs == (TensorDecl("x", "FP32", (3, 1, -1, 4), reshape=(3, -1, 4)),)
    assert found.decl.outputs == (TensorDecl("y", "FP32", (3, 4, 2), reshape=(3, 2, 4)),)
    bound(found.signature, message(("x", "FP32", [3, 1, 2, 4], bytes(96))))
    assert "expects [3, 1, -1, 4]" in refusal(found.signature, message(("x", "FP32", [2, 1, 2, 4], bytes(64))))


def test_rows_may_be_in_both_shapes_where_nobody_says_how_many(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        onnx_models.scale(),
        "input { name: 'x' data_type: TYPE_FP32 dims: [ -1, 2, 2 ] reshape { shape: [ -1, 4 ] } }",
    )
    assert found.signature.batched
    assert found.decl.inputs == (TensorDecl("x", "FP32", (2, 2), reshape=(4,)),)
    bound(found.signature, message(("x", "FP32", [3, 2, 2], bytes(48))))


def test_a_shape_that_clients_see_without_open_rows_is_not_batched(tmp_path: Path) -> None:
    found = loaded(
        tmp_path,
        onnx_models.scale(),
        "input { name: 'x' data_type: TYPE_FP32 dims: [ 1, -1, 4 ] reshape { shape: [ -1, 4 ] } }",
    )
    assert not found.signature.batched
    assert "input 'x' has the fixed first dimension 1" in found.batching.reason
    bound(found.signature, message(("x", "FP32", [1, 3, 4], bytes(48))))


def test_a_scalar_may_be_declared_as_one_element(tmp_path: Path) -> None:
    found = loaded(
        tmp_path, onnx_models.scale(dims=[]), "max_batch_size: 0 input { name: 'x' data_type: TYPE_FP32 dims: 1 }"
    )
    assert found.decl.inputs == (TensorDecl("x", "FP32", (1,), reshape=()),)
    assert found.decl.outputs == (TensorDecl("y", "FP32", ()),)
    batch = alone(found.signature, bound(found.signature, message(("x", "FP32", [1], bytes(4)))))
    assert batch.input_shape(0) == []


def test_a_reshape_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    text = failure(
        tmp_path,
        onnx_models.scale(),
        "max_batch_size: 4 input { name: 'x' data_type: TYPE_FP32 dims: 4 reshape { shape: [ 2, 2 ] } }",
    )
    assert "input 'x' has the reshape [2, 2]; the model says [4] without the batch dimension" in text
