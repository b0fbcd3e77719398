"""grpc.aio without inference: what any Python server on grpcio pays. The same grpcio that inferd runs on, on uvloop."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from bench.peers.peer import INSIDE
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared


class GrpcAio:
    """A generic handler that parses nothing and answers the same bytes each time."""

    name = "grpc-aio"
    kind: Kind = "floor"
    grpc = True

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """It is there, since inferd needs it."""
        return {name: metadata.version(name) for name in ("grpcio", "uvloop")}

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Answer with what the real answer would be."""
        return Start((sys.executable, INSIDE / "grpc_aio_server.py", str(port), work.write_reply(folder / "reply")))
