"""The timelines of all points as one, in as many steps as a plot has room for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from inferd.bench.result import Moment, Point


@dataclass(frozen=True, slots=True)
class Step:
    """Some moments that follow each other; latencies are NaN where nothing was answered."""

    start_s: float
    end_s: float
    measured: bool
    answers_per_second: float
    errors_per_second: float
    p50_ns: float
    p99_ns: float

    @property
    def middle_s(self) -> float:
        """Where to draw it."""
        return (self.start_s + self.end_s) / 2


def steps(points: Sequence[Point], most: int) -> list[list[Step]]:
    """The steps of each point that has a timeline, one point after the other, about `most` in all."""
    total = sum(len(point.timeline) for point in points)
    together = max(1, math.ceil(total / most))
    runs: list[list[Step]] = []
    clock_s = 0.0
    for point in points:
        if not point.timeline:
            continue
        # Points may count from their own beginning or from that of the run.
        offset_s = clock_s - point.timeline[0].start_s
        run = [_joined(moments, offset_s) for moments in _groups(point.timeline, together)]
        clock_s = run[-1].end_s
        runs.append(run)
    return runs


def _groups(moments: Sequence[Moment], together: int) -> Iterator[Sequence[Moment]]:
    for _, same in groupby(moments, key=lambda moment: moment.measured):
        run = list(same)
        for start in range(0, len(run), together):
            yield run[start : start + together]


def _joined(moments: Sequence[Moment], offset_s: float) -> Step:
    """Rates are means. Percentiles do not add up: of several the middle p50 and the worst p99 are kept."""
    seconds = sum(moment.seconds for moment in moments) or math.inf
    answered = [moment for moment in moments if moment.ok]
    return Step(
        start_s=moments[0].start_s + offset_s,
        end_s=moments[-1].start_s + moments[-1].seconds + offset_s,
        measured=moments[0].measured,
        answers_per_second=sum(moment.ok for moment in moments) / seconds,
        errors_per_second=sum(moment.errors for moment in moments) / seconds,
        p50_ns=statistics.median(moment.p50_ns for moment in answered) if answered else math.nan,
        p99_ns=max(moment.p99_ns for moment in answered) if answered else math.nan,
    )
