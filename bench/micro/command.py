"""`python -m bench micro` measures ext/ as it is; `python -m bench check` compares it with a commit."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

import inferd
from bench.micro import child, record, verdict
from bench.micro.builds import Checkout
from bench.micro.child import ROOT, Timing
from bench.micro.measure import Measured
from bench.micro.record import BASELINE, Figure, Record
from bench.micro.verdict import Change, Side, Verdict
from inferd._native import live
from inferd.errors import StartError

LOG_WIDTH = 160
NAMES = click.argument("names", nargs=-1)


@click.command()
@NAMES
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures there.")
@click.option("--instructions", is_flag=True, help="Count instructions as well; needs valgrind.")
@click.option("--repeats", type=click.IntRange(min=1), default=11, show_default=True)
@click.option("--sample-ms", type=click.FloatRange(min=0.001), default=2.0, show_default=True)
@click.option("--store", is_flag=True, help=f"Build HEAD, measure all of it and write {BASELINE.name}.")
def micro(
    names: tuple[str, ...], json_path: Path | None, instructions: bool, repeats: int, sample_ms: float, store: bool
) -> None:
    """Time the calls into ext/, each case whose name begins with one of NAMES.

    The cost of calling from Python is in every figure. Bytes are those of the message, rows or answer that an
    operation is about, whether or not it has to touch them.
    """
    timing = Timing(repeats, round(sample_ms * 1e6))
    if store:
        commit, build, names = *_committed(), ()
    else:
        commit, build = None, Path(inferd.__file__).resolve().parents[1]
        if live.snapshot() is not None:
            click.echo("this is a debug build of ext/: its figures say nothing about a release", err=True)
    if (instructions or store) and not child.has_valgrind():
        raise StartError("instructions are counted by valgrind, which is not installed")
    found = child.times(build, names, timing)
    if not found["timed"] and not found["failed"]:
        raise _nothing(names)
    counts = child.instructions(build, names) if instructions or store else {}
    measured = record.record(tuple(record.figure(one, counts.get(one["name"])) for one in found["timed"]), commit)
    _console().print(_figures(measured))
    for one in found["failed"]:
        click.echo(f"{one['name']}: not measured: {one['why']}", err=True)
    if json_path is not None:
        _write(json_path, measured)
    if store:
        _write(BASELINE, measured)
    if any(not one["lacking"] for one in found["failed"]):
        sys.exit(1)


def _nothing(names: Sequence[str]) -> StartError:
    return StartError(f"no case has a name that begins with {' or '.join(map(repr, names))}")


def _committed() -> tuple[str, Path]:
    """HEAD and its build, from which the working tree must not differ."""
    checkout = Checkout(ROOT)
    commit = checkout.commit("HEAD")
    if commit is None or checkout.has_changes():
        raise StartError("figures are stored for a commit: commit the sources first")
    return commit, checkout.base(commit)


def _write(path: Path, measured: Record) -> None:
    path.write_text(measured.model_dump_json(indent=1, by_alias=True) + "\n")


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    table.add_column("operation", no_wrap=True)
    return table


def _console() -> Console:
    # In a log there is no width to fit into.
    return Console() if sys.stdout.isatty() else Console(width=LOG_WIDTH)


def _figures(measured: Record) -> Table:
    machine = measured.machine
    table = _table(f"{machine.cpus} CPUs, {machine.processor}; {machine.python}; {measured.compiler}")
    for name in ("ns", "+-", "least ns", "MB/s", "instructions"):
        table.add_column(name, justify="right")
    for one in measured.figures:
        table.add_row(*_cells(one))
    return table


def _cells(one: Figure) -> Iterator[str]:
    yield one.name
    yield f"{one.median_ns:,.1f}"
    yield f"{one.spread:.1%}"
    yield f"{one.min_ns:,.1f}"
    yield "" if one.bytes_per_second is None else f"{one.bytes_per_second / 1e6:,.0f}"
    yield "" if one.instructions is None else f"{one.instructions:,.0f}"


@click.command()
@NAMES
@click.option("--base", metavar="REF", help="The commit to compare with.  [default: that of the stored figures]")
@click.option("--rounds", type=click.IntRange(min=2), default=5, show_default=True, help="Of base and head in turn.")
@click.option("--no-instructions", is_flag=True, help="Let time decide, as where there is no valgrind.")
def check(names: tuple[str, ...], base: str | None, rounds: int, no_instructions: bool) -> None:
    """Fail if ext/ as it is here is dearer than at the base, beyond the noise.

    Without --base it is the commit whose figures are stored; without those, where this branch left origin/main;
    else the commit before this one, or this one if there are changes that are not committed. Both are built
    alike and measured in turn in this run, so nothing depends on the machine that stored the figures.
    """
    checkout = Checkout(ROOT)
    if base is None:
        known = record.stored()
        commit = checkout.default_base(known.commit if known else None)
    elif (found := checkout.commit(base)) is not None:
        commit = found
    else:
        raise StartError(f"--base: no commit here is called {base!r}")
    counting = not no_instructions and child.has_valgrind()
    changes = compare(checkout.base(commit), checkout.head(), names, rounds, counting)
    if not changes:
        raise _nothing(names)
    _console().print(_changes(changes, f"base {commit[:12]}, decided by {'instructions' if counting else 'time'}"))
    regressions = [change for change in changes if change.verdict.is_regression]
    for change in regressions:
        click.echo(verdict.explanation(change), err=True)
    sys.exit(1 if regressions else 0)


def compare(base: Path, head: Path, names: Sequence[str], rounds: int, counting: bool) -> list[Change]:
    """Measure two builds in turn and judge every case."""
    timing = Timing(repeats=5, sample_ns=1_000_000)
    rounds_of: tuple[list[Measured], list[Measured]] = ([], [])
    for _ in range(rounds):
        for build, found in zip((base, head), rounds_of, strict=True):
            found.append(child.times(build, names, timing))
    with ThreadPoolExecutor(2) as both:  # one disturbs the other's time, and nobody counts that now
        counts = list(both.map(lambda build: child.instructions(build, names) if counting else {}, (base, head)))
    before, after = (sides(found, counted) for found, counted in zip(rounds_of, counts, strict=True))
    return [verdict.judge(name, before[name], after[name]) for name in after]


def sides(rounds: Sequence[Measured], counts: Mapping[str, float]) -> dict[str, Side]:
    """One build's figures by name of the case; a case that failed in any round has failed."""
    found = {}
    for first in rounds[0]["timed"]:
        name = first["name"]
        of_case = [one["samples_ns"] for of_round in rounds for one in of_round["timed"] if one["name"] == name]
        # What else the machine does only adds to a time: the least one of a round has least of it.
        found[name] = Side(tuple(map(min, of_case)), counts.get(name))
    for one in chain.from_iterable(of_round["failed"] for of_round in rounds):
        found[one["name"]] = Side(lacking=one["lacking"], failure=one["why"])
    return found


def _changes(changes: Sequence[Change], title: str) -> Table:
    table = _table(title)
    for name in ("base ns", "head ns", "ratio", "noise", "base ins", "head ins", "ratio"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for change in changes:
        style = "red" if change.verdict.is_regression else "dim" if change.verdict is Verdict.SAME else ""
        table.add_row(change.name, *_ratios(change), change.verdict.value, style=style)
    return table


def _ratios(change: Change) -> Iterator[str]:
    base, head = change.base, change.head
    yield f"{base.median_ns:,.1f}" if base.rounds_ns else ""
    yield f"{head.median_ns:,.1f}" if head.rounds_ns else ""
    yield "" if change.time_ratio is None else f"{change.time_ratio:.3f}"
    yield f"{verdict.noise(base.rounds_ns):.1%}" if base.rounds_ns else ""
    yield "" if base.instructions is None else f"{base.instructions:,.0f}"
    yield "" if head.instructions is None else f"{head.instructions:,.0f}"
    yield "" if change.decided_by != "instructions" or change.ratio is None else f"{change.ratio:.3f}"
