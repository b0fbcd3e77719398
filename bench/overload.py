"""`python -m bench overload`: five times what the server can answer; what becomes of answers, refusals and health."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median
from typing import Final, TypedDict

import click
import grpc
from rich import box
from rich.console import Console
from rich.table import Table

from bench.probing import PAUSE_S, Prober, Served, Turn, burning, percentiles_ms, scrape, serving, turn
from bench.works import Prepared, prepare, works
from inferd.bench.generator import MODEL_INFER
from inferd.bench.result import Load

MODELS: Final = Path(__file__).resolve().parents[1] / "build" / "bench" / "models"
TIMES: Final = 5.0
CONNECTIONS: Final = 8
GOODPUT, REFUSAL_MS, RECOVERY_S, HEALTH_MS = 0.9, 5.0, 2.0, 100.0


class Found(TypedDict):
    """One work. Times of a prober in Python, which has to share the processors with everybody."""

    work: str
    peak: float  # answers in a second, over all rounds
    offered: float
    goodputs: list[float]  # of the peak in the same round
    goodput: float  # of all rounds together
    goodput_beside: float  # the same of the peak beside a process that takes the processor time that sending takes
    goodput_by_cpu: float  # the same of answers for a second of the server's processor time
    server_cpus: list[float]  # processors that the server had at its peak and in overload
    load_cpus: list[float]  # and that load and prober had
    refused: float
    refusal_ms: list[float]  # p50 and p99 as the server counts them: from a request's headers to its refusal
    health_ms: list[float]  # p50 and p99
    calm_ms: float
    polite_ms: list[float]  # p50 and p99 of one caller that has a request at a time, no deadline
    polite_answered: float
    most_rows: int
    recovery_s: float


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


def recovered_in_s(served: Served, request: bytes, calm_s: float) -> float:
    """How long from now until an answer takes about as long as in calm times."""
    begun_s = time.monotonic()
    while answered_in_s(served.address, request) > 2 * calm_s + 0.01:
        time.sleep(PAUSE_S)
    return time.monotonic() - begun_s


def measure(work: Prepared, seconds: float, rounds: int, transport: str, timeout_ms: int) -> Found:
    """The most that it answers and five times as much, in turns, with the same prober beside both."""
    with serving(work, transport) as served:
        guess = turn(served, work.request, Load(connections=CONNECTIONS, streams=16), seconds).ok
        calm_s = min(answered_in_s(served.address, work.request) for _ in range(20))
    # Half a second of work may wait: more would only be answered later.
    bound = max(16, round(guess / 2))
    # As many as the callers may have, each as many as all of them leave free.
    load = Load(connections=CONNECTIONS, streams=256, rate=TIMES * max(guess, 1.0))
    full = Load(connections=CONNECTIONS, streams=max(1, min(16, bound // (CONNECTIONS + 2))))
    with serving(work, transport, f"--admission-max-requests={bound}") as served:
        prober = Prober(served, work.request)
        turns: list[tuple[Turn, Turn]] = []
        recoveries_s: list[float] = []
        burdened: list[float] = []
        for _ in range(rounds):
            beside = Prober(served, work.request)
            with beside.probing():
                calm = turn(served, work.request, full, seconds)
            with prober.probing():
                flood = turn(served, work.request, load, seconds, timeout_ms * 1_000_000)
            turns.append((calm, flood))
            recoveries_s.append(recovered_in_s(served, work.request, calm_s))
            # What sending so much costs is not the server's doing where both have the same processors.
            with burning(flood.load_cpus - calm.load_cpus), beside.probing():
                burdened.append(turn(served, work.request, full, seconds).ok)
        calm_ok, flood_ok = (sum(one[at].ok for one in turns) for at in (0, 1))
        calm_cpus, flood_cpus = (sum(one[at].server_cpus for one in turns) for at in (0, 1))
        ended = sum(flood.window.ended for _, flood in turns)
        refused = sum(flood.window.failures[grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]] for _, flood in turns)
        return Found(
            work=work.name,
            peak=calm_ok / rounds,
            offered=TIMES * guess,
            goodputs=[flood.ok / max(calm.ok, 1.0) for calm, flood in turns],
            goodput=flood_ok / max(calm_ok, 1.0),
            goodput_beside=flood_ok / max(sum(burdened), 1.0),
            goodput_by_cpu=flood_ok / flood_cpus / max(calm_ok / calm_cpus, 1e-9),
            server_cpus=[median(one[at].server_cpus for one in turns) for at in (0, 1)],
            load_cpus=[median(one[at].load_cpus for one in turns) for at in (0, 1)],
            refused=refused / max(ended, 1),
            refusal_ms=refusals_ms(served.metrics),
            health_ms=percentiles_ms(prober.health_s),
            calm_ms=calm_s * 1e3,
            polite_ms=percentiles_ms(prober.polite_s),
            polite_answered=len(prober.polite_s) / max(prober.asked, 1),
            most_rows=prober.most_rows,
            recovery_s=max(recoveries_s),
        )


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
    columns: tuple[str, ...] = (
        "model",
        "peak, ok/s",
        "offered/s",
        "goodput",
        "beside as much work",
        "by CPU time",
        "server, load CPUs",
        "refused",
    )
    columns += ("refusal p99 ms", "health p99 ms", "polite p50, p99 ms", "polite answered", "rows waiting, most")
    for column in (*columns, "recovery s", ""):
        shown.add_column(column, justify="left" if column == "model" else "right")
    for one in found:
        shown.add_row(
            one["work"],
            f"{one['peak']:,.0f}",
            f"{one['offered']:,.0f}",
            f"{one['goodput']:.2f} ({min(one['goodputs']):.2f}..{max(one['goodputs']):.2f})",
            f"{one['goodput_beside']:.2f}",
            f"{one['goodput_by_cpu']:.2f}",
            f"{one['server_cpus'][1]:.2f}, {one['load_cpus'][1]:.2f}",
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
@click.option("--seconds", type=click.FloatRange(min=0.5), default=3.0, show_default=True, help="Of one turn.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option("--timeout-ms", type=click.IntRange(min=0), default=0, show_default=True, help="Deadline; 0 is none.")
@click.option("--transport", type=click.Choice(["native", "grpcio"]), default="native", show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write what was found.")
def overload(names: str, seconds: float, rounds: int, timeout_ms: int, transport: str, json_path: Path | None) -> None:
    """Offer five times what the server can answer, to one that takes half a second of work at a time.

    Goodput is of the most that it answers, measured in turns with it: alone, and beside a process that takes as much
    processor time as sending five times as much does, where both have to share them. A polite caller has one request at
    a time meanwhile.
    """
    found = [
        measure(prepare(works()[name.strip()], MODELS), seconds, rounds, transport, timeout_ms)
        for name in names.split(",")
    ]
    Console(width=240).print(table(found))
    if json_path is not None:
        told = {"transport": transport, "timeout_ms": timeout_ms, "seconds": seconds, "overload": found}
        json_path.write_text(json.dumps(told, indent=1) + "\n")
    sys.exit(0 if all(holds(one) for one in found) else 1)
