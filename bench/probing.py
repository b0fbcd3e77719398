"""A server under somebody's load, watched from the side: health, one polite caller, rows that wait, processor time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families

from bench.peers.inferd_server import Inferd
from bench.processes import Group, Meter, Start, free_port
from bench.works import Prepared
from inferd.bench.generator import MODEL_INFER, Generator, Traffic
from inferd.bench.result import Load
from inferd.bench.window import Window, window_of
from inferd.errors import StartError

START_TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 0.005
LEAD_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Served:
    """A ready server."""

    address: str
    metrics: str
    group: Group


@dataclass(slots=True)
class Prober:
    """Asks for health, for one answer at a time, and how many rows wait, from the side."""

    served: Served
    request: bytes
    health_s: list[float] = field(default_factory=list)
    polite_s: list[float] = field(default_factory=list)
    refused: int = 0
    most_rows: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def probing(self) -> Iterator[None]:
        """While the block runs."""
        threads = [threading.Thread(target=work) for work in (self._ask_health, self._ask_model, self._watch)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self._stop.clear()

    @property
    def asked(self) -> int:
        """Requests of the polite caller that have an end."""
        return len(self.polite_s) + self.refused

    def _ask_health(self) -> None:
        with grpc.insecure_channel(self.served.address) as channel:
            check = _check(channel)
            while not self._stop.wait(PAUSE_S):
                begun_s = time.monotonic()
                check(health_pb2.HealthCheckRequest(service="readiness"), timeout=30)
                self.health_s.append(time.monotonic() - begun_s)

    def _ask_model(self) -> None:
        # A connection of its own, which grpc would share with others of the process.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(self.served.address, options=options) as channel:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            while not self._stop.wait(PAUSE_S):
                begun_s = time.monotonic()
                try:
                    infer(self.request, timeout=30)
                except grpc.RpcError:
                    self.refused += 1
                else:
                    self.polite_s.append(time.monotonic() - begun_s)

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            self.most_rows = max(self.most_rows, int(total(self.served.metrics, "inferd_queue_rows")))


@dataclass(frozen=True, slots=True)
class Turn:
    """What became of a load for a while. Processor time in processors: 1.0 is one that does nothing else."""

    window: Window
    server_cpus: float
    load_cpus: float

    @property
    def ok(self) -> float:
        """Answers in a second."""
        return self.window.ok / self.window.seconds


def turn(served: Served, request: bytes, load: Load, seconds: float, timeout_ns: int = 0) -> Turn:
    """What becomes of a load, without its first second."""
    with Generator(Traffic(served.address, (request,), timeout_ns=timeout_ns), load, slice_ns=50_000_000) as generator:
        slices = generator.slices()
        window_of(slices, LEAD_S)
        meter = Meter(served.group)
        begun_ns, server_ns, own_ns = time.monotonic_ns(), sum(meter.read_ns().values()), time.process_time_ns()
        window = window_of(slices, seconds)
        took_ns = time.monotonic_ns() - begun_ns
        return Turn(
            window,
            (sum(meter.read_ns().values()) - server_ns) / took_ns,
            (time.process_time_ns() - own_ns) / took_ns,
        )


BURNER: Final = """
import sys, time
share, period_s = float(sys.argv[1]), 0.005
while True:
    begun_s = time.perf_counter()
    while time.perf_counter() < begun_s + share * period_s:
        pass
    time.sleep(max(begun_s + period_s - time.perf_counter(), 0))
"""


@contextmanager
def burning(cpus: float) -> Iterator[None]:
    """While the block runs, a process takes so many processors, at most one, as a load's sender would."""
    if cpus <= 0:
        yield
        return
    with subprocess.Popen([sys.executable, "-c", BURNER, str(min(cpus, 1.0))]) as burner:
        try:
            yield
        finally:
            burner.kill()


def scrape(url: str) -> list[tuple[str, dict[str, str], float]]:
    """The samples of a metrics page."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def total(url: str, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(value for found, _, value in scrape(url) if found == name)


def percentiles_ms(seconds: list[float]) -> list[float]:
    """p50 and p99."""
    return [float(np.percentile(seconds, share)) * 1e3 if seconds else float("inf") for share in (50, 99)]


@contextmanager
def serving(work: Prepared, transport: str, *flags: str) -> Iterator[Served]:
    """A ready server. Raises StartError if it does not get ready."""
    with tempfile.TemporaryDirectory() as name:
        folder, port, metrics_port = Path(name), free_port(), free_port()
        plain = Inferd(transport).start(work, folder, port)
        start = Start((*plain.command, f"--metrics-port={metrics_port}", *flags))
        with Group(start, folder / "log") as group:
            address = f"127.0.0.1:{port}"
            wait_until_ready(address, group)
            yield Served(address, f"http://127.0.0.1:{metrics_port}/metrics", group)


def wait_until_ready(address: str, group: Group) -> None:
    """Raises StartError if it does not get ready."""
    request = health_pb2.HealthCheckRequest(service="readiness")
    end_s = time.monotonic() + START_TIMEOUT_S
    with grpc.insecure_channel(address) as channel:
        check = _check(channel)
        while time.monotonic() < end_s and not group.ended():
            try:
                if check(request, timeout=5).status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                pass
            time.sleep(0.05)
    raise StartError(f"the server does not get ready: {group.ended() or group.said()}")


def _check(channel: grpc.Channel) -> Callable[..., Any]:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    check: Callable[..., Any] = stub.Check
    return check
