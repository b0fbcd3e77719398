"""A repository as it was written for Triton and its GPUs, served as it is on a machine that has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .calls import rows
from .process import CHANNEL_OPTIONS, Server
from .scrape import counted, samples

CLASSIFIER = """
name: "classifier"
platform: "onnxruntime_onnx"
max_batch_size: 16
default_model_filename: "net.onnx"
input [
  {
    name: "x"
    data_type: TYPE_FP32
    format: FORMAT_NONE
    dims: [ 4 ]
  }
]
output [
  {
    name: "y"
    data_type: TYPE_FP32
    dims: [ 4 ]
    label_filename: "labels.txt"
  }
]
instance_group [
  {
    name: "on the cards"
    kind: KIND_GPU
    count: 2
    gpus: [ 0, 1 ]
  }
]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
  default_queue_policy { max_queue_size: 64 }
}
version_policy { specific { versions: [ 1, 3 ] } }
optimization {
  graph { level: 1 }
  execution_accelerators {
    gpu_execution_accelerator : [
      { name : "tensorrt" parameters { key: "precision_mode" value: "FP16" } },
      { name : "cuda" parameters { key: "cudnn_conv_use_max_workspace" value: "0" } }
    ]
  }
}
parameters { key: "intra_op_thread_count" value: { string_value: "1" } }
parameters { key: "execution_mode" value: { string_value: "0" } }
parameters { key: "cudnn_conv_algo_search" value: { string_value: "1" } }
parameters { key: "gpu_mem_limit" value: { string_value: "4294967200" } }
parameters { key: "memory.enable_memory_arena_shrinkage" value: { string_value: "cpu:0;gpu:0" } }
model_warmup [
  {
    name: "noise"
    batch_size: 8
    count: 2
    inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 4 ] random_data: true } }
  },
  {
    name: "a real one"
    batch_size: 1
    inputs { key: "x" value: { data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "row.bin" } }
  }
]
"""
LABELS = ("north", "east", "south", "west")

# What a person reads who moves such a repository to a machine without GPUs.
WARNINGS = {
    "config.pbtxt: instance_group asks for KIND_GPU with gpus 0, 1; no GPU is used here, the CPU runs it",
    "config.pbtxt: for CUDA, which is not used here, and so without effect: cudnn_conv_algo_search, "
    "cudnn_conv_use_max_workspace, gpu_mem_limit, memory.enable_memory_arena_shrinkage gpu:0, "
    "execution accelerator 'tensorrt'",
}


def write(repository: Path) -> None:
    for version in (1, 2, 3):
        models.write(repository, "classifier", models.scale(float(version)), version=version, config=CLASSIFIER)
        folder = repository / "classifier" / str(version)
        (folder / "model.onnx").rename(folder / "net.onnx")
    (repository / "classifier" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    (repository / "classifier" / "warmup").mkdir()
    (repository / "classifier" / "warmup" / "row.bin").write_bytes(np.arange(4, dtype="<f4").tobytes())
    for version in (1, 2, 10):
        config = 'backend: "onnxruntime" version_policy: { latest: { num_versions: 2 } }'
        models.write(repository, "latest_two", models.scale(float(version)), version=version, config=config)
    models.write(repository, "every", models.scale(1.0), version=1)
    models.write(repository, "every", models.scale(7.0), version=7, config="version_policy { all { } }")
    # As strict Tritons want it: all tensors with all dims, and no batch.
    models.write(
        repository,
        "strict",
        models.identity("BYTES", [2, 3]),
        config="""
        name: "strict" platform: "onnxruntime_onnx" max_batch_size: 0
        input { name: "IN" data_type: TYPE_STRING dims: [ 2, 3 ] }
        output { name: "OUT" data_type: TYPE_STRING dims: [ 2, 3 ] }
        instance_group { kind: KIND_CPU count: 1 }
        """,
    )
    models.write(repository, "bare", models.sequence())


@pytest.fixture(scope="module")
def served(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("triton")
    write(folder / "repository")
    started = Server(folder / "repository", folder, transport, ("--warmup-budget-ms=100", "--device-fallback=cpu"), {})
    with started.while_ready():
        yield started


def test_that_it_runs_elsewhere_than_asked_is_measured_and_shown(served: Server) -> None:
    found = {labels["model"]: value for name, labels, value in samples(served) if name == "inferd_model_fell_back"}
    assert found["classifier"] == 1
    assert found["every"] == 0
    shown = {one["name"]: one["fell_back"] for one in served.http("/status.json")[1]["models"]}
    assert shown["classifier"]
    assert not shown["every"]


@pytest.fixture
def client(served: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(served.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield connected


def ask(
    client: triton.InferenceServerClient, model: str, values: np.ndarray, *, version: str = "", classes: int = 0
) -> np.ndarray:
    asked, answered, datatype = ("IN", "OUT", "BYTES") if values.dtype == object else ("x", "y", "FP32")
    made = triton.InferInput(asked, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    outputs = [triton.InferRequestedOutput(answered, class_count=classes)]
    found: np.ndarray = client.infer(model, [made], model_version=version, outputs=outputs).as_numpy(answered)
    return found


@pytest.mark.parametrize(
    ("model", "factors"),
    [("classifier", {"1": 1, "3": 3}), ("latest_two", {"2": 2, "10": 10}), ("every", {"1": 1, "7": 7})],
)
def test_the_versions_that_the_policy_names_are_served(
    client: triton.InferenceServerClient, model: str, factors: dict[str, int]
) -> None:
    x = rows(1)
    assert client.get_model_metadata(model).versions == list(factors)
    for version, factor in factors.items():
        assert np.array_equal(ask(client, model, x, version=version), x * np.float32(factor))
    newest = list(factors.values())[-1]
    assert np.array_equal(ask(client, model, x), x * np.float32(newest))


def test_a_version_that_the_policy_leaves_out_is_not_there(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as refused:
        ask(client, "classifier", rows(1), version="2")
    assert refused.value.status() == "StatusCode.NOT_FOUND"


def test_classes_have_their_labels(client: triton.InferenceServerClient) -> None:
    best = ask(client, "classifier", np.array([[1, 4, 2, 3]], "f4"), version="1", classes=2)
    assert best.tolist() == [[b"4.000000:1:east", b"3.000000:3:west"]]


def test_the_configuration_is_told_as_it_was_written_and_completed(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("classifier").config
    assert (config.platform, config.backend, config.default_model_filename) == (
        "onnxruntime_onnx",
        "onnxruntime",
        "net.onnx",
    )
    assert config.max_batch_size == 16
    assert [(one.name, list(one.dims)) for one in config.input] == [("x", [4])]
    assert config.output[0].label_filename == "labels.txt"
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.instance_group[0].name == "on the cards"
    assert config.parameters["gpu_mem_limit"].string_value == "4294967200"
    metadata = client.get_model_metadata("classifier")
    assert list(metadata.inputs[0].shape) == [-1, 4]

    bare = client.get_model_config("bare").config
    assert [(one.name, list(one.dims)) for one in (*bare.input, *bare.output)] == [("ids", [-1]), ("out", [-1])]
    assert bare.version_policy.latest.num_versions == 1


def test_strings_without_a_batch_come_back(client: triton.InferenceServerClient) -> None:
    words = np.array([["a", "", "é"], ["b", "c d", "e"]], object)
    found = ask(client, "strict", words)
    assert [word.decode() for word in found.ravel()] == words.ravel().tolist()


def test_requests_of_clients_share_runs_and_the_warm_up_counts_for_none(
    served: Server, client: triton.InferenceServerClient
) -> None:
    before = counted(served, "classifier")
    for seed in range(3):
        ask(client, "classifier", rows(seed, 4))
    after = counted(served, "classifier").since(before)
    assert (after.rows, after.batches) == (12, 3)


def test_whatever_this_machine_lacks_is_named_once_for_each_version(served: Server) -> None:
    warned: dict[tuple[str, int], list[str]] = {}
    for record in served.log():
        if record["level"] == "warning":
            warned.setdefault((record["model"], record["version"]), []).append(record["message"])
    assert {key: set(messages) for key, messages in warned.items()} == {
        ("classifier", 1): WARNINGS,
        ("classifier", 3): WARNINGS,
    }
    assert all(len(messages) == len(WARNINGS) for messages in warned.values())
