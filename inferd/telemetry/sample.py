"""What is counted, as it was at one moment: of a model version, and of the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from inferd.errors import Internal


@dataclass(frozen=True, slots=True)
class HistogramSample:
    """How many observations fell into each bucket. ``total`` is their sum, in the metric's unit.

    ``bounds`` are the upper bounds, rising and without the infinite one; ``counts`` has one more entry,
    for what lies above the last bound, and is not cumulative. Raises Internal when the two disagree.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float
    exemplars: Mapping[int, tuple[bytes, float, float]] = field(default_factory=dict)
    """By bucket: the id of a trace, the value it had, and when, in seconds since the Unix epoch."""

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1:
            raise Internal(f"histogram: {len(self.bounds)} bounds but {len(self.counts)} counts")
        if any(low >= high for low, high in pairwise(self.bounds)):
            raise Internal("histogram: bounds do not rise")

    def plus(self, other: HistogramSample) -> HistogramSample:
        """Both together. Raises Internal if their bounds differ."""
        if self.bounds != other.bounds:
            raise Internal("histogram: other bounds")
        counts = tuple(one + more for one, more in zip(self.counts, other.counts, strict=True))
        return HistogramSample(self.bounds, counts, self.total + other.total)


def nothing_observed() -> HistogramSample:
    """A histogram of nothing."""
    return HistogramSample(bounds=(), counts=(0,), total=0.0)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a loaded model version is."""

    batched: bool
    max_batch_size: int
    instances: int
    threads: int
    fell_back: bool = False
    """Whether the CPU runs it although it asks for a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSample:
    """One model version at the moment of a scrape; counts are since it was loaded, durations in seconds.

    Requests for models that do not exist come as a sample whose model is "", with codes only: their
    names are the callers' choice and must not become label values.
    """

    model: str
    version: str = ""
    ready: bool = False
    state: str = ""
    facts: ModelFacts | None = None
    load_seconds: float = 0.0
    requests_by_code: Mapping[int, int] = field(default_factory=dict)
    failed_by_code: Mapping[int, int] = field(default_factory=dict)
    """Of requests that came into the queue; the others that have an end were refused."""
    accepted: int = 0
    in_flight: int = 0
    expired: int = 0
    wasted_rows: int = 0
    stopped_batches: int = 0
    shed_by_reason: Mapping[str, int] = field(default_factory=dict)
    rows: int = 0
    padded_rows: int = 0
    batches_by_reason: Mapping[str, int] = field(default_factory=dict)
    busy_seconds: float = 0.0
    pending: int = 0
    queue_rows: int = 0
    queue_bytes: int = 0
    request_by_code: Mapping[int, HistogramSample] = field(default_factory=dict)
    queue: HistogramSample = field(default_factory=nothing_observed)
    compute: HistogramSample = field(default_factory=nothing_observed)
    compute_input: HistogramSample = field(default_factory=nothing_observed)
    compute_infer: HistogramSample = field(default_factory=nothing_observed)
    compute_output: HistogramSample = field(default_factory=nothing_observed)
    batch_rows: HistogramSample = field(default_factory=nothing_observed)

    @property
    def batches(self) -> int:
        """Batches run, whatever they waited for."""
        return sum(self.batches_by_reason.values())

    @property
    def request(self) -> HistogramSample:
        """How long requests took, whatever their end."""
        bounds = next((one.bounds for one in self.request_by_code.values()), self.queue.bounds)
        all_of_them = HistogramSample(bounds, (0,) * (len(bounds) + 1), 0.0)
        for one in self.request_by_code.values():
            all_of_them = all_of_them.plus(one)
        return all_of_them

    @property
    def rejected_by_code(self) -> dict[int, int]:
        """Requests that were refused before they came into the queue."""
        failures = {code: count for code, count in self.requests_by_code.items() if code}
        rejected = {code: count - self.failed_by_code.get(code, 0) for code, count in failures.items()}
        return {code: count for code, count in rejected.items() if count}


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """The versions that answer here: of inferd, of Python, of ONNX Runtime."""

    version: str
    python: str
    onnxruntime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSample:
    """The server as a whole at the moment of a scrape."""

    ready: bool = False
    draining: bool = False
    loop_lag: HistogramSample = field(default_factory=nothing_observed)
    loads: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Loads that have ended, by model and "ok" or "failed"."""
    traces: Mapping[str, int] = field(default_factory=dict)
    """Traces that came to their end, "sent" or "dropped"; nothing without tracing."""
    calls: Mapping[tuple[str, str, str], HistogramSample] = field(default_factory=dict)
    """How long calls other than inference took, by what carried them, method and the name of the code."""
    refusals: Mapping[str, int] = field(default_factory=dict)
    """Calls that the policy refused, by reason; nothing where nobody is asked who calls."""
    access: Mapping[str, int] = field(default_factory=dict)
    """Lines of the access log, "written" or "dropped"; nothing without one."""
