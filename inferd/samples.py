"""A model's native counters as the sample that the metrics page shows."""

from __future__ import annotations

from inferd._native.stats import Histogram
from inferd.models import Model, State
from inferd.telemetry.sample import HistogramSample, ModelFacts, ModelSample


def sample_of(model: Model) -> ModelSample:
    """Everything counted for one model version so far."""
    stats, queue = model.stats, model.queue
    return ModelSample(
        model=model.name,
        version=str(model.version),
        ready=model.state is State.READY,
        state=model.state.name,
        facts=_facts(model),
        load_seconds=model.load_seconds,
        requests_by_code=stats.requests_by_code,
        failed_by_code=stats.failed_by_code,
        accepted=stats.accepted,
        in_flight=stats.in_flight,
        expired=stats.expired,
        wasted_rows=stats.wasted_rows,
        stopped_batches=stats.stopped_batches,
        shed_by_reason=stats.shed_by_reason,
        rows=stats.rows,
        padded_rows=stats.padded_rows,
        batches_by_reason=stats.batches_by_reason,
        busy_seconds=stats.busy_ns * 1e-9,
        pending=queue.requests if queue is not None else 0,
        queue_rows=queue.rows if queue is not None else 0,
        queue_bytes=queue.bytes if queue is not None else 0,
        request_by_code={code: histogram_of(one) for code, one in stats.request_seconds_by_code.items()},
        queue=histogram_of(stats.queue_seconds),
        compute=histogram_of(stats.compute_seconds),
        compute_input=histogram_of(stats.input_seconds),
        compute_infer=histogram_of(stats.infer_seconds),
        compute_output=histogram_of(stats.output_seconds),
        batch_rows=histogram_of(stats.batch_rows),
    )


def histogram_of(native: Histogram) -> HistogramSample:
    """What a histogram has counted so far."""
    return HistogramSample(native.bounds, native.counts, native.total, native.exemplars)


def _facts(model: Model) -> ModelFacts | None:
    loaded = model.loaded
    if loaded is None:
        return None
    signature = loaded.signature
    return ModelFacts(signature.batched, signature.max_rows, len(loaded.slots), loaded.threads, loaded.fell_back)
