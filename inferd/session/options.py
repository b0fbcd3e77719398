"""What a model may choose of ONNX Runtime's settings, and how they are told to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inferd.session.runtime import ort

# Spinning threads win microseconds on an idle host and lose whole time slices under a CPU quota.
ENTRIES: Mapping[str, str] = {"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0"}


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


def ort_options(options: SessionOptions) -> ort.SessionOptions:
    """For a session."""
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


def run_options(options: SessionOptions) -> ort.RunOptions | None:
    """For each of its runs; None where there is nothing to say."""
    if not options.shrink_arenas:
        return None
    made = ort.RunOptions()
    made.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(options.shrink_arenas))
    return made
