"""`python -m bench metrics`: what counting, tracing and the access log cost of the CPU time of a request."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from statistics import median
from types import MappingProxyType
from typing import Final

import click
from rich.console import Console

from bench.beside import MODELS, PLAIN, Kind, measure, table
from bench.micro.case import Work
from bench.micro.traffic import TINY
from bench.works import prepare, works
from inferd.errors import StartError

BOUND: Final = 0.03
"""Of a request's CPU time; what counting may cost."""
COUNTED: Final = 512
FROM_C: Final = 3  # of the four steps of life()
# A collector that is not there: what it costs to send traces is the collector's and the exporter's business.
NOWHERE: Final = "--tracing-endpoint=http://127.0.0.1:1"
KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        PLAIN: Kind(),
        "tracing, none sampled": Kind(("--tracing-enabled=true", "--tracing-sample-rate=0", NOWHERE)),
        "tracing, 1 % sampled": Kind(("--tracing-enabled=true", "--tracing-sample-rate=0.01", NOWHERE)),
        "access log": Kind(("--log-access=true",)),
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
    found = measure(KINDS, prepare(known[name], MODELS), transport, rounds, seconds)
    shown = table(found)
    shown.add_row("of it counting", f"{counted_ns / 1e3:.3f}", f"{counted_ns / 1e3 / median(found[PLAIN]):.4f}")
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    sys.exit(0 if counted_ns / 1e3 <= BOUND * median(found[PLAIN]) else 1)
