"""Where batches live while they run: one contract, and the devices that keep it."""

from inferd.device.contract import ALIGNMENT_BYTES, Buffer, Device, Lane, Provider, Workspace
from inferd.device.cpu import CpuDevice

__all__ = ["ALIGNMENT_BYTES", "Buffer", "CpuDevice", "Device", "Lane", "Provider", "Workspace"]
