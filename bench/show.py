"""`python -m bench show`: the tables of a comparison that was stored."""

from __future__ import annotations

from pathlib import Path

import click

from bench.goals import MEMORY, console, goals_table, read_comparison, read_growth
from bench.markdown import pages
from bench.tables import report


@click.command()
@click.argument("path", metavar="RESULT.json", type=click.Path(path_type=Path, dir_okay=False))
@MEMORY
@click.option("--markdown", is_flag=True, help="As docs/benchmarks.md has it.")
def show(path: Path, memory_paths: tuple[Path, ...], markdown: bool) -> None:
    """Print what `compare --json` has stored: all figures, all ratios, the goals."""
    found = read_comparison(path)
    growths = [read_growth(one) for one in memory_paths]
    if markdown:
        click.echo(pages(found, growths))
        return
    out = console()
    out.print(report(found))
    out.print(goals_table(found, growths))
