"""Ratios formed within a round, and their spread over the rounds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import get_args

from bench.result import Entrant, Figure, Ratio, Turn

FIGURES: tuple[Figure, ...] = get_args(Figure)


def value(turn: Turn, figure: Figure) -> float | None:
    """One figure of a turn."""
    found: float | None = getattr(turn, figure)
    return found


def typical(entrant: Entrant, figure: Figure) -> float | None:
    """The median over the rounds, for tables; ratios are not formed from it."""
    found = [one for turn in entrant.turns if (one := value(turn, figure)) is not None]
    return median(found) if found else None


def ratio(figure: Figure, subject: Entrant, against: Entrant) -> Ratio | None:
    """Subject divided by against, round by round; None if no round has both figures."""
    others = {turn.round: value(turn, figure) for turn in against.turns}
    rounds = tuple(
        mine / other
        for turn in subject.turns
        if (mine := value(turn, figure)) is not None and (other := others.get(turn.round))
    )
    if not rounds:
        return None
    return Ratio(
        figure=figure,
        subject=subject.name,
        against=against.name,
        rounds=rounds,
        median=median(rounds),
        low=min(rounds),
        high=max(rounds),
    )


def ratios(entrants: Sequence[Entrant]) -> Iterator[Ratio]:
    """Each transport of inferd against everything else, in every figure that both have."""
    for subject in entrants:
        if subject.kind != "inferd":
            continue
        for against in entrants:
            if against is subject:
                continue
            for figure in FIGURES:
                if (formed := ratio(figure, subject, against)) is not None:
                    yield formed
