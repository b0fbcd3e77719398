"""Prepared bindings: what a run of one set of shapes needs to know, made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from inferd._native.batch import Batch
from inferd._native.reply import OutputView
from inferd.device import Bound, Buffer
from inferd.session.buffers import Buffers
from inferd.session.options import RunOptions
from inferd.session.session import RECORDING_RUNS, Session
from inferd.session.tensors import TensorInfo, nbytes_of


@dataclass(slots=True)
class Output:
    """An output that is bound to memory of ours, in the shape of the whole run."""

    info: TensorInfo
    shape: tuple[int, ...]
    buffer: Buffer


@dataclass(slots=True)
class Views:
    """What a run leaves for one number of rows, padding not among them."""

    views: list[OutputView]
    downloads: tuple[tuple[Buffer, int], ...]


@dataclass(slots=True)
class Plan:
    """A binding prepared for one set of input shapes; outputs are there if their shapes are known too."""

    binding: Any
    run_options: Any
    inputs: tuple[tuple[int, int], ...]  # that the requests have: the place among the model's, and bytes
    outputs: tuple[Output, ...] | None
    bound: Bound
    records: int = 0
    """Runs to come before its CUDA graph is recorded."""
    _views: dict[int, Views] = field(default_factory=dict)

    def views(self, rows: int, run_rows: int) -> Views:
        """For the `rows` of a run that was padded up to `run_rows`."""
        found = self._views.get(rows)
        if found is None:
            found = self._views[rows] = _views(self.outputs or (), rows, run_rows)
        return found


def _views(outputs: Sequence[Output], rows: int, run_rows: int) -> Views:
    views, downloads = [], []
    for output in outputs:
        shape = output.shape if rows == run_rows else (rows, *output.shape[1:])
        views.append(
            OutputView(output.info.element_type, shape, address=output.buffer.host_address, owner=output.buffer)
        )
        downloads.append((output.buffer, nbytes_of(output.info.element_type, shape)))
    return Views(views, tuple(downloads))


def known_output_shapes(session: Session, batch: Batch, run_rows: int) -> list[tuple[int, ...]] | None:
    """The shapes of all outputs, if the file declares them; None as soon as one depends on the data."""
    if batch.apart:
        return None
    shapes = []
    for info in session.outputs:
        shape = info.shape
        if batch.signature.batched:
            shape = (run_rows, *shape[1:])
        if any(dim <= 0 for dim in shape):  # unknown, or an empty tensor that has no memory to bind
            return None
        shapes.append(shape)
    return shapes


def bind(
    session: Session,
    told: RunOptions,
    buffers: Buffers,
    input_shapes: Sequence[Sequence[int] | None],
    input_nbytes: tuple[int, ...],
    output_shapes: list[tuple[int, ...]] | None,
) -> Plan:
    """Bind buffers that are large enough; outputs without shapes are allocated by the runtime, run by run.

    Inputs without a shape are left to the model.
    """
    device = session.device
    binding = session.ort.io_binding()
    inputs, reads = [], []
    for index, (info, shape) in enumerate(zip(session.inputs, input_shapes, strict=True)):
        if shape is None:
            continue
        address = buffers.inputs[index].bound_address
        binding.bind_input(info.name, device.ort_name, device.ort_id, info.bound_type, shape, address)
        inputs.append((index, input_nbytes[index]))
        reads.append((address, input_nbytes[index]))
    if output_shapes is None:
        _bind_allocated(session, binding)
        options = told.waiting if session.graph_ids is None else told.unrecorded
        return Plan(binding, options, tuple(inputs), None, Bound(tuple(reads)))
    outputs = []
    for index, (info, known) in enumerate(zip(session.outputs, output_shapes, strict=True)):
        buffer = buffers.outputs[index]
        binding.bind_output(info.name, device.ort_name, device.ort_id, info.bound_type, known, buffer.bound_address)
        outputs.append(Output(info, known, buffer))
    writes = tuple((one.buffer.bound_address, nbytes_of(one.info.element_type, one.shape)) for one in outputs)
    bound = Bound(tuple(reads), writes)
    if session.graph_ids is not None:
        # The addresses are part of what is recorded, and each slot has its own.
        options = told.recording(next(session.graph_ids))
        return Plan(binding, options, tuple(inputs), tuple(outputs), bound, records=RECORDING_RUNS)
    options = told.enqueueing if device.asynchronous else told.waiting
    return Plan(binding, options, tuple(inputs), tuple(outputs), bound)


def allocated_views(session: Session, binding: Any, rows: int, run_rows: int) -> list[OutputView] | None:
    """The outputs that the runtime has allocated in the last run of a binding; then it is ready for the next one.

    None if one of a padded run has not a row for each, so that nobody knows what of it is padding.
    """
    values = binding.get_outputs()
    shapes = [list(value.shape()) for value in values]
    views = None
    if rows == run_rows or all(shape and shape[0] == run_rows for shape in shapes):
        if rows != run_rows:
            shapes = [[rows, *shape[1:]] for shape in shapes]
        views = [
            OutputView(info.element_type, shape, address=value.data_ptr(), owner=value)
            for info, shape, value in zip(session.outputs, shapes, values, strict=True)
        ]
    # Bound again, or the next run would have to fit into this run's memory.
    binding.clear_binding_outputs()
    _bind_allocated(session, binding)
    return views


def _bind_allocated(session: Session, binding: Any) -> None:
    # In host memory, wherever the session runs: how much there is to copy is known to the runtime alone.
    for info in session.outputs:
        binding.bind_output(info.name, "cpu", 0)
