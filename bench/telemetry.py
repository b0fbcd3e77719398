"""`python -m bench metrics`: what counting, tracing and the access log cost of the CPU time of a request."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import chain, repeat
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import Final

import click
import grpc
from rich import box
from rich.console import Console
from rich.table import Table

from bench.micro.case import Work
from bench.micro.traffic import TINY
from bench.peers.inferd_server import Inferd
from bench.processes import Group, Start, free_port
from bench.turns import offer
from bench.works import Prepared, prepare, works
from inferd.bench.generator import Traffic
from inferd.errors import StartError

MODELS: Final = Path(__file__).resolve().parents[1] / "build" / "bench" / "models"
START_TIMEOUT_S: Final = 60.0
BOUND: Final = 0.03
"""Of a request's CPU time; what counting may cost."""
COUNTED: Final = 512
FROM_C: Final = 3  # of the four steps of life()
# A collector that is not there: what it costs to send traces is the collector's and the exporter's business.
NOWHERE: Final = "--tracing-endpoint=http://127.0.0.1:1"
PLAIN: Final = "plain"
KINDS: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        PLAIN: (),
        "tracing, none sampled": ("--tracing-enabled=true", "--tracing-sample-rate=0", NOWHERE),
        "tracing, 1 % sampled": ("--tracing-enabled=true", "--tracing-sample-rate=0.01", NOWHERE),
        "access log": ("--log-access=true",),
    }
)


def life(count: int) -> Work:
    """All that is counted of a request that has a batch for itself: accepted, run, waited, ended."""
    from inferd._native.batch import alone
    from inferd._native.bind import bind
    from inferd._native.stats import ModelStats
    from inferd._native.wire import decode
    from inferd.models import ROWS_BOUNDS, SECONDS_BOUNDS

    stats, signature = ModelStats(SECONDS_BOUNDS, ROWS_BOUNDS), TINY.signature()
    request = decode(TINY.message())
    bind(signature, request)
    batch = alone(signature, request)
    steps = (
        (stats.accept,),
        (stats.batch, batch, 0, 2_000, 12_000, 14_000),
        (stats.ran, request, True),
        (stats.ended, 0, 0.0005),
    )
    return Work(chain.from_iterable(repeat(steps, count)), lambda _: stats.requests_by_code == {0: count})


def calls(count: int) -> Work:
    """As many calls of that from Python as the server makes from C: of the one that adds to a number and no more."""
    from inferd._native.stats import ModelStats

    stats = ModelStats((1.0,), (1,))
    return Work(repeat((stats.expire,), FROM_C * count), lambda _: stats.expired == FROM_C * count)


def least_ns(prepare_work: Callable[[int], Work]) -> float:
    """Nanoseconds for each request, the best of many tries: the others were disturbed."""
    best = float("inf")
    for _ in range(200):
        work = prepare_work(COUNTED)
        started_ns = time.perf_counter_ns()
        last = work.run()
        best = min(best, (time.perf_counter_ns() - started_ns) / COUNTED)
        if not work.done(last):
            raise StartError("the counts are not those of what was counted")
    return best


def counting_ns() -> float:
    """What counting takes for each request, without what it costs to call it from here where the server does not."""
    return least_ns(life) - least_ns(calls)


def measure(work: Prepared, transport: str, rounds: int, seconds: float) -> dict[str, list[float]]:
    """CPU time for each request in microseconds, by kind of server and round; the servers take turns."""
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    with ExitStack() as running:
        servers = []
        for kind, flags in KINDS.items():
            folder, port = Path(running.enter_context(tempfile.TemporaryDirectory())), free_port()
            start = Start((*Inferd(transport).start(work, folder, port).command, *flags))
            group = running.enter_context(Group(start, folder / "log"))
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                try:
                    grpc.channel_ready_future(channel).result(START_TIMEOUT_S)
                except grpc.FutureTimeoutError:
                    raise StartError(f"the server does not listen: {group.ended() or group.said()}") from None
            group.pause()
            servers.append((kind, group, Traffic(f"127.0.0.1:{port}", (work.request,))))
        for number in range(rounds + 1):
            for kind, group, traffic in servers:
                group.resume()
                offered = offer(traffic, work.work.loaded, group, seconds)
                group.pause()
                if number and offered.window.ok:  # the first round is a warm-up
                    found[kind].append(offered.cpu_ns.total() / offered.window.ended / 1e3)
    return found


def table(found: Mapping[str, list[float]], counted_ns: float) -> Table:
    """One line for each kind, beside the plain server of the same round, and one for counting."""
    shown = Table(box=box.SIMPLE)
    for column in ("", "CPU us/request, median", "of plain, median (lowest..highest)"):
        shown.add_column(column, justify="left" if not column else "right")
    plain = found[PLAIN]
    for kind, took in found.items():
        ratios = [one / other for one, other in zip(took, plain, strict=True)]
        beside = "" if kind == PLAIN else f"{median(ratios):.3f} ({min(ratios):.3f}..{max(ratios):.3f})"
        shown.add_row(kind, f"{median(took):.2f}", beside)
    shown.add_row("of it counting", f"{counted_ns / 1e3:.3f}", f"{counted_ns / 1e3 / median(plain):.4f}")
    return shown


@click.command()
@click.option("--work", "name", default="mlp", show_default=True, help="The model; the smaller, the harder.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=2.0, show_default=True)
@click.option("--transport", default="native", show_default=True)
def metrics(name: str, rounds: int, seconds: float, transport: str) -> None:
    """Measure what it costs to see inside: counting, tracing that traces nothing or a little, the access log.

    Counting cannot be turned off, so its own calls are timed, for batches of one, which is the most that they cost;
    the price of calling three of them from Python, which the server does from C, is taken off. Exits with 1 if they
    are more than 3 % of a request's CPU time.
    """
    known = works()
    if name not in known:
        raise click.BadParameter(f"there is no work {name!r}; there are {', '.join(known)}")
    counted_ns = counting_ns()
    found = measure(prepare(known[name], MODELS), transport, rounds, seconds)
    if not all(len(took) == rounds for took in found.values()):
        raise StartError("a server answered nothing in one of its turns")
    Console(width=None if sys.stdout.isatty() else 120).print(table(found, counted_ns))
    sys.exit(0 if counted_ns / 1e3 <= BOUND * median(found[PLAIN]) else 1)
