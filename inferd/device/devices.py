"""Which devices this process has: the CPU always, GPUs where everything that they need is there and fits together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from inferd.device.cpu import CpuDevice
from inferd.device.cuda import CudaDevice, import_cupy
from inferd.errors import StartError

CUDA_PROVIDER = "CUDAExecutionProvider"
NO_DRIVER = 35  # cudaErrorInsufficientDriver: too old, or none


@dataclass(frozen=True, slots=True)
class RuntimeBuild:
    """What must fit the devices of the ONNX Runtime that is installed."""

    version: str
    providers: Sequence[str]
    cuda: str
    """The version of CUDA it was built for, such as "12.8"; empty where it does not say."""


@dataclass(frozen=True, slots=True)
class Devices:
    """All of them, and what an operator should hear about those that cannot be used."""

    cpu: CpuDevice = field(default_factory=CpuDevice)
    gpus: tuple[CudaDevice, ...] = ()
    notice: str = ""
    missing: str = ""
    """Why there are no GPUs, where somebody needs one."""

    def gpu(self, number: int) -> CudaDevice | None:
        """The GPU of that number, if there is one."""
        return next((one for one in self.gpus if one.number == number), None)

    def context_lost(self) -> str | None:
        """Why only another process can use a GPU again; None while all may be used."""
        return next((one.lost_reason for one in self.gpus if one.context_lost), None)


def open_devices(
    kind: Literal["auto", "cpu", "cuda"],
    build: RuntimeBuild,
    cupy: Callable[[], Any] = import_cupy,
) -> Devices:
    """Look for what `kind` allows.

    With "cuda", StartError says what is missing. With "auto" the CPU is used instead, and where something was
    installed for GPUs the notice says why it is of no use.
    """
    if kind == "cpu":
        return Devices(missing="device.kind is cpu")
    for_gpus = CUDA_PROVIDER in build.providers
    try:
        module = cupy()
    except Exception as failure:  # what a broken installation raises is its own choice
        reason = "CuPy is not installed" if isinstance(failure, ModuleNotFoundError) else f"CuPy: {_line(failure)}"
        silent = not for_gpus and isinstance(failure, ModuleNotFoundError)
        return _without(kind, f"{reason}; install inferd[cuda12] or inferd[cuda11] as docs/gpu.md says", silent)
    found = _mismatch(module, build)
    if found is not None:
        return _without(kind, found, silent=False)
    count = module.cuda.runtime.getDeviceCount()
    return Devices(gpus=tuple(CudaDevice(module.cuda, number) for number in range(count)))


def _without(kind: str, reason: str, silent: bool) -> Devices:
    if kind == "cuda":
        raise StartError(f"device.kind is cuda, and no GPU can be used: {reason}; device.kind auto would use the CPU")
    return Devices(notice="" if silent else f"no GPU is used, models run on the CPU: {reason}", missing=reason)


def _mismatch(module: Any, build: RuntimeBuild) -> str | None:
    """What does not fit of the pair of CuPy and ONNX Runtime, the driver and the hardware; None if all does."""
    if CUDA_PROVIDER not in build.providers:
        return (
            f"CuPy {module.__version__} is installed, but this ONNX Runtime {build.version} is the build for CPUs; "
            "if onnxruntime-gpu is installed too, uninstall both and install that one alone"
        )
    for_cupy = module.cuda.driver.get_build_version() // 1000
    for_runtime = int(build.cuda.split(".")[0]) if build.cuda else for_cupy
    if for_cupy != for_runtime:
        return (
            f"CuPy {module.__version__} is for CUDA {for_cupy} and ONNX Runtime {build.version} for CUDA "
            f"{for_runtime}; install a pair for one of them, as inferd[cuda12] and inferd[cuda11] name it"
        )
    try:
        driver = module.cuda.runtime.driverGetVersion()
        if not driver:
            return "there is no NVIDIA driver; in a container, start it with GPUs (such as --gpus all)"
        if driver // 1000 < for_cupy:
            return f"the NVIDIA driver is for CUDA {driver // 1000} at most, and CuPy and ONNX Runtime for {for_cupy}"
        if not module.cuda.runtime.getDeviceCount():
            return "the NVIDIA driver sees no GPU"
    except Exception as failure:
        if getattr(failure, "status", None) == NO_DRIVER:
            return f"the NVIDIA driver is missing or too old for CUDA {for_cupy}"
        return f"CUDA does not start: {_line(failure)}"
    return None


def _line(failure: BaseException) -> str:
    return " ".join(f"{type(failure).__name__}: {failure}".split())
