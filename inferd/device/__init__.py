"""Where batches live while they run: one contract, and the devices that keep it."""

from inferd.device.contract import ALIGNMENT_BYTES, Buffer, Device, Lane, Provider, Workspace
from inferd.device.cpu import CpuDevice
from inferd.device.cuda import CudaDevice
from inferd.device.devices import Devices, RuntimeBuild, open_devices

__all__ = [
    "ALIGNMENT_BYTES",
    "Buffer",
    "CpuDevice",
    "CudaDevice",
    "Device",
    "Devices",
    "Lane",
    "Provider",
    "RuntimeBuild",
    "Workspace",
    "open_devices",
]
