"""KServe's Python SDK: a `Model` of its own, as its documentation shows, one worker process.

It has no batching of its own (KServe's batcher is another container). Given to it: uvloop, which it brings; answers
as binary data; log level WARNING, since by default it logs every request; heavy models run on threads, so that its
loop stays free, tiny ones on the loop, which is cheaper; ONNX Runtime threads that do not spin, which doubles what it
does with a heavy model where cores are few.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bench.peers.peer import INSIDE, versions, virtual_environment
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared


class KServe:
    """The SDK in a virtual environment of its own."""

    name = "kserve"
    kind: Kind = "peer"
    grpc = True

    def __init__(self) -> None:
        self._python = Path()

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """Install it."""
        requirements = ("kserve==0.21.0", f"onnxruntime=={metadata.version('onnxruntime')}")
        self._python = virtual_environment(builds / "venvs" / self.name, requirements)
        return versions(self._python, ("kserve", "onnxruntime", "grpcio"))

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Serve the model file."""
        # It names no host: the gRPC port is open on all addresses while the server runs.
        flags = ("--http_port=0", f"--grpc_port={port}", "--workers=1", "--enable_latency_logging=false")
        model = (f"--model={work.model}", f"--served={work.name}", f"--threads={work.threads}")
        return Start((self._python, INSIDE / "kserve_server.py", *flags, *model))
