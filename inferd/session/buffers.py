"""The memory of one slot: a buffer for each input and each output, as large as the largest batch so far."""

from __future__ import annotations

from inferd.device import Buffer, Device


class Buffers:
    """Grown when asked for, never shrunk. One thread uses them."""

    def __init__(self, device: Device, inputs: int, outputs: int) -> None:
        """None has memory yet."""
        self._device = device
        self.inputs: list[Buffer | None] = [None] * inputs
        self.outputs: list[Buffer | None] = [None] * outputs

    def grow(self, buffers: list[Buffer | None], index: int, nbytes: int) -> bool:
        """Have one of `inputs` or `outputs` hold `nbytes`; True if another buffer took the place of what was bound."""
        buffer = buffers[index]
        if buffer is not None and buffer.nbytes >= nbytes:
            return False
        buffers[index] = self._device.allocate(1 << max(nbytes - 1, 63).bit_length())
        return True
