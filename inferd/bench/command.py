"""The flags of `inferd bench`. What does the work is imported only when there is work."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from inferd.errors import StartError

_LIST: Final = "LIST|LOW:HIGH[:STEP]"
_FILE: Final = click.Path(dir_okay=False, path_type=Path)
_SECONDS: Final = click.FloatRange(min=0)


_HELP: Final = """Measure MODEL on any server of the Open Inference Protocol at HOST:PORT, over gRPC.

Windows are measured until p50 and p99 of the last three agree; these three are the figures.

Exit code 0: measured. 1: wrong answers, or nothing but errors. 2: it could not be measured.
"""


def command() -> click.Command:
    """The command, of which only calling it imports what measures."""
    return click.Command(
        "bench",
        callback=_bench,
        params=[click.Argument(["address"], metavar="HOST:PORT"), click.Argument(["model"]), *_options()],
        short_help="Measure a server: throughput, latency, errors, right answers.",
        help=_HELP,
    )


def _options() -> tuple[click.Option, ...]:
    return (
        # --- the load ---
        _option("--concurrency", metavar=_LIST, help="Requests in flight; several are a sweep. [default: 8]"),
        _option(
            "--rate", metavar=_LIST, help="Requests per second, due whatever the server does; several are a sweep."
        ),
        _option(
            "--arrivals", type=click.Choice(["poisson", "constant"]), default="poisson", help="How --rate is spread."
        ),
        _option("--max-in-flight", type=click.IntRange(min=1), default=800, help="Bound for --rate."),
        _option(
            "--connections", type=click.IntRange(min=1), help="[default: 8, fewer where --concurrency is no multiple]"
        ),
        _option("--threads", type=click.IntRange(min=1), default=1, help="Threads that send."),
        _option(
            "--latency-limit",
            type=click.FloatRange(min=0, min_open=True),
            metavar="MS",
            help="End a sweep past this p99.",
        ),
        # --- the requests ---
        _option("--model-version", default="", metavar="VERSION", help="[default: the server's choice]"),
        _option("--batch", type=click.IntRange(min=1), default=1, help="Rows per request."),
        _option(
            "--shape",
            multiple=True,
            metavar="NAME:D1,D2",
            help="Lengths for open dimensions, with or without the rows.",
        ),
        _option(
            "--data", default="random", metavar="random|zeros|FILE.npz", help="Values of the inputs, or arrays by name."
        ),
        _option("--seed", type=click.IntRange(min=0), default=0, help="For values and arrivals."),
        _option("--requests-distinct", type=click.IntRange(min=1), default=8, help="Different random requests."),
        _option(
            "--int-range", multiple=True, metavar="[NAME:]LOW:HIGH", help="Random integers below HIGH. [default: 0:2]"
        ),
        _option("--string-length", type=click.IntRange(min=0), default=16, help="Characters of random strings."),
        _option("--string", metavar="TEXT", help="Send this string instead."),
        _option("--parameter", multiple=True, metavar="NAME=VALUE", help="Request parameter."),
        _option("--header", "-H", multiple=True, metavar="NAME:VALUE", help="gRPC metadata, such as a token."),
        _option("--timeout-ms", type=click.IntRange(min=0), default=0, help="Deadline of each request; 0 is none."),
        # --- the figures ---
        _option("--warmup", type=_SECONDS, default=1.0, metavar="S", help="Before anything is counted."),
        _option("--window", type=click.FloatRange(min=0.1), default=1.0, metavar="S", help="Length of a window."),
        _option(
            "--max-windows", type=click.IntRange(min=3), default=20, help="Give up waiting for stable figures after."
        ),
        _option(
            "--stability",
            type=click.FloatRange(0, 1, min_open=True),
            default=0.1,
            help="Share by which they may differ.",
        ),
        _option(
            "--duration", type=click.FloatRange(min=0, min_open=True), metavar="S", help="Measure exactly so long."
        ),
        _option(
            "--requests", type=click.IntRange(min=0), default=0, metavar="N", help="Send exactly so many, no warm-up."
        ),
        _option(
            "--server-pid", type=int, multiple=True, metavar="PID", help="Whose CPU and memory. [default: who listens]"
        ),
        # --- the answers ---
        _option("--expect", type=_FILE, metavar="FILE.npz", help="Compare answers with these outputs, by name."),
        _option("--check", is_flag=True, help="Compare answers with those given before the load."),
        _option("--rtol", type=click.FloatRange(min=0), default=1e-3, help="Relative tolerance for floats."),
        _option("--atol", type=click.FloatRange(min=0), default=1e-5, help="Absolute tolerance for floats."),
        # --- the report ---
        _option("--json", metavar="FILE|-", help="Write the report as JSON."),
        _option("--html", type=_FILE, metavar="FILE", help="Write the report as a page."),
    )


def _option(*names: str, **how: Any) -> click.Option:
    return click.Option(names, show_default=how.get("default") not in (None, ""), **how)


def _bench(**given: Any) -> int:
    try:
        from inferd.bench.run import run
    except ModuleNotFoundError as err:
        if not (err.name or "").startswith("inferd._native"):
            raise
        raise StartError("this build has no load runner; install libnghttp2-dev (Debian) and build again") from err
    from inferd.bench.options import Options

    return run(Options(**given))
