"""Slices gathered into windows, and the question whether they agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from inferd._native.histogram import Histogram
from inferd.bench.result import Latency, Load

if TYPE_CHECKING:
    from inferd._native.tally import Slice

FIGURES: Final = 3
"""Figures are of so many windows, the last ones."""
MIN_ANSWERS: Final = 50
"""A window with fewer answers grows, up to MAX_GROWTH times its length: its p99 would say nothing."""
MAX_GROWTH: Final = 10
SLICE_NS: Final = 100_000_000
"""Windows are made of slices of this length, and so end within half of it of their own."""
PATIENCE: Final = 30
"""So many window lengths without a single answer are a server that has stopped answering."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    By default windows of `window_s` until p50 and p99 of the last ones each lie within `stability` of their mean,
    at most `max_windows`. With `duration_s` or `requests` exactly so long or so many, as FIGURES equal parts; a
    number of requests has no warm-up.
    """

    warmup_s: float = 1.0
    window_s: float = 1.0
    max_windows: int = 20
    stability: float = 0.1
    duration_s: float | None = None
    requests: int = 0


@dataclass(slots=True)
class Window:
    """Slices that follow each other, added up."""

    start_ns: int
    end_ns: int
    latency: Histogram = field(default_factory=Histogram)
    failures: Counter[int] = field(default_factory=Counter)
    messages: dict[int, str] = field(default_factory=dict)
    sent_bytes: int = 0
    received_bytes: int = 0

    @property
    def ok(self) -> int:
        """Requests answered well."""
        return self.latency.count

    @property
    def ended(self) -> int:
        """Requests answered well or badly."""
        return self.ok + self.failures.total()

    @property
    def seconds(self) -> float:
        """Its length."""
        return (self.end_ns - self.start_ns) / 1e9

    def add(self, other: Slice | Window) -> None:
        """Count what follows."""
        self.end_ns = other.end_ns
        self.latency.merge(other.latency)
        self.failures.update(other.failures)
        self.messages = {**other.messages, **self.messages}
        self.sent_bytes += other.sent_bytes
        self.received_bytes += other.received_bytes


def window_of(slices: Iterator[Slice], seconds: float) -> Window:
    """What comes next, for so long; the slice that is under way is left out."""
    begun_ns = next(slices).end_ns
    window = Window(begun_ns, begun_ns)
    for part in slices:
        window.add(part)
        if part.end_ns - begun_ns >= seconds * 1e9:
            break
    return window


def merged(windows: Sequence[Window]) -> Window:
    """Windows that follow each other as one: histograms are merged, no percentile is averaged."""
    whole = Window(windows[0].start_ns, windows[0].start_ns)
    for one in windows:
        whole.add(one)
    return whole


def agree(windows: Sequence[Window], tolerance: float) -> bool:
    """Whether the last windows' p50 and p99 each lie within this share of their mean."""
    last = windows[-FIGURES:]
    if len(last) < FIGURES or not all(one.ok for one in last):
        return False
    for percent in (50, 99):
        values = [one.latency.percentile(percent) for one in last]
        mean = sum(values) / len(values)
        if any(abs(value - mean) > tolerance * mean for value in values):
            return False
    return True


class Course:
    """Cuts slices into windows by the plan, and knows when there are enough of them. Its only clock are the slices."""

    def __init__(self, plan: Plan, load: Load) -> None:
        self.windows: list[Window] = []
        self._plan, self._closed_loop = plan, load.rate is None
        self._open: Window | None = None
        self._ended = 0
        self._start_ns: int | None = None
        self._last_answer_ns = 0
        self.stalled = False

    def add(self, part: Slice) -> bool:
        """Count a slice. True if it completed a window."""
        if self._open is None:
            self._open = Window(part.start_ns, part.start_ns)
        if self._start_ns is None:
            self._start_ns = self._last_answer_ns = part.start_ns
        self._open.add(part)
        if ended := part.ok + sum(part.failures.values()):
            self._ended += ended
            self._last_answer_ns = part.end_ns
        waiting = self._closed_loop or part.in_flight + part.overdue > 0
        self.stalled = waiting and part.end_ns - self._last_answer_ns > PATIENCE * self._plan.window_s * 1e9
        if self.stalled or self._complete(self._open):
            self.close()
            return True
        return False

    def _complete(self, window: Window) -> bool:
        plan, parts, slack_ns = self._plan, len(self.windows) + 1, SLICE_NS / 2
        elapsed_ns = window.end_ns - (self._start_ns or 0) + slack_ns
        if plan.requests:
            return self._ended * FIGURES >= plan.requests * parts
        if plan.duration_s is not None:
            return elapsed_ns >= plan.duration_s * 1e9 * parts / FIGURES
        windows = (window.end_ns - window.start_ns + slack_ns) / (plan.window_s * 1e9)
        return windows >= MAX_GROWTH or (windows >= 1 and window.ended >= MIN_ANSWERS)

    def close(self) -> bool:
        """Complete the window that is open, however short. False if there is none."""
        if self._open is None:
            return False
        self.windows.append(self._open)
        self._open = None
        return True

    @property
    def figures(self) -> list[Window]:
        """The windows that count: the last ones, or all if the last ones are silent."""
        return self.windows if self.stalled else self.windows[-FIGURES:]

    @property
    def stable(self) -> bool:
        """Whether the windows of the figures agree."""
        return not self.stalled and agree(self.windows, self._plan.stability)

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be measured."""
        if self.stalled:
            return True
        if self._plan.requests:
            return self._ended >= self._plan.requests
        if self._plan.duration_s is not None:
            return len(self.windows) >= FIGURES
        last = self.windows[-FIGURES:]
        only_errors = len(last) == FIGURES and all(one.ended and not one.ok for one in last)
        return self.stable or only_errors or len(self.windows) >= self._plan.max_windows


def latency_of(histogram: Histogram) -> Latency:
    """The histogram and its usual percentiles as a record."""
    return Latency(
        count=histogram.count,
        mean_ns=histogram.mean_ns,
        min_ns=histogram.min_ns,
        p50_ns=histogram.percentile(50),
        p90_ns=histogram.percentile(90),
        p99_ns=histogram.percentile(99),
        p999_ns=histogram.percentile(99.9),
        max_ns=histogram.max_ns,
        buckets=tuple(histogram.buckets()),
    )
