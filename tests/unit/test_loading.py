"""From a folder with a config.pbtxt to a loaded model: what ONNX Runtime is really given."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import onnxruntime as ort
import psutil
import pytest
from handmade import bound, message
from onnx import TensorProto, helper

from inferd._native.batch import alone
from inferd.config import Settings, Warmup
from inferd.config.device import DeviceSettings
from inferd.device import Devices
from inferd.errors import ModelFailed
from inferd.loading import Loaded, load
from inferd.repository import Reader

QUICKLY = Settings(warmup=Warmup(budget_ms=0))
MIB = 1 << 20
HIDDEN_MIB = 64


FALLING_BACK = Settings(warmup=Warmup(budget_ms=0), device=DeviceSettings(fallback="cpu"))


def loaded(
    tmp_path: Path, model: onnx.ModelProto, config: str = "", threads: int = 1, settings: Settings = QUICKLY
) -> Loaded:
    onnx_models.write(tmp_path, "m", model, config=config)
    found = Reader(tmp_path).scan()
    assert found.broken == ()
    (directory,) = found.models
    (version,) = directory.versions
    return load(directory.decl, version, settings, threads, Devices(missing="CuPy is not installed"))


def options(made: Loaded) -> ort.SessionOptions:
    """What the session says it was made with."""
    return made.session.ort.get_session_options()


def parameter(key: str, said: str) -> str:
    return f'parameters {{ key: "{key}" value {{ string_value: "{said}" }} }}'


def hidden_bulk() -> onnx.ModelProto:
    """y is x, and on the way there as many copies of it as `copies` says."""
    nodes = [
        helper.make_node("Expand", ["x", "copies"], ["bulk"]),
        helper.make_node("ReduceMax", ["bulk"], ["y"], keepdims=1),
    ]
    graph = helper.make_graph(
        nodes,
        "hidden_bulk",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1]),
            helper.make_tensor_value_info("copies", TensorProto.INT64, [1]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


# --- what a session gets ------------------------------------------------------------------------------


def test_a_file_that_says_nothing_gets_the_servers_choice(tmp_path: Path) -> None:
    made = options(loaded(tmp_path, onnx_models.scale(), threads=3))
    assert (made.intra_op_num_threads, made.inter_op_num_threads) == (3, 1)
    assert made.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert made.graph_optimization_level == ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    assert made.enable_cpu_mem_arena
    assert made.enable_mem_pattern
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.get_session_config_entry("session.inter_op.allow_spinning") == "0"


def test_parameters_reach_the_session(tmp_path: Path) -> None:
    said = {
        "intra_op_thread_count": "2",
        "inter_op_thread_count": "3",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "0",
        "inter_op.allow_spinning": "1",
        "session.use_device_allocator_for_initializers": "1",
        "session.disable_prepacking": "true",
    }
    config = " ".join(parameter(key, value) for key, value in said.items())
    made = options(loaded(tmp_path, onnx_models.scale(), config, threads=7))
    assert (made.intra_op_num_threads, made.inter_op_num_threads) == (2, 3)
    assert made.execution_mode == ort.ExecutionMode.ORT_PARALLEL
    assert not made.enable_cpu_mem_arena
    assert not made.enable_mem_pattern
    assert made.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert made.get_session_config_entry("session.inter_op.allow_spinning") == "1"
    assert made.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"
    assert made.get_session_config_entry("session.disable_prepacking") == "1"


@pytest.mark.parametrize(
    ("level", "name"),
    [(0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED"), (-1, "ORT_ENABLE_BASIC"), (2, "ORT_DISABLE_ALL")],
)
def test_the_graph_level_reaches_the_session(tmp_path: Path, level: int, name: str) -> None:
    made = options(loaded(tmp_path, onnx_models.scale(), f"optimization {{ graph {{ level: {level} }} }}"))
    assert made.graph_optimization_level == getattr(ort.GraphOptimizationLevel, name)


def test_so_many_threads_are_started_as_are_asked_for(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/task"))
    made = loaded(tmp_path, onnx_models.scale(), parameter("intra_op_thread_count", "5"))
    started = set(os.listdir("/proc/self/task")) - before  # threads of earlier sessions may end meanwhile
    assert len(started) == 4  # the caller is the fifth
    assert made.threads == 5


@pytest.mark.parametrize(("config", "keeps"), [("", True), ("cpu:0", False), ("cpu:0;gpu:0", False)])
def test_a_shrinking_arena_gives_back_what_a_run_took(tmp_path: Path, config: str, keeps: bool) -> None:
    said = parameter("memory.enable_memory_arena_shrinkage", config) if config else ""
    made = loaded(tmp_path, hidden_bulk(), "max_batch_size: 0 " + said)
    before = psutil.Process().memory_info().rss
    copies = np.int64(HIDDEN_MIB * MIB // 4).tobytes()
    request = bound(made.signature, message(("x", "FP32", [1], bytes(4)), ("copies", "INT64", [1], copies)))
    made.slots[0].run(alone(made.signature, request))
    kept = psutil.Process().memory_info().rss - before
    assert (kept > HIDDEN_MIB * MIB // 2) is keeps, f"{kept / MIB:.0f} MiB"


# --- what this machine lacks --------------------------------------------------------------------------


ON_GPUS = "instance_group { kind: KIND_GPU count: 2 gpus: [ 0, 1 ] }"


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        (ON_GPUS, "KIND_GPU with gpus 0, 1"),
        ("instance_group { kind: KIND_AUTO gpus: [ 1 ] }", "KIND_GPU with gpus 1"),
        ("instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU } ]", "KIND_GPU"),
    ],
)
def test_a_model_that_needs_a_gpu_fails_where_none_is_and_says_why(tmp_path: Path, config: str, asked: str) -> None:
    with pytest.raises(ModelFailed) as failed:
        loaded(tmp_path, onnx_models.scale(), config)
    assert str(failed.value) == (
        f"config.pbtxt: instance_group asks for {asked}, and no GPU can be used: CuPy is not installed; "
        "device.fallback cpu would run it on the CPU"
    )


@pytest.mark.parametrize("kind", ["KIND_AUTO", "KIND_CPU", "KIND_MODEL"])
def test_a_model_that_any_machine_can_run_needs_no_leave_to(tmp_path: Path, kind: str) -> None:
    assert not loaded(tmp_path, onnx_models.scale(), f"instance_group {{ kind: {kind} }}").fell_back


def test_a_gpu_that_is_asked_for_and_not_there_is_named_and_the_model_served_where_that_is_allowed(
    tmp_path: Path,
) -> None:
    made = loaded(tmp_path, onnx_models.scale(), ON_GPUS, settings=FALLING_BACK)
    assert made.fell_back
    assert made.warnings == (
        "config.pbtxt: instance_group asks for KIND_GPU with gpus 0, 1; no GPU is used here, the CPU runs it",
    )
    assert len(made.slots) == 2


def test_what_only_a_gpu_would_hear_is_named_in_one_line(tmp_path: Path) -> None:
    config = " ".join(
        parameter(key, said)
        for key, said in {
            "cudnn_conv_algo_search": "1",
            "gpu_mem_limit": "1000",
            "memory.enable_memory_arena_shrinkage": "gpu:0;cpu:0",
        }.items()
    )
    assert loaded(tmp_path, onnx_models.scale(), config).warnings == (
        "config.pbtxt: for CUDA, which is not used here, and so without effect: cudnn_conv_algo_search, "
        "gpu_mem_limit, memory.enable_memory_arena_shrinkage gpu:0",
    )


def test_kind_auto_goes_where_it_can_without_a_word(tmp_path: Path) -> None:
    assert loaded(tmp_path, onnx_models.scale(), "instance_group { kind: KIND_AUTO }").warnings == ()


# --- batching ------------------------------------------------------------------------------------------


def test_dynamic_batching_of_a_model_that_the_probe_rules_out_is_warned_of(tmp_path: Path) -> None:
    made = loaded(tmp_path, onnx_models.coupled(), "dynamic_batching { }")
    assert not made.signature.batched
    (warning,) = made.warnings
    assert warning.startswith("config.pbtxt: 'dynamic_batching' batches nothing: rows run together differ")
    assert warning.endswith("set max_batch_size if you know better")
