"""`python -m bench compare`: inferd beside its peers and its limits, on this machine, in turns."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, TypeVar

import click
from rich.console import Console

from bench.contest import Contest
from bench.goals import MEMORY, console, goals_table, read_growth
from bench.limits import Bare
from bench.peers import Absent, Peer, known
from bench.result import Comparison
from bench.tables import report
from bench.works import Work, prepare, works
from inferd.bench.machine import this_machine
from inferd.errors import StartError

BUILDS: Final = Path(__file__).resolve().parents[1] / "build" / "bench"
T = TypeVar("T")


@click.command()
@click.option("--peers", "peer_names", metavar="A,B", help=f"Of: {', '.join([Bare.name, *known()])}. Default: all.")
@click.option("--works", "work_names", metavar="A,B", help=f"Of: {', '.join(works())}. Default: all.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns for everybody.")
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=3.0,
    show_default=True,
    help="Of load in each turn; heavy works take two or three times as long.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write all that was found there."
)
@MEMORY
def compare(
    peer_names: str | None,
    work_names: str | None,
    rounds: int,
    seconds: float,
    json_path: Path | None,
    memory_paths: tuple[Path, ...],
) -> None:
    """Measure inferd beside other servers, and beside what no server can beat, on this machine.

    Everybody gets the same model files and the same request bytes. Answers are checked before and after. Servers take
    turns in each round and are paused in between; ratios are formed within a round. What cannot be prepared or
    started here is reported as absent.
    """
    growths = [read_growth(path) for path in memory_paths]
    everybody: dict[str, tuple[Peer, ...]] = {Bare.name: (), **known()}
    chosen = _chosen("--peers", peer_names, everybody)
    found = _compare(chosen, _chosen("--works", work_names, works()).values(), rounds, seconds)
    if json_path is not None:
        json_path.write_text(found.model_dump_json(indent=1, by_alias=True) + "\n")
    out = console()
    out.print(report(found))
    out.print(goals_table(found, growths))


def _chosen(option: str, names: str | None, known_ones: Mapping[str, T]) -> dict[str, T]:
    wanted = list(known_ones) if names is None else [name.strip() for name in names.split(",")]
    for name in wanted:
        if name not in known_ones:
            raise StartError(f"{option}: there is no {name!r}, only {', '.join(known_ones)}")
    # In the table's own order, so that the order of turns does not depend on how they were typed.
    return {name: one for name, one in known_ones.items() if name in wanted}


def _compare(
    chosen: Mapping[str, Sequence[Peer]], chosen_works: Iterable[Work], rounds: int, seconds: float
) -> Comparison:
    started = datetime.now(UTC)
    peers = [peer for several in chosen.values() for peer in several]
    with _progress() as tell, _ended_by_sigterm():
        versions, absences = _prepared(peers, tell)
        found = []
        for work in chosen_works:
            tell(f"{work.name}: preparing")
            with Contest(prepare(work, BUILDS / "models"), tell) as contest:
                if Bare.name in chosen:
                    contest.enter_bare()
                for peer in peers:
                    contest.enter(peer, absences)
                contest.run(rounds, seconds)
                found.append(contest.found())
    return Comparison(
        started=started.isoformat(timespec="seconds"),
        command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]),
        machine=this_machine(),
        rounds=rounds,
        seconds=seconds,
        versions=versions,
        works=tuple(found),
    )


def _prepared(
    peers: Sequence[Peer], tell: Callable[[str], None]
) -> tuple[dict[str, Mapping[str, str]], dict[str, str]]:
    """Versions of the peers that can take part, and why the others cannot."""
    BUILDS.mkdir(parents=True, exist_ok=True)
    versions: dict[str, Mapping[str, str]] = {}
    absences: dict[str, str] = {}
    for peer in peers:
        tell(f"{peer.name}: preparing; the first time this may take minutes")
        try:
            versions[peer.name] = peer.prepare(BUILDS)
        except (Absent, OSError) as err:
            absences[peer.name] = " ".join(str(err).split())
    return versions, absences


@contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What is going on now, on standard error: a line that changes, or one after the other if that is no terminal."""
    err = Console(stderr=True)
    if not err.is_terminal:
        yield lambda text: click.echo(text, err=True)
        return
    with err.status("") as status:
        yield status.update


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does, so that no server is left behind, paused for ever."""

    def end(_: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
