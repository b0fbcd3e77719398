"""ONNX Runtime, and nothing else knows it: a loaded model, and slots in which batches of it run."""

from __future__ import annotations

import os
import re
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

# Since 1.32 ONNX Runtime has telemetry on Linux, on by default: it writes under the user's cache folder and
# knows a host to report to. A server does neither behind its operator's back. Read once, when it is imported.
os.putenv("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from inferd._native.batch import Batch
from inferd._native.datatype import name_of, size_of
from inferd._native.gather import gather, strings
from inferd._native.reply import OutputView
from inferd.device import Buffer, Device
from inferd.errors import InputRefused, ModelFailed, RegionShrank, RunFailed

RUNTIME_VERSION: str = ort.__version__

ELEMENT_TYPES: Mapping[str, int] = {
    "tensor(float)": 1, "tensor(uint8)": 2, "tensor(int8)": 3, "tensor(uint16)": 4, "tensor(int16)": 5,
    "tensor(int32)": 6, "tensor(int64)": 7, "tensor(string)": 8, "tensor(bool)": 9, "tensor(float16)": 10,
    "tensor(double)": 11, "tensor(uint32)": 12, "tensor(uint64)": 13, "tensor(bfloat16)": 16,
}  # fmt: skip
STRING = 8
BFLOAT16 = 16
NUMPY_TYPES: Mapping[int, str] = {
    1: "<f4", 2: "u1", 3: "i1", 4: "<u2", 5: "<i2", 6: "<i4", 7: "<i8",
    9: "?", 10: "<f2", 11: "<f8", 12: "<u4", 13: "<u8",
}  # fmt: skip

# Spinning threads win microseconds on an idle host and lose whole time slices under a CPU quota.
ENTRIES: Mapping[str, str] = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}

# A slot remembers this many prepared bindings; a model with varying shapes needs one per shape.
MAX_PLANS = 128

# How ONNX Runtime words the one failure that is about our output buffers and not about the input.
WRONG_OUTPUT_SHAPE = "computed output shape"
# An operator that fails on inputs of the right type and shape has met a value it cannot take, such as an
# index out of range; the binding gives no status code, only these words. Running out of memory is not that.
OPERATOR_FAILED = "Non-zero status code returned while running"
OUT_OF_MEMORY = re.compile(r"alloc|memory", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One input or output as the ONNX file declares it; -1 stands for any size, and the first one may have a name."""

    name: str
    element_type: int
    shape: tuple[int, ...]
    first_dimension: str | None = None
    sent: tuple[int, ...] | None = None
    """The shape that clients see, where config.pbtxt says another one; its open dimensions are those of `shape`."""

    @property
    def wire(self) -> tuple[int, ...]:
        """The shape that clients see."""
        return self.shape if self.sent is None else self.sent

    @property
    def datatype(self) -> str:
        """The protocol's name of the element type."""
        return str(name_of(self.element_type))


@dataclass(frozen=True, slots=True)
class SessionOptions:
    """What of ONNX Runtime's settings a model may choose."""

    intra_op_threads: int = 1
    inter_op_threads: int = 1
    parallel: bool = False
    memory_arena: bool = True
    memory_pattern: bool = True
    optimization_level: int | None = None  # 0 none, 1 basic, 2 extended, 99 all; None = ONNX Runtime's default
    entries: Mapping[str, str] = field(default_factory=dict)  # by ONNX Runtime's own names
    shrink_arenas: tuple[str, ...] = ()  # such as "cpu:0": give back what a run leaves unused


class Session:
    """One loaded model. Runs may come from several threads at once; the weights are shared."""

    def __init__(self, path: Path, options: SessionOptions, device: Device) -> None:
        """Load the file; ModelFailed with what the runtime said if that is not possible."""
        try:
            self.ort = ort.InferenceSession(str(path), _ort_options(options), providers=device.providers())
        except Exception as failure:  # the binding raises RuntimeError, ValueError and classes of its own
            raise ModelFailed(f"{path}: ONNX Runtime cannot load it: {_one_line(failure)}") from failure
        self.run_options = _run_options(options)
        self.device = device
        self.inputs = tuple(_tensor_info(node, "input", path) for node in self.ort.get_inputs())
        self.outputs = tuple(_tensor_info(node, "output", path) for node in self.ort.get_outputs())
        types = {info.element_type for info in (*self.inputs, *self.outputs)}
        self.has_strings = STRING in types
        if self.has_strings and BFLOAT16 in types:
            raise ModelFailed(
                f"{path}: a model with both BYTES and BF16 tensors cannot be fed through ONNX Runtime's Python binding"
            )


def _ort_options(options: SessionOptions) -> ort.SessionOptions:
    made = ort.SessionOptions()
    made.intra_op_num_threads = options.intra_op_threads
    made.inter_op_num_threads = options.inter_op_threads
    made.execution_mode = ort.ExecutionMode.ORT_PARALLEL if options.parallel else ort.ExecutionMode.ORT_SEQUENTIAL
    made.enable_cpu_mem_arena = options.memory_arena
    made.enable_mem_pattern = options.memory_pattern
    for name, value in {**ENTRIES, **options.entries}.items():
        made.add_session_config_entry(name, value)
    made.log_severity_level = 4  # failures come back as exceptions, and we log those ourselves
    if options.optimization_level is not None:
        made.graph_optimization_level = ort.GraphOptimizationLevel(options.optimization_level)
    return made


def _run_options(options: SessionOptions) -> ort.RunOptions | None:
    if not options.shrink_arenas:
        return None
    made = ort.RunOptions()
    made.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(options.shrink_arenas))
    return made


def _tensor_info(node: Any, what: str, path: Path) -> TensorInfo:
    if node.type not in ELEMENT_TYPES:
        raise ModelFailed(
            f"{path}: {what} '{node.name}' is {node.type}; the Open Inference Protocol carries tensors of numbers, "
            "booleans and strings only. Export the model without it (for scikit-learn: zipmap=False)"
        )
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node.shape)
    first = node.shape[0] if node.shape and isinstance(node.shape[0], str) else None
    return TensorInfo(node.name, ELEMENT_TYPES[node.type], shape, first)


def _one_line(failure: BaseException) -> str:
    return " ".join(str(failure).split())


@dataclass(slots=True)
class _Plan:
    """A binding prepared for one set of input shapes; views are there if the output shapes are known too."""

    binding: Any
    input_nbytes: tuple[int, ...]
    views: list[OutputView] | None
    output_buffers: tuple[tuple[Buffer, int], ...]


class Slot:
    """Buffers and bindings in which one batch at a time runs. One thread uses a slot."""

    def __init__(self, session: Session) -> None:
        """Allocates nothing yet: buffers grow to the largest batch seen and stay."""
        self._session = session
        self._inputs: list[Buffer | None] = [None] * len(session.inputs)
        self._outputs: list[Buffer | None] = [None] * len(session.outputs)
        self._plans: OrderedDict[int | bytes, _Plan] = OrderedDict()
        self._declared_shapes_hold = True
        # Of the last run, on the monotonic clock: when its inputs were in place, when ONNX Runtime was done.
        self.gathered_ns = self.computed_ns = 0

    def run(self, batch: Batch) -> list[OutputView]:
        """Run a batch; the views it returns are valid until the next run in this slot.

        Raises InputRefused if an operator refused a value, RegionShrank if a request's shared memory is not there any
        more, RunFailed for any other failure.
        """
        try:
            return self._run_objects(batch) if self._session.has_strings else self._run_bound(batch)
        except RegionShrank:
            raise
        except Exception as failure:
            reason = _one_line(failure)
            kind = InputRefused if OPERATOR_FAILED in reason and not OUT_OF_MEMORY.search(reason) else RunFailed
            raise kind(reason) from failure

    def has_prepared(self, batch: Batch) -> bool:
        """Whether a run of this shape finds memory and binding ready; strings need neither."""
        return self._session.has_strings or self._key(batch) in self._plans

    # --- numbers: memory is bound, nothing is copied by the runtime ---------------------------------

    def _run_bound(self, batch: Batch) -> list[OutputView]:
        plan = self._plan(batch)
        for index, nbytes in enumerate(plan.input_nbytes):
            buffer = self._inputs[index]
            assert buffer is not None  # _plan has allocated it
            gather(batch, index, buffer.host_address, buffer.nbytes)
            self._session.device.upload(buffer, nbytes)
        self.gathered_ns = time.monotonic_ns()
        try:
            self._session.ort.run_with_iobinding(plan.binding, self._session.run_options)
        except RuntimeError as failure:
            if plan.views is None or WRONG_OUTPUT_SHAPE not in str(failure):
                raise
            # The file declares output shapes that the graph does not keep to: let the runtime allocate.
            self._declared_shapes_hold = False
            self._plans.clear()
            return self._run_bound(batch)
        self.computed_ns = time.monotonic_ns()
        if plan.views is None:
            return self._allocated_views(plan.binding)
        for buffer, nbytes in plan.output_buffers:
            self._session.device.download(buffer, nbytes)
        return plan.views

    def _plan(self, batch: Batch) -> _Plan:
        key = self._key(batch)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._prepare(batch)
            self._plans[key] = plan
            if len(self._plans) > MAX_PLANS:
                self._plans.popitem(last=False)
        elif isinstance(key, bytes):
            self._plans.move_to_end(key)
        return plan

    def _key(self, batch: Batch) -> int | bytes:
        uniform = batch.signature.uniform and not batch.apart
        return batch.rows if uniform else batch.shape_key

    def _prepare(self, batch: Batch) -> _Plan:
        session, device = self._session, self._session.device
        input_nbytes = tuple(batch.input_nbytes(index) for index in range(len(session.inputs)))
        output_shapes = self._known_output_shapes(batch)
        for index, nbytes in enumerate(input_nbytes):
            self._inputs[index] = self._at_least(self._inputs[index], nbytes)
        if output_shapes is not None:
            for index, shape in enumerate(output_shapes):
                nbytes = _nbytes(session.outputs[index].element_type, shape)
                self._outputs[index] = self._at_least(self._outputs[index], nbytes)
        binding = session.ort.io_binding()
        for index, info in enumerate(session.inputs):
            buffer = self._inputs[index]
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
            self._bind_allocated(binding)
            return _Plan(binding, input_nbytes, None, ())
        views, used = [], []
        for info, shape, output in zip(session.outputs, output_shapes, self._outputs, strict=True):
            assert output is not None
            binding.bind_output(
                info.name, device.ort_name, device.ort_id, info.element_type, shape, output.bound_address
            )
            views.append(OutputView(info.element_type, shape, address=output.host_address, owner=output))
            used.append((output, _nbytes(info.element_type, shape)))
        return _Plan(binding, input_nbytes, views, tuple(used))

    def _known_output_shapes(self, batch: Batch) -> list[tuple[int, ...]] | None:
        """The shapes of all outputs, if the file declares them; None as soon as one depends on the data."""
        if not self._declared_shapes_hold or batch.apart:
            return None
        shapes = []
        for info in self._session.outputs:
            shape = info.shape
            if batch.signature.batched:
                shape = (batch.rows, *shape[1:])
            if any(dim <= 0 for dim in shape):  # unknown, or an empty tensor that has no memory to bind
                return None
            shapes.append(shape)
        return shapes

    def _at_least(self, buffer: Buffer | None, nbytes: int) -> Buffer:
        """The buffer if it is large enough, else a larger one; then bindings to the old one are void."""
        if buffer is not None and buffer.nbytes >= nbytes:
            return buffer
        self._plans.clear()
        return self._session.device.allocate(1 << max(nbytes - 1, 63).bit_length())

    def _bind_allocated(self, binding: Any) -> None:
        for info in self._session.outputs:
            binding.bind_output(info.name, self._session.device.ort_name, self._session.device.ort_id)

    def _allocated_views(self, binding: Any) -> list[OutputView]:
        views = [
            OutputView(info.element_type, value.shape(), address=value.data_ptr(), owner=value)
            for info, value in zip(self._session.outputs, binding.get_outputs(), strict=True)
        ]
        # Bound again, or the next run would have to fit into this run's memory.
        binding.clear_binding_outputs()
        self._bind_allocated(binding)
        return views

    # --- strings: ONNX Runtime takes and gives Python objects ----------------------------------------

    def _run_objects(self, batch: Batch) -> list[OutputView]:
        session = self._session
        feeds: dict[str, Any] = {}
        for index, info in enumerate(session.inputs):
            shape = batch.input_shape(index)
            if info.element_type == STRING:
                elements = np.empty(len(found := strings(batch, index)), object)
                elements[:] = found
                feeds[info.name] = elements.reshape(shape)
            else:
                array = np.empty(shape, NUMPY_TYPES[info.element_type])
                gather(batch, index, array.ctypes.data, array.nbytes)
                feeds[info.name] = array
        views = []
        self.gathered_ns = time.monotonic_ns()
        values = session.ort.run(None, feeds, session.run_options)
        self.computed_ns = time.monotonic_ns()
        for info, value in zip(session.outputs, values, strict=True):
            if info.element_type == STRING:
                views.append(OutputView(STRING, value.shape, strings=np.asarray(value, object).ravel().tolist()))
            else:
                array = np.asarray(value, order="C")
                views.append(OutputView(info.element_type, array.shape, address=array.ctypes.data, owner=array))
        return views


def _nbytes(element_type: int, shape: tuple[int, ...]) -> int:
    nbytes = int(size_of(element_type))
    for dim in shape:
        nbytes *= dim
    return nbytes
