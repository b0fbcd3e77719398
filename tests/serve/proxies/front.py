"""Envoy and nginx as processes of their own, with the configurations beside this file, in front of servers."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import psutil
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from ..process import CHANNEL_OPTIONS, POLL_S, free_ports

HERE = Path(__file__).parent
# Where the virtual environment has its commands, and where Debian has nginx, which is not on everybody's path.
PLACES = (os.path.dirname(sys.executable), os.environ.get("PATH", ""), "/usr/sbin")
LIMIT_S = 30.0

# The ports that the configurations name.
FRONT, ADMIN, REPLICAS = 8000, 9901, (8001, 8002)
NAMED_PORT = re.compile(r"(127\.0\.0\.1:|127\.0\.0\.1, port_value: )(\d+)")


def until(is_it: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + LIMIT_S
    while not is_it():
        assert time.monotonic() < end, f"{what} takes longer than {LIMIT_S} s"
        time.sleep(POLL_S)


class Front:
    """One running proxy. Its configuration is the file beside this one, with other ports and some `changes`."""

    binary: ClassVar[str]
    template: ClassVar[str]
    arguments: ClassVar[tuple[str, ...]]

    def __init__(self, replicas: Sequence[int], folder: Path, changes: Mapping[str, str]) -> None:
        """Start it; does not wait. Skips the test if there is no such proxy here."""
        found = shutil.which(self.binary, path=os.pathsep.join(PLACES))
        if found is None:
            pytest.skip(f"{self.binary} is not installed")
        self.port, self.admin_port = free_ports(2)
        self.address = f"127.0.0.1:{self.port}"
        ports = {FRONT: self.port, ADMIN: self.admin_port}
        ports |= dict(zip(REPLICAS, replicas, strict=False))
        self.config, self._output = folder / self.template, folder / "output"
        self.config.write_text(written((HERE / self.template).read_text(), ports, changes))
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [found, *self.arguments, "-c", str(self.config)],
                cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def channel(self, *options: tuple[str, Any], compression: grpc.Compression | None = None) -> grpc.Channel:
        """A connection of its own."""
        return grpc.insecure_channel(self.address, options=(*CHANNEL_OPTIONS, *options), compression=compression)

    @contextmanager
    def stub(self) -> Iterator[GRPCInferenceServiceStub]:
        """The generated stub on a connection of its own."""
        with self.channel() as channel:
            yield GRPCInferenceServiceStub(channel)

    def wait_until_listening(self) -> None:
        """Wait until it takes connections; fail at once if the process ends instead."""

        def listens() -> bool:
            assert self.process.poll() is None, f"{self.binary} did not start:\n{self.output}"
            with socket.socket() as trial:
                # From another address, or it might happen to connect to itself.
                trial.bind(("127.0.0.2", 0))
                return trial.connect_ex(("127.0.0.1", self.port)) == 0

        until(listens, f"the start of {self.binary}")

    def stop(self) -> None:
        """End it, with the calls that it still has."""
        self.process.terminate()
        try:
            self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()


class Envoy(Front):
    """Envoy, and what its admin pages say."""

    binary = "envoy"
    template = "envoy.yaml"
    # Hot restart shares memory between Envoys that follow each other; these have nothing to do with one another.
    arguments = ("--disable-hot-restart", "--concurrency", "2", "--log-level", "warning")

    def count(self, name: str) -> int:
        """A number that it keeps on the cluster, 0 while there is none."""
        stats = self._page(f"/stats?format=json&filter=^cluster\\.inferd\\.{name}$")["stats"]
        return sum(int(one["value"]) for one in stats)

    def healthy(self) -> set[int]:
        """The ports of the replicas that pass their health checks."""
        [cluster] = self._page("/clusters?format=json")["cluster_statuses"]
        return {
            int(host["address"]["socket_address"]["port_value"])
            for host in cluster["host_statuses"]
            if not host["health_status"].get("failed_active_health_check")
        }

    def _page(self, path: str) -> Any:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
            return json.load(answer)


class Nginx(Front):
    """nginx, and how it is told which replicas are down."""

    binary = "nginx"
    template = "nginx.conf"
    arguments = ("-p", ".", "-e", "stderr")

    def mark_down(self, *down: int) -> None:
        """Send no more calls to these ports, and some to all others; returns when no worker knows otherwise."""
        text = self.config.read_text().replace(" down;", ";")
        for port in down:
            text = re.sub(f"(server 127.0.0.1:{port} .*);", r"\1 down;", text)
        self.config.write_text(text)
        old = self._workers()
        self.process.send_signal(signal.SIGHUP)
        until(lambda: bool(self._workers()) and not self._workers() & old, "a reload")

    def _workers(self) -> set[int]:
        return {worker.pid for worker in psutil.Process(self.process.pid).children()}


FRONTS: dict[str, type[Front]] = {"envoy": Envoy, "nginx": Nginx}


def written(template: str, ports: Mapping[int, int], changes: Mapping[str, str]) -> str:
    """A configuration with other ports. A line for a replica that there is not is left out."""
    for old, new in changes.items():
        assert template.count(old) == 1, f"{old!r} is there {template.count(old)} times"
        template = template.replace(old, new)
    lines = []
    for line in template.splitlines():
        named = NAMED_PORT.search(line)
        port = ports.get(int(named[2])) if named else None
        if named is None:
            lines.append(line)
        elif port is not None:
            lines.append(line.replace(named[0], f"{named[1]}{port}"))
    return "\n".join(lines) + "\n"
