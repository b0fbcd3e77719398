"""A model's native counters as the sample that the metrics page shows."""

from __future__ import annotations

from inferd._native.stats import Histogram
from inferd.models import Model, State
from inferd.telemetry.metrics import HistogramSample, ModelSample


def sample_of(model: Model) -> ModelSample:
    """Everything counted for one model version so far."""
    stats, queue = model.stats, model.queue
    return ModelSample(
        model=model.name,
        version=str(model.version),
        ready=model.state is State.READY,
        requests_by_code=stats.requests_by_code,
        rows=stats.rows,
        batches=stats.batches,
        queue_rows=queue.rows if queue is not None else 0,
        queue_bytes=queue.bytes if queue is not None else 0,
        request=_histogram(stats.request_seconds),
        queue=_histogram(stats.queue_seconds),
        compute=_histogram(stats.compute_seconds),
        compute_input=_histogram(stats.input_seconds),
        compute_infer=_histogram(stats.infer_seconds),
        compute_output=_histogram(stats.output_seconds),
        batch_rows=_histogram(stats.batch_rows),
    )


def _histogram(native: Histogram) -> HistogramSample:
    return HistogramSample(native.bounds, native.counts, native.total)
