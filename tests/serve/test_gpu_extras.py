"""The wheels that the extras for GPUs name, in an environment of their own: they install, import, and serve on CPUs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx
import onnx_models
import pytest

from inferd.repository.parameters import CUDA_OPTIONS
from inferd.repository.tensorrt import PRECISIONS, TENSORRT_OPTIONS

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Gigabytes in all, and only from an index.
pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module", params=["cuda12", "cuda11"])
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with inferd's dependencies and those of the extra; ONNX Runtime is the extra's alone."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    wanted = [one for one in PROJECT["dependencies"] if not one.startswith("onnxruntime")]
    wanted += PROJECT["optional-dependencies"][request.param]
    wanted += ["hypothesis", "onnx", "pytest", "pytest-timeout", "pytest-xdist"]
    made = folder / "bin" / "python"
    subprocess.run([made, "-m", "pip", "install", "-q", *wanted], check=True)
    return made


def serve(python: Path, tmp_path: Path, *flags: str) -> tuple[int, str]:
    """The exit code and all output of a server that is asked to end when it is ready."""
    model = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), model)
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics")]
    server = subprocess.Popen(
        [python, "-m", "inferd", "serve", model, "--host", "127.0.0.1", *ports, *flags],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert server.stdout is not None
    lines = []
    try:
        for line in server.stdout:
            lines.append(line)
            if line.startswith("ready:"):
                server.send_signal(signal.SIGTERM)
        return server.wait(60), "".join(lines)
    finally:
        server.kill()
        server.stdout.close()


def test_the_pair_imports_and_is_for_gpus(python: Path) -> None:
    said = "import cupy, onnxruntime; print('CUDAExecutionProvider' in onnxruntime.get_available_providers())"
    assert subprocess.run([python, "-c", said], capture_output=True, text=True, check=True).stdout == "True\n"


def test_batches_run_with_that_onnx_runtime(python: Path) -> None:
    """On its CPU provider, as it is and under the code for GPUs over the recording."""
    tests = [ROOT / "tests" / "unit" / name for name in ("test_device_contract.py", "test_external_data.py")]
    ended = subprocess.run(
        [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout


def test_the_providers_know_every_option_that_models_may_give_them(python: Path) -> None:
    """Each refuses names that it does not know; here they are looked for in the wheel's own libraries."""
    (capi,) = python.parent.parent.glob("lib/python3*/site-packages/onnxruntime/capi")
    ours = {"device_id", "user_compute_stream"}
    tensorrt = {one.key for one in TENSORRT_OPTIONS.values()} - {"precision_mode"} | set(PRECISIONS.values()) - {""}
    unknown = set()
    for library, keys in (("tensorrt", tensorrt | ours), ("cuda", set(CUDA_OPTIONS) | ours)):
        held = (capi / f"libonnxruntime_providers_{library}.so").read_bytes()
        unknown |= {key for key in keys if key.encode() + b"\0" not in held}
    # 1.18, the last for CUDA 11, is older than two of them.
    assert unknown <= {"trt_bf16_enable", "fuse_conv_bias"}
    assert not unknown or not (capi / "build_and_package_info.py").exists()


def test_without_tensorrts_libraries_a_model_that_wants_it_fails_and_says_so(python: Path, tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(onnx_models.scale(), model)
    script = (
        "import sys; from pathlib import Path\n"
        "from recording_cuda import RecordingCuda\n"
        "from inferd.device import CudaDevice\n"
        "from inferd.session import Session, SessionOptions\n"
        "asked = SessionOptions(tensorrt={'trt_fp16_enable': 'True'})\n"
        "Session(Path(sys.argv[1]), asked, CudaDevice(RecordingCuda()))\n"
    )
    path = f"{ROOT}:{ROOT / 'tests'}"
    ended = subprocess.run(
        [python, "-c", script, model], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    assert "ModelFailed" in ended.stderr
    assert "ONNX Runtime has no TensorrtExecutionProvider" in ended.stderr


def test_without_a_driver_it_serves_on_the_cpu_and_says_so(python: Path, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is an NVIDIA driver here")
    code, said = serve(python, tmp_path)
    assert code == 0, said
    assert "no GPU is used, models run on the CPU: there is no NVIDIA driver" in said
    assert "ready: 1 model version(s)" in said


def test_asked_for_cuda_it_refuses_to_start(python: Path, tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("there is an NVIDIA driver here")
    code, said = serve(python, tmp_path, "--device-kind", "cuda")
    assert code == 2, said
    assert "device.kind is cuda, and no GPU can be used: there is no NVIDIA driver" in said
