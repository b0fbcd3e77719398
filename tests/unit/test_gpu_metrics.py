"""GPUs in /metrics, from a driver that is told what to say."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from inferd.telemetry.gpus import GpuCollector

WAIT_S = 30


class NVMLError(Exception):
    """As pynvml's."""


class Driver:
    """What of pynvml is used: two GPUs, the second without power readings."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.breaks = False

    def nvmlInit(self) -> None:
        if self.breaks:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        return index

    def nvmlDeviceGetUUID(self, gpu: int) -> str:
        return f"GPU-{gpu}"

    def nvmlDeviceGetUtilizationRates(self, gpu: int) -> Any:
        return SimpleNamespace(gpu=25 + gpu)

    def nvmlDeviceGetMemoryInfo(self, gpu: int) -> Any:
        return SimpleNamespace(total=1 << 30, used=1 << 20)

    def nvmlDeviceGetPowerUsage(self, gpu: int) -> int:
        if gpu == 1:
            raise NVMLError("Not Supported")
        return 300_500

    nvmlDeviceGetPowerManagementLimit = nvmlDeviceGetPowerUsage
    nvmlDeviceGetTotalEnergyConsumption = nvmlDeviceGetPowerUsage


def shown(collector: GpuCollector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_each_gpu_is_there_by_its_uuid_without_what_it_lacks() -> None:
    collector = GpuCollector(Driver())
    collector.sample()
    text = shown(collector)
    assert 'inferd_gpu_utilization_ratio{gpu="GPU-0"} 0.25' in text
    assert 'inferd_gpu_utilization_ratio{gpu="GPU-1"} 0.26' in text
    assert 'inferd_gpu_power_watts{gpu="GPU-0"} 300.5' in text
    assert 'inferd_gpu_power_watts{gpu="GPU-1"}' not in text
    assert 'inferd_gpu_energy_joules_total{gpu="GPU-0"} 300.5' in text
    assert "nv_gpu" not in text


def test_triton_s_names_are_there_where_asked_for() -> None:
    collector = GpuCollector(Driver(), as_triton=True)
    collector.sample()
    text = shown(collector)
    assert 'nv_gpu_utilization{gpu_uuid="GPU-1"} 0.26' in text
    assert 'nv_energy_consumption{gpu_uuid="GPU-0"} 300.5' in text
    assert 'nv_gpu_memory_used_bytes{gpu_uuid="GPU-0"} 1.048576e+06' in text


def test_a_thread_asks_and_ends_when_it_is_told_to() -> None:
    collector = GpuCollector(Driver())
    collector.start()
    end_s = time.monotonic() + WAIT_S
    while "GPU-1" not in shown(collector) and time.monotonic() < end_s:
        time.sleep(0.005)
    assert "GPU-1" in shown(collector)
    collector.stop()
    collector._thread.join(WAIT_S)
    assert not collector._thread.is_alive()


def test_a_driver_that_answers_nothing_leaves_the_names_only() -> None:
    driver = Driver()
    driver.breaks = True
    collector = GpuCollector(driver)
    collector.start()
    collector._thread.join(WAIT_S)
    assert "# TYPE inferd_gpu_memory_used_bytes gauge" in shown(collector)
    assert "GPU-" not in shown(collector)
