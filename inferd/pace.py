"""Pace: how long a batch takes by its size, the size beyond which larger batches win nothing, and what is short.

On one CPU thread batching wins where the cost per call rules (small tabular models) and wins nothing
where arithmetic does (most convolutional networks): there a batch of 8 only makes seven callers wait
for the eighth. So a batch size has to earn its place. Pure: times are arguments.
"""

from __future__ import annotations

from bisect import bisect_right

ENOUGH = 5  # run times after which a size is judged
GAIN = 1.05  # rows per second that a larger size must win over the best one so far
REACH = 4  # sizes up to this multiple of the best are tried: the gain may come only after a plateau
FAR = 4  # times the bound that a run may take before short runs have to be proved anew
PROOF_RUNS = 32
MOST_PROOF_RUNS = 1 << 20
RETRY_AFTER_RUNS = 4096  # then the next larger size gets another chance: loads and neighbours change


class Pace:
    """Learns from runs of 1, 2, 4 ... `max_rows` rows of one kind; run times in nanoseconds."""

    def __init__(self, max_rows: int) -> None:
        """Nothing is known yet, so the first limit is one row."""
        self.sizes = _sizes(max_rows)
        # By index of the size: the last few times per row, and what they come to once they are ENOUGH.
        self._samples: list[list[float]] = [[] for _ in self.sizes]
        self._row_ns: list[float | None] = [None] * len(self.sizes)
        self._best = 0
        self._runs = 0
        self.limit = self.sizes[0]

    def observe(self, rows: int, run_ns: int) -> bool:
        """Learn from one run that succeeded. A size between two known ones speaks for the smaller.

        True if that changed what is known: a size is judged once in ENOUGH runs, by the least of their times,
        because neighbours on the machine only ever add to one.
        """
        index = bisect_right(self.sizes, rows) - 1
        samples = self._samples[index]
        samples.append(run_ns / rows)
        self._runs += 1
        if self._runs % RETRY_AFTER_RUNS == 0:
            self._forget_beyond_best()
        if len(samples) < ENOUGH:
            return False
        self._row_ns[index] = min(samples)
        samples.clear()
        self._judge()
        return True

    def row_ns(self, size: int) -> float | None:
        """The time per row in batches of `size`, None if too few have run or it is none of `sizes`."""
        index = bisect_right(self.sizes, size) - 1
        return self._row_ns[index] if self.sizes[index] == size else None

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
        best, best_ns = 0, self._row_ns[0]
        if best_ns is None:
            self._best, self.limit = 0, self.sizes[0]
            return
        limit = None
        for index in range(1, len(self.sizes)):
            if self.sizes[index] > self.sizes[best] * REACH:
                break
            row_ns = self._row_ns[index]
            if row_ns is None:
                limit = self.sizes[index]
                break
            if row_ns * GAIN <= best_ns:
                best, best_ns = index, row_ns
        self._best = best
        self.limit = self.sizes[best] if limit is None else limit

    def _forget_beyond_best(self) -> None:
        for index in range(self._best + 1, len(self.sizes)):
            self._samples[index].clear()
            self._row_ns[index] = None


class Shortness:
    """Up to how many rows of one kind a run is short, that is expected to take at most `bound_ns`.

    A model whose run time hangs on the values in its inputs looks short until it is not. So a kind of row must have
    had PROOF_RUNS runs within the bound before any counts as short, and twice as many after each one that took
    far longer.
    """

    def __init__(self, bound_ns: int) -> None:
        """Nothing is short yet."""
        self._bound_ns = bound_ns
        self._proof = self._missing = PROOF_RUNS
        self.rows = 0

    def observe(self, cpu_ns: int, pace: Pace, *, judged: bool) -> None:
        """Learn from one run that `pace` has seen, and with `judged` from what it knows anew.

        What counts is the run's own time, not that of others on the machine.
        """
        if cpu_ns > FAR * self._bound_ns:
            self._proof = min(2 * self._proof, MOST_PROOF_RUNS)
            self._missing, self.rows = self._proof, 0
        elif self._missing:
            self._missing -= cpu_ns <= self._bound_ns
        elif judged:
            self.rows = self._largest(pace)

    def _largest(self, pace: Pace) -> int:
        largest = 0
        for size in pace.sizes:
            row_ns = pace.row_ns(size)
            if row_ns is None or row_ns * size > self._bound_ns:
                break
            largest = size
        return largest


def _sizes(max_rows: int) -> tuple[int, ...]:
    sizes = [1]
    while sizes[-1] * 2 < max_rows:
        sizes.append(sizes[-1] * 2)
    if max_rows > 1:
        sizes.append(max_rows)
    return tuple(sizes)
