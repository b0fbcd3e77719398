"""A real Triton server on this machine, to be asked what it answers.

The server is that of the nvidia-pytriton wheel. The one backend in it runs Python, and Triton takes backends that are
written in Python: `backend.py` is the one named "onnxruntime", so it serves the same model repository as inferd.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
from serve.process import CHANNEL_OPTIONS, POLL_S, free_ports, page

from bench.processes import Group, Start
from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .installed import HERE, SITE, absent

# Each model is a process of its own that imports numpy and ONNX Runtime.
START_TIMEOUT_S = 90.0
TRITON = SITE / "pytriton" / "tritonserver"
SERVER = TRITON / "bin" / "tritonserver"
LIBRARIES = SITE / "nvidia_pytriton.libs"


class Oracle:
    """A running Triton."""

    def __init__(self, group: Group, port: int, metrics_port: int, log: Path) -> None:
        self._group, self._log = group, log
        self.address = f"127.0.0.1:{port}"
        self._metrics_port = metrics_port

    def channel(self) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    def metrics_text(self) -> str:
        """The metrics page."""
        return page(f"http://127.0.0.1:{self._metrics_port}/metrics")

    def wait_until_ready(self) -> None:
        """Wait until it serves; fail at once if it ends instead."""
        end = time.monotonic() + START_TIMEOUT_S
        with self.channel() as channel:
            ready = GRPCInferenceServiceStub(channel).ServerReady
            while True:
                try:
                    if ready(pb.ServerReadyRequest(), timeout=5).ready:
                        return
                except grpc.RpcError:
                    pass
                ended = self._group.ended()
                assert ended is None, f"Triton {ended}\n{self._log.read_text()}"
                assert time.monotonic() < end, f"Triton is not ready after {START_TIMEOUT_S} s\n{self._log.read_text()}"
                time.sleep(POLL_S)


@contextmanager
def oracle(repository: Path, folder: Path, *flags: str) -> Iterator[Oracle]:
    """A Triton that serves the repository, ready, until the end of the block. What it writes goes into `folder`."""
    backends = _lay_out(folder / "backends")
    port, metrics_port = free_ports(2)
    environment = {
        "LD_LIBRARY_PATH": f"{LIBRARIES}:{_python_library().parent}",
        "ORACLE_SITE": str(SITE),
        "ORACLE_REPOSITORY": str(repository),
    }
    command = (
        *(SERVER, f"--model-repository={repository}"),
        *(f"--backend-directory={backends}", "--allow-http=false"),
        *("--metrics-address=127.0.0.1", f"--metrics-port={metrics_port}", "--allow-gpu-metrics=false"),
        *("--grpc-address=127.0.0.1", f"--grpc-port={port}", *flags),
    )
    with Group(Start(command, environment), folder / "triton.log") as group:
        running = Oracle(group, port, metrics_port, folder / "triton.log")
        running.wait_until_ready()
        yield running


def flags() -> set[str]:
    """The names of all flags of tritonserver."""
    _stub()
    SERVER.chmod(0o755)
    done = subprocess.run(
        [SERVER, "--help"],
        env={"LD_LIBRARY_PATH": str(LIBRARIES)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return set(re.findall(r"^ +(--[a-z0-9-]+)", done.stdout + done.stderr, re.MULTILINE))


def _lay_out(backends: Path) -> Path:
    """The folder of the two backends: the one that runs Python, and ours."""
    shutil.copytree(TRITON / "backends" / "python", backends / "python")
    stub = shutil.copy(_stub(), backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(HERE / "backend.py", backends / "onnxruntime" / "model.py")
    # A wheel does not say which of its files are programs.
    for program in (Path(stub), SERVER):
        program.chmod(0o755)
    return backends


def _stub() -> Path:
    """What runs a model's Python, made for this version of it."""
    if not SITE.exists():
        absent("build/tools/triton is not there; `make tools` installs it")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = TRITON / "python_backend_stubs" / version / "triton_python_backend_stub"
    if not stub.exists() or not (SITE / "numpy").exists():
        absent(f"there is no Triton in a wheel for Python {version} on {platform.machine()} {platform.system()}")
    return stub


def _python_library() -> Path:
    folder, name = (sysconfig.get_config_var(key) for key in ("LIBDIR", "INSTSONAME"))
    library = Path(folder, name)
    if not library.exists():
        absent(f"the Python backend of Triton needs {library}, which this Python has not")
    return library
