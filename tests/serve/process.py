"""`inferd serve` as a process of its own, seen only from outside: ports, signals, output, exit code."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 40.0
POLL_S = 0.01
BUG = "This is a bug"

# A client that finds the server still starting tries again at once, and no proxy stands in between.
CHANNEL_OPTIONS = (
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 20),
    ("grpc.max_reconnect_backoff_ms", 100),
    ("grpc.max_receive_message_length", -1),
    # Or channels of one process share their connections, and closing one would close nothing.
    ("grpc.use_local_subchannel_pool", 1),
)


class Server:
    """One running server and the addresses it was told to use."""

    within: tuple[str, ...] = ()
    """A command that becomes the server's, whose words follow."""

    def __init__(
        self,
        path: Path,
        folder: Path,
        transport: str,
        flags: tuple[str, ...],
        env: dict[str, str],
        grpc_port: int | None = None,
    ) -> None:
        """Start it, on free ports if none is given, with output to files in `folder`; does not wait."""
        self.transport = transport
        self.grpc_port, self.http_port, self.metrics_port = free_ports(3)
        self.grpc_port = grpc_port or self.grpc_port
        self.address = f"127.0.0.1:{self.grpc_port}"
        self._stdout, self._stderr = folder / "stdout", folder / "stderr"
        with ExitStack() as files:
            self.process = subprocess.Popen(
                [
                    *self.within,
                    *command(path, transport),
                    f"--grpc-port={self.grpc_port}",
                    f"--http-port={self.http_port}",
                    f"--metrics-port={self.metrics_port}",
                    *flags,
                ],
                stdin=subprocess.DEVNULL,
                stdout=files.enter_context(self._stdout.open("wb")),
                stderr=files.enter_context(self._stderr.open("wb")),
                env=os.environ | env,
            )

    # --- what it says --------------------------------------------------------------------------------

    @property
    def stdout(self) -> str:
        return self._stdout.read_text()

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def log(self) -> list[dict[str, Any]]:
        """The records logged so far. A line that is no JSON fails the test."""
        # The last line may be half written.
        return [json.loads(line) for line in self.stderr.splitlines(keepends=True) if line.endswith("\n")]

    # --- asking it -----------------------------------------------------------------------------------

    def channel(self, *options: tuple[str, Any], compression: grpc.Compression | None = None) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.address, options=(*CHANNEL_OPTIONS, *options), compression=compression)

    @contextmanager
    def stub(self) -> Iterator[GRPCInferenceServiceStub]:
        """The generated stub on a connection of its own."""
        with self.channel() as channel:
            yield GRPCInferenceServiceStub(channel)

    def health(self, name: str = "readiness") -> str:
        """The status of a name, or the code of the error."""
        with self.channel() as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=name), timeout=5
                )
            except grpc.RpcError as error:
                return str(error.code().name)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))

    def http(self, path: str) -> tuple[int, Any]:
        """Status and JSON of a page of the HTTP port."""
        status, body = _get(f"http://127.0.0.1:{self.http_port}{path}")
        return status, json.loads(body)

    def metrics_text(self, accept: str = "*/*") -> str:
        """The metrics page."""
        return page(f"http://127.0.0.1:{self.metrics_port}/metrics", accept)

    # --- its life ------------------------------------------------------------------------------------

    def wait_until_ready(self) -> None:
        """Wait for the health service to say SERVING; fail at once if the process ends instead."""
        self._wait_for("SERVING")

    @contextmanager
    def while_ready(self) -> Iterator[None]:
        """From the moment it is ready to its clean stop, which is checked also if it never became ready."""
        try:
            self.wait_until_ready()
            yield
        finally:
            self.stop()

    def wait_until_listening(self) -> None:
        """Wait for the health service to answer anything."""
        self._wait_for("SERVING", "NOT_SERVING")

    def _wait_for(self, *wanted: str) -> None:
        end = time.monotonic() + START_TIMEOUT_S
        while (status := self.health()) not in wanted:
            code = self.process.poll()
            assert code is None, f"the server ended with {code} while it started:\n{self.stderr}"
            assert time.monotonic() < end, f"readiness is {status} after {START_TIMEOUT_S} s:\n{self.stderr}"
            time.sleep(POLL_S)

    def wait_for_ports(self) -> dict[str, int]:
        """Wait for the record that tells the ports, where they were left to the server."""
        end = time.monotonic() + START_TIMEOUT_S
        while not (told := [one["ports"] for one in self.log() if one["message"] == "ready"]):
            assert time.monotonic() < end, self.stderr
            time.sleep(POLL_S)
        ports: dict[str, int] = told[0]
        return ports

    def terminate(self) -> None:
        """Send SIGTERM; does not wait."""
        self.process.send_signal(signal.SIGTERM)

    def wait(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """Wait for the process to end and return its exit code."""
        return self.process.wait(timeout_s)

    def stop(self) -> None:
        """Stop it and check how it went: exit code 0, and nothing in the log that it calls a bug of its own."""
        if self.process.poll() is None:
            self.terminate()
        try:
            code = self.wait()
        finally:
            self.process.kill()
            self.process.wait()
        assert code == 0, f"exit code {code}:\n{self.stderr}"
        assert BUG not in self.stderr, self.stderr


def command(path: Path, transport: str) -> list[str]:
    """The command line that serves `path` on the loopback address, for machines to read."""
    return [
        sys.executable, "-m", "inferd", "serve", str(path),
        f"--transport={transport}", "--host=127.0.0.1", "--log-format=json",
    ]  # fmt: skip


def eventually(condition: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
    """Wait until something holds; fail if it does not come to."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not so after {timeout_s} s"
        time.sleep(POLL_S)


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; all different."""
    with ExitStack() as sockets:
        found = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in found]


def page(url: str, accept: str = "*/*") -> str:
    """The text of a page that is there."""
    status, body = _get(url, accept)
    assert status == 200
    return body.decode()


def _get(url: str, accept: str = "*/*") -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, headers={"accept": accept}), timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()
