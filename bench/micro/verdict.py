"""Was a change made dearer? Pure: figures of two builds in, verdicts out.

Instructions decide where they were counted on both sides: they do not depend on what else the machine does. They
do not see waiting, either: caches, system calls, other threads. Time does, and decides where they are absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import Literal

# Two builds of the same sources differ by far less: the addresses of things move, and with them a few branches.
INSTRUCTIONS_BOUND = 0.02
# Times of the same build differ at least so much from one process to the next, however few rounds showed it.
TIME_BOUND = 0.05


class Verdict(StrEnum):
    """What became of a case between base and head."""

    SAME = "same"
    CHEAPER = "cheaper"
    DEARER = "dearer"
    NEW = "new"
    INCOMPARABLE = "incomparable"
    BROKEN = "broken"

    @property
    def is_regression(self) -> bool:
        """Whether the check must fail."""
        return self in (Verdict.DEARER, Verdict.BROKEN)


@dataclass(frozen=True, slots=True)
class Side:
    """A case on one build: the time of each round, and the instructions; or why there are none."""

    rounds_ns: tuple[float, ...] = ()
    instructions: float | None = None
    lacking: bool = False
    failure: str | None = None

    @property
    def median_ns(self) -> float:
        """The median of the rounds."""
        return median(self.rounds_ns)


@dataclass(frozen=True, slots=True)
class Change:
    """A case on both builds, judged."""

    name: str
    verdict: Verdict
    base: Side
    head: Side
    decided_by: Literal["instructions", "time", "neither"] = "neither"
    ratio: float | None = None
    bound: float | None = None
    time_ratio: float | None = None


def noise(rounds_ns: Sequence[float]) -> float:
    """How much the same build differs from itself: twice the range of its rounds, as a part of their median."""
    return max(TIME_BOUND, 2 * (max(rounds_ns) - min(rounds_ns)) / median(rounds_ns))


def judge(name: str, base: Side, head: Side) -> Change:
    """Compare one case."""
    if head.lacking and base.lacking:
        return Change(name, Verdict.INCOMPARABLE, base, head)
    if head.failure is not None:
        return Change(name, Verdict.BROKEN, base, head)
    if base.failure is not None:
        return Change(name, Verdict.NEW if base.lacking else Verdict.INCOMPARABLE, base, head)
    time_ratio = head.median_ns / base.median_ns
    if base.instructions and head.instructions is not None:
        ratio, bound = head.instructions / base.instructions, INSTRUCTIONS_BOUND
        return Change(name, _verdict(ratio, bound), base, head, "instructions", ratio, bound, time_ratio)
    bound = noise(base.rounds_ns)
    return Change(name, _verdict(time_ratio, bound), base, head, "time", time_ratio, bound, time_ratio)


def _verdict(ratio: float, bound: float) -> Verdict:
    if ratio > 1 + bound:
        return Verdict.DEARER
    return Verdict.CHEAPER if ratio < 1 / (1 + bound) else Verdict.SAME


def explanation(change: Change) -> str:
    """One line on a regression."""
    if change.verdict is Verdict.BROKEN:
        return f"{change.name}: cannot be done any more: {change.head.failure}"
    assert change.ratio is not None
    assert change.bound is not None
    if change.decided_by == "instructions":
        figures = f"{change.base.instructions:,.0f} -> {change.head.instructions:,.0f} instructions"
    else:
        figures = f"{change.base.median_ns:,.0f} -> {change.head.median_ns:,.0f} ns"
    return f"{change.name}: {figures}, {change.ratio:.3f} times the base; the bound is {1 + change.bound:.3f}"
