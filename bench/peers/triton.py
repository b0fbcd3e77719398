"""Triton: the real server from the nvidia-pytriton wheel, which has no other backend than the Python one.

Its own ONNX Runtime backend is published in containers only, so here a Python backend of that name runs the session:
that costs Triton a hop to another process, and its table shows front end and backend apart. Given to it: dynamic
batching up to 64 rows, one session, as many ONNX Runtime threads as the work earns, which do not spin (with a heavy
model they would halve its throughput where cores are few), no metrics, no HTTP.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bench.peers.peer import INSIDE, Absent, run, versions, virtual_environment
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared

PYTRITON = "nvidia-pytriton==0.7.0"


class Triton:
    """The tritonserver of the wheel, with its backends in a folder of our own."""

    name = "triton"
    kind: Kind = "peer"
    grpc = True

    def __init__(self) -> None:
        self._site = self._backends = Path()

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """Install the wheel and lay out the backends."""
        # The stub of the Python backend is built for numpy 1; with numpy 2 all its answers are empty.
        requirements = (PYTRITON, "numpy<2", f"onnxruntime=={metadata.version('onnxruntime')}")
        python = virtual_environment(builds / "venvs" / self.name, requirements)
        self._site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
        stub = self._triton / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"
        if not stub.exists():
            raise Absent(f"{PYTRITON} has no backend for Python {sys.version_info.major}.{sys.version_info.minor}")
        self._backends = builds / "triton-backends"
        shutil.rmtree(self._backends, ignore_errors=True)
        shutil.copytree(self._triton / "backends" / "python", self._backends / "python")
        shutil.copy(stub, self._backends / "python")
        (self._backends / "onnxruntime").mkdir()
        shutil.copy(INSIDE / "triton_backend.py", self._backends / "onnxruntime" / "model.py")
        for program in (self._server, self._backends / "python" / stub.name):
            program.chmod(0o755)
        return versions(python, ("nvidia-pytriton", "onnxruntime", "numpy"))

    @property
    def _triton(self) -> Path:
        return self._site / "pytriton" / "tritonserver"

    @property
    def _server(self) -> Path:
        return self._triton / "bin" / "tritonserver"

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Serve the same repository that inferd is given."""
        library_folder, library = (sysconfig.get_config_var(name) for name in ("LIBDIR", "INSTSONAME"))
        if not (Path(library_folder) / library).exists():
            raise Absent(f"its Python backend needs {library}, and this Python was built without it")
        libraries = (self._site / "nvidia_pytriton.libs", library_folder)
        return Start(
            (
                *(self._server, f"--model-repository={work.write_repository(folder)}"),
                *(f"--backend-directory={self._backends}", "--allow-http=false", "--allow-metrics=false"),
                *("--grpc-address=127.0.0.1", f"--grpc-port={port}"),
            ),
            {
                "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
                "BENCH_SITE": str(self._site),
                "BENCH_THREADS": str(work.threads),
            },
            # Its two processes take a partner that holds a lock for ten seconds for dead, and end. Idle, both together
            # use a thousandth of a CPU.
            pausable=False,
        )
