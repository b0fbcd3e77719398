"""TensorRT as config.pbtxt asks for it: the provider's options, the folders of its caches, and builds without it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import onnx
import onnx_models
import pytest
from recording_cuda import RecordingCuda, RecordingDevice, RecordingWorkspace

from inferd.config import Settings
from inferd.device import CudaDevice, Devices
from inferd.engines import with_folders
from inferd.errors import ModelFailed, RepositoryError
from inferd.loading import load
from inferd.repository import Reader, declare, parse
from inferd.repository.tensorrt import NOT_TAKEN, TENSORRT_OPTIONS
from inferd.session import Session, SessionOptions

SHAPES = "image:1x3x224x224,mask:1x128"


def text(**parameters: str) -> str:
    said = " ".join(f'parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items())
    return (
        'optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" '
        f"{said} }} }} }} instance_group {{ kind: KIND_GPU }}"
    )


def options(**parameters: str) -> Mapping[str, str] | None:
    decl = declare(parse(text(**parameters)), "m")
    assert decl.warnings == ()
    return decl.runtime.tensorrt_options


MAPPED = [
    ("precision_mode", "FP32", {}),
    ("precision_mode", "FP16", {"trt_fp16_enable": "True"}),
    ("precision_mode", "BF16", {"trt_bf16_enable": "True"}),
    ("precision_mode", "INT8", {"trt_int8_enable": "True"}),
    ("max_workspace_size_bytes", "1073741824", {"trt_max_workspace_size": "1073741824"}),
    ("int8_calibration_table_name", "ranges.flatbuffers", {"trt_int8_calibration_table_name": "ranges.flatbuffers"}),
    ("int8_use_native_calibration_table", "1", {"trt_int8_use_native_calibration_table": "True"}),
    ("trt_engine_cache_enable", "true", {"trt_engine_cache_enable": "True"}),
    ("trt_engine_cache_enable", "0", {"trt_engine_cache_enable": "False"}),
    ("trt_engine_cache_path", "mine/a", {"trt_engine_cache_path": "mine/a"}),
    ("trt_builder_optimization_level", "5", {"trt_builder_optimization_level": "5"}),
    ("trt_auxiliary_streams", "-1", {"trt_auxiliary_streams": "-1"}),
    ("trt_tactic_sources", "-CUDNN,+CUBLAS", {"trt_tactic_sources": "-CUDNN,+CUBLAS"}),
    ("trt_profile_opt_shapes", SHAPES, {"trt_profile_opt_shapes": SHAPES}),
]


@pytest.mark.parametrize(("name", "said", "told"), MAPPED, ids=[f"{one[0]} {one[1]}" for one in MAPPED])
def test_tritons_parameters_become_the_providers_options(name: str, said: str, told: dict[str, str]) -> None:
    assert options(**{name: said}) == told


def test_without_parameters_it_is_asked_for_all_the_same_and_without_it_not() -> None:
    assert options() == {}
    assert declare(parse("instance_group { kind: KIND_GPU }"), "m").runtime.tensorrt_options is None


def test_every_switch_is_spelled_as_the_binding_wants_it() -> None:
    for name, one in TENSORRT_OPTIONS.items():
        if one.values == "0 or 1":
            assert options(**{name: "1"}) == {one.key: "True"}
            assert options(**{name: "false"}) == {one.key: "False"}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("precision_mode", "fp16"),
        ("max_workspace_size_bytes", "1G"),
        ("int8_calibration_table_name", "../table"),
        ("trt_engine_cache_path", "../elsewhere"),
        ("trt_engine_cache_path", ""),
        ("trt_engine_cache_prefix", "a/b"),
        ("trt_builder_optimization_level", "6"),
        ("trt_profile_min_shapes", "1x3x224x224"),
        ("trt_min_subgraph_size", "-1"),
    ],
)
def test_a_value_is_held_to_what_it_may_say(name: str, said: str) -> None:
    with pytest.raises(RepositoryError, match=f"parameter '{name}' of execution accelerator 'tensorrt' must be "):
        options(**{name: said})


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_what_loads_code_or_writes_files_is_refused(name: str) -> None:
    with pytest.raises(RepositoryError, match=f"'{name}' of execution accelerator 'tensorrt' is not taken: "):
        options(**{name: "1"})


def test_an_unknown_parameter_is_named() -> None:
    assert declare(parse(text(trt_dla_core="0")), "m").warnings == (
        "config.pbtxt: parameter 'trt_dla_core' of execution accelerator 'tensorrt' is not acted on",
    )


def test_cuda_graphs_are_for_cuda_alone() -> None:
    graphs = 'gpu_execution_accelerator { name: "cuda" parameters { key: "enable_cuda_graph" value: "1" } }'
    both = text().replace("execution_accelerators {", f"execution_accelerators {{ {graphs}")
    with pytest.raises(RepositoryError, match="enable_cuda_graph is for models that CUDA runs as a whole"):
        declare(parse(both), "m")


# --- folders ---------------------------------------------------------------------------------------------------

CACHED = {"trt_engine_cache_enable": "True", "trt_timing_cache_enable": "True"}


def test_caches_have_a_folder_of_their_models_own_for_this_user_alone(tmp_path: Path) -> None:
    made, warnings = with_folders(CACHED, tmp_path, "m", 3)
    folder = tmp_path.resolve() / "tensorrt" / "m" / "3"
    assert made == {**CACHED, "trt_engine_cache_path": str(folder), "trt_timing_cache_path": str(folder)}
    assert warnings == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_may_be_named_below_ours(tmp_path: Path) -> None:
    for said in ("shared/engines", str(tmp_path / "shared" / "engines")):
        made, _ = with_folders({**CACHED, "trt_engine_cache_path": said}, tmp_path, "m", 1)
        assert made["trt_engine_cache_path"] == str(tmp_path.resolve() / "shared" / "engines")


def test_a_folder_elsewhere_is_refused_also_through_a_link(tmp_path: Path) -> None:
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    (ours / "link").symlink_to(other)
    for said in (str(other), "link", "link/deeper"):
        with pytest.raises(ModelFailed, match=r"give one below device\.cache_path"):
            with_folders({**CACHED, "trt_engine_cache_path": said}, ours, "m", 1)
    assert list(other.iterdir()) == []


def test_a_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    os.chmod(folder, 0o777)
    with pytest.raises(ModelFailed, match="others may write"):
        with_folders({**CACHED, "trt_engine_cache_path": "shared"}, tmp_path, "m", 1)


def test_a_folder_that_cannot_be_made_fails_the_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelFailed, match="cannot be made"):
        with_folders(CACHED, tmp_path / "file", "m", 1)


def test_without_a_folder_nothing_is_kept_and_a_warning_says_so() -> None:
    made, warnings = with_folders({"trt_engine_cache_enable": "True", "trt_engine_cache_path": "a"}, None, "m", 1)
    assert made == {"trt_engine_cache_enable": "False"}
    assert warnings == [
        "config.pbtxt: trt_engine_cache_enable is without effect: device.cache_path names no folder to keep it in"
    ]
    assert with_folders({"trt_engine_cache_path": "a"}, None, "m", 1) == ({}, [])


# --- what ONNX Runtime is told ---------------------------------------------------------------------------------


def test_a_model_on_a_gpu_has_tensorrt_before_cuda_on_the_same_stream(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config=text(trt_engine_cache_enable="1"))
    directory = Reader(tmp_path).scan().models[0]
    settings = Settings.model_validate({"device": {"cache_path": tmp_path / "cache"}})
    made = load(directory.decl, directory.versions[0], settings, 1, Devices(gpus=(RecordingDevice(),)))
    workspace = made.session._workspace
    assert isinstance(workspace, RecordingWorkspace)
    (first, tensorrt), (second, cuda), last = workspace.asked
    assert (first, second, last) == ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
    assert isinstance(tensorrt, dict)
    assert isinstance(cuda, dict)
    assert tensorrt["user_compute_stream"] == cuda["user_compute_stream"] == str(workspace.compute.ptr)
    assert tensorrt["trt_engine_cache_path"] == str((tmp_path / "cache/tensorrt/m/1").resolve())
    assert tensorrt["device_id"] == "0"
    made.close()


def test_a_build_without_it_fails_the_model_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), path)
    device = CudaDevice(RecordingCuda())
    with pytest.raises(ModelFailed, match=r"this build of ONNX Runtime, [\d.]+, is without TensorrtExecutionProvider"):
        Session(path, SessionOptions(tensorrt={}), device)


def test_on_a_cpu_it_is_without_effect_and_a_warning_says_so(tmp_path: Path) -> None:
    config = text(trt_engine_cache_enable="1").replace("KIND_GPU", "KIND_CPU")
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config=config)
    directory = Reader(tmp_path).scan().models[0]
    made = load(directory.decl, directory.versions[0], Settings(), 1, Devices())
    assert any("without effect: execution accelerator 'tensorrt'" in warning for warning in made.warnings)
    made.close()
