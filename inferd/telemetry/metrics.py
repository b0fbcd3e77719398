"""The metrics inferd has, declared once. Nothing is counted here: a scrape asks for samples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Final

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from inferd.errors import Code, Internal

_MODEL: Final = ("model", "version")


@dataclass(frozen=True, slots=True)
class HistogramSample:
    """How many observations fell into each bucket. ``total`` is their sum, in the metric's unit.

    ``bounds`` are the upper bounds, rising and without the infinite one; ``counts`` has one more entry,
    for what lies above the last bound, and is not cumulative. Raises Internal when the two disagree.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.bounds) + 1:
            raise Internal(f"histogram: {len(self.bounds)} bounds but {len(self.counts)} counts")
        if any(low >= high for low, high in pairwise(self.bounds)):
            raise Internal("histogram: bounds do not rise")


def _nothing_observed() -> HistogramSample:
    return HistogramSample(bounds=(), counts=(0,), total=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSample:
    """One model version at the moment of a scrape; counts are since it was loaded, durations in seconds.

    Requests for models that do not exist come as a sample whose model is "", with codes only: their
    names are the callers' choice and must not become label values.
    """

    model: str
    version: str = ""
    ready: bool = False
    requests_by_code: Mapping[int, int] = field(default_factory=dict)
    rows: int = 0
    batches: int = 0
    queue_rows: int = 0
    queue_bytes: int = 0
    request: HistogramSample = field(default_factory=_nothing_observed)
    queue: HistogramSample = field(default_factory=_nothing_observed)
    compute: HistogramSample = field(default_factory=_nothing_observed)
    compute_input: HistogramSample = field(default_factory=_nothing_observed)
    compute_infer: HistogramSample = field(default_factory=_nothing_observed)
    compute_output: HistogramSample = field(default_factory=_nothing_observed)
    batch_rows: HistogramSample = field(default_factory=_nothing_observed)


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """The versions that answer here: of inferd, of Python, of ONNX Runtime."""

    version: str
    python: str
    onnxruntime: str


_Family = Callable[[Iterable[ModelSample]], Metric]


def _counter(name: str, text: str, read: Callable[[ModelSample], int]) -> _Family:
    def family(samples: Iterable[ModelSample]) -> Metric:
        metric = CounterMetricFamily(name, text, labels=_MODEL)
        for sample in samples:
            metric.add_metric((sample.model, sample.version), read(sample))
        return metric

    return family


def _gauge(name: str, text: str, read: Callable[[ModelSample], int]) -> _Family:
    def family(samples: Iterable[ModelSample]) -> Metric:
        metric = GaugeMetricFamily(name, text, labels=_MODEL)
        for sample in samples:
            metric.add_metric((sample.model, sample.version), read(sample))
        return metric

    return family


def _histogram(name: str, text: str, read: Callable[[ModelSample], HistogramSample], unit: str = "") -> _Family:
    def family(samples: Iterable[ModelSample]) -> Metric:
        metric = HistogramMetricFamily(name, text, labels=_MODEL, unit=unit)
        for sample in samples:
            histogram = read(sample)
            metric.add_metric((sample.model, sample.version), _cumulative(histogram), histogram.total)
        return metric

    return family


def _requests(samples: Iterable[ModelSample]) -> Metric:
    metric = CounterMetricFamily(
        "inferd_requests_total",
        "Inference requests settled, by gRPC status; no model means that it was unknown.",
        labels=(*_MODEL, "code"),
    )
    for sample in samples:
        for code, count in by_name(sample.requests_by_code).items():
            metric.add_metric((sample.model, sample.version, code), count)
    return metric


_OF_MODELS: Final[tuple[_Family, ...]] = (
    _histogram(
        "inferd_request_duration",
        "Time from a request's last byte to its answer.",
        lambda sample: sample.request,
        unit="seconds",
    ),
    _histogram(
        "inferd_queue_duration",
        "Time a request waited for its batch to leave.",
        lambda sample: sample.queue,
        unit="seconds",
    ),
    _histogram(
        "inferd_compute_duration",
        "Time that the batch of a request took, from its inputs to its answers.",
        lambda sample: sample.compute,
        unit="seconds",
    ),
    _histogram(
        "inferd_compute_input_duration",
        "Of inferd_compute_duration_seconds: until the inputs were in place.",
        lambda sample: sample.compute_input,
        unit="seconds",
    ),
    _histogram(
        "inferd_compute_infer_duration",
        "Of inferd_compute_duration_seconds: the run of the model.",
        lambda sample: sample.compute_infer,
        unit="seconds",
    ),
    _histogram(
        "inferd_compute_output_duration",
        "Of inferd_compute_duration_seconds: until the answers were written.",
        lambda sample: sample.compute_output,
        unit="seconds",
    ),
    _histogram("inferd_batch_rows", "Rows of the batches that were run.", lambda sample: sample.batch_rows),
    _counter("inferd_rows_total", "Rows run.", lambda sample: sample.rows),
    _counter("inferd_batches_total", "Batches run.", lambda sample: sample.batches),
    _gauge("inferd_queue_rows", "Rows waiting for a batch.", lambda sample: sample.queue_rows),
    _gauge(
        "inferd_queue_bytes",
        "Bytes of the requests waiting for a batch.",
        lambda sample: sample.queue_bytes,
    ),
    _gauge(
        "inferd_model_ready",
        "1 while the model version takes requests, else 0.",
        lambda sample: int(sample.ready),
    ),
)


class ServingCollector(Collector):
    """Asks ``sources`` for the samples of all model versions whenever, and only when, it is collected.

    They are asked for once per collection, at its first step, in the thread that collects.
    """

    def __init__(self, sources: Callable[[], Iterable[ModelSample]]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """The families without samples, so that a registry learns their names without asking the sources."""
        return _families(())

    def collect(self) -> Iterable[Metric]:
        """The families with what the sources say now, made one by one as they are taken."""
        return _families(tuple(self._sources()))


def _families(samples: tuple[ModelSample, ...]) -> Iterator[Metric]:
    yield _requests(samples)
    loaded = tuple(sample for sample in samples if sample.model)
    for family in _OF_MODELS:
        yield family(loaded)


class _BuildCollector(Collector):
    def __init__(self, build: BuildInfo) -> None:
        versions = {"version": build.version, "python": build.python, "onnxruntime": build.onnxruntime}
        self._family = InfoMetricFamily("inferd_build", "The versions that answer here.", value=versions)

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def serving_registry(sources: Callable[[], Iterable[ModelSample]], build: BuildInfo) -> CollectorRegistry:
    """Everything ``/metrics`` shows: the models', the build's, the process's and Python's own.

    The registry is the caller's. prometheus_client's global one is not used, so two servers in one
    process do not meet in it.
    """
    registry = CollectorRegistry()
    registry.register(ServingCollector(sources))
    registry.register(_BuildCollector(build))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def by_name(requests_by_code: Mapping[int, int]) -> dict[str, int]:
    """Counts by the name of the code; codes gRPC does not know are counted as UNKNOWN, as it reads them."""
    names = {code.value: code.name for code in Code}
    counts: dict[str, int] = {}
    for code, count in requests_by_code.items():
        name = names.get(code, Code.UNKNOWN.name)
        counts[name] = counts.get(name, 0) + count
    return counts


def _cumulative(histogram: HistogramSample) -> list[tuple[str, float]]:
    bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
    return list(zip(bounds, accumulate(histogram.counts), strict=True))
