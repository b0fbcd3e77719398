"""A pod as the simulation sees it: how long a batch runs by its rows, and what a request costs beside that. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from inferd.errors import StartError


@dataclass(frozen=True, slots=True)
class Timings:
    """Run times by rows, in nanoseconds, between which lines are drawn.

    `spread` is what single runs took as a multiple of these; (1.0,) for runs that all take the same. They are drawn
    `stretch` at a time, as they lie: what slows one run often slows the next.
    """

    run_ns: Mapping[int, float]
    spread: tuple[float, ...] = (1.0,)
    stretch: int = 1

    def __post_init__(self) -> None:
        """Raises StartError where no time can be drawn from them."""
        if not self.run_ns or min(self.run_ns) < 1 or min(self.run_ns.values()) <= 0:
            raise StartError("run times: at least one is needed, for one row or more, and each above 0")

    def of(self, rows: int) -> float:
        """The run time of a batch of so many rows, in nanoseconds."""
        sizes = sorted(self.run_ns)
        if rows <= sizes[0] or len(sizes) == 1:
            # Of less than the least nothing is known, and of more than the only one that rows cost alike.
            return self.run_ns[sizes[0]] * max(1.0, rows / sizes[0])
        index = min(bisect_left(sizes, rows), len(sizes) - 1)
        low, high = sizes[index - 1], sizes[index]
        slope = (self.run_ns[high] - self.run_ns[low]) / (high - low)
        return max(self.run_ns[high] + slope * (rows - high), self.run_ns[low] * 0.5)


@dataclass(frozen=True, slots=True)
class Pod:
    """One server; times in nanoseconds.

    Batches of at most `max_rows` run on `instances` threads, or, if `inline`, on the event loop. `request_ns` is
    what the event loop spends on a request, `hop_ns` what a batch waits for two threads to wake.
    """

    timings: Timings
    max_rows: int
    instances: int = 1
    inline: bool = False
    request_ns: float = 0.0
    hop_ns: float = 0.0
    max_delay_ns: float = 0.0
    max_queue_rows: int = 16384

    def limits(self, rows: int) -> Mapping[str, float]:
        """Requests of so many rows per second at which each part of the pod has no time left."""
        batch = max(self.max_rows // rows, 1)
        run_ns = self.timings.of(batch * rows) * sum(self.timings.spread) / len(self.timings.spread)
        if self.inline:
            return {"event loop": batch / (run_ns + batch * self.request_ns) * 1e9}
        found = {"model runs": self.instances * batch / (run_ns + self.hop_ns) * 1e9}
        if self.request_ns:
            found["event loop"] = 1e9 / self.request_ns
        return found


def earned(samples: Sequence[tuple[int, int]]) -> Timings:
    """Timings of single runs, (rows, ns) each: the least by rows, and how the others lay above it.

    The least, because neighbours on the machine only ever add; and no batch takes longer than a larger one.
    """
    by_rows: dict[int, float] = {}
    for rows, run_ns in samples:
        by_rows[rows] = min(run_ns, by_rows.get(rows, run_ns))
    spread = tuple(sorted(run_ns / by_rows[rows] for rows, run_ns in samples))
    least = float("inf")
    for rows in sorted(by_rows, reverse=True):
        least = by_rows[rows] = min(by_rows[rows], least)
    return Timings(dict(sorted(by_rows.items())), spread)
