"""GPUs as the driver sees them, through nvidia-ml-py: how busy, how full, how much power.

The driver may take its time, so a thread of its own asks it, and whoever scrapes gets what it last said.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import Metric
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

log = logging.getLogger("inferd.telemetry")

INTERVAL_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class GpuMetric:
    """One number of each GPU: inferd's name, Triton's, and how the driver is asked."""

    name: str
    triton: str
    text: str
    ask: Callable[[Any, Any], float]
    is_counter: bool = False


OF_GPUS: Final = (
    GpuMetric(
        "inferd_gpu_utilization_ratio",
        "nv_gpu_utilization",
        "Part of the driver's last sampling period in which a kernel ran, 0 to 1.",
        lambda nvml, gpu: nvml.nvmlDeviceGetUtilizationRates(gpu).gpu / 100,
    ),
    GpuMetric(
        "inferd_gpu_memory_total_bytes",
        "nv_gpu_memory_total_bytes",
        "Memory of the GPU.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).total,
    ),
    GpuMetric(
        "inferd_gpu_memory_used_bytes",
        "nv_gpu_memory_used_bytes",
        "Memory of the GPU that is in use, by any process.",
        lambda nvml, gpu: nvml.nvmlDeviceGetMemoryInfo(gpu).used,
    ),
    GpuMetric(
        "inferd_gpu_power_watts",
        "nv_gpu_power_usage",
        "Power that the GPU draws.",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerUsage(gpu) / 1000,
    ),
    GpuMetric(
        "inferd_gpu_power_limit_watts",
        "nv_gpu_power_limit",
        "Power that the GPU may draw.",
        lambda nvml, gpu: nvml.nvmlDeviceGetPowerManagementLimit(gpu) / 1000,
    ),
    GpuMetric(
        "inferd_gpu_energy_joules_total",
        "nv_energy_consumption",
        "Energy that the GPU has used since the driver was loaded.",
        lambda nvml, gpu: nvml.nvmlDeviceGetTotalEnergyConsumption(gpu) / 1000,
        is_counter=True,
    ),
)


class GpuCollector(Collector):
    """Every GPU that the driver sees, by its UUID. A number that a GPU does not have is left out."""

    def __init__(self, nvml: Any, *, as_triton: bool = False) -> None:
        """`nvml` is the module pynvml. With `as_triton` the numbers are there by Triton's names as well."""
        self._nvml, self._as_triton = nvml, as_triton
        self._values: dict[tuple[str, str], float] = {}  # by metric and UUID; replaced, never changed
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="gpu-metrics", daemon=True)

    def start(self) -> None:
        """Begin to ask."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more. A question that is under way is left to itself."""
        self._stop.set()

    def describe(self) -> Iterable[Metric]:
        """The families without numbers."""
        return self._families({})

    def collect(self) -> Iterable[Metric]:
        """What the driver said last."""
        return self._families(self._values)

    def sample(self) -> None:
        """Ask the driver once; it must have been initialised."""
        found: dict[tuple[str, str], float] = {}
        for index in range(self._nvml.nvmlDeviceGetCount()):
            gpu = self._nvml.nvmlDeviceGetHandleByIndex(index)
            uuid = self._nvml.nvmlDeviceGetUUID(gpu)
            for metric in OF_GPUS:
                try:
                    found[metric.name, uuid] = metric.ask(self._nvml, gpu)
                except self._nvml.NVMLError:
                    continue
        self._values = found

    def _sample(self) -> None:
        try:
            self._nvml.nvmlInit()
            while not self._stop.is_set():
                self.sample()
                self._stop.wait(INTERVAL_S)
        except self._nvml.NVMLError as failure:
            self._values = {}  # rather none than old ones
            log.warning("the driver tells nothing of its GPUs any more", extra={"reason": str(failure)})

    def _families(self, values: dict[tuple[str, str], float]) -> Iterator[Metric]:
        for metric in OF_GPUS:
            of_each = [(uuid, value) for (name, uuid), value in values.items() if name == metric.name]
            kind = CounterMetricFamily if metric.is_counter else GaugeMetricFamily
            family = kind(metric.name.removesuffix("_total"), metric.text, labels=("gpu",))
            for uuid, value in of_each:
                family.add_metric((uuid,), value)
            yield family
            if self._as_triton:
                # A counter whose name does not end with _total is none to OpenMetrics.
                same = Metric(metric.triton, metric.text, "unknown" if metric.is_counter else "gauge")
                for uuid, value in of_each:
                    same.add_sample(metric.triton, {"gpu_uuid": uuid}, value)
                yield same


def open_gpu_collector(*, as_triton: bool) -> GpuCollector | None:
    """The collector where nvidia-ml-py is installed, as the extras for GPUs have it."""
    try:
        import pynvml
    except ImportError:
        return None
    return GpuCollector(pynvml, as_triton=as_triton)
