"""Small ONNX models, each with one property that a server can get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# The oldest that has Identity for every type, and that every supported ONNX Runtime loads.
OPSET = 17
IR_VERSION = 8

ELEMENT_TYPES = {
    "BOOL": TensorProto.BOOL,
    "UINT8": TensorProto.UINT8,
    "UINT16": TensorProto.UINT16,
    "UINT32": TensorProto.UINT32,
    "UINT64": TensorProto.UINT64,
    "INT8": TensorProto.INT8,
    "INT16": TensorProto.INT16,
    "INT32": TensorProto.INT32,
    "INT64": TensorProto.INT64,
    "FP16": TensorProto.FLOAT16,
    "FP32": TensorProto.FLOAT,
    "FP64": TensorProto.DOUBLE,
    "BF16": TensorProto.BFLOAT16,
    "BYTES": TensorProto.STRING,
}

MLP_WEIGHTS = np.linspace(-1, 1, 8, dtype="f4").reshape(4, 2)
MLP_BIAS = np.array([0.25, -0.5], "f4")
EMBEDDING = np.arange(32, dtype="f4").reshape(8, 4)
MANY_OUTPUTS = 20

Dims = Sequence[int | str | None]


def identity(datatype: str, dims: Dims) -> onnx.ModelProto:
    """OUT is IN."""
    kind = ELEMENT_TYPES[datatype]
    return _model([helper.make_node("Identity", ["IN"], ["OUT"])], [("IN", kind, dims)], [("OUT", kind, dims)])


def mlp() -> onnx.ModelProto:
    """A layer of a network: y = relu(x @ MLP_WEIGHTS + MLP_BIAS), for any number of rows."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Relu", ["sum"], ["y"]),
    ]
    return _model(
        nodes,
        [("x", TensorProto.FLOAT, ["rows", 4])],
        [("y", TensorProto.FLOAT, ["rows", 2])],
        {"weights": MLP_WEIGHTS, "bias": MLP_BIAS},
    )


def scale(factor: float = 2.0, dims: Dims = ("rows", 4)) -> onnx.ModelProto:
    """Element by element: y = factor * x, so that the same row gives the same bits in any batch."""
    return _model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", TensorProto.FLOAT, dims)],
        [("y", TensorProto.FLOAT, dims)],
        {"factor": np.array(factor, "f4")},
    )


def halves() -> onnx.ModelProto:
    """In half precision: y = 3 * x, of three columns, so that rows are no multiple of four bytes."""
    return _model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [("x", TensorProto.FLOAT16, ("rows", 3))],
        [("y", TensorProto.FLOAT16, ("rows", 3))],
        {"factor": np.array(3, "f2")},
    )


def with_defaults(rows: str | int = "rows") -> onnx.ModelProto:
    """y = x * scale + shift, where the file has scale 2 and shift 0.5 for runs that bring none."""
    nodes = [helper.make_node("Mul", ["x", "scale"], ["scaled"]), helper.make_node("Add", ["scaled", "shift"], ["y"])]
    model = _model(
        nodes,
        [(name, TensorProto.FLOAT, [rows, 1]) for name in ("scale", "shift")] + [("x", TensorProto.FLOAT, ["rows", 4])],
        [("y", TensorProto.FLOAT, ["rows", 4])],
        {"scale": np.array([[2]], "f4"), "shift": np.array([[0.5]], "f4")},
    )
    return model


def text_with_default() -> onnx.ModelProto:
    """OUT is IN and then TAIL, for which the file has one "!"."""
    text = TensorProto.STRING
    return _model(
        [helper.make_node("Concat", ["IN", "TAIL"], ["OUT"], axis=0)],
        [("IN", text, ["many"]), ("TAIL", text, ["more"])],
        [("OUT", text, ["all"])],
        {"TAIL": np.array(["!"], object)},
    )


def two_by_two(b_rows: str = "rows") -> onnx.ModelProto:
    """Two inputs of different types, two outputs: total = a + b, product = a * b. b may have its own first axis."""
    nodes = [
        helper.make_node("Cast", ["b"], ["b_float"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["a", "b_float"], ["total"]),
        helper.make_node("Mul", ["a", "b_float"], ["product"]),
    ]
    return _model(
        nodes,
        [("a", TensorProto.FLOAT, ["rows", 3]), ("b", TensorProto.INT64, [b_rows, 1])],
        [("total", TensorProto.FLOAT, ["rows", 3]), ("product", TensorProto.FLOAT, ["rows", 3])],
    )


def nonzero() -> onnx.ModelProto:
    """How large the answer is depends on the values: the indices of what is not 0."""
    return _model(
        [helper.make_node("NonZero", ["x"], ["indices"])],
        [("x", TensorProto.INT64, [5])],
        [("indices", TensorProto.INT64, [1, "found"])],
    )


def sequence() -> onnx.ModelProto:
    """Rows of any length: each element plus the sum of its row."""
    nodes = [
        helper.make_node("ReduceSum", ["ids", "last_axis"], ["sums"], keepdims=1),
        helper.make_node("Add", ["ids", "sums"], ["out"]),
    ]
    return _model(
        nodes,
        [("ids", TensorProto.INT64, ["rows", "length"])],
        [("out", TensorProto.INT64, ["rows", "length"])],
        {"last_axis": np.array([1], "i8")},
    )


def embedding() -> onnx.ModelProto:
    """Rows of EMBEDDING by index. An index outside of it makes ONNX Runtime fail the whole run."""
    return _model(
        [helper.make_node("Gather", ["table", "ids"], ["vectors"], axis=0)],
        [("ids", TensorProto.INT64, ["rows", 1])],
        [("vectors", TensorProto.FLOAT, ["rows", 1, 4])],
        {"table": EMBEDDING},
    )


def coupled() -> onnx.ModelProto:
    """Looks batchable and is not: the sum over all rows is added to each of them."""
    nodes = [
        helper.make_node("ReduceSum", ["x", "first_axis"], ["sums"], keepdims=1),
        helper.make_node("Add", ["x", "sums"], ["y"]),
    ]
    return _model(
        nodes,
        [("x", TensorProto.FLOAT, ["rows", 4])],
        [("y", TensorProto.FLOAT, ["rows", 4])],
        {"first_axis": np.array([0], "i8")},
    )


def two_heads() -> onnx.ModelProto:
    """Scores and words for each row of four: scores = x @ a square, words = x, as text, which has no classes."""
    nodes = [
        helper.make_node("MatMul", ["x", "weights"], ["flat"]),
        helper.make_node("Reshape", ["flat", "grid"], ["scores"]),
        helper.make_node("Cast", ["x"], ["words"], to=TensorProto.STRING),
    ]
    return _model(
        nodes,
        [("x", TensorProto.FLOAT, ["rows", 4])],
        [("scores", TensorProto.FLOAT, ["rows", 2, 2]), ("words", TensorProto.STRING, ["rows", 4])],
        {"weights": np.eye(4, dtype="f4") + 0.5, "grid": np.array([-1, 2, 2], "i8")},
    )


def means() -> onnx.ModelProto:
    """A number for each row of four, without an axis of its own: y is the mean of x, plus one for each row."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "plus"], ["y"]),
    ]
    return _model(
        nodes,
        [("x", TensorProto.FLOAT, ["rows", 4]), ("plus", TensorProto.FLOAT, ["rows"])],
        [("y", TensorProto.FLOAT, ["rows"])],
    )


def many_outputs() -> onnx.ModelProto:
    """More outputs than a request has room for without allocating: out_00 = x, out_01 = x + 1, ..."""
    names = [f"out_{index:02}" for index in range(MANY_OUTPUTS)]
    return _model(
        [helper.make_node("Add", ["x", f"offset_{index}"], [name]) for index, name in enumerate(names)],
        [("x", TensorProto.FLOAT, ["rows", 1])],
        [(name, TensorProto.FLOAT, ["rows", 1]) for name in names],
        {f"offset_{index}": np.array(index, "f4") for index in range(MANY_OUTPUTS)},
    )


def slow() -> onnx.ModelProto:
    """Takes as long as the request says: y is x after `trips` turns of a loop, the largest of the rows' trips."""
    nodes = [
        helper.make_node("ReduceMax", ["trips"], ["most_trips"], keepdims=0),
        helper.make_node("Loop", ["most_trips", "", "x"], ["y"], body=_idle_turn()),
    ]
    return _model(
        nodes,
        [("x", TensorProto.FLOAT, ["rows", 4]), ("trips", TensorProto.INT64, ["rows", 1])],
        [("y", TensorProto.FLOAT, ["rows", 4])],
    )


def slow_to_load(trips: int) -> onnx.ModelProto:
    """Every run takes `trips` turns, so warming it up takes long."""
    return _model(
        [helper.make_node("Loop", ["trips", "", "x"], ["y"], body=_idle_turn())],
        [("x", TensorProto.FLOAT, [4])],
        [("y", TensorProto.FLOAT, [4])],
        {"trips": np.array(trips, "i8")},
    )


def slow_to_open() -> onnx.ModelProto:
    """Takes minutes to become a session: ONNX Runtime multiplies its large constants while it opens the file."""
    made = [
        helper.make_node("ConstantOfShape", ["shape"], ["m0"], value=numpy_helper.from_array(np.array([1e-4], "f4")))
    ]
    made += [helper.make_node("MatMul", ["m0", f"m{number}"], [f"m{number + 1}"]) for number in range(200)]
    made += [helper.make_node("Slice", ["m200", "begin", "end"], ["row"]), helper.make_node("Add", ["x", "row"], ["y"])]
    return _model(
        made,
        [("x", TensorProto.FLOAT, [1, 4])],
        [("y", TensorProto.FLOAT, [1, 4])],
        {"shape": np.array([3000, 3000], "i8"), "begin": np.array([0, 0], "i8"), "end": np.array([1, 4], "i8")},
    )


def write(repository: Path, name: str, model: onnx.ModelProto, *, version: int = 1, config: str = "") -> None:
    """Put a model into a repository folder, with a config.pbtxt if there is something to say."""
    folder = repository / name / str(version)
    folder.mkdir(parents=True)
    onnx.save(model, folder / "model.onnx")
    if config:
        (repository / name / "config.pbtxt").write_text(config)


def _idle_turn() -> onnx.GraphProto:
    """A loop body that takes its time and changes nothing."""
    nodes = [
        helper.make_node("Identity", ["go_on_in"], ["go_on_out"]),
        helper.make_node("Add", ["state_in", "nothing"], ["state_out"]),
    ]
    return helper.make_graph(
        nodes,
        "turn",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("go_on_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state_out", TensorProto.FLOAT, None),
        ],
        [numpy_helper.from_array(np.array(0, "f4"), "nothing")],
    )


def _model(
    nodes: list[onnx.NodeProto],
    inputs: Sequence[tuple[str, int, Dims]],
    outputs: Sequence[tuple[str, int, Dims]],
    weights: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "model",
        [helper.make_tensor_value_info(name, kind, list(dims)) for name, kind, dims in inputs],
        [helper.make_tensor_value_info(name, kind, list(dims)) for name, kind, dims in outputs],
        [numpy_helper.from_array(array, name) for name, array in (weights or {}).items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(model)
    return model
