"""The model repository that both servers are given."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_models as models
from onnx import helper

from .cases.inference import DATATYPES
from .cases.queueing import POLICIES
from .cases.shapes import RESHAPED, SCALARS

BATCHED = 4
# What is served from the start; the others wait to be loaded.
SERVED = (
    "scale", "two_by_two", "types", "texts", "animals", "embedding",
    "plain", "any_rows", "scalar", "no_config", "versioned", "levels", "reshaped", "scalars", "defaults",
)  # fmt: skip
TRITON_FLAGS = ("--model-control-mode=explicit", *(f"--load-model={name}" for name in SERVED))
INFERD_FLAGS = (
    *("--model-control-mode=explicit", f"--load-model={','.join(SERVED)}"),
    # Triton lets everybody do these, and has no JSON.
    *("--control-log-settings=true", "--log-format=human", "--shared-memory-enabled=true"),
    "--metrics-dialect=triton",
)
PLATFORM = 'platform: "onnxruntime_onnx"'
# Each instance is a process of the oracle's that has to start.
ONE_CPU = "instance_group { kind: KIND_CPU count: 1 }"


def build_one(repository: Path) -> Path:
    """Write one model, for servers that let nobody load or unload."""
    write(repository, "scale", models.scale(), BATCHED)
    return repository


def build(repository: Path) -> Path:
    """Write all models."""
    write(repository, "scale", models.scale(), BATCHED)
    write(repository, "two_by_two", models.two_by_two(), BATCHED, "dynamic_batching { }")
    write(repository, "types", types(), BATCHED)
    write(repository, "texts", models.identity("BYTES", ["rows", 3]), BATCHED)
    write(repository, "animals", models.identity("FP32", ["rows", 3]), BATCHED, labels=("cat", "dog", "fish"))
    write(repository, "embedding", models.embedding(), BATCHED)
    write(repository, "defaults", models.with_defaults(), BATCHED, optional=("scale", "shift"))
    write(repository, "plain", models.scale(dims=[4]))
    write(repository, "any_rows", models.scale())
    write(repository, "versioned", models.scale(10.0), BATCHED, "version_policy { all { } }")
    models.write(repository, "versioned", models.scale(30.0), version=3)
    for waiting in ("spare", "counted", "wronged", "lent"):
        write(repository, waiting, models.scale(), BATCHED)
    write(repository, "levels", models.slow(), 1, POLICIES)
    for name, dims, shapes in (("reshaped", ["rows", 1, 4], RESHAPED), ("scalars", ["rows"], SCALARS)):
        said = f"{PLATFORM} max_batch_size: {BATCHED} {ONE_CPU} {shapes}"
        models.write(repository, name, models.scale(dims=dims), config=said)
    # What these leave out is completed from the model.
    models.write(repository, "scalar", models.scale(dims=[]), config=f"{PLATFORM} max_batch_size: 0 {ONE_CPU}")
    models.write(repository, "no_config", models.scale())
    return repository


def write(
    repository: Path,
    name: str,
    model: onnx.ModelProto,
    rows: int = 0,
    more: str = "",
    *,
    labels: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
) -> None:
    """A model with a config.pbtxt that says all of it: what it leaves out costs a start of another process."""
    graph = model.graph
    tensors = [("input", one) for one in graph.input] + [("output", one) for one in graph.output]
    label_file = 'label_filename: "labels.txt"' if labels else ""
    said = " ".join(
        f"{kind} {{ {_tensor(one, batched=rows > 0)} {label_file if kind == 'output' else ''} "
        f"{'optional: true' if one.name in optional else ''} }}"
        for kind, one in tensors
    )
    models.write(repository, name, model, config=f"{PLATFORM} max_batch_size: {rows} {ONE_CPU} {said} {more}")
    if labels:
        (repository / name / "labels.txt").write_text("".join(f"{one}\n" for one in labels))


def _tensor(info: onnx.ValueInfoProto, *, batched: bool) -> str:
    kind = info.type.tensor_type
    [datatype] = [name for name, number in models.ELEMENT_TYPES.items() if number == kind.elem_type]
    dims = [-1 if size.dim_param else size.dim_value for size in kind.shape.dim][1 if batched else 0 :]
    return f'name: "{info.name}" data_type: TYPE_{"STRING" if datatype == "BYTES" else datatype} dims: {dims}'


def types() -> onnx.ModelProto:
    """One output for each input, and both for each datatype: OUT_INT8 is IN_INT8."""
    names = [(kind, f"IN_{kind}", f"OUT_{kind}") for kind in DATATYPES]
    graph = helper.make_graph(
        [helper.make_node("Identity", [taken], [given]) for _, taken, given in names],
        "types",
        [helper.make_tensor_value_info(taken, models.ELEMENT_TYPES[kind], ["rows", 3]) for kind, taken, _ in names],
        [helper.make_tensor_value_info(given, models.ELEMENT_TYPES[kind], ["rows", 3]) for kind, _, given in names],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", models.OPSET)], ir_version=models.IR_VERSION)
