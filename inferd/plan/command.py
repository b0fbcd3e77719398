"""The flags of `inferd plan`, and how the plan is told. What does the work is imported only when there is work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from inferd.plan.measure import Found
    from inferd.plan.search import Plan, Wanted
    from inferd.plan.simulation import Outcome

_HELP: Final = """How many pods a load and a latency need, for the model at PATH.

PATH is an .onnx file or a repository, whose model's run times are measured here; run it where the pods will run, with
as many CPUs. Or it is a .json file with run times. Requests arrive at random (Poisson), a balancer gives each to a
pod, and pods form batches as inferd does. Latencies are those of the server, without the network.

Exit code 0: there is a number of pods. 1: there is none. 2: it could not be planned.
"""


def command() -> click.Command:
    """The command, of which only calling it imports what simulates."""
    positive = click.FloatRange(min=0, min_open=True)
    return click.Command(
        "plan",
        callback=_plan,
        params=[
            click.Argument(["path"], type=click.Path(exists=True, path_type=Path)),
            click.Option(["--rate"], type=positive, required=True, metavar="R", help="Requests per second, in all."),
            click.Option(["--slo-ms"], type=positive, required=True, metavar="S", help="What p99 may be."),
            _option("--model", metavar="NAME", help="Which one, of a repository with several."),
            _option("--rows", type=click.IntRange(min=1), default=1, help="Rows per request."),
            _option(
                "--most-busy", type=click.FloatRange(0.05, 0.99), default=0.7, metavar="PART",
                help="Of a pod's limit, how much may be used.",
            ),
            _option(
                "--balancer", type=click.Choice(["least_request", "round_robin", "random"]), default="least_request",
                help="least_request: the less busy of two at random, as Envoy does. random: as many connections do.",
            ),
            _option("--cpus", type=positive, help="CPUs of a pod, for measuring. [default: all that there are]"),
            _option("--request-us", type=click.FloatRange(min=0), help="The event loop's time for one request."),
            _option("--hop-us", type=click.FloatRange(min=0), help="What a batch waits for threads to wake."),
            _option("--requests", type=click.IntRange(min=1000), default=50_000, help="How many are simulated."),
            _option("--seed", type=click.IntRange(min=0), default=0, help="The same seed, the same plan."),
            click.Option(["--json", "out_json"], is_flag=True, help="Print the plan as JSON."),
        ],
        short_help="How many pods a load and a latency need.",
        help=_HELP,
    )  # fmt: skip


def _option(name: str, **settings: Any) -> click.Option:
    return click.Option([name], show_default=settings.get("default") is not None, **settings)


def _plan(
    path: Path,
    rate: float,
    slo_ms: float,
    model: str | None,
    rows: int,
    most_busy: float,
    balancer: Any,
    cpus: float | None,
    request_us: float | None,
    hop_us: float | None,
    requests: int,
    seed: int,
    out_json: bool,
) -> int:
    from inferd.config import load
    from inferd.plan.measure import HOP_US, REQUEST_US, measured, taken
    from inferd.plan.search import Wanted, plan
    from inferd.plan.simulation import Load

    settings = load({"threads.cpus": None if cpus is None else str(cpus)}, models_path=str(path)).settings
    costs = REQUEST_US if request_us is None else request_us, HOP_US if hop_us is None else hop_us
    found = taken(path, settings, *costs) if path.suffix == ".json" else measured(path, model, settings, *costs)
    wanted = Wanted(rate, slo_ms * 1e6, most_busy, rows)
    made = plan(found.pod, wanted, Load(rate, 1, requests, rows, balancer, seed))
    _print_json(found, wanted, made) if out_json else _print(found, wanted, made)
    return 0 if made.pods is not None else 1


def _print_json(found: Found, wanted: Wanted, made: Plan) -> None:
    from inferd.plan.measure import told

    click.echo(
        json.dumps(
            {
                "wanted": {"rate": wanted.rate, "p99_ms": wanted.slo_ns / 1e6, "most_busy": wanted.most_busy},
                "pod": told(found),
                "pods": made.pods,
                "reason": made.reason,
                "limits": dict(made.limits),
                "breaks_first": made.breaks_first,
                "by_pods": {
                    str(pods): {"used": wanted.rate / pods / min(made.limits.values())} | _figures(one)
                    for pods, one in made.tried.items()
                },
            },
            indent=2,
        )
    )


def _figures(one: Outcome) -> dict[str, float]:
    return {
        "p50_ms": one.p50_ns / 1e6,
        "p99_ms": one.p99_ns / 1e6,
        "busy": one.busy,
        "loop_busy": one.loop_busy,
        "batch_requests": one.batch_requests,
        "refused": one.refused / one.arrived,
    }


def _print(found: Found, wanted: Wanted, made: Plan) -> None:
    pod = found.pod
    times = ", ".join(f"{run_ns / 1e6:.3g} ms at {rows}" for rows, run_ns in sorted(pod.timings.run_ns.items()))
    click.echo(f"model      {found.name}, {found.source}")
    where = "the event loop" if pod.inline else f"{pod.instances} thread(s)"
    click.echo(f"a pod      runs {times}; up to {pod.max_rows} rows on {where}")
    limits = ", ".join(f"{part} at {limit:,.0f}/s" for part, limit in sorted(made.limits.items(), key=lambda x: x[1]))
    click.echo(f"its limit  {limits}: the {made.breaks_first} first")
    click.echo("\n   pods    used    p50 ms    p99 ms    busy    loop   batch  refused")
    for pods, one in made.tried.items():
        mark = "->" if pods == made.pods else "  "
        click.echo(
            f"{mark}{pods:>5}{wanted.rate / pods / min(made.limits.values()):>8.0%}"
            f"{one.p50_ns / 1e6:>10.3f}{one.p99_ns / 1e6:>10.3f}{one.busy:>8.0%}{one.loop_busy:>8.0%}"
            f"{one.batch_requests:>8.1f}{one.refused / one.arrived:>9.1%}"
        )
    if made.pods is None:
        click.echo(f"\nno number of pods holds a p99 of {wanted.slo_ns / 1e6:g} ms: {made.reason}")
    else:
        click.echo(f"\n{made.pods} pod(s), and as many more as may be missing at a time: one, for a rollout or a node.")
