"""Pace: how long a batch takes by its size, and the size beyond which larger batches win nothing.

On one CPU thread batching wins where the cost per call rules (small tabular models) and wins nothing
where arithmetic does (most convolutional networks): there a batch of 8 only makes seven callers wait
for the eighth. So a batch size has to earn its place. Pure: times are arguments.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque

SAMPLES = 5  # run times remembered per size
ENOUGH = 5  # run times after which a size is judged
GAIN = 1.05  # rows per second that a larger size must win over the best one so far
REACH = 4  # sizes up to this multiple of the best are tried: the gain may come only after a plateau
RETRY_AFTER_RUNS = 4096  # then the next larger size gets another chance: loads and neighbours change


class Pace:
    """Learns from runs of 1, 2, 4 ... `max_rows` rows of one kind; run times in nanoseconds."""

    def __init__(self, max_rows: int) -> None:
        """Nothing is known yet, so the first limit is one row."""
        self.sizes = _sizes(max_rows)
        self._samples: dict[int, deque[float]] = {size: deque(maxlen=SAMPLES) for size in self.sizes}
        self._best = 0
        self._runs = 0
        self.limit = self.sizes[0]

    def observe(self, rows: int, run_ns: int) -> None:
        """Learn from one run that succeeded. A size between two known ones speaks for the smaller."""
        size = self.sizes[bisect_right(self.sizes, rows) - 1]
        self._samples[size].append(run_ns / rows)
        self._runs += 1
        if self._runs % RETRY_AFTER_RUNS == 0:
            self._forget_beyond_best()
        self._judge()

    def row_ns(self, size: int) -> float | None:
        """The time per row in batches of `size`, None if too few have run.

        The least of the last few: neighbours on the machine only ever add to a run time.
        """
        samples = self._samples.get(size, ())
        return min(samples) if len(samples) >= ENOUGH else None

    def run_ns(self, rows: int) -> int | None:
        """The expected run time of `rows` rows, from the nearest size that is known at or below; None if none is."""
        for size in reversed(self.sizes):
            per_row = self.row_ns(size) if size <= rows else None
            if per_row is not None:
                return int(per_row * rows)
        return None

    @property
    def best(self) -> int:
        """The size that has earned its place so far."""
        return self.sizes[self._best]

    @property
    def settled(self) -> bool:
        """True when no larger size is left to try."""
        return self.limit == self.best

    def _judge(self) -> None:
        best, best_ns = 0, self.row_ns(self.sizes[0])
        if best_ns is None:
            self._best, self.limit = 0, self.sizes[0]
            return
        limit = None
        for index in range(1, len(self.sizes)):
            if self.sizes[index] > self.sizes[best] * REACH:
                break
            row_ns = self.row_ns(self.sizes[index])
            if row_ns is None:
                limit = self.sizes[index]
                break
            if row_ns * GAIN <= best_ns:
                best, best_ns = index, row_ns
        self._best = best
        self.limit = self.sizes[best] if limit is None else limit

    def _forget_beyond_best(self) -> None:
        for size in self.sizes[self._best + 1 :]:
            self._samples[size].clear()


def _sizes(max_rows: int) -> tuple[int, ...]:
    sizes = [1]
    while sizes[-1] * 2 < max_rows:
        sizes.append(sizes[-1] * 2)
    if max_rows > 1:
        sizes.append(max_rows)
    return tuple(sizes)
