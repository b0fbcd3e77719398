"""The metrics as a registry that asks for samples when it is scraped. Nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, GCCollector, Metric, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import InfoMetricFamily
from prometheus_client.registry import Collector

from inferd.telemetry.sample import BuildInfo, ModelSample, ServerSample
from inferd.telemetry.series import OF_MODELS
from inferd.telemetry.server_series import OF_SERVER
from inferd.telemetry.triton import TritonCollector


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
    loaded = tuple(sample for sample in samples if sample.model)
    for series in OF_MODELS:
        yield series.family(samples if series.of_unknown else loaded)


class _ServerCollector(Collector):
    def __init__(self, source: Callable[[], ServerSample]) -> None:
        self._source = source

    def describe(self) -> Iterable[Metric]:
        return [series.family(()) for series in OF_SERVER]

    def collect(self) -> Iterable[Metric]:
        sample = self._source()
        return [series.family((sample,)) for series in OF_SERVER]


class _BuildCollector(Collector):
    def __init__(self, build: BuildInfo) -> None:
        versions = {"version": build.version, "python": build.python, "onnxruntime": build.onnxruntime}
        self._family = InfoMetricFamily("inferd_build", "The versions that answer here.", value=versions)

    def collect(self) -> Iterable[Metric]:
        return (self._family,)


def serving_registry(
    sources: Callable[[], Iterable[ModelSample]],
    server: Callable[[], ServerSample],
    build: BuildInfo,
    *,
    as_triton: bool = False,
) -> CollectorRegistry:
    """Everything ``/metrics`` shows: the models', the server's, the build's, the process's and Python's own.

    With ``as_triton`` the models' are there by Triton's names as well.

    The registry is the caller's. prometheus_client's global one is not used, so two servers in one
    process do not meet in it.
    """
    registry = CollectorRegistry()
    registry.register(ServingCollector(sources))
    if as_triton:
        registry.register(TritonCollector(sources))
    registry.register(_ServerCollector(server))
    registry.register(_BuildCollector(build))
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry
