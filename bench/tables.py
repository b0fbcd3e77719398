"""A comparison as tables for people: limits first, then inferd, then its peers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Final

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.ratios import typical
from bench.result import Comparison, Entrant, Figure, Kind, Ratio, WorkFound

ORDER: Final[tuple[Kind, ...]] = ("limit", "floor", "inferd", "peer")
REMARKS: Final[Mapping[Kind, str]] = {"limit": "no server", "floor": "no inference", "inferd": "", "peer": ""}
COLUMNS: Final[tuple[tuple[str, Figure, float], ...]] = (
    ("requests/s", "requests_per_second", 1),
    ("CPU µs/request", "cpu_us_per_request", 1),
    ("p50 ms", "p50_ns", 1e6),
    ("p99 ms", "p99_ns", 1e6),
    ("alone p50 ms", "alone_p50_ns", 1e6),
    ("MB in/CPU s", "request_bytes_per_cpu_second", 1e6),
    ("RSS MB", "rss_bytes", 1e6),
)
RATIO_COLUMNS: Final[tuple[tuple[str, Figure], ...]] = (
    ("requests/s", "requests_per_second"),
    ("CPU/request", "cpu_us_per_request"),
    ("alone p50", "alone_p50_ns"),
    ("MB in/CPU s", "request_bytes_per_cpu_second"),
)


def report(comparison: Comparison) -> Group:
    """All works of a comparison, and what was measured where."""
    machine = comparison.machine
    heading = Text(
        f"{machine.processor}, {machine.cpus} CPUs, {machine.memory_bytes / 2**30:.0f} GiB, {machine.system}; "
        f"{comparison.rounds} rounds of {comparison.seconds:g} s"
    )
    told = [
        Text(f"{name}: " + ", ".join(f"{package} {version}" for package, version in found.items()), style="dim")
        for name, found in comparison.versions.items()
    ]
    return Group(heading, *told, *(part for work in comparison.works for part in _work(work)))


def _work(work: WorkFound) -> Iterator[Table | Text]:
    load = work.loaded
    yield Text(f"\n{work.name}: {work.title}", style="bold")
    yield Text(
        f"{work.request_bytes:,} bytes asked, {work.answer_bytes:,} answered; {load.connections} connections with "
        f"{load.streams} in flight each; medians over the rounds"
    )
    entrants = sorted(work.entrants, key=lambda one: ORDER.index(one.kind))
    yield _figures(entrants)
    for entrant in entrants:
        if entrant.reason:
            yield Text(f"  {entrant.name}: {entrant.status}: {entrant.reason}", style="red")
        yield from _failures(entrant)
    for entrant in entrants:
        if entrant.kind == "inferd" and entrant.turns:
            yield _ratios(entrant, entrants, work.ratios)


def _figures(entrants: Sequence[Entrant]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("", no_wrap=True)
    for heading, _, _ in COLUMNS:
        table.add_column(heading, justify="right")
    for entrant in entrants:
        remark = entrant.note or REMARKS[entrant.kind]
        name = Text(entrant.name, style="bold" if entrant.kind == "inferd" else "")
        name.append(f" ({remark})" if remark else "", style="dim")
        found = [(typical(entrant, figure), unit) for _, figure, unit in COLUMNS]
        cells = ["" if value is None else _number(value / unit) for value, unit in found]
        table.add_row(name, *(cells if entrant.turns else [entrant.status]))
        for program, used_us in _programs(entrant):
            table.add_row(Text(f"  of which {program}", style="dim"), "", Text(_number(used_us), style="dim"))
    return table


def _ratios(subject: Entrant, entrants: Sequence[Entrant], ratios: Sequence[Ratio]) -> Table:
    formed = {(one.against, one.figure): one for one in ratios if one.subject == subject.name}
    table = Table(box=box.SIMPLE)
    table.add_column(f"{subject.name} divided by", no_wrap=True)
    for heading, _ in RATIO_COLUMNS:
        table.add_column(heading, justify="right")
    for entrant in entrants:
        cells = [formed.get((entrant.name, figure)) for _, figure in RATIO_COLUMNS]
        if any(cells):
            table.add_row(entrant.name, *("" if one is None else _spread(one) for one in cells))
    return table


def _programs(entrant: Entrant) -> Iterator[tuple[str, float]]:
    """What each program of a server costs, where it has more than one."""
    shares = [turn.cpu_us_by_program for turn in entrant.turns]
    programs = dict.fromkeys(program for share in shares for program in share)
    if len(programs) > 1:
        for program in programs:
            yield program, median(share.get(program, 0.0) for share in shares)


def _failures(entrant: Entrant) -> Iterator[Text]:
    for turn in entrant.turns:
        for one in turn.failures:
            yield Text(f"  {entrant.name}, round {turn.round}: {one.count:,} x {one.code}: {one.message}", style="red")


def _spread(ratio: Ratio) -> str:
    return f"{_number(ratio.median)} ({_number(ratio.low)}..{_number(ratio.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
