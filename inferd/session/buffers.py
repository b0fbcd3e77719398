"""The memory of one slot: a buffer for each input and each output, as large as the largest batch so far."""

from __future__ import annotations

from collections.abc import Mapping

from inferd.device import Buffer, Lane

NONE = Buffer(0, 0, 0, None)


class Buffers:
    """Grown when asked for, never shrunk. One thread uses them."""

    def __init__(self, lane: Lane, inputs: int, outputs: int) -> None:
        """None has memory yet."""
        self._lane = lane
        self.inputs = [NONE] * inputs
        self.outputs = [NONE] * outputs

    def fits(self, input_nbytes: tuple[int, ...], output_nbytes: tuple[int, ...]) -> bool:
        """Whether all of that fits as it is."""
        pairs = (*zip(self.inputs, input_nbytes, strict=True), *zip(self.outputs, output_nbytes, strict=False))
        return all(buffer.nbytes >= nbytes for buffer, nbytes in pairs)

    def grow(self, input_nbytes: tuple[int, ...], output_nbytes: tuple[int, ...]) -> None:
        """Have room for all of that; nothing may be bound to what there was. MemoryError if there is not enough."""
        for buffers, wanted in ((self.inputs, input_nbytes), (self.outputs, output_nbytes)):
            for index, nbytes in enumerate(wanted):
                if buffers[index].nbytes >= nbytes:
                    continue
                old, buffers[index] = buffers[index], NONE
                if old is not NONE:
                    self._lane.free(old)  # first, so that a device that is nearly full has room for its successor
                buffers[index] = self._lane.allocate(1 << max(nbytes - 1, 63).bit_length())

    def with_lent(self, inputs: Mapping[int, Buffer], outputs: Mapping[int, Buffer]) -> Buffers:
        """The same with memory of somebody else in the place of some, for one run."""
        made = Buffers(self._lane, 0, 0)
        made.inputs = [inputs.get(index, buffer) for index, buffer in enumerate(self.inputs)]
        made.outputs = [outputs.get(index, buffer) for index, buffer in enumerate(self.outputs)]
        return made

    def release(self) -> None:
        """Free all of them; nothing may be bound to them."""
        for buffers in (self.inputs, self.outputs):
            for index, buffer in enumerate(buffers):
                buffers[index] = NONE
                if buffer is not NONE:
                    self._lane.free(buffer)
