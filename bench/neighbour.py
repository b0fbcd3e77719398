"""`python -m bench neighbour`: a client with ten thousand calls beside a polite one, and what that costs the latter."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Final, TypedDict

import click
import grpc
from rich import box
from rich.console import Console
from rich.table import Table

from bench.overload import MODELS
from bench.probing import LEAD_S, Prober, Served, percentiles_ms, serving, turn
from bench.works import Prepared, prepare, works
from inferd.bench.result import Load

REFUSED: Final[int] = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


class Beside(TypedDict):
    """One work."""

    work: str
    streams: int  # that the greedy client keeps under way, all on one connection
    alone_ms: list[float]  # p50 and p99 of the polite caller, median of the rounds
    beside_ms: list[float]
    ratio: list[float]  # of these two
    alone_failed: float
    beside_failed: float
    greedy_ok: float  # answers in a second
    greedy_refused: float  # refusals in a second
    health_ms: list[float]
    most_rows: int


def _alone(served: Served, request: bytes, seconds: float) -> Prober:
    prober = Prober(served, request)
    with prober.probing():
        time.sleep(LEAD_S + seconds)
    return prober


def measure(work: Prepared, seconds: float, rounds: int, transport: str, streams: int) -> Beside:
    """Alone and beside the other, in turns."""
    with serving(work, transport, f"--grpc-max-concurrent-streams={streams}") as served:
        alone: list[Prober] = []
        beside: list[Prober] = []
        greedy = []
        for _ in range(rounds):
            alone.append(_alone(served, work.request, seconds))
            beside.append(Prober(served, work.request))
            with beside[-1].probing():
                greedy.append(turn(served, work.request, Load(connections=1, streams=streams), seconds))
        alone_ms, beside_ms = (
            [median(percentiles_ms(one.polite_s)[at] for one in probers) for at in (0, 1)]
            for probers in (alone, beside)
        )
        return Beside(
            work=work.name,
            streams=streams,
            alone_ms=alone_ms,
            beside_ms=beside_ms,
            ratio=[here / there for here, there in zip(beside_ms, alone_ms, strict=True)],
            alone_failed=_failed(alone),
            beside_failed=_failed(beside),
            greedy_ok=median(one.ok for one in greedy),
            greedy_refused=median(one.window.failures[REFUSED] / one.window.seconds for one in greedy),
            health_ms=percentiles_ms([took_s for one in beside for took_s in one.health_s]),
            most_rows=max(one.most_rows for one in beside),
        )


def _failed(probers: list[Prober]) -> float:
    return sum(one.refused for one in probers) / max(sum(one.asked for one in probers), 1)


def table(found: list[Beside]) -> Table:
    """One line per work."""
    shown = Table(box=box.MARKDOWN)
    columns: tuple[str, ...] = (
        "model",
        "calls of the other",
        "alone p50, p99 ms",
        "beside p50, p99 ms",
        "ratio p50, p99",
    )
    columns += ("failed alone, beside", "the other's ok/s", "refused/s", "health p99 ms", "rows waiting, most")
    for column in columns:
        shown.add_column(column, justify="left" if column == "model" else "right")
    for one in found:
        shown.add_row(
            one["work"],
            f"{one['streams']:,}",
            "{:.1f}, {:.1f}".format(*one["alone_ms"]),
            "{:.1f}, {:.1f}".format(*one["beside_ms"]),
            "{:.1f}, {:.1f}".format(*one["ratio"]),
            f"{one['alone_failed']:.1%}, {one['beside_failed']:.1%}",
            f"{one['greedy_ok']:,.0f}",
            f"{one['greedy_refused']:,.0f}",
            f"{one['health_ms'][1]:.1f}",
            f"{one['most_rows']:,}",
        )
    return shown


@click.command()
@click.option("--works", "names", default="tabular", show_default=True)
@click.option("--streams", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=3.0, show_default=True, help="Of one turn.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--transport", type=click.Choice(["native", "grpcio"]), default="native", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found.")
def neighbour(names: str, streams: int, seconds: float, rounds: int, transport: str, json_path: Path | None) -> None:
    """Have one client keep so many calls under way on one connection, beside a polite one with one at a time.

    What is refused the greedy client asks again at once.
    """
    found = [
        measure(prepare(works()[name.strip()], MODELS), seconds, rounds, transport, streams)
        for name in names.split(",")
    ]
    Console(width=240).print(table(found))
    if json_path is not None:
        json_path.write_text(json.dumps({"transport": transport, "neighbour": found}, indent=1) + "\n")
