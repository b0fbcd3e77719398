"""Prepared bindings: what a run of one set of shapes needs to know, made once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from inferd._native.batch import Batch
from inferd._native.reply import OutputView
from inferd.device import Buffer
from inferd.session.buffers import Buffers
from inferd.session.session import Session
from inferd.session.tensors import nbytes_of


@dataclass(slots=True)
class Plan:
    """A binding prepared for one set of input shapes; views are there if the output shapes are known too."""

    binding: Any
    input_nbytes: tuple[int, ...]
    views: list[OutputView] | None
    output_buffers: tuple[tuple[Buffer, int], ...]


def known_output_shapes(session: Session, batch: Batch) -> list[tuple[int, ...]] | None:
    """The shapes of all outputs, if the file declares them; None as soon as one depends on the data."""
    if batch.apart:
        return None
    shapes = []
    for info in session.outputs:
        shape = info.shape
        if batch.signature.batched:
            shape = (batch.rows, *shape[1:])
        if any(dim <= 0 for dim in shape):  # unknown, or an empty tensor that has no memory to bind
            return None
        shapes.append(shape)
    return shapes


def bind(
    session: Session,
    batch: Batch,
    buffers: Buffers,
    input_nbytes: tuple[int, ...],
    output_shapes: list[tuple[int, ...]] | None,
) -> Plan:
    """Bind buffers that are large enough; outputs without shapes are allocated by the runtime, run by run."""
    device = session.device
    binding = session.ort.io_binding()
    for index, info in enumerate(session.inputs):
        buffer = buffers.inputs[index]
        assert buffer is not None
        binding.bind_input(
            info.name,
            device.ort_name,
            device.ort_id,
            info.element_type,
            batch.input_shape(index),
            buffer.bound_address,
        )
    if output_shapes is None:
        _bind_allocated(session, binding)
        return Plan(binding, input_nbytes, None, ())
    views, used = [], []
    for info, shape, output in zip(session.outputs, output_shapes, buffers.outputs, strict=True):
        assert output is not None
        binding.bind_output(info.name, device.ort_name, device.ort_id, info.element_type, shape, output.bound_address)
        views.append(OutputView(info.element_type, shape, address=output.host_address, owner=output))
        used.append((output, nbytes_of(info.element_type, shape)))
    return Plan(binding, input_nbytes, views, tuple(used))


def allocated_views(session: Session, binding: Any) -> list[OutputView]:
    """The outputs that the runtime has allocated in the last run of a binding; then it is ready for the next one."""
    views = [
        OutputView(info.element_type, value.shape(), address=value.data_ptr(), owner=value)
        for info, value in zip(session.outputs, binding.get_outputs(), strict=True)
    ]
    # Bound again, or the next run would have to fit into this run's memory.
    binding.clear_binding_outputs()
    _bind_allocated(session, binding)
    return views


def _bind_allocated(session: Session, binding: Any) -> None:
    for info in session.outputs:
        binding.bind_output(info.name, session.device.ort_name, session.device.ort_id)
