"""The ONNX project's backend tests as cases for a server, each with ONNX Runtime's own verdict as the yardstick.

A case is a small model with recorded inputs and outputs. What ONNX Runtime gets right in this process, a server
over ONNX Runtime has to get right too; what it cannot load or gets wrong here says nothing about a server.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, ValueInfoProto, numpy_helper
from onnx.backend.test.loader import load_model_tests

# What the protocol has a datatype for. There is none for complex numbers and none below 8 bits or for FP8.
CARRIED = frozenset(
    {
        TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16,
        TensorProto.INT32, TensorProto.INT64, TensorProto.STRING, TensorProto.BOOL, TensorProto.FLOAT16,
        TensorProto.DOUBLE, TensorProto.UINT32, TensorProto.UINT64, TensorProto.BFLOAT16,
    }
)  # fmt: skip
BFLOAT16_RTOL = 2**-6  # two units in the last place, as the suite's own runner allows

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator")
BATCH_DIMENSION = "rows"
MODELS_PER_SERVER = 500

Tensors = tuple[np.ndarray, ...]


class Verdict(Enum):
    """What ONNX Runtime makes of a case in this process."""

    PASSES = "passes in-process"
    NOT_CARRIED = "not carried by the protocol"
    NOT_LOADED = "ONNX Runtime cannot load it"
    NOT_FED = "BF16, which ONNX Runtime's Python binding lacks"
    DIFFERS = "ONNX Runtime's own answer differs"


@dataclass(frozen=True, slots=True)
class Case:
    """One test of the suite; inputs and outputs in the order of the model's."""

    name: str
    model: onnx.ModelProto
    inputs: tuple[ValueInfoProto, ...]
    outputs: tuple[ValueInfoProto, ...]
    data_sets: tuple[tuple[Tensors, Tensors], ...]
    rtol: float
    atol: float

    @property
    def carried(self) -> bool:
        """Whether the protocol can express every input and output."""
        return all(_element_type(info) in CARRIED for info in (*self.inputs, *self.outputs))

    @property
    def rows(self) -> int:
        """The first dimension that all recorded inputs and outputs share; 0 if they share none."""
        tensors = [tensor for inputs, outputs in self.data_sets for tensor in (*inputs, *outputs)]
        first = {tensor.shape[0] if tensor.ndim else 0 for tensor in tensors}
        return first.pop() if len(first) == 1 and self.inputs else 0

    @property
    def has_bfloat16(self) -> bool:
        """Whether it has a tensor of the one type that the protocol carries and numpy lacks."""
        return any(_element_type(info) == TensorProto.BFLOAT16 for info in (*self.inputs, *self.outputs))


def cases(kind: str) -> list[Case]:
    """All cases of a kind: node, simple, pytorch-converted, pytorch-operator. Those of node are computed here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite divides by zero and overflows on purpose
        found = load_model_tests(kind=kind)
    return sorted((_case(one) for one in found), key=lambda case: case.name)


def with_open_rows(case: Case) -> Case:
    """The same case with a model that leaves the first dimension of every input and output open."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    initializers = {one.name for one in model.graph.initializer}
    for info in (*model.graph.input, *model.graph.output):
        if info.name not in initializers:
            first = info.type.tensor_type.shape.dim[0]
            first.Clear()
            first.dim_param = BATCH_DIMENSION
    del model.graph.value_info[:]  # shapes in between are as fixed as the ones that were just opened
    return replace(case, model=model)


def chunks(everything: Sequence[Case]) -> Iterator[Sequence[Case]]:
    """The cases in portions of as many models as one server is given."""
    for start in range(0, len(everything), MODELS_PER_SERVER):
        yield everything[start : start + MODELS_PER_SERVER]


def write_repository(chosen: Iterable[Case], root: Path) -> Path:
    """Write the models as <root>/<case>/1/model.onnx, without config.pbtxt, and return the root."""
    for case in chosen:
        path = model_path(root, case)
        path.parent.mkdir(parents=True)
        path.write_bytes(case.model.SerializeToString())
    return root


def model_path(root: Path, case: Case) -> Path:
    """Where write_repository puts the model of a case."""
    return root / case.name / "1" / "model.onnx"


def verdict(case: Case, path: Path) -> tuple[Verdict, str]:
    """Run a case in this process, with the file and the options that the server uses; says why it does not pass."""
    if not case.carried:
        return Verdict.NOT_CARRIED, ", ".join(sorted({_type_name(info) for info in (*case.inputs, *case.outputs)}))
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as failure:  # the binding has exception classes of its own, which share no base
        return Verdict.NOT_LOADED, str(failure)
    if case.has_bfloat16:
        return Verdict.NOT_FED, "the binding has no numpy type for BF16"
    names = [info.name for info in case.outputs]
    for inputs, expected in case.data_sets:
        feeds = {info.name: value for info, value in zip(case.inputs, inputs, strict=True)}
        try:
            reason = difference(case, session.run(names, feeds), expected)
        except Exception as failure:
            reason = str(failure)
        if reason:
            return Verdict.DIFFERS, reason
    return Verdict.PASSES, ""


def difference(case: Case, answered: Sequence[Any], expected: Tensors) -> str:
    """How an answer differs from the recorded outputs by the suite's own rules; empty if it does not."""
    for info, got, wanted in zip(case.outputs, answered, expected, strict=True):
        if got is None:
            return f"output '{info.name}' is missing"
        if got.shape != wanted.shape:
            return f"output '{info.name}' has shape {got.shape} instead of {wanted.shape}"
        if got.dtype != wanted.dtype:
            return f"output '{info.name}' is {got.dtype} instead of {wanted.dtype}"
        try:
            if wanted.dtype == object:
                np.testing.assert_array_equal(got, wanted)
            else:
                rtol = max(case.rtol, BFLOAT16_RTOL) if _element_type(info) == TensorProto.BFLOAT16 else case.rtol
                np.testing.assert_allclose(got, wanted, rtol=rtol, atol=case.atol)
        except AssertionError as failure:
            return f"output '{info.name}': {failure}"
    return ""


# --- from the suite's several forms into one ---------------------------------------------------------


def _case(test: Any) -> Case:
    model = test.model if test.model is not None else onnx.load(Path(test.model_dir) / "model.onnx")
    initializers = {one.name for one in model.graph.initializer}
    inputs = tuple(info for info in model.graph.input if info.name not in initializers)
    outputs = tuple(model.graph.output)
    data_sets = test.data_sets if test.data_sets is not None else _recorded(Path(test.model_dir))
    if not data_sets:
        raise ValueError(f"{test.name} has no recorded inputs and outputs, so it would pass whatever happens")
    return Case(
        test.name,
        model,
        inputs,
        outputs,
        tuple((_tensors(given, inputs), _tensors(expected, outputs)) for given, expected in data_sets),
        test.rtol,
        test.atol,
    )


def _recorded(folder: Path) -> list[tuple[list[TensorProto], list[TensorProto]]]:
    return [
        (_files(data_set, "input"), _files(data_set, "output")) for data_set in sorted(folder.glob("test_data_set_*"))
    ]


def _files(data_set: Path, what: str) -> list[TensorProto]:
    count = len(list(data_set.glob(f"{what}_*.pb")))
    return [TensorProto.FromString((data_set / f"{what}_{index}.pb").read_bytes()) for index in range(count)]


def _tensors(values: Sequence[Any], infos: Sequence[ValueInfoProto]) -> Tensors:
    """Arrays as clients see them: strings as text objects, BF16 as float32, which holds it exactly."""
    if any(_element_type(info) not in CARRIED for info in infos):
        return ()
    return tuple(_tensor(value) for value in values)


def _tensor(value: Any) -> np.ndarray:
    array = numpy_helper.to_array(value) if isinstance(value, TensorProto) else np.asarray(value)
    if array.dtype.kind in "OSU":
        texts = np.empty(array.shape, object)
        texts.reshape(-1)[:] = [text.decode() if isinstance(text, bytes) else str(text) for text in array.reshape(-1)]
        return texts
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _element_type(info: ValueInfoProto) -> int:
    """The element type of a tensor; UNDEFINED for sequences, maps and optionals."""
    return info.type.tensor_type.elem_type if info.type.WhichOneof("value") == "tensor_type" else TensorProto.UNDEFINED


def _type_name(info: ValueInfoProto) -> str:
    element_type = _element_type(info)
    if element_type == TensorProto.UNDEFINED:
        return info.type.WhichOneof("value").removesuffix("_type")
    return TensorProto.DataType.Name(element_type)
