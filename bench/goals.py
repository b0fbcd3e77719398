"""The goals of the hot path as one table, and what a comparison says about them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import click
from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.table import Table

from bench.result import Comparison, Figure, Ratio
from inferd.errors import StartError

State = Literal["met", "missed", "not measured"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A bar for inferd's figure divided by another's."""

    text: str
    work: str
    figure: Figure
    against: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def bar(self) -> str:
        """As it is written."""
        return f">= {self.at_least:g}x" if self.at_least is not None else f"<= {self.at_most:g}x"

    def met(self, ratio: float) -> bool:
        """Whether a ratio clears the bar."""
        return (self.at_least is None or ratio >= self.at_least) and (self.at_most is None or ratio <= self.at_most)


GOALS: Final = (
    Goal("CPU per request, tiny model, full inference", "mlp", "cpu_us_per_request", "nghttpd", at_most=2.0),
    Goal("throughput, tiny model, 8 x 16 in flight", "mlp", "requests_per_second", "triton", at_least=10),
    Goal("throughput, tiny model, 8 x 16 in flight", "mlp", "requests_per_second", "kserve", at_least=50),
    Goal("throughput, tiny model, 8 x 16 in flight", "mlp", "requests_per_second", "mlserver", at_least=80),
    Goal("latency, tiny model, 1 in flight", "mlp", "alone_p50_ns", "nghttpd", at_most=2.5),
    Goal("throughput, big model (CNN)", "cnn", "requests_per_second", "onnxruntime", at_least=0.95),
    Goal("throughput, big model (transformer)", "transformer", "requests_per_second", "onnxruntime", at_least=0.95),
    Goal("bytes per CPU second, 600 KB in", "transfer", "request_bytes_per_cpu_second", "grpc-cpp", at_least=1.5),
)
GROWTH_TEXT: Final = "RSS after the last request vs after 10,000"
GROWTH_AT_MOST: Final = 1.02
GROWTH_REQUESTS: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Growth:
    """What the memory run found."""

    requests: int
    transport: str
    ratio: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one goal for one transport of inferd."""

    text: str
    against: str
    bar: str
    subject: str
    state: State
    found: str


def verdicts(comparison: Comparison, growths: Sequence[Growth] = ()) -> Iterator[Verdict]:
    """Every goal for every transport that took part. A median decides; its spread is shown beside it."""
    subjects = dict.fromkeys(
        entrant.name for work in comparison.works for entrant in work.entrants if entrant.kind == "inferd"
    )
    for subject in subjects:
        for goal in GOALS:
            yield _verdict(comparison, goal, subject)
        yield _growth_verdict(growths, subject)


def _verdict(comparison: Comparison, goal: Goal, subject: str) -> Verdict:
    ratio = _ratio(comparison, goal, subject)
    against = f"{goal.against}, {goal.work}"
    if isinstance(ratio, str):
        return Verdict(goal.text, against, goal.bar, subject, "not measured", ratio)
    found = f"{ratio.median:.3g}x ({ratio.low:.3g}..{ratio.high:.3g})"
    if goal.met(ratio.low) != goal.met(ratio.high):
        found += ", not in every round"
    return Verdict(goal.text, against, goal.bar, subject, "met" if goal.met(ratio.median) else "missed", found)


def _ratio(comparison: Comparison, goal: Goal, subject: str) -> Ratio | str:
    """The ratio that a goal is about, or why there is none."""
    for work in comparison.works:
        if work.name != goal.work:
            continue
        for ratio in work.ratios:
            if (ratio.figure, ratio.subject, ratio.against) == (goal.figure, subject, goal.against):
                return ratio
        entrants = {entrant.name: entrant for entrant in work.entrants}
        for name in (subject, goal.against):
            if name not in entrants:
                return f"{name} did not take part"
            if entrants[name].status != "measured":
                return f"{name} {entrants[name].status}: {entrants[name].reason}"
        return "no round has both figures"
    return f"the work {goal.work} was not run"


def _growth_verdict(growths: Sequence[Growth], subject: str) -> Verdict:
    about, bar = ("itself", f"<= {GROWTH_AT_MOST:g}x")
    for growth in growths:
        if f"inferd ({growth.transport})" != subject:
            continue
        found = f"{growth.ratio:.4f}x after {growth.requests:,}"
        state: State = "met" if growth.ratio <= GROWTH_AT_MOST else "missed"
        if growth.requests < GROWTH_REQUESTS and state == "met":
            # Too few requests can show growth, but not that there is none.
            return Verdict(GROWTH_TEXT, about, bar, subject, "not measured", f"{found}: needs {GROWTH_REQUESTS:,}")
        return Verdict(GROWTH_TEXT, about, bar, subject, state, found)
    return Verdict(
        GROWTH_TEXT, about, bar, subject, "not measured", "python -m bench memory --json FILE, then --memory FILE"
    )


# --- reading and showing -------------------------------------------------------------------------------------


def read_growth(path: Path) -> Growth:
    """What `python -m bench memory --json` wrote. Raises StartError."""
    try:
        told = json.loads(path.read_text())
        return Growth(int(told["requests"]), str(told["transport"]), told["rss_last"] / told["rss_first"])
    except (OSError, ValueError, TypeError, KeyError, ZeroDivisionError) as err:
        raise StartError(f"{path} is not what `python -m bench memory --json` writes: {err!r}") from err


def read_comparison(path: Path) -> Comparison:
    """What `python -m bench compare --json` wrote. Raises StartError."""
    try:
        return Comparison.model_validate_json(path.read_text())
    except (OSError, ValidationError) as err:
        raise StartError(f"{path} is not what `python -m bench compare --json` writes: {err}") from err


def goals_table(comparison: Comparison, growths: Sequence[Growth] = ()) -> Table:
    """One line per goal and transport."""
    table = Table(title="goals: inferd divided by the other, formed within each round: median (lowest..highest)")
    table.title_justify, table.box = "left", box.SIMPLE
    for column in ("", "goal", "vs", "bar", "found", "verdict"):
        table.add_column(column, overflow="fold")
    for one in verdicts(comparison, growths):
        style = {"met": "green", "missed": "red", "not measured": "dim"}[one.state]
        verdict = f"[{style}]{one.state}[/{style}]"
        table.add_row(one.subject, one.text, one.against, one.bar, one.found, verdict)
    return table


MEMORY = click.option(
    "--memory",
    "memory_paths",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="What `python -m bench memory --json` wrote; may be given for each transport.",
)


@click.command()
@click.argument("path", metavar="RESULT.json", type=click.Path(path_type=Path, dir_okay=False))
@MEMORY
def goals(path: Path, memory_paths: tuple[Path, ...]) -> None:
    """Say which goals a comparison met, which it missed, and which it did not measure."""
    comparison = read_comparison(path)
    console().print(goals_table(comparison, [read_growth(one) for one in memory_paths]))


def console() -> Console:
    """Standard output; as wide as the tables need where it is no terminal."""
    found = Console()
    return found if found.is_terminal else Console(width=150)
