"""Tensors that clients have in memory of a GPU: bound as they lie there where that can be, else copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from inferd._native.batch import Batch
from inferd._native.gather import gpu_pieces
from inferd._native.reply import gpu_outputs
from inferd.device import ALIGNMENT_BYTES, Buffer, Lane
from inferd.session.bindings import Plan, bind
from inferd.session.buffers import Buffers
from inferd.session.options import RunOptions
from inferd.session.session import Session
from inferd.session.tensors import nbytes_of


@dataclass(frozen=True, slots=True)
class Lent:
    """What of one run is bound to clients' memory, by the tensors' places among the model's."""

    inputs: Mapping[int, Buffer] = field(default_factory=dict)
    outputs: Mapping[int, Buffer] = field(default_factory=dict)

    def has_written(self, address: int) -> bool:
        """Whether the run itself has written to there."""
        return any(buffer.bound_address == address for buffer in self.outputs.values())


NOTHING: Final = Lent()


def fetch(lane: Lane, batch: Batch, index: int, buffer: Buffer) -> None:
    """Have what of an input is in memory of a GPU copied to its place among the rows."""
    for offset, region, at, nbytes in gpu_pieces(batch, index):
        lane.fetch(region.memory, at, buffer, offset, nbytes)


def lend(
    session: Session, told: RunOptions, buffers: Buffers, batch: Batch, plan: Plan, run_rows: int
) -> tuple[Plan, Lent]:
    """The plan of a run of a single request, with those of its tensors that are on this GPU bound where they are.

    Padding would need room after the rows, and a CUDA graph has its addresses, so then they are copied.
    """
    gpu = session.device.gpu_number
    if gpu is None or batch.shared or run_rows != batch.rows or session.graph_ids is not None:
        return plan, NOTHING
    inputs, outputs = {}, {}
    for index, nbytes in plan.inputs:
        for _, region, at, there in gpu_pieces(batch, index):
            if region.device_id == gpu and there == nbytes and _aligned(region.memory.address + at):
                inputs[index] = Buffer(0, region.memory.address + at, nbytes, None)
    wanted = gpu_outputs(batch)
    for index, output in enumerate(plan.outputs or ()):
        if index not in wanted:
            continue
        region, at, room = wanted[index]
        nbytes = nbytes_of(output.info.element_type, output.shape)
        if region.device_id == gpu and nbytes <= room and _aligned(region.memory.address + at):
            outputs[index] = Buffer(output.buffer.host_address, region.memory.address + at, nbytes, None)
    if not inputs and not outputs:
        return plan, NOTHING
    # Only addresses are kept beyond the run: its requests own what is there.
    shapes = [batch.input_shape(index) if batch.has_input(index) else None for index in range(len(session.inputs))]
    sizes = tuple(batch.input_nbytes(index) for index in range(len(session.inputs)))
    known = None if plan.outputs is None else [output.shape for output in plan.outputs]
    return bind(session, told, buffers.with_lent(inputs, outputs), shapes, sizes, known), Lent(inputs, outputs)


def _aligned(address: int) -> bool:
    return address % ALIGNMENT_BYTES == 0
