"""C++ gRPC without inference: what any server on the C++ library pays. Its callback interface, its fastest one."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from bench.peers.peer import INSIDE, Absent, run
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared

SOURCE = INSIDE / "fixed_reply.cc"


class GrpcCpp:
    """A service that reads the message and answers the same bytes each time, compiled here."""

    name = "grpc-cpp"
    kind: Kind = "floor"
    grpc = True

    def __init__(self) -> None:
        self._program = Path()

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """Compile it against the library that the system has."""
        try:
            version = run("pkg-config", "--modversion", "grpc++").strip()
        except Absent as err:
            raise Absent(
                f"no C++ gRPC to compile against: apt-get install g++ pkg-config libgrpc++-dev ({err})"
            ) from err
        digest = hashlib.sha256(SOURCE.read_bytes() + version.encode()).hexdigest()[:12]
        self._program = builds / f"fixed-reply-{digest}"
        if not self._program.exists():
            flags = run("pkg-config", "--cflags", "--libs", "grpc++").split()
            run("g++", "-O2", "-std=c++17", SOURCE, "-o", self._program, *flags)
        return {"grpc++": version}

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Answer with what the real answer would be."""
        return Start((self._program, str(port), work.write_reply(folder / "reply")))
