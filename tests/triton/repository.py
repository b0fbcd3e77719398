"""The model repository that both servers are given."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_models as models
from onnx import helper

# What the Python backend of the oracle can carry.
DATATYPES = tuple(name for name in models.ELEMENT_TYPES if name != "BF16")
BATCHED = 4
# What is served from the start; the others wait to be loaded.
SERVED = (
    "scale", "two_by_two", "types", "embedding", "plain", "any_rows", "scalar", "no_config", "versioned",
)  # fmt: skip
TRITON_FLAGS = ("--model-control-mode=explicit", *(f"--load-model={name}" for name in SERVED))
INFERD_FLAGS = ("--model-control-mode=explicit", f"--load-model={','.join(SERVED)}")
ONE_CPU = "instance_group { kind: KIND_CPU count: 1 }"
LABELS = ("cat", "dog", "fish")


def config(max_batch_size: int, more: str = "") -> str:
    """A config.pbtxt. One instance, because each is a process of the oracle's that has to start."""
    return f'platform: "onnxruntime_onnx" max_batch_size: {max_batch_size} {ONE_CPU} {more}'


def build(repository: Path) -> Path:
    """Write all models."""
    batched = config(BATCHED)
    models.write(repository, "scale", models.scale(), config=batched)
    models.write(repository, "two_by_two", models.two_by_two(), config=config(BATCHED, "dynamic_batching { }"))
    models.write(repository, "types", types(), config=batched)
    models.write(repository, "embedding", models.embedding(), config=batched)
    models.write(repository, "plain", models.scale(dims=[4]), config=config(0))
    models.write(repository, "any_rows", models.scale(), config=config(0))
    models.write(repository, "scalar", models.scale(dims=[]), config=config(0))
    models.write(repository, "spare", models.scale(), config=batched)
    models.write(repository, "no_config", models.scale())
    for version, factor in ((1, 10.0), (3, 30.0)):
        models.write(repository, "versioned", models.scale(factor), version=version)
    (repository / "versioned" / "config.pbtxt").write_text(config(BATCHED, "version_policy { all { } }"))
    return repository


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
