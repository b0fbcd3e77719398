"""Where batches live while they run: one contract, and the devices that keep it."""

from inferd.device.contract import ALIGNMENT_BYTES, Bound, Buffer, Device, Lane, Provider, Workspace
from inferd.device.cpu import CpuDevice
from inferd.device.cuda import CudaDevice
from inferd.device.devices import Devices, RuntimeBuild, open_devices
from inferd.device.shared import HANDLE_BYTES, SharedMemory

__all__ = [
    "ALIGNMENT_BYTES",
    "HANDLE_BYTES",
    "Bound",
    "Buffer",
    "CpuDevice",
    "CudaDevice",
    "Device",
    "Devices",
    "Lane",
    "Provider",
    "RuntimeBuild",
    "SharedMemory",
    "Workspace",
    "open_devices",
]
