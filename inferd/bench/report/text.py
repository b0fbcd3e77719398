"""A Report as text: on a terminal of any width, and on a pipe."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferd.bench.report import figures
from inferd.bench.report.figures import Column
from inferd.bench.report.units import plain
from inferd.bench.result import Point, Report

_FIGURES = (
    *(figures.REQUESTS, figures.ROWS),
    *figures.LATENCY,
    *(figures.ERRORS, figures.UNANSWERED, figures.STABLE),
    *(figures.CPU, figures.RSS),
    *figures.BYTES,
)
_GAP = 2
_KNEE = "knee"


def render(report: Report, console: Console) -> None:
    """Print the whole Report; nothing that was not measured is shown as a figure."""
    _facts(report, console)
    _tables(report, _FIGURES, console)
    _notices(report, console)
    _failures(report, console)
    _statistics(report, console)
    _answers(report, console)


def _facts(report: Report, console: Console) -> None:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, text in figures.facts(report):
        grid.add_row(name, Text(text))
    console.print(grid)


def _new_table(title: str = "") -> Table:
    return Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        title=title or None,
        title_justify="left",
        title_style="bold",
    )


def _tables(report: Report, columns: Sequence[Column], console: Console, title: str = "") -> None:
    """One row per point, in as few tables as the width allows; each begins with the load."""
    if not report.points:
        return
    load = figures.load_column(report.points)
    fixed = _width(load, report) + _GAP + (len(_KNEE) + _GAP if figures.knee(report) is not None else 0)
    tables: list[list[Column]] = [[]]
    used = fixed
    for column in columns:
        needed = _width(column, report) + _GAP
        if tables[-1] and used + needed > console.width:
            tables.append([])
            used = fixed
        tables[-1].append(column)
        used += needed
    for number, part in enumerate(tables):
        _table(report, (load, *part), console, "" if number else title)


def _width(column: Column, report: Report) -> int:
    """What it takes: titles wrap between words, but a figure on two lines would be two figures."""
    return max(map(len, (*column.title.split(), *(column.cell(point) for point in report.points))))


def _table(report: Report, columns: Sequence[Column], console: Console, title: str) -> None:
    table = _new_table(title)
    for column in columns:
        width = _width(column, report)
        table.add_column(textwrap.fill(column.title, width), justify="right", min_width=width)
    turn = figures.knee(report)
    if turn is not None:
        table.add_column("", min_width=len(_KNEE))
    for point in report.points:
        cells = [Text(column.cell(point), style=_style(column, point)) for column in columns]
        mark = [_KNEE if point is turn else ""] if turn is not None else []
        table.add_row(*cells, *mark, style="bold" if point is turn else "")
    console.print(table)


def _style(column: Column, point: Point) -> str:
    if column is figures.STABLE and not point.stable:
        return "bold red"
    counts = (
        figures.errors(point) if column is figures.ERRORS else point.unanswered if column is figures.UNANSWERED else 0
    )
    return "bold red" if counts else ""


def _notices(report: Report, console: Console) -> None:
    for notice in figures.notices(report):
        title = Text(
            f"{notice.title.upper()}: " if notice.bad else f"{notice.title}: ", "bold red" if notice.bad else "bold"
        )
        console.print(title + Text(notice.text))


def _failures(report: Report, console: Console) -> None:
    table = _new_table("Failures")
    table.add_column("load", justify="right", no_wrap=True)
    table.add_column("code", no_wrap=True)
    table.add_column("count", justify="right", no_wrap=True)
    table.add_column("first message", overflow="fold")
    for point in report.points:
        for failure in point.failures:
            message = Text(plain(failure.message))
            table.add_row(figures.label(point.load), Text(plain(failure.code)), f"{failure.count:,}", message)
    if table.row_count:
        console.print()
        console.print(table)


def _statistics(report: Report, console: Console) -> None:
    if any(point.statistics for point in report.points):
        console.print()
        title = "The server's own statistics (times per request)"
        _tables(report, figures.STATISTICS, console, title)


def _answers(report: Report, console: Console) -> None:
    judged = [(point.load, point.answers) for point in report.points if point.answers is not None]
    if not judged:
        return
    sums = [sum(counts) for counts in zip(*((one.right, one.wrong, one.unjudged) for _, one in judged), strict=True)]
    console.print(f"Answers compared: {sums[0]:,} right, {sums[1]:,} wrong, {sums[2]:,} unjudged", highlight=False)
    for load, answers in judged:
        if answers.wrong:
            first = f", first: {plain(answers.first_wrong)}" if answers.first_wrong else ""
            console.print(Text(f"  {figures.label(load)}: {answers.wrong:,} wrong{first}", "red"))
