"""The models' metrics once more, by the names and with the meanings that Triton gives them.

Names and meanings: triton-inference-server/server, docs/user_guide/metrics.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric
from prometheus_client.registry import Collector

from inferd.errors import Code
from inferd.telemetry.sample import HistogramSample, ModelSample
from inferd.telemetry.series import MODEL

# Triton counts a request as failed only if it was queued.
_REASONS: Final = ("REJECTED", "CANCELED", "BACKEND", "OTHER")
_CANCELLED: Final = frozenset({Code.CANCELLED})
_BACKEND: Final = frozenset({Code.INTERNAL, Code.INVALID_ARGUMENT})


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


def _of_ok(sample: ModelSample) -> float:
    ok = sample.request_by_code.get(Code.OK)
    return 0.0 if ok is None else ok.total


def _sum(read: Callable[[ModelSample], HistogramSample]) -> Callable[[ModelSample], float]:
    return lambda sample: _us(read(sample).total)


_SERIES: Final[Mapping[str, tuple[str, Callable[[ModelSample], float]]]] = {
    "nv_inference_request_success": (
        "Number of successful inference requests, all batch sizes",
        lambda sample: sample.requests_by_code.get(Code.OK, 0),
    ),
    "nv_inference_count": ("Number of inferences performed: rows", lambda sample: sample.rows),
    "nv_inference_exec_count": ("Number of model executions performed: batches", lambda sample: sample.batches),
    "nv_inference_request_duration_us": (
        "Cumulative duration of successful requests in microseconds",
        lambda sample: _us(_of_ok(sample)),
    ),
    "nv_inference_queue_duration_us": (
        "Cumulative time in the queue in microseconds",
        _sum(lambda sample: sample.queue),
    ),
    "nv_inference_compute_input_duration_us": (
        "Cumulative time of gathering inputs in microseconds",
        _sum(lambda sample: sample.compute_input),
    ),
    "nv_inference_compute_infer_duration_us": (
        "Cumulative time of running the model in microseconds",
        _sum(lambda sample: sample.compute_infer),
    ),
    "nv_inference_compute_output_duration_us": (
        "Cumulative time of writing outputs in microseconds",
        _sum(lambda sample: sample.compute_output),
    ),
}


class TritonCollector(Collector):
    """Asks ``sources`` for samples as the metrics of inferd's own names do.

    OpenMetrics lets no counter be named so; there, and in the text format, the type of these is left open. What
    reads them does not look at it.
    """

    def __init__(self, sources: Callable[[], Iterable[ModelSample]]) -> None:
        self._sources = sources

    def describe(self) -> Iterable[Metric]:
        """The families without samples."""
        return _families(())

    def collect(self) -> Iterable[Metric]:
        """The families with what the sources say now."""
        # A model that is not loaded has no series in Triton.
        return _families(tuple(sample for sample in self._sources() if sample.facts is not None))


def _families(samples: tuple[ModelSample, ...]) -> Iterator[Metric]:
    for name, (text, read) in _SERIES.items():
        family = Metric(name, text, "unknown")
        for sample in samples:
            family.add_sample(name, _labels(sample), read(sample))
        yield family
    failures = Metric("nv_inference_request_failure", "Number of failed inference requests, by reason", "unknown")
    for sample in samples:
        for reason, count in _failures(sample).items():
            failures.add_sample(failures.name, {**_labels(sample), "reason": reason}, count)
    yield failures
    pending = Metric("nv_inference_pending_request_count", "Number of requests awaiting execution", "gauge")
    for sample in samples:
        pending.add_sample(pending.name, _labels(sample), sample.pending)
    yield pending


def _labels(sample: ModelSample) -> dict[str, str]:
    return dict(zip(MODEL, (sample.model, sample.version), strict=True))


def _failures(sample: ModelSample) -> dict[str, int]:
    failed = sample.failed_by_code
    cancelled = sum(count for code, count in failed.items() if code in _CANCELLED)
    backend = sum(count for code, count in failed.items() if code in _BACKEND)
    # Those that waited too long. Who found the queue full is counted nowhere.
    other = sum(failed.values()) - cancelled - backend - sample.expired
    return dict(zip(_REASONS, (sample.expired, cancelled, backend, max(other, 0)), strict=True))
