"""`python -m bench show`: the tables of a comparison that was stored."""

from __future__ import annotations

from pathlib import Path

import click

from bench.goals import MEMORY, console, goals_table, read_comparison, read_growth
from bench.tables import report


@click.command()
@click.argument("path", metavar="RESULT.json", type=click.Path(path_type=Path, dir_okay=False))
@MEMORY
def show(path: Path, memory_paths: tuple[Path, ...]) -> None:
    """Print what `compare --json` has stored: all figures, all ratios, the goals."""
    found = read_comparison(path)
    out = console()
    out.print(report(found))
    out.print(goals_table(found, [read_growth(one) for one in memory_paths]))
