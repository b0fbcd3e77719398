"""Where a batch lives while it runs: the one seam between the batching code and a kind of memory.

The CPU needs no second copy, so the bytes that gather writes are the bytes the session reads. A
device with memory of its own implements the same names with a staging buffer and copies.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register ONNX Runtime's kernels load


@dataclass(slots=True)
class Buffer:
    """Memory for one tensor of a batch.

    ``host_address`` is where gather writes inputs and where answers are read from;
    ``bound_address`` is what the session is given. On the CPU they are the same.
    """

    host_address: int
    bound_address: int
    nbytes: int
    owner: object = field(repr=False)


class Device(Protocol):
    """What a kind of memory must offer."""

    ort_name: str
    ort_id: int

    def providers(self) -> list[str]:
        """ONNX Runtime execution providers, best first."""

    def arenas(self) -> tuple[str, ...]:
        """The arenas that ONNX Runtime keeps for it, by the names that its run options have for them."""

    def allocate(self, nbytes: int) -> Buffer:
        """Memory for `nbytes` bytes, aligned to ALIGNMENT_BYTES; MemoryError if there is none."""

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Make the first `nbytes` written at host_address visible at bound_address, before a run."""

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Make the first `nbytes` at bound_address readable at host_address, after a run."""


class CpuDevice:
    """Host memory: nothing to copy."""

    ort_name = "cpu"
    ort_id = 0

    def providers(self) -> list[str]:
        """The CPU provider alone."""
        return ["CPUExecutionProvider"]

    def arenas(self) -> tuple[str, ...]:
        """The CPU's alone."""
        return ("cpu:0",)

    def allocate(self, nbytes: int) -> Buffer:
        """Aligned host memory, zeroed by the operating system when first touched."""
        owner = np.zeros(nbytes + ALIGNMENT_BYTES, np.uint8)
        address = -(-owner.ctypes.data // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return Buffer(address, address, nbytes, owner)

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Nothing to do."""

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Nothing to do."""
