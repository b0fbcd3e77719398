"""A real ``inferd serve`` process over a model repository, with its log as records."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"
POLL_S = 0.02


class ServedRepository:
    """A server in a process of its own, loading from the moment it is made.

    The log goes to a file beside the repository: a pipe that nobody empties would stop the server.
    """

    def __init__(self, repository: Path, *flags: str) -> None:
        self._log_path = repository.with_name(f"{repository.name}.log")
        command = [
            sys.executable, "-m", "inferd", "serve", str(repository), "--host", LOOPBACK, "--grpc-port", "0",
            "--http-port", "0", "--metrics-port", "0", "--log-format", "json", *flags,
        ]  # fmt: skip
        clean = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=clean)

    def wait_until_ready(self, timeout_s: float) -> str:
        """Wait for the end of loading and return host:port of the gRPC server.

        Raises TimeoutError, or RuntimeError with the log's end if the server gives up.
        """
        end_s = time.monotonic() + timeout_s
        while time.monotonic() < end_s:
            if self._process.poll() is not None:
                raise RuntimeError(f"exit code {self._process.returncode}: {self._log_path.read_text()[-2000:]}")
            for record in reversed(self.records()):
                if record["message"] == "ready":
                    return f"{LOOPBACK}:{record['ports']['gRPC']}"
            time.sleep(POLL_S)
        raise TimeoutError(f"not ready after {timeout_s} s: {self._log_path.read_text()[-2000:]}")

    def records(self) -> list[dict[str, Any]]:
        """Every complete line of the log so far. Raises ValueError for one that is not JSON."""
        *lines, _incomplete = self._log_path.read_text().split("\n")
        return [json.loads(line) for line in lines]

    def stop(self, timeout_s: float) -> int:
        """Ask it to end as Kubernetes does and return its exit code; kills it if that takes too long."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """End it now; nothing happens if it has ended."""
        self._process.kill()
        self._process.wait()
