"""MLServer: an `MLModel` of its own with numpy codecs, in one process.

Given to it: no worker processes (a hop that costs more than it brings on few cores), no access log (`debug` off), no
metrics; heavy models run on a thread, so that its loop stays free, tiny ones on the loop, which is cheaper; ONNX
Runtime threads that do not spin, which doubles what it does with a heavy model where cores are few. Adaptive batching
is off, as it is by default: joining and splitting requests costs it more than it saves. With batches of up to 64 rows
that wait for at most 1 ms it answered a quarter fewer requests of the tiny model, at three times the latency alone.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bench.peers.peer import INSIDE, versions, virtual_environment
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared


class MLServer:
    """The server in a virtual environment of its own."""

    name = "mlserver"
    kind: Kind = "peer"
    grpc = True

    def __init__(self) -> None:
        self._python = Path()

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """Install it."""
        requirements = ("mlserver==1.7.1", f"onnxruntime=={metadata.version('onnxruntime')}")
        self._python = virtual_environment(builds / "venvs" / self.name, requirements)
        return versions(self._python, ("mlserver", "onnxruntime", "grpcio"))

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Serve a folder with the model's settings and runtime."""
        settings = {
            "host": "127.0.0.1",
            "grpc_port": port,
            "http_port": 0,
            "metrics_endpoint": None,
            "parallel_workers": 0,
            "debug": False,
        }
        model = {
            "name": work.name,
            "implementation": "mlserver_runtime.OnnxModel",
            "parameters": {"uri": str(work.model), "extra": {"threads": work.threads}},
        }
        (folder / "settings.json").write_text(json.dumps(settings))
        (folder / "model-settings.json").write_text(json.dumps(model))
        shutil.copy(INSIDE / "mlserver_runtime.py", folder)
        return Start((self._python.parent / "mlserver", "start", "."), {"PYTHONPATH": str(folder)}, folder)
