"""`python -m bench abuse`: how a polite client fares while a hostile one floods the same server."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final, TypedDict

import click
from rich import box
from rich.console import Console
from rich.table import Table

from bench.abuse.floods import FLOODS
from bench.memory import Mix, messages, serving
from bench.processes import Group, Start, free_port
from inferd.bench.generator import Generator, Traffic
from inferd.bench.result import Load
from inferd.bench.window import Window, window_of
from inferd.errors import StartError

POLITE: Final = Load(connections=2, streams=64, rate=500.0)
SLICE_NS: Final = 50_000_000
SETTLE_S: Final = 0.3
BOUND: Final = 2.0


class Found(TypedDict):
    """One flood: the polite client's p99 beside it, over that beside the same flood into a sink, by round."""

    flood: str
    p99_ms: list[float]
    p99_sink_ms: list[float]
    ratios: list[float]
    failed: int
    answered: int


@contextmanager
def flooding(name: str, address: str, message: Path) -> Iterator[None]:
    """Have a hostile client at work."""
    command = (sys.executable, "-m", "bench.abuse.attacker", name, address, str(message))
    with tempfile.TemporaryDirectory() as folder, Group(Start(command), Path(folder) / "log") as group:
        time.sleep(SETTLE_S)
        yield
        if (how := group.ended()) is not None:
            raise StartError(f"the hostile client {how}")


def asked(address: str, requests: tuple[bytes, ...], seconds: float) -> Window:
    """What a polite client sees: due at a steady rate, whatever the server does."""
    with Generator(Traffic(address, requests), POLITE, slice_ns=SLICE_NS) as generator:
        return window_of(generator.slices(), seconds)


def measure(names: tuple[str, ...], rounds: int, seconds: float, transport: str) -> list[Found]:
    """Every flood against a server of its own, in turns with the same flood into a sink."""
    requests = messages(Mix.PLAIN)
    found = []
    for name in names:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            message = folder / "message"
            message.write_bytes(requests[0])
            server = stack.enter_context(serving(folder / "server", transport))
            sink = f"127.0.0.1:{free_port()}"
            start = Start((sys.executable, "-m", "bench.abuse.attacker", "sink", sink, str(message)))
            stack.enter_context(Group(start, folder / "sink.log"))
            time.sleep(SETTLE_S)
            asked(server.address, requests, seconds)  # warm
            p99_ms: dict[str, list[float]] = {sink: [], server.address: []}
            failed = answered = 0
            for _ in range(rounds):
                for target in (sink, server.address):
                    with flooding(name, target, message):
                        window = asked(server.address, requests, seconds)
                    p99_ms[target].append(window.latency.percentile(99) / 1e6)
                    if target != sink:
                        failed += window.ended - window.ok
                        answered += window.ok
            pairs = zip(p99_ms[server.address], p99_ms[sink], strict=True)
            found.append(
                Found(
                    flood=name,
                    p99_ms=p99_ms[server.address],
                    p99_sink_ms=p99_ms[sink],
                    ratios=[beside / alone for beside, alone in pairs],
                    failed=failed,
                    answered=answered,
                )
            )
            print(f"{name}: {median(found[-1]['ratios']):.2f}x", file=sys.stderr)
    return found


def table(found: list[Found]) -> Table:
    """One line per flood."""
    shown = Table(box=box.SIMPLE)
    for column in ("flood", "p99 ms", "p99 ms, sink", "ratio, median (lowest..highest)", "answered", "failed", ""):
        shown.add_column(column, justify="left" if column == "flood" else "right")
    for one in found:
        ratios = one["ratios"]
        shown.add_row(
            one["flood"],
            f"{median(one['p99_ms']):.2f}",
            f"{median(one['p99_sink_ms']):.2f}",
            f"{median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f})",
            f"{one['answered']:,}",
            f"{one['failed']:,}",
            "within" if median(ratios) <= BOUND and not one["failed"] else "BEYOND",
        )
    return shown


@click.command()
@click.option("--floods", default=",".join(FLOODS), help=f"Of: {', '.join(FLOODS)}. Default: all.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=2.0, show_default=True)
@click.option("--transport", default="native", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found.")
def abuse(floods: str, rounds: int, seconds: float, transport: str, json_path: Path | None) -> None:
    """Flood a server and see what a polite client feels of it.

    The polite client sends 500 requests a second. Its p99 beside a flood is divided by its p99 while the same flood
    goes into a sink on the same machine, because a flood costs its sender and the machine's network as well.
    """
    names = tuple(name.strip() for name in floods.split(","))
    unknown = [name for name in names if name not in FLOODS]
    if unknown:
        raise click.BadParameter(f"there is no flood {unknown[0]!r}; there are {', '.join(FLOODS)}")
    found = measure(names, rounds, seconds, transport)
    Console(width=None if sys.stdout.isatty() else 120).print(table(found))
    if json_path is not None:
        json_path.write_text(json.dumps({"transport": transport, "floods": found}, indent=1) + "\n")
    holds = all(median(one["ratios"]) <= BOUND and not one["failed"] for one in found)
    sys.exit(0 if holds else 1)
