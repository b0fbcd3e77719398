"""nghttpd: HTTP/2 itself in C, handing out a file of the answer's size. No gRPC server has less to do.

Given to it: no TLS, one worker as there is one load generator, windows of 1 MiB so that large requests need not wait.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from bench.peers.peer import Absent, run
from bench.processes import Start
from bench.result import Kind
from bench.works import Prepared
from inferd.bench.generator import MODEL_INFER


class Nghttpd:
    """nghttp2's own server."""

    name = "nghttpd"
    kind: Kind = "floor"
    grpc = False

    def __init__(self) -> None:
        self._program = ""

    def prepare(self, builds: Path) -> Mapping[str, str]:
        """Find it."""
        # Debian keeps it where the PATH of plain users does not lead.
        found = shutil.which("nghttpd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
        if found is None:
            raise Absent("nghttpd is not installed: apt-get install nghttp2-server")
        self._program = found
        return {"nghttp2": run(found, "--version").split("/")[-1].strip()}

    def start(self, work: Prepared, folder: Path, port: int) -> Start:
        """Hand out a message with its five bytes of prefix, at the path of the method."""
        file = folder / MODEL_INFER.lstrip("/")
        file.parent.mkdir()
        work.write_reply(file, framed=True)
        windows = ("--window-bits=20", "--connection-window-bits=20")
        return Start(
            (self._program, "--no-tls", "--address=127.0.0.1", f"--htdocs={folder}", "--workers=1", *windows, str(port))
        )
