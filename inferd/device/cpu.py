"""Host memory: the bytes that gather writes are the bytes that the session reads, so there is nothing to copy."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from inferd.device.contract import ALIGNMENT_BYTES, Bound, Buffer, Provider
from inferd.device.shared import SharedMemory
from inferd.errors import InferdError

NOTHING = nullcontext()


class CpuLane:
    """Everything has happened when a call returns."""

    def turn(self, *, captures: bool = False) -> AbstractContextManager[None]:
        """Nothing to wait for."""
        return NOTHING

    def allocate(self, nbytes: int) -> Buffer:
        """Aligned host memory, zeroed by the operating system when first touched."""
        owner = np.zeros(nbytes + ALIGNMENT_BYTES, np.uint8)
        address = -(-owner.ctypes.data // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return Buffer(address, address, nbytes, owner)

    def free(self, buffer: Buffer) -> None:
        """The memory goes when nobody holds the buffer any more."""

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Nothing to do."""

    def fetch(self, memory: SharedMemory, at: int, buffer: Buffer, offset: int, nbytes: int) -> None:
        """Copied at once."""
        memory.read(at, buffer.host_address + offset, nbytes)

    def computing(self, bound: Bound | None = None) -> AbstractContextManager[None]:
        """Nothing to do."""
        return NOTHING

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Nothing to do."""

    def hand_over(self, memory: SharedMemory, at: int, host_address: int, nbytes: int) -> None:
        """Copied at once."""
        memory.write(at, host_address, nbytes)

    def wait(self) -> None:
        """Nothing to do."""

    def settle(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


class CpuWorkspace:
    """Sessions on the CPU share nothing."""

    def providers(self, options: Mapping[str, str], tensorrt: Mapping[str, str] | None = None) -> list[Provider]:
        """The CPU provider alone."""
        return ["CPUExecutionProvider"]

    def loading(self) -> AbstractContextManager[None]:
        """Nothing to wait for."""
        return NOTHING

    def lane(self) -> CpuLane:
        """One that copies nothing."""
        return CpuLane()

    def close(self) -> None:
        """Nothing to do."""


class CpuDevice:
    """Host memory: nothing to copy, nothing to wait for."""

    ort_name = "cpu"
    ort_id = 0
    gpu_number: int | None = None
    runs_inline = True
    asynchronous = False

    def __init__(self, *, pads: bool = False) -> None:
        """Padding costs a CPU the rows that it adds, so it is for tests of padding only."""
        self.pads = pads

    def workspace(self, limit_nbytes: int = 0) -> CpuWorkspace:
        """The limit does not matter: memory of the host is what a container's limit is for."""
        return CpuWorkspace()

    def arenas(self) -> tuple[str, ...]:
        """The CPU's alone."""
        return ("cpu:0",)

    def failure_of(self, failure: BaseException) -> InferdError | None:
        """A CPU that fails takes the process with it."""
        return None
