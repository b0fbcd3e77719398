"""`python -m bench swap`: what clients feel while one version of a model takes over from another."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Final, TypedDict

import click
import grpc
from rich import box
from rich.console import Console
from rich.table import Table

from bench.peers.inferd_server import Inferd
from bench.processes import Group, Start, free_port
from bench.works import Prepared, prepare, works
from inferd.bench.generator import Generator, Traffic
from inferd.bench.result import Load
from inferd.bench.window import window_of
from inferd.errors import StartError
from inferd.proto.inference_pb2 import RepositoryModelLoadRequest
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

MODELS: Final = Path(__file__).resolve().parents[1] / "build" / "bench" / "models"
SLICE_NS: Final = 50_000_000
BOUND: Final = 2.0
START_TIMEOUT_S: Final = 60.0
LOAD_TIMEOUT_S: Final = 60.0
# Requests a second: less than the half of what two processors answer, as one would run a service.
RATES: Final[Mapping[str, float]] = MappingProxyType(
    {"mlp": 2000.0, "tabular": 2000.0, "cnn": 60.0, "transformer": 8.0}
)


class Found(TypedDict):
    """One work: the p99 of windows with a swap in them, over that of windows without, by round."""

    work: str
    rate: float
    p99_ms: list[float]
    p99_calm_ms: list[float]
    ratios: list[float]
    load_s: list[float]
    failed: int
    answered: int


class Swapper:
    """Puts one version after the other into a repository and has each take over."""

    def __init__(self, stub: GRPCInferenceServiceStub, work: Prepared, repository: Path) -> None:
        self._stub, self._name, self._folder = stub, work.name, repository / work.name
        self._version = 1

    def load(self) -> float:
        """Have the newest version served; the seconds that it took."""
        begun_s = time.monotonic()
        self._stub.RepositoryModelLoad(RepositoryModelLoadRequest(model_name=self._name), timeout=LOAD_TIMEOUT_S)
        return time.monotonic() - begun_s

    def swap(self) -> float:
        """The same for a version that is new, and take the old one away."""
        old = self._folder / str(self._version)
        self._version += 1
        shutil.copytree(old, self._folder / str(self._version))
        seconds = self.load()
        shutil.rmtree(old)
        return seconds


@contextmanager
def swapping(work: Prepared, transport: str) -> Iterator[tuple[str, Swapper]]:
    """A server that clients control, with version 1 loaded. Raises StartError if it does not start."""
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        plain = Inferd(transport).start(work, folder, port)
        start = Start((*plain.command, "--model-control-mode=explicit"))
        with Group(start, folder / "log") as group, grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            try:
                grpc.channel_ready_future(channel).result(START_TIMEOUT_S)
            except grpc.FutureTimeoutError:
                raise StartError(f"the server does not listen: {group.ended() or group.said()}") from None
            swapper = Swapper(GRPCInferenceServiceStub(channel), work, folder / "repository")
            swapper.load()
            yield f"127.0.0.1:{port}", swapper


def measure(work: Prepared, rate: float, rounds: int, seconds: float, transport: str) -> Found:
    """Windows with and without a swap, in turns."""
    found = Found(work=work.name, rate=rate, p99_ms=[], p99_calm_ms=[], ratios=[], load_s=[], failed=0, answered=0)
    with swapping(work, transport) as (address, swapper):
        load = Load(connections=4, streams=64, rate=rate)
        with Generator(Traffic(address, (work.request,)), load, slice_ns=SLICE_NS) as generator:
            slices = generator.slices()
            window_of(slices, seconds)  # warm
            for _ in range(rounds):
                calm = window_of(slices, seconds)
                thread = threading.Thread(target=lambda: found["load_s"].append(swapper.swap()))
                thread.start()
                swapped = window_of(slices, seconds)
                thread.join()
                found["p99_calm_ms"].append(calm.latency.percentile(99) / 1e6)
                found["p99_ms"].append(swapped.latency.percentile(99) / 1e6)
                found["ratios"].append(found["p99_ms"][-1] / found["p99_calm_ms"][-1])
                for one in (calm, swapped):
                    found["failed"] += one.ended - one.ok
                    found["answered"] += one.ok
    return found


def table(found: list[Found]) -> Table:
    """One line per work."""
    shown = Table(box=box.SIMPLE)
    for column in (
        *("model", "requests/s", "load s", "p99 ms, swap", "p99 ms, calm", "ratio, median (lowest..highest)"),
        *("answered", "failed", ""),
    ):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for one in found:
        ratios = one["ratios"]
        shown.add_row(
            one["work"],
            f"{one['rate']:,.0f}",
            f"{median(one['load_s']):.2f}",
            f"{median(one['p99_ms']):.2f}",
            f"{median(one['p99_calm_ms']):.2f}",
            f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})",
            f"{one['answered']:,}",
            f"{one['failed']:,}",
            "within" if median(ratios) <= BOUND and not one["failed"] else "BEYOND",
        )
    return shown


@click.command()
@click.option("--works", "names", default="tabular,cnn", show_default=True, help=f"Of: {', '.join(RATES)}.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=6.0, show_default=True)
@click.option("--transport", default="native", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found.")
def swap(names: str, rounds: int, seconds: float, transport: str, json_path: Path | None) -> None:
    """Have versions take over from each other under a steady load, and see what clients feel of it.

    The p99 of a window in which a version is loaded, warmed up and takes over is divided by that of the window before.
    """
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in RATES]
    if unknown:
        raise click.BadParameter(f"there is no work {unknown[0]!r}; there are {', '.join(RATES)}")
    found = []
    for name in wanted:
        found.append(measure(prepare(works()[name], MODELS), RATES[name], rounds, seconds, transport))
        print(f"{name}: {median(found[-1]['ratios']):.2f}x", file=sys.stderr)
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))
    if json_path is not None:
        json_path.write_text(json.dumps({"transport": transport, "swaps": found}, indent=1) + "\n")
    sys.exit(0 if all(median(one["ratios"]) <= BOUND and not one["failed"] for one in found) else 1)
