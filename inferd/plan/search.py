"""From a load and a latency to a number of pods: the least that holds both, with what the neighbours would do. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from inferd.plan.pod import Pod
from inferd.plan.simulation import Load, Outcome, simulate

# Of more pods than this, so many are simulated with their part of the load: with two at random of any number to choose
# from, a pod sees the same.
MOST_SIMULATED: Final = 32
MOST_PODS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for: requests per second, the 99th percentile of latency, and how busy pods may be."""

    rate: float
    slo_ns: float
    most_busy: float = 0.7
    rows: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`pods` is the least number that holds, None if none does; `tried` has the outcome by number of pods."""

    pods: int | None
    tried: Mapping[int, Outcome]
    limits: Mapping[str, float]  # requests per second of one pod, by what has no time left then
    reason: str  # why no number holds, or empty

    @property
    def breaks_first(self) -> str:
        """The part of a pod that has no time left first."""
        return min(self.limits, key=lambda part: self.limits[part])


def plan(pod: Pod, wanted: Wanted, load: Load) -> Plan:
    """Search from the number at which every pod is as busy as it may be; `load` says how it is simulated."""
    limits = pod.limits(wanted.rows)
    least = max(1, math.ceil(wanted.rate / (min(limits.values()) * wanted.most_busy)))
    tried: dict[int, Outcome] = {}

    def holds(pods: int) -> bool:
        if pods not in tried:
            tried[pods] = outcome(pod, wanted, load, pods)
        return tried[pods].p99_ns <= wanted.slo_ns and not tried[pods].refused

    alone_ns = pod.timings.of(wanted.rows) + pod.request_ns + (0.0 if pod.inline else pod.hop_ns)
    if alone_ns > wanted.slo_ns:
        tried[least] = outcome(pod, wanted, load, least)
        reason = f"one request alone takes {alone_ns / 1e6:.3g} ms; more pods make none faster"
        return Plan(None, tried, limits, reason)
    low, high = least - 1, least
    while not holds(high):
        if high >= MOST_PODS or high >= 16 * least + 16:
            return Plan(None, tried, limits, f"the 99th percentile stays above it with {high} pods too: runs vary more")
        low, high = high, high + max(1, high // 2)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    for near in (high - 1, high + 1, high + 2):
        if near >= 1:
            holds(near)
    return Plan(high, dict(sorted(tried.items())), limits, "")


def outcome(pod: Pod, wanted: Wanted, load: Load, pods: int) -> Outcome:
    """What so many pods would do."""
    simulated = min(pods, MOST_SIMULATED)
    return simulate(pod, replace(load, rate=wanted.rate * simulated / pods, pods=simulated, rows=wanted.rows))
