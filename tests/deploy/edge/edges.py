"""Envoy and nginx with what deploy/ ships: only addresses, ports and the folders of files are put in."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import grpc
import psutil
import pytest
from serve.process import CHANNEL_OPTIONS, free_ports
from serve.proxies.front import LIMIT_S, PLACES, until

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .certificates import Certificates

SHIPPED = Path(__file__).resolve().parents[3] / "deploy"


class Edge:
    """One running proxy in front of some replicas and a canary."""

    binary: ClassVar[str]
    check: ClassVar[tuple[str, ...]]

    def __init__(self, folder: Path, certificates: Certificates, replicas: Sequence[int], canary: int) -> None:
        """Write its files and start it; does not wait. Skips the test if there is no such proxy here."""
        found = shutil.which(self.binary, path=os.pathsep.join(PLACES))
        if found is None:
            pytest.skip(f"{self.binary} is not installed")
        self.folder, self.certificates = folder, certificates
        self.port, self.second_port = free_ports(2)
        self.command = [found, *self.write(list(replicas), canary)]
        self._output = folder / "output"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                self.command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )

    def write(self, replicas: list[int], canary: int) -> list[str]:
        """Write the configuration; the arguments that name it."""
        raise NotImplementedError

    @property
    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def channel(self, credentials: grpc.ChannelCredentials | None = None) -> grpc.Channel:
        """A connection of its own, as a client whose certificate is good unless other credentials are given."""
        return grpc.secure_channel(
            f"localhost:{self.port}", credentials or self.certificates.client(), options=CHANNEL_OPTIONS
        )

    @contextmanager
    def stub(self) -> Iterator[GRPCInferenceServiceStub]:
        """The generated stub on a connection of its own."""
        with self.channel() as channel:
            yield GRPCInferenceServiceStub(channel)

    def verdict(self) -> subprocess.CompletedProcess[str]:
        """What the program itself says about its configuration."""
        return subprocess.run(
            [*self.command, *self.check], cwd=self.folder, capture_output=True, text=True, timeout=LIMIT_S, check=False
        )

    def wait_until_ready(self) -> None:
        """Wait until a call would find a replica; fail at once if the process ends instead."""

        def ready() -> bool:
            assert self.process.poll() is None, f"{self.binary} did not start:\n{self.output}"
            return self.is_ready()

        until(ready, f"the start of {self.binary}")

    def is_ready(self) -> bool:
        raise NotImplementedError

    def send_to_canary(self, percent: int) -> None:
        """From now on so many of 100 calls go there."""
        raise NotImplementedError

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()


class Envoy(Edge):
    """Envoy, and its admin port."""

    binary = "envoy"
    check = ("--mode", "validate")

    def write(self, replicas: list[int], canary: int) -> list[str]:
        self.admin_port, self.metrics_port = free_ports(2)
        self.replicas, self.canary = replicas, canary
        for name in ("tls-server.yaml", "tls-clients.yaml", "envoy.yaml"):
            text = (SHIPPED / "envoy" / name).read_text().replace("/etc/envoy/tls/", f"{self.certificates.folder}/")
            text = text.replace("path: /etc/envoy/tls }", f"path: {self.certificates.folder} }}")
            (self.folder / name).write_text(text.replace("/etc/envoy/", f"{self.folder}/"))
        config = self.folder / "envoy.yaml"
        text = config.read_text().replace("address: 0.0.0.0,", "address: 127.0.0.1,")
        for old, new in ((8443, self.port), (9901, self.admin_port), (9902, self.metrics_port)):
            text = text.replace(f"port_value: {old} ", f"port_value: {new} ")
        text = endpoints(endpoints(text, "inferd", replicas), "inferd-canary", [canary])
        # Everything else stands as it is, but tests shall not wait seconds for a health check.
        text = text.replace("interval: 2s", "interval: 0.2s")
        config.write_text(text)
        return ["--disable-hot-restart", "--concurrency", "2", "--log-level", "warning", "-c", str(config)]

    def is_ready(self) -> bool:
        try:
            return {*self.replicas, self.canary} <= self.healthy("inferd") | self.healthy("inferd-canary")
        except OSError:
            return False

    def send_to_canary(self, percent: int) -> None:
        self.set_runtime(**{"inferd.weight.inferd": 100 - percent, "inferd.weight.inferd-canary": percent})

    def set_runtime(self, **values: int) -> None:
        self.admin("/runtime_modify?" + "&".join(f"{key}={value}" for key, value in values.items()), "POST")

    def healthy(self, cluster: str) -> set[int]:
        """The ports of the replicas that get calls."""
        statuses = json.loads(self.admin("/clusters?format=json"))["cluster_statuses"]
        return {
            int(host["address"]["socket_address"]["port_value"])
            for one in statuses
            if one["name"] == cluster
            for host in one.get("host_statuses", ())
            if not host["health_status"].get("failed_active_health_check")
            and not host["health_status"].get("failed_outlier_check")
        }

    def count(self, name: str) -> int:
        """A number that it keeps, 0 while there is none."""
        stats = json.loads(self.admin(f"/stats?format=json&filter=^{name}$"))["stats"]
        return sum(int(one["value"]) for one in stats)

    def admin(self, path: str, method: str = "GET", port: int | None = None) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        url = urllib.request.Request(f"http://127.0.0.1:{port or self.admin_port}{path}", method=method)
        with opener.open(url, timeout=LIMIT_S) as answer:
            return str(answer.read().decode())


class Nginx(Edge):
    """nginx, and how it is told something new."""

    binary = "nginx"
    check = ("-t",)

    def write(self, replicas: list[int], canary: int) -> list[str]:
        self.canary = canary
        text = (SHIPPED / "nginx" / "nginx.conf").read_text()
        text = text.replace("/tmp/", f"{self.folder}/").replace("/etc/nginx/tls/", f"{self.certificates.folder}/")
        text = text.replace("/etc/nginx/", f"{self.folder}/").replace("worker_processes auto", "worker_processes 2")
        text = text.replace("listen 8443", f"listen 127.0.0.1:{self.port}").replace(":8081", f":{self.second_port}")
        [line] = [line for line in text.splitlines() if "server inferd:8001" in line]
        text = text.replace(line, "\n".join(line.replace("inferd:8001", f"127.0.0.1:{port}") for port in replicas))
        config = self.folder / "nginx.conf"
        config.write_text(text)
        self._write_pool("pool.conf")
        return ["-p", str(self.folder), "-e", "stderr", "-c", str(config)]

    def _write_pool(self, shipped: str, percent: int = 5) -> None:
        text = (SHIPPED / "nginx" / shipped).read_text().replace("inferd-canary:8001", f"127.0.0.1:{self.canary}")
        # With 100 % nginx wants nothing left for `*`.
        text = (
            text.replace("5%", f"{percent}%")
            if percent < 100
            else text.replace("5%", "*").replace("    * inferd;\n", "")
        )
        (self.folder / "pool.conf").write_text(text)

    def is_ready(self) -> bool:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.second_port}/alive", timeout=LIMIT_S) as answer:
                return bool(answer.status == 204)
        except OSError:
            return False

    def send_to_canary(self, percent: int) -> None:
        self._write_pool("pool-canary.conf" if percent else "pool.conf", percent)
        old = self._workers()
        self.process.send_signal(signal.SIGHUP)
        until(lambda: bool(self._workers()) and not self._workers() & old, "a reload")

    def _workers(self) -> set[int]:
        return {worker.pid for worker in psutil.Process(self.process.pid).children()}


EDGES: dict[str, type[Edge]] = {"envoy": Envoy, "nginx": Nginx}


def endpoints(text: str, name: str, ports: list[int]) -> str:
    """The addresses of a cluster of Envoy instead of its name."""
    [line] = [line for line in text.splitlines() if f"address: {name}, port_value: 8001" in line]
    lines = [
        line.replace(f"address: {name}, port_value: 8001", f"address: 127.0.0.1, port_value: {port}") for port in ports
    ]
    return text.replace(line, "\n".join(lines))


def answer_of(call: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ended."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), str(error.details())
    return grpc.StatusCode.OK, ""
