"""ModelStatistics: what has been counted for each model version since it was loaded.

What each figure means: triton-inference-server/server, docs/protocol/extension_statistics.md.
"""

from __future__ import annotations

from typing import Any, Final

from inferd._native.stats import Histogram, ModelStats
from inferd.errors import Code
from inferd.models import Model, Models, State
from inferd.proto import inference_pb2 as pb
from inferd.rpc.boundary import Context

_COUNTING: Final = (State.READY, State.DRAINING)


class Statistics:
    """The handler of ModelStatistics over the models' own counters; it keeps none."""

    extensions: Final = ("statistics",)

    def __init__(self, models: Models) -> None:
        self._models = models

    async def ModelStatistics(self, request: Any, context: Context) -> Any:
        """One version, all of a model, or all there are: those that have been loaded.

        A model or a version that is asked for by name and is not loaded is refused as an inference would be.
        """
        return pb.ModelStatisticsResponse(model_stats=[_told(model) for model in self._asked(request)])

    def _asked(self, request: Any) -> list[Model]:
        if not request.name:
            return [model for model in self._models.all() if model.state in _COUNTING]
        named = self._models.find(request.name, request.version)
        versions = [named] if request.version else self._models.versions(request.name)
        counting = [model for model in versions if model.state in _COUNTING]
        if not counting:
            named.answering()
        return counting


def _told(model: Model) -> Any:
    stats = model.stats
    return pb.ModelStatistics(
        name=model.name,
        version=str(model.version),
        last_inference=stats.last_run_ms,
        inference_count=stats.rows,
        execution_count=stats.batches,
        inference_stats=_of_requests(stats),
        batch_stats=[
            pb.InferBatchStatistics(
                batch_size=size.rows,
                compute_input=_duration(size.batches, size.input_ns),
                compute_infer=_duration(size.batches, size.infer_ns),
                compute_output=_duration(size.batches, size.output_ns),
            )
            for size in stats.sizes
        ],
        # What ONNX Runtime holds for a model it does not tell, so memory_usage says nothing.
    )


def _of_requests(stats: ModelStats) -> Any:
    codes = stats.requests_by_code
    seconds = {code: histogram.total for code, histogram in stats.request_seconds_by_code.items()}
    good, good_s = codes.pop(Code.OK, 0), seconds.pop(Code.OK, 0.0)
    return pb.InferStatistics(
        success=_duration(good, _ns(good_s)),
        fail=_duration(sum(codes.values()), _ns(sum(seconds.values()))),
        queue=_sum(stats.queue_seconds),
        compute_input=_sum(stats.input_seconds),
        compute_infer=_sum(stats.infer_seconds),
        compute_output=_sum(stats.output_seconds),
        # There is no response cache, and so nothing found or missed in it.
        cache_hit=_duration(0, 0),
        cache_miss=_duration(0, 0),
    )


def _sum(histogram: Histogram) -> Any:
    return _duration(sum(histogram.counts), _ns(histogram.total))


def _duration(count: int, ns: int) -> Any:
    return pb.StatisticDuration(count=count, ns=ns)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
