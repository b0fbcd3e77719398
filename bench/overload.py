"""`python -m bench overload`: five times what the server can answer; what becomes of answers, refusals and health."""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypedDict

import click
import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client.parser import text_string_to_metric_families
from rich import box
from rich.console import Console
from rich.table import Table

from bench.peers.inferd_server import Inferd
from bench.processes import Group, Start, free_port
from bench.works import Prepared, prepare, works
from inferd.bench.generator import MODEL_INFER, Generator, Traffic
from inferd.bench.result import Load
from inferd.bench.window import Window, window_of
from inferd.errors import StartError

MODELS: Final = Path(__file__).resolve().parents[1] / "build" / "bench" / "models"
TIMES: Final = 5.0
START_TIMEOUT_S: Final = 60.0
PAUSE_S: Final = 0.005
GOODPUT, REFUSAL_MS, RECOVERY_S, HEALTH_MS = 0.9, 5.0, 2.0, 100.0


class Found(TypedDict):
    """One work. Times of a prober in Python, which has to share the processors with everybody."""

    work: str
    peak: float
    offered: float
    goodput: float
    refused: float
    refusal_ms: list[float]  # p50 and p99 as the server counts them: from a request's last byte to its refusal
    health_ms: list[float]  # p50 and p99
    calm_ms: float
    polite_ms: list[float]  # p50 and p99 of one caller that has a request at a time, no deadline
    polite_answered: float
    most_rows: int
    recovery_s: float


@dataclass(slots=True)
class Prober:
    """Asks for health, for one answer at a time, and how many rows wait, from the side."""

    address: str
    metrics: str
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

    def _ask_health(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
            check = _check(channel)
            while not self._stop.wait(PAUSE_S):
                begun_s = time.monotonic()
                check(health_pb2.HealthCheckRequest(service="readiness"), timeout=30)
                self.health_s.append(time.monotonic() - begun_s)

    def _ask_model(self) -> None:
        with grpc.insecure_channel(self.address) as channel:
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
            self.most_rows = max(self.most_rows, int(total(self.metrics, "inferd_queue_rows")))


def scrape(url: str) -> list[tuple[str, dict[str, str], float]]:
    """The samples of a metrics page."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=30) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return [(one.name, one.labels, one.value) for family in families for one in family.samples]


def total(url: str, name: str) -> float:
    """The sum of a metric's samples."""
    return sum(value for found, _, value in scrape(url) if found == name)


def refusals_ms(url: str) -> list[float]:
    """Upper bounds of the p50 and the p99 of how long refusals took, of the buckets that the server has."""
    buckets: dict[float, float] = {}
    for name, labels, value in scrape(url):
        if name == "inferd_request_duration_seconds_bucket" and labels.get("code") == "RESOURCE_EXHAUSTED":
            bound = float(labels["le"])
            buckets[bound] = buckets.get(bound, 0.0) + value
    count = max(buckets.values(), default=0.0)
    return [
        1e3 * next((bound for bound in sorted(buckets) if buckets[bound] >= share * count), 0.0)
        for share in (0.5, 0.99)
    ]


def percentiles_ms(seconds: list[float]) -> list[float]:
    """p50 and p99."""
    return [float(np.percentile(seconds, share)) * 1e3 if seconds else float("inf") for share in (50, 99)]


def answered_in_s(address: str, request: bytes) -> float:
    """How long one answer takes now; infinite if it is refused."""
    begun_s = time.monotonic()
    with grpc.insecure_channel(address) as channel:
        try:
            infer: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(MODEL_INFER)
            infer(request, timeout=30)
        except grpc.RpcError:
            return float("inf")
    return time.monotonic() - begun_s


def offered(address: str, request: bytes, load: Load, seconds: float, timeout_ns: int = 0) -> Window:
    """What becomes of a load, without its first second."""
    with Generator(Traffic(address, (request,), timeout_ns=timeout_ns), load, slice_ns=50_000_000) as generator:
        slices = generator.slices()
        window_of(slices, 1.0)
        return window_of(slices, seconds)


@contextmanager
def serving(work: Prepared, transport: str, *flags: str) -> Iterator[tuple[str, str]]:
    """A ready server: its address, and where its metrics are. Raises StartError if it does not get ready."""
    with tempfile.TemporaryDirectory() as name:
        folder, port, metrics_port = Path(name), free_port(), free_port()
        plain = Inferd(transport).start(work, folder, port)
        start = Start((*plain.command, f"--metrics-port={metrics_port}", *flags))
        with Group(start, folder / "log") as group:
            address = f"127.0.0.1:{port}"
            wait_until_ready(address, group)
            yield address, f"http://127.0.0.1:{metrics_port}/metrics"


def measure(work: Prepared, seconds: float, transport: str, timeout_ms: int) -> Found:
    """The most that it answers, and then five times as much."""
    with serving(work, transport) as (address, _):
        peak_window = offered(address, work.request, Load(connections=8, streams=16), seconds)
        peak = peak_window.ok / peak_window.seconds
        calm_s = min(answered_in_s(address, work.request) for _ in range(20))
    # Half a second of work may wait: more would only be answered later.
    bound = max(16, round(peak / 2))
    with serving(work, transport, f"--admission-max-requests={bound}") as (address, metrics):
        prober = Prober(address, metrics, work.request)
        rate = TIMES * peak
        with prober.probing():
            window = offered(
                address, work.request, Load(connections=8, streams=256, rate=rate), seconds, timeout_ms * 1_000_000
            )
        ended_s = time.monotonic()
        while answered_in_s(address, work.request) > 2 * calm_s + 0.01:
            time.sleep(PAUSE_S)
        recovery_s = time.monotonic() - ended_s
        asked = len(prober.polite_s) + prober.refused
        return Found(
            work=work.name,
            peak=peak,
            offered=rate,
            goodput=window.ok / window.seconds / peak,
            refused=window.failures[grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] / max(window.ended, 1),
            refusal_ms=refusals_ms(metrics),
            health_ms=percentiles_ms(prober.health_s),
            calm_ms=calm_s * 1e3,
            polite_ms=percentiles_ms(prober.polite_s),
            polite_answered=len(prober.polite_s) / max(asked, 1),
            most_rows=prober.most_rows,
            recovery_s=recovery_s,
        )


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


def holds(one: Found) -> bool:
    """Whether everything asked of an overloaded server was kept."""
    return (
        one["goodput"] >= GOODPUT
        and one["refusal_ms"][1] <= REFUSAL_MS
        and one["health_ms"][1] <= HEALTH_MS
        and one["recovery_s"] <= RECOVERY_S
    )


def table(found: list[Found]) -> Table:
    """One line per work."""
    shown = Table(box=box.MARKDOWN)
    columns = ("model", "peak, ok/s", "offered/s", "goodput", "refused", "refusal p99 ms", "health p99 ms")
    for column in (*columns, "polite p50, p99 ms", "polite answered", "rows waiting, most", "recovery s", ""):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for one in found:
        shown.add_row(
            one["work"],
            f"{one['peak']:,.0f}",
            f"{one['offered']:,.0f}",
            f"{one['goodput']:.2f}",
            f"{one['refused']:.0%}",
            f"<= {one['refusal_ms'][1]:.2f}",
            f"{one['health_ms'][1]:.1f}",
            "{:.1f}, {:.1f}".format(*one["polite_ms"]),
            f"{one['polite_answered']:.1%}",
            f"{one['most_rows']:,}",
            f"{one['recovery_s']:.2f}",
            "holds" if holds(one) else "FAILS",
        )
    return shown


@click.command()
@click.option("--works", "names", default="cnn", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=6.0, show_default=True)
@click.option("--timeout-ms", type=click.IntRange(min=0), default=0, show_default=True, help="Deadline; 0 is none.")
@click.option("--transport", default="native", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found.")
def overload(names: str, seconds: float, timeout_ms: int, transport: str, json_path: Path | None) -> None:
    """Offer five times what the server can answer, to one that takes half a second of work at a time.

    Goodput is of the most that it answers. A polite caller has one request at a time meanwhile.
    """
    found = [
        measure(prepare(works()[name.strip()], MODELS), seconds, transport, timeout_ms) for name in names.split(",")
    ]
    Console(width=240).print(table(found))
    if json_path is not None:
        json_path.write_text(
            json.dumps({"transport": transport, "timeout_ms": timeout_ms, "overload": found}, indent=1) + "\n"
        )
    sys.exit(0 if all(holds(one) for one in found) else 1)
