"""Which devices are found, what is said of those that cannot be used, and where models are put."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_models
import pytest
from recording_cuda import CUDARuntimeError, RecordingDevice

from inferd.config import Settings
from inferd.device import Devices, RuntimeBuild, open_devices
from inferd.errors import ModelFailed, StartError
from inferd.loading import Loaded, load
from inferd.proto.model_config_pb2 import ModelInstanceGroup
from inferd.repository import Reader
from inferd.rpc.model_config import describe

FOR_12 = RuntimeBuild("1.26.0", ("CUDAExecutionProvider", "CPUExecutionProvider"), "12.8")
FOR_CPU = RuntimeBuild("1.32.0", ("CPUExecutionProvider",), "")


def cupy(driver: int = 12040, built: int = 12090, gpus: int = 2, status: int = 0) -> Any:
    """What of CuPy is asked before anything is used."""

    def count() -> int:
        if status:
            raise CUDARuntimeError(status)
        return gpus

    runtime = SimpleNamespace(driverGetVersion=lambda: driver, getDeviceCount=count)
    cuda = SimpleNamespace(runtime=runtime, driver=SimpleNamespace(get_build_version=lambda: built))
    return SimpleNamespace(cuda=cuda, __version__="14.2.0")


def nothing_installed() -> Any:
    raise ModuleNotFoundError("No module named 'cupy'")


def test_a_pair_that_fits_gives_every_gpu() -> None:
    found = open_devices("auto", FOR_12, cupy)
    assert [gpu.number for gpu in found.gpus] == [0, 1]
    assert not found.notice


def test_nothing_installed_for_gpus_is_no_news() -> None:
    found = open_devices("auto", FOR_CPU, nothing_installed)
    assert (found.gpus, found.notice) == ((), "")


def test_cpu_does_not_even_look() -> None:
    assert not open_devices("cpu", FOR_12, lambda: pytest.fail("looked")).gpus


UNFIT = {
    "no CuPy": (FOR_12, nothing_installed, "CuPy is not installed"),
    "CPU build": (FOR_CPU, cupy, "this ONNX Runtime 1.32.0 is the build for CPUs"),
    "other CUDA": (
        RuntimeBuild("1.31.1", FOR_12.providers, "13.0"),
        cupy,
        "is for CUDA 12 and ONNX Runtime .* CUDA 13",
    ),
    "no driver": (FOR_12, lambda: cupy(driver=0), "there is no NVIDIA driver"),
    "old driver": (FOR_12, lambda: cupy(driver=11040), "the NVIDIA driver is for CUDA 11 at most"),
    "driver refuses": (FOR_12, lambda: cupy(status=35), "the NVIDIA driver is missing or too old for CUDA 12"),
    "does not start": (FOR_12, lambda: cupy(status=999), "CUDA does not start: CUDARuntimeError"),
    "no GPU": (FOR_12, lambda: cupy(gpus=0), "the NVIDIA driver sees no GPU"),
}


@pytest.mark.parametrize(("build", "module", "said"), UNFIT.values(), ids=UNFIT.keys())
def test_what_does_not_fit_is_said_and_with_cuda_ends_the_start(build: RuntimeBuild, module: Any, said: str) -> None:
    with pytest.raises(StartError, match=said):
        open_devices("cuda", build, module)
    found = open_devices("auto", build, module)
    assert not found.gpus
    assert found.notice == f"no GPU is used, models run on the CPU: {found.missing}"


def placed(tmp_path: Path, config: str) -> Loaded:
    onnx_models.write(tmp_path, "m", onnx_models.scale(), config=config)
    directory = Reader(tmp_path).scan().models[0]
    gpus = (RecordingDevice(), RecordingDevice(device_id=1))
    return load(directory.decl, directory.versions[0], Settings(), 1, Devices(gpus=gpus))


def where(made: Loaded) -> list[object]:
    return [slot.session.device.arenas()[-1] for slot in made.slots]


PLACES = {
    "": ["gpu:0", "gpu:0", "gpu:1", "gpu:1"],
    "instance_group { kind: KIND_GPU gpus: [ 1 ] }": ["gpu:1", "gpu:1"],
    "instance_group { kind: KIND_GPU count: 3 gpus: [ 0 ] }": ["gpu:0"] * 3,
    "instance_group { kind: KIND_CPU count: 2 }": ["cpu:0"] * 2,
    "instance_group [ { kind: KIND_CPU }, { kind: KIND_GPU gpus: [ 0 ] } ]": ["cpu:0", "gpu:0", "gpu:0"],
}


@pytest.mark.parametrize(("config", "slots"), PLACES.items())
def test_instance_groups_say_where_and_a_gpu_has_two_slots(tmp_path: Path, config: str, slots: list[str]) -> None:
    made = placed(tmp_path, config)
    assert where(made) == slots
    assert made.runs_inline == all(slot == "cpu:0" for slot in slots)
    made.close()
    for session in made.sessions:
        assert getattr(getattr(session.device, "cuda", None), "faults", []) == []


def test_a_gpu_that_is_not_there_fails_the_model(tmp_path: Path) -> None:
    with pytest.raises(ModelFailed, match="instance_group names GPU 3; there are 0, 1"):
        placed(tmp_path, "instance_group { kind: KIND_GPU gpus: [ 3 ] }")


def test_the_completed_config_names_the_gpus(tmp_path: Path) -> None:
    made = placed(tmp_path, "")
    config = describe(made)
    assert [(group.kind, group.count, list(group.gpus)) for group in config.instance_group] == [
        (ModelInstanceGroup.KIND_GPU, 2, [0]),
        (ModelInstanceGroup.KIND_GPU, 2, [1]),
    ]
    made.close()
