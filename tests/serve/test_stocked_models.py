"""Real models with configurations as users of Triton write them, beside ONNX Runtime in this process."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import tritonclient.grpc as triton
from onnx import TensorProto, helper
from stocked import (
    FILE_TYPES,
    IMAGES,
    IMAGES_CONFIG,
    NOT_TENSORS,
    SENTENCES,
    SPEECH,
    STOCKED,
    TABLE,
    TEXT_DETECTOR,
    TEXT_READER,
    TREE,
)
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from inferd.errors import StartError

from .process import CHANNEL_OPTIONS, Server

COLOURS = ("red", "green", "blue")
COLOURS_CONFIG = """
    platform: "onnxruntime_onnx"
    max_batch_size: 8
    input [ { name: "colour" data_type: TYPE_STRING dims: [ 2 ] } ]
    output [ { name: "number" data_type: TYPE_INT64 dims: [ 2 ] } ]
    model_warmup [ { name: "w" batch_size: 2 inputs {
      key: "colour" value { data_type: TYPE_STRING dims: [ 2 ] input_data_file: "colours" }
    } } ]
"""


def colours() -> onnx.ModelProto:
    """Strings to numbers, as pipelines of scikit-learn have it for categories."""
    node = helper.make_node(
        "LabelEncoder",
        ["colour"],
        ["number"],
        domain="ai.onnx.ml",
        keys_strings=list(COLOURS),
        values_int64s=range(len(COLOURS)),
        default_int64=-1,
    )
    graph = helper.make_graph(
        [node],
        "colours",
        [helper.make_tensor_value_info("colour", TensorProto.STRING, ["rows", 2])],
        [helper.make_tensor_value_info("number", TensorProto.INT64, ["rows", 2])],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stocked models, one of strings, and one that no server of the protocol can serve."""
    folder = tmp_path_factory.mktemp("stocked")
    try:
        for model in STOCKED:
            model.put(folder)
    except StartError as failure:
        if "cannot download" not in str(failure):
            raise
        pytest.skip(str(failure))
    (folder / "colours" / "1").mkdir(parents=True)
    onnx.save(colours(), folder / "colours" / "1" / "model.onnx")
    (folder / "colours" / "config.pbtxt").write_text(COLOURS_CONFIG)
    (folder / "colours" / "warmup").mkdir()
    (folder / "colours" / "warmup" / "colours").write_bytes(b"\x03\0\0\0red\x05\0\0\0green")
    (folder / "densenet_onnx" / "1").mkdir(parents=True)
    shutil.copy(IMAGES, folder / "densenet_onnx" / "1" / "model.onnx")
    (folder / "densenet_onnx" / "config.pbtxt").write_text(IMAGES_CONFIG)
    (folder / "iris" / "1").mkdir(parents=True)
    shutil.copy(NOT_TENSORS, folder / "iris" / "1" / "model.onnx")
    return folder


@pytest.fixture(scope="module")
def stocked(repository: Path, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of them all."""
    flags = ("--models-strict=false", "--warmup-budget-ms=100", "--device-fallback=cpu")
    started = Server(repository, tmp_path_factory.mktemp("server"), transport, flags, {})
    with started.while_ready():
        yield started


@pytest.fixture(scope="module")
def client(stocked: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(stocked.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield connected


@pytest.fixture(scope="module")
def in_process(repository: Path) -> Mapping[str, ort.InferenceSession]:
    """The same files in ONNX Runtime itself."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    names = [*(model.name for model in STOCKED), "colours", "densenet_onnx"]
    return {name: ort.InferenceSession(repository / name / "1" / "model.onnx", options) for name in names}


def sent(inputs: Mapping[str, np.ndarray]) -> list[triton.InferInput]:
    made = []
    for name, values in inputs.items():
        made.append(triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype)))
        made[-1].set_data_from_numpy(values)
    return made


def same(served: triton.InferResult, expected: Mapping[str, np.ndarray]) -> None:
    for name, values in expected.items():
        found = served.as_numpy(name)
        assert found.size == values.size
        found = found.reshape(values.shape)
        np.testing.assert_allclose(found, values, rtol=1e-4, atol=1e-5, err_msg=name)


def run(session: ort.InferenceSession, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, dict(inputs)), strict=True))


def tokens(rows: int, length: int) -> dict[str, np.ndarray]:
    ids = np.random.default_rng(length).integers(1000, 20_000, (rows, length))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(shape).random(shape, np.float32)


REQUESTS: list[tuple[str, dict[str, np.ndarray]]] = [
    (TABLE.name, {"input": floats(1, 4)}),
    (TABLE.name, {"input": floats(64, 4)}),
    (TREE.name, {"input": floats(5, 4)}),
    (TEXT_DETECTOR.name, {"x": floats(1, 3, 64, 96)}),
    (TEXT_DETECTOR.name, {"x": floats(2, 3, 32, 32)}),
    (TEXT_READER.name, {"x": floats(1, 3, 48, 160)}),
    (TEXT_READER.name, {"x": floats(2, 3, 48, 64)}),
    (SENTENCES.name, tokens(1, 16)),
    (SENTENCES.name, tokens(3, 7)),
    (FILE_TYPES.name, {"bytes": np.arange(2048, dtype="i4")[None] % 257}),
]


@pytest.mark.parametrize(("name", "inputs"), REQUESTS, ids=lambda one: one if isinstance(one, str) else "")
def test_a_stocked_model_answers_as_in_onnx_runtime(
    client: triton.InferenceServerClient,
    in_process: Mapping[str, ort.InferenceSession],
    name: str,
    inputs: dict[str, np.ndarray],
) -> None:
    same(client.infer(name, sent(inputs)), run(in_process[name], inputs))


def test_speech_is_followed_with_the_state_that_the_client_carries(
    client: triton.InferenceServerClient, in_process: Mapping[str, ort.InferenceSession]
) -> None:
    state = np.zeros((2, 1, 128), "f4")
    for chunk in range(4):
        sound = np.random.default_rng(chunk).standard_normal((1, 576), np.float32)
        inputs = {"input": sound, "state": state, "sr": np.array([16_000], "i8")}
        served = client.infer(SPEECH.name, sent(inputs))
        same(served, run(in_process[SPEECH.name], inputs | {"sr": np.array(16_000, "i8")}))
        state = served.as_numpy("stateN")


def test_shapes_that_only_clients_see_are_kept_to(
    client: triton.InferenceServerClient, in_process: Mapping[str, ort.InferenceSession]
) -> None:
    image = floats(3, 224, 224)
    served = client.infer("densenet_onnx", sent({"data_0": image}))
    assert served.as_numpy("fc6_1").shape == (1000,)
    same(served, run(in_process["densenet_onnx"], {"data_0": image[None]}))
    labels = client.infer(TREE.name, sent({"input": floats(5, 4)})).as_numpy("label")
    assert labels.shape == (5, 1)
    assert list(client.get_model_metadata(SPEECH.name).inputs[2].shape) == [1]


def test_strings_become_numbers(
    client: triton.InferenceServerClient, in_process: Mapping[str, ort.InferenceSession]
) -> None:
    asked = np.array([["red", "blue"], ["", "green"], ["violet", "rouge é"]], object)
    same(client.infer("colours", sent({"colour": asked})), run(in_process["colours"], {"colour": asked}))


def _hear(answers: queue.Queue[tuple[int, Any, Any]], index: int, result: Any, error: Any) -> None:
    answers.put((index, result, error))


def test_requests_of_many_callers_that_share_runs_are_told_apart(
    client: triton.InferenceServerClient, in_process: Mapping[str, ort.InferenceSession]
) -> None:
    asked = [np.random.default_rng(seed).random((seed % 3 + 1, 4), np.float32) for seed in range(60)]
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for name in (TABLE.name, TREE.name):
        for index, rows in enumerate(asked):
            heard = partial(_hear, answers, index)
            client.async_infer(name, sent({"input": rows}), heard)
        for _ in asked:
            index, result, error = answers.get(timeout=30)
            assert error is None
            same(result, run(in_process[name], {"input": asked[index]}))


def test_all_that_is_not_here_is_named_and_hides_nothing(stocked: Server) -> None:
    warnings: dict[str, list[str]] = {}
    for record in stocked.log():
        if record["level"] == "warning" and "model" in record:
            warnings.setdefault(record["model"], []).append(record["message"])
    (gpu,) = warnings.pop(TABLE.name)
    assert "instance_group asks for KIND_GPU with gpus 0" in gpu
    (accelerator,) = warnings.pop(TEXT_DETECTOR.name)
    assert "without effect: execution accelerator 'tensorrt'" in accelerator
    assert warnings == {}


def test_a_model_of_something_else_than_tensors_is_refused_and_hides_no_other(
    stocked: Server, client: triton.InferenceServerClient, repository: Path
) -> None:
    (failed,) = [record for record in stocked.log() if record["message"] == "model failed to load"]
    assert failed["model"] == "iris"
    assert "output 'probabilities' is seq(map(int64,tensor(float)))" in failed["reason"]
    with pytest.raises(InferenceServerException) as refused:
        client.infer("iris", sent({"float_input": floats(3, 2)}))
    assert refused.value.status() == "StatusCode.FAILED_PRECONDITION"
    assert all(client.is_model_ready(model.name) for model in STOCKED)


def test_the_check_finds_what_the_server_finds(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "inferd", "check", str(repository), "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"INFERD_WARMUP_BUDGET_MS": "0", "INFERD_DEVICE_FALLBACK": "cpu"},
    )
    found: dict[str, Any] = {one["model"]: one for one in json.loads(done.stdout)}
    assert [name for name, one in found.items() if one["error"]] == ["iris"]
    assert (found[SPEECH.name]["batched"], found[SENTENCES.name]["batched"]) == (False, True)
    assert done.returncode == 2
    assert "inferd: model 'iris'" in done.stderr
