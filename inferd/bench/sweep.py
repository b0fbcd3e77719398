"""Several loads one after the other: which ones, when to stop, and where the knee is."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal

from inferd.bench.result import Load, Point
from inferd.errors import StartError

DEFAULT_CONNECTIONS: Final = 8
TOO_MANY_ERRORS: Final = 0.01


def values(flag: str, text: str) -> tuple[float, ...]:
    """The values of a list (1,2,5), of a doubling range (1:64) or of a range with a step (100:500:50).

    Raises StartError if the text is none of these, or not ascending numbers above 0.
    """
    found: list[float] = []
    for part in text.split(","):
        try:
            bounds = [float(one) for one in part.split(":")]
        except ValueError:
            bounds = []
        if len(bounds) not in (1, 2, 3) or any(not 0 < one < float("inf") for one in bounds):
            raise StartError(f"{flag} {text}: expected numbers above 0 as LIST (1,2,5), LOW:HIGH or LOW:HIGH:STEP")
        at, high = bounds[0], bounds[min(1, len(bounds) - 1)]
        if at > high:
            raise StartError(f"{flag} {text}: a range starts with its lower bound")
        while at < high:
            found.append(at)
            at = at + bounds[2] if len(bounds) == 3 else 2 * at
        found.append(high)
    if any(one >= following for one, following in pairwise(found)):
        raise StartError(f"{flag} {text}: each value must be above the one before")
    return tuple(found)


def closed_loops(concurrencies: Sequence[float], connections: int | None) -> tuple[Load, ...]:
    """Closed loops with so many requests in flight in all, the same number on each connection.

    Raises StartError if they cannot be dealt out evenly.
    """
    if fractions := [one for one in concurrencies if one != int(one)]:
        raise StartError(f"--concurrency {fractions[0]:g}: requests in flight are whole numbers")
    loads: list[Load] = []
    for concurrency in map(int, concurrencies):
        used = min(connections, concurrency) if connections else _most_even(concurrency)
        if concurrency % used:
            raise StartError(
                f"--concurrency {concurrency} over --connections {used}: give a multiple, so that all carry the same"
            )
        loads.append(Load(connections=used, streams=concurrency // used))
    return tuple(loads)


def _most_even(concurrency: int) -> int:
    """The most connections, up to the default, that all carry the same."""
    return next(count for count in range(min(DEFAULT_CONNECTIONS, concurrency), 0, -1) if concurrency % count == 0)


def open_loops(
    rates: Sequence[float], connections: int | None, max_in_flight: int, arrivals: Literal["constant", "poisson"]
) -> tuple[Load, ...]:
    """Open loops of so many requests per second; `max_in_flight` is rounded up to a multiple of the connections."""
    used = min(connections or DEFAULT_CONNECTIONS, max_in_flight)
    streams = -(-max_in_flight // used)
    return tuple(Load(connections=used, streams=streams, rate=rate, arrivals=arrivals) for rate in rates)


def beyond(point: Point, latency_limit_ms: float | None) -> str:
    """Why more load would be pointless after this point; empty if it would not be."""
    failed = sum(one.count for one in point.failures)
    if point.stalled:
        return "the server has stopped answering"
    if failed > TOO_MANY_ERRORS * (point.ok + failed):
        return f"{failed} of {point.ok + failed} requests failed"
    if not point.ok:
        return "nothing was answered"
    if latency_limit_ms is not None and point.latency.p99_ns > latency_limit_ms * 1e6:
        return f"p99 is {point.latency.p99_ns / 1e6:.3g} ms, above the limit of {latency_limit_ms:g} ms"
    return ""


def knee(points: Sequence[Point]) -> int | None:
    """The index of the point of the highest power, which is throughput divided by mean latency (Kleinrock, 1979).

    Up to there more load buys more throughput, relatively, than it costs latency; past it less. Points with too many
    errors cannot be it. None if the last point has the highest power, because a higher one may lie beyond it, or if
    there are fewer than three points.
    """
    powers = [0.0 if beyond(one, None) else one.requests_per_second / one.latency.mean_ns for one in points]
    if len(powers) < 3 or not any(powers):
        return None
    best = max(range(len(powers)), key=lambda index: powers[index])
    return best if best < len(powers) - 1 else None
