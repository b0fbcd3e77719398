"""`python -m bench gpu`: its command line, its table and its file."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.console import Console
from rich.table import Table

from bench.gpu.measure import Measured, measure
from inferd.device import CudaDevice, open_devices
from inferd.errors import StartError
from inferd.repository import Reader
from inferd.session import RUNTIME_VERSION, runtime_build

MODELS = Path(__file__).resolve().parents[2] / "build" / "example-models"


def tables(found: Measured) -> list[Table]:
    """What was found, for people."""
    rates, copied, overlaps = (Table(box=box.SIMPLE, title=title) for title in ("rows a second", "uploads", "overlap"))
    for shown, columns in (
        (rates, ("model", "rows", "device", "graphs", "rows/s", "ms a batch")),
        (copied, ("memory", "bytes", "GB/s")),
        (overlaps, ("model", "rows", "copies beside a run")),
    ):
        for column in columns:
            shown.add_column(column, justify="left" if column in ("model", "memory", "device") else "right")
    for rate in found["throughput"]:
        graphs = "on" if rate["graphs"] else "off"
        cells = (rate["model"], str(rate["rows"]), rate["device"], graphs)
        rates.add_row(*cells, f"{rate['rows_per_s']:,.0f}", f"{rate['batch_ms']:.3f}")
    for one in found["copies"]:
        copied.add_row(one["memory"], f"{one['nbytes']:,}", f"{one['gb_per_s']:.1f}")
    for part in found["overlap"]:
        overlaps.add_row(part["model"], str(part["rows"]), f"{part['share']:.0%}")
    return [rates, copied, overlaps]


def described(gpu: CudaDevice) -> dict[str, Any]:
    """The GPU and what runs on it."""
    said: dict[str, Any] = {"onnxruntime": RUNTIME_VERSION, "gpu": gpu.number}
    with suppress(Exception):  # a name is nice to have
        properties = gpu._cuda.runtime.getDeviceProperties(gpu.number)
        said["name"] = properties["name"].decode()
        said["driver"] = gpu._cuda.runtime.driverGetVersion()
    return said


@click.command()
@click.option(
    "--repository",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The models; those of the examples where not said, which `make serve` builds.",
)
@click.option("--gpu", "number", type=click.IntRange(min=0), default=0, show_default=True, help="CUDA's number of it.")
@click.option("--seconds", type=click.FloatRange(min=0.1), default=3.0, show_default=True, help="For each figure.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found.")
def gpu(repository: Path | None, number: int, seconds: float, json_path: Path | None) -> None:
    """Measure what a GPU gives: rows a second beside the CPU, CUDA graphs, pinned memory, copies beside runs.

    Ends with 2 and the reason where there is no GPU.
    """
    devices = open_devices("cuda", runtime_build())
    chosen = devices.gpu(number)
    if chosen is None:
        raise StartError(
            f"there is no GPU {number} here; there are {', '.join(str(one.number) for one in devices.gpus)}"
        )
    found = measure(
        chosen,
        devices.cpu,
        models(repository or MODELS),
        seconds,
        said=lambda text: print(text, file=sys.stderr),
    )
    console = Console(width=None if sys.stdout.isatty() else 120)
    for table in tables(found):
        console.print(table)
    if json_path is not None:
        head = {"measured": datetime.now(UTC).isoformat(timespec="seconds"), **described(chosen)}
        json_path.write_text(json.dumps({**head, **found}, indent=1) + "\n")


def models(repository: Path) -> list[tuple[str, Path]]:
    """The newest version of each model. Raises StartError if there is none."""
    if not repository.is_dir():
        raise StartError(
            f"{repository} is not there; `make serve` builds the example models, --repository names others"
        )
    scanned = Reader(repository).scan()
    return [(one.decl.name, one.versions[-1].model_path) for one in scanned.models]
