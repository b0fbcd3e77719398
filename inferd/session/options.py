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
    cuda: Mapping[str, str] = field(default_factory=dict)  # the CUDA provider's, by its own names
    tensorrt: Mapping[str, str] | None = None  # the TensorRT provider's, likewise, where it is wanted beside CUDA's
    preferred_rows: tuple[
        int, ...
    ] = ()  # batch sizes that are prepared beside the powers of two, where batches are padded
    slot_memory_nbytes: int = 0  # the most that all slots together take of a device's memory; 0 is no limit

    @property
    def cuda_graphs(self) -> bool:
        """Whether runs of prepared shapes are recorded once and then played back."""
        return self.cuda.get("enable_cuda_graph") == "1"


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


class RunOptions:
    """What each run in a slot is told, made once for each kind of run; told to terminate, they end the run."""

    def __init__(self, options: SessionOptions) -> None:
        self._shrink_arenas = options.shrink_arenas
        self.waiting = self._made()
        """For runs that are over when the call returns."""
        self.enqueueing = self._made(("disable_synchronize_execution_providers", "1"))
        """For runs that the device may still be at when the call returns."""

    def recording(self, graph_id: int) -> ort.RunOptions:
        """For runs of one CUDA graph: recorded the second time, played back from then on."""
        return self._made(("disable_synchronize_execution_providers", "1"), ("gpu_graph_id", str(graph_id)))

    @property
    def unrecorded(self) -> ort.RunOptions:
        """For runs that cannot be recorded, in a session that records."""
        return self._made(("gpu_graph_id", "-1"))

    def _made(self, *entries: tuple[str, str]) -> ort.RunOptions:
        made = ort.RunOptions()
        for name, value in entries:
            made.add_run_config_entry(name, value)
        if self._shrink_arenas:
            made.add_run_config_entry("memory.enable_memory_arena_shrinkage", ";".join(self._shrink_arenas))
        return made
