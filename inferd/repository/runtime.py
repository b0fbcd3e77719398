"""What config.pbtxt asks of ONNX Runtime: its parameters and optimization sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from inferd.near import hint
from inferd.proto.model_config_pb2 import ModelConfig, ModelOptimizationPolicy
from inferd.repository.faults import fault
from inferd.repository.parameters import CUDA_OPTIONS, PARAMETERS, Parameter, Value
from inferd.repository.tensorrt import NOT_TAKEN, TENSORRT_OPTIONS, told

GPU_ACCELERATORS: Final[Mapping[str, Mapping[str, Parameter]]] = MappingProxyType(
    {"cuda": CUDA_OPTIONS, "tensorrt": TENSORRT_OPTIONS}
)


def _nothing() -> Mapping[str, str]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True)
class RuntimeDecl:
    """Settings of a session and of its runs; a default wherever the file says nothing."""

    intra_op_threads: int = 0
    """0 is the server's choice, here and for inter_op_threads."""
    inter_op_threads: int = 0
    parallel: bool = False
    memory_arena: bool = True
    memory_pattern: bool = True
    graph_level: int = 0
    """optimization.graph.level: 0 all optimizations, 1 basic and extended, -1 basic, 2 none."""
    shrink_arenas: tuple[str, ...] = ()
    """As ONNX Runtime names them, such as "cpu:0": what they do not use is given back after each run."""
    session_entries: Mapping[str, str] = field(default_factory=_nothing)
    """Settings of a session by ONNX Runtime's names."""
    cuda_options: Mapping[str, str] = field(default_factory=_nothing)
    """Options of the CUDA provider, for a device that has one."""
    tensorrt_options: Mapping[str, str] | None = None
    """Options of the TensorRT provider, by its own names, where the file asks for it; caches have no folder yet."""


def read_runtime(config: ModelConfig) -> tuple[RuntimeDecl, list[str]]:
    """What the file asks of ONNX Runtime, and warnings about what it cannot have. Raises RepositoryError."""
    found: dict[str, Any] = {"graph_level": _graph_level(config.optimization)}
    warnings = _accelerators(config.optimization.execution_accelerators, found)
    # After the accelerators: where both speak, Triton lets the parameters win.
    for name in sorted(config.parameters):
        if name in PARAMETERS:
            _put(found, PARAMETERS[name], f"parameter {name!r}", config.parameters[name].string_value)
        else:
            warnings.append(f"parameter {name!r} is not acted on{hint(name, PARAMETERS)}")
    for name in ("session_entries", "cuda_options"):
        found[name] = MappingProxyType(found.get(name, {}))
    if "tensorrt_options" in found:
        found["tensorrt_options"] = told(found["tensorrt_options"])
    made = RuntimeDecl(**found)
    if "cpu:0" in made.shrink_arenas and not made.memory_arena:
        raise fault("memory.enable_memory_arena_shrinkage names cpu:0, and enable_mem_arena 0 leaves no arena there")
    if made.tensorrt_options is not None and made.cuda_options.get("enable_cuda_graph") == "1":
        raise fault(
            "enable_cuda_graph is for models that CUDA runs as a whole, and 'tensorrt' takes a part of this one"
        )
    return made, warnings


def _graph_level(asked: ModelOptimizationPolicy) -> int:
    level = asked.graph.level
    if level not in (-1, 0, 1, 2):
        raise fault(f"optimization.graph.level must be -1, 0, 1 or 2, not {level}")
    return level


def _accelerators(asked: ModelOptimizationPolicy.ExecutionAccelerators, found: dict[str, Any]) -> list[str]:
    warnings: list[str] = []
    for accelerator in asked.gpu_execution_accelerator:
        known = GPU_ACCELERATORS.get(accelerator.name)
        if known is None:
            warnings.append(_not_offered(accelerator.name))
            continue
        if accelerator.name == "tensorrt":
            found.setdefault("tensorrt_options", {})
        for name in sorted(accelerator.parameters):
            what = f"parameter {name!r} of execution accelerator {accelerator.name!r}"
            if name in known:
                _put(found, known[name], what, accelerator.parameters[name])
            elif accelerator.name == "tensorrt" and name in NOT_TAKEN:
                raise fault(f"{what} is not taken: {NOT_TAKEN[name]}; remove it")
            else:
                warnings.append(f"{what} is not acted on{hint(name, known)}")
    warnings += [_not_offered(accelerator.name) for accelerator in asked.cpu_execution_accelerator]
    return warnings


def _not_offered(name: str) -> str:
    return f"execution accelerator {name!r} is not offered: the model runs without it"


def _put(found: dict[str, Any], parameter: Parameter, what: str, said: str) -> None:
    value: Value | None = parameter.read(said)
    if value is None:
        raise fault(f"{what} must be {parameter.values}, not {said!r}")
    if parameter.key:
        found.setdefault(parameter.field, {})[parameter.key] = value
    else:
        found[parameter.field] = value
