"""What a metric is, and those of models, each declared once: name, kind, meaning, labels, where numbers come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Final, Generic, Literal, TypeAlias, TypeVar

from prometheus_client import Metric
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

from inferd.errors import Code
from inferd.telemetry.sample import HistogramSample, ModelSample

Kind: TypeAlias = Literal["counter", "gauge", "histogram", "info"]
Value: TypeAlias = float | HistogramSample
Read: TypeAlias = Iterable[tuple[tuple[str, ...], Value]]
"""Label values, in the order of the labels, and what they have counted."""

MODEL: Final = ("model", "version")
STATES: Final = ("LOADING", "READY", "DRAINING", "FAILED")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Series(Generic[T]):
    """One metric; ``read`` gives its numbers out of a sample. The name of a counter ends with _total."""

    name: str
    kind: Kind
    text: str
    labels: tuple[str, ...]
    read: Callable[[T], Read]
    of_unknown: bool = False
    """Whether requests for unknown models count here."""

    @property
    def unit(self) -> str:
        """What the name says it is counted in, if that is a unit."""
        bare = self.name.removesuffix("_total")
        return next((unit for unit in ("seconds", "bytes") if bare.endswith(f"_{unit}")), "")

    def family(self, samples: Iterable[T]) -> Metric:
        """The metric with what these samples have for it."""
        name, unit = self.name.removesuffix("_total") if self.kind == "counter" else self.name, self.unit
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(name, self.text, labels=self.labels, unit=unit)
            for labels, value in self._values(samples):
                assert isinstance(value, HistogramSample)
                histogram.add_metric(labels, _buckets(value), value.total)
            return histogram
        if self.kind == "info":
            info = InfoMetricFamily(name.removesuffix("_info"), self.text, labels=())
            for labels, _ in self._values(samples):
                info.add_metric((), dict(zip(self.labels, labels, strict=True)))
            return info
        plain = (CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily)(
            name, self.text, labels=self.labels, unit=unit
        )
        for labels, value in self._values(samples):
            assert not isinstance(value, HistogramSample)
            plain.add_metric(labels, value)
        return plain

    def _values(self, samples: Iterable[T]) -> Iterator[tuple[tuple[str, ...], Value]]:
        for sample in samples:
            yield from self.read(sample)


def by_name(requests_by_code: Mapping[int, int]) -> dict[str, int]:
    """Counts by the name of the code; codes gRPC does not know are counted as UNKNOWN, as it reads them."""
    return _by(_CODES, Code.UNKNOWN.name, requests_by_code)


_CODES: Final[Mapping[int, str]] = {code.value: code.name for code in Code}

# Why a request was refused before it came into a queue, and why one that came into it failed; by what clients are told.
REJECTED: Final[Mapping[int, str]] = {
    Code.INVALID_ARGUMENT: "invalid",
    Code.RESOURCE_EXHAUSTED: "overloaded",
    Code.UNAVAILABLE: "not_ready",
    Code.NOT_FOUND: "unknown_model",
    Code.FAILED_PRECONDITION: "model_failed",
    Code.UNIMPLEMENTED: "not_offered",
    Code.PERMISSION_DENIED: "not_allowed",
    Code.UNAUTHENTICATED: "not_allowed",
    Code.DEADLINE_EXCEEDED: "deadline",
    Code.CANCELLED: "cancelled",
    Code.INTERNAL: "internal",
}
FAILED: Final[Mapping[int, str]] = {
    Code.CANCELLED: "cancelled",
    Code.DEADLINE_EXCEEDED: "deadline",
    Code.INVALID_ARGUMENT: "input",
    Code.INTERNAL: "run",
}
OTHER: Final = "other"
# These exist from the start, so that the first one is an increase that a rate() sees.
_REJECTED_AT_FIRST: Final = ("invalid", "overloaded", "not_ready")
_CLOSED_AT_FIRST: Final = ("ready",)


def _by(names: Mapping[int, str], other: str, counts: Mapping[int, int]) -> dict[str, int]:
    found: dict[str, int] = {}
    for code, count in counts.items():
        name = names.get(code, other)
        found[name] = found.get(name, 0) + count
    return found


def _of(sample: ModelSample) -> tuple[str, str]:
    return sample.model, sample.version


def _each(sample: ModelSample, counts: Mapping[str, Value]) -> Read:
    return [((*_of(sample), name), value) for name, value in counts.items()]


def _one(read: Callable[[ModelSample], Value]) -> Callable[[ModelSample], Read]:
    return lambda sample: [(_of(sample), read(sample))]


def _zeros(names: Iterable[str], counts: Mapping[str, int]) -> dict[str, int]:
    return dict.fromkeys(names, 0) | dict(counts)


def _rejected(sample: ModelSample) -> Read:
    first = _REJECTED_AT_FIRST if sample.model else ()
    return _each(sample, _zeros(first, _by(REJECTED, OTHER, sample.rejected_by_code)))


def _failed(sample: ModelSample) -> Read:
    return _each(sample, _zeros(FAILED.values(), _by(FAILED, OTHER, sample.failed_by_code)))


def _durations(sample: ModelSample) -> Read:
    return [((*_of(sample), _CODES.get(code, Code.UNKNOWN.name)), one) for code, one in sample.request_by_code.items()]


def _facts(sample: ModelSample) -> Read:
    facts = sample.facts
    if facts is None:
        return ()
    batched = "true" if facts.batched else "false"
    said = (batched, str(facts.max_batch_size), str(facts.instances), str(facts.threads))
    return [((*_of(sample), *said), 1)]


OF_MODELS: Final[tuple[Series[ModelSample], ...]] = (
    Series(
        "inferd_requests_total",
        "counter",
        "Inference requests that have their end, by gRPC status; no model means that it was unknown.",
        (*MODEL, "code"),
        lambda sample: _each(sample, by_name(sample.requests_by_code)),
        of_unknown=True,
    ),
    Series(
        "inferd_accepted_requests_total",
        "counter",
        "Requests that came into the queue. Each of them has ended OK, has failed or is in flight.",
        MODEL,
        _one(lambda sample: sample.accepted),
    ),
    Series(
        "inferd_rejected_requests_total",
        "counter",
        "Requests that were refused before they came into the queue, by reason.",
        (*MODEL, "reason"),
        _rejected,
        of_unknown=True,
    ),
    Series(
        "inferd_shed_requests_total",
        "counter",
        "Of the rejected ones those that there was no room or no time for, by what was short.",
        (*MODEL, "reason"),
        lambda sample: _each(sample, sample.shed_by_reason),
        of_unknown=True,
    ),
    Series(
        "inferd_failed_requests_total",
        "counter",
        "Accepted requests that did not end OK, by reason.",
        (*MODEL, "reason"),
        _failed,
    ),
    Series(
        "inferd_expired_before_run_total",
        "counter",
        "Accepted requests whose deadline, or time to wait, was over before they ran.",
        MODEL,
        _one(lambda sample: sample.expired),
    ),
    Series(
        "inferd_in_flight_requests",
        "gauge",
        "Accepted requests that have no end yet.",
        MODEL,
        _one(lambda sample: sample.in_flight),
    ),
    Series(
        "inferd_pending_requests",
        "gauge",
        "Requests waiting for a batch.",
        MODEL,
        _one(lambda sample: sample.pending),
    ),
    Series(
        "inferd_queue_rows",
        "gauge",
        "Rows waiting for a batch.",
        MODEL,
        _one(lambda sample: sample.queue_rows),
    ),
    Series(
        "inferd_queue_bytes",
        "gauge",
        "Bytes of the requests waiting for a batch.",
        MODEL,
        _one(lambda sample: sample.queue_bytes),
    ),
    Series(
        "inferd_request_duration_seconds",
        "histogram",
        "Time from a request's first byte to its answer, by gRPC status.",
        (*MODEL, "code"),
        _durations,
    ),
    Series(
        "inferd_queue_duration_seconds",
        "histogram",
        "Time that a request waited for its batch to leave.",
        MODEL,
        _one(lambda sample: sample.queue),
    ),
    Series(
        "inferd_compute_duration_seconds",
        "histogram",
        "Time that the batch of a request took, from its inputs to its answers.",
        MODEL,
        _one(lambda sample: sample.compute),
    ),
    Series(
        "inferd_compute_input_duration_seconds",
        "histogram",
        "Gathering: of inferd_compute_duration_seconds, until the inputs were in place.",
        MODEL,
        _one(lambda sample: sample.compute_input),
    ),
    Series(
        "inferd_compute_infer_duration_seconds",
        "histogram",
        "Of inferd_compute_duration_seconds, the run of the model.",
        MODEL,
        _one(lambda sample: sample.compute_infer),
    ),
    Series(
        "inferd_compute_output_duration_seconds",
        "histogram",
        "Encoding: of inferd_compute_duration_seconds, until the answers were written.",
        MODEL,
        _one(lambda sample: sample.compute_output),
    ),
    Series(
        "inferd_batch_rows",
        "histogram",
        "Rows of the batches that were run.",
        MODEL,
        _one(lambda sample: sample.batch_rows),
    ),
    Series(
        "inferd_batches_total",
        "counter",
        "Batches run, by why they left the queue: ready (the model was free), full, delay (they had waited long "
        "enough), turn (in the order of priorities), retry (a member of a batch that failed, by itself).",
        (*MODEL, "close_reason"),
        lambda sample: _each(sample, _zeros(_CLOSED_AT_FIRST, sample.batches_by_reason)),
    ),
    Series("inferd_rows_total", "counter", "Rows run.", MODEL, _one(lambda sample: sample.rows)),
    Series(
        "inferd_padded_rows_total",
        "counter",
        "Rows that batches were filled up with, beside inferd_rows_total; always 0 where batches are not padded, as on "
        "a CPU.",
        MODEL,
        _one(lambda sample: sample.padded_rows),
    ),
    Series(
        "inferd_wasted_rows_total",
        "counter",
        "Rows run for requests that nobody waited for any more.",
        MODEL,
        _one(lambda sample: sample.wasted_rows),
    ),
    Series(
        "inferd_stopped_batches_total",
        "counter",
        "Runs that were stopped because nobody waited for any of their requests any more.",
        MODEL,
        _one(lambda sample: sample.stopped_batches),
    ),
    Series(
        "inferd_engine_busy_seconds_total",
        "counter",
        "Time in batches, over all instances; its rate by the instances is their duty.",
        MODEL,
        _one(lambda sample: sample.busy_seconds),
    ),
    Series(
        "inferd_model_ready",
        "gauge",
        "1 while the model version takes requests, else 0.",
        MODEL,
        _one(lambda sample: int(sample.ready)),
    ),
    Series(
        "inferd_model_state",
        "gauge",
        "1 for the state that the model version is in, 0 for the others.",
        (*MODEL, "state"),
        lambda sample: _each(sample, {state: int(state == sample.state) for state in STATES}),
    ),
    Series(
        "inferd_model_load_duration_seconds",
        "gauge",
        "Time from the start of the version's last load to its first answer being possible; 0 before that.",
        MODEL,
        _one(lambda sample: sample.load_seconds),
    ),
    Series(
        "inferd_model_info",
        "info",
        "What a loaded model version is.",
        (*MODEL, "batched", "max_batch_size", "instances", "threads"),
        _facts,
    ),
    Series(
        "inferd_model_fell_back",
        "gauge",
        "1 for a loaded model version that asks for a GPU and runs on the CPU, as device.fallback allows, else 0.",
        MODEL,
        lambda sample: () if sample.facts is None else [(_of(sample), int(sample.facts.fell_back))],
    ),
)


def _buckets(histogram: HistogramSample) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Bounds and cumulative counts, with an example where there is one; those are shown in OpenMetrics only."""
    bounds = (*map(floatToGoString, histogram.bounds), "+Inf")
    found: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    for index, (bound, count) in enumerate(zip(bounds, accumulate(histogram.counts), strict=True)):
        example = histogram.exemplars.get(index)
        if example is None:
            found.append((bound, count))
        else:
            trace_id, value, when_s = example
            found.append((bound, count, Exemplar({"trace_id": trace_id.hex()}, value, when_s)))
    return found
