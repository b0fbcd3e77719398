"""The settings of ONNX Runtime that config.pbtxt has names for: one table for each place where they may stand.

The names and values are those of Triton's backend for ONNX Runtime; a few of ONNX Runtime's own session
settings are there beside them. Another name is not passed on: ONNX Runtime would not notice a typing error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

Value: TypeAlias = int | bool | str | tuple[str, ...]

COUNT = "a number of threads, 0 to let the server choose"
SWITCH = "0 or 1"
BYTES = "a number of bytes"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One name: the field of RuntimeDecl that it sets, what it may say, and what that does.

    ``read`` gives None for what it may not say. Where the field is a mapping, ``key`` is the name there.
    """

    field: str
    values: str
    read: Callable[[str], Value | None]
    does: str
    key: str = ""

    @property
    def is_for_cuda(self) -> bool:
        """Nothing on a CPU listens to it."""
        return self.field in ("cuda_options", "tensorrt_options")


def _count(said: str) -> int | None:
    return int(said) if re.fullmatch("[0-9]{1,4}", said) else None


def yes_or_no(said: str) -> bool | None:
    """What a switch says."""
    return {"1": True, "true": True, "0": False, "false": False}.get(said.lower())


def _digit(said: str) -> str | None:
    """A switch, as ONNX Runtime's own settings spell it."""
    said_yes = yes_or_no(said)
    return None if said_yes is None else str(int(said_yes))


def whole_bytes(said: str) -> str | None:
    """A number of bytes that fits into 64 bits."""
    return said if re.fullmatch("[0-9]{1,20}", said) and int(said) < 2**64 else None


def _block_base(said: str) -> str | None:
    return said if re.fullmatch("[0-9]{1,4}", said) else None


def _arenas(said: str) -> tuple[str, ...] | None:
    arenas = tuple(part.strip() for part in said.split(";"))
    return arenas if all(re.fullmatch("cpu:0|gpu:[0-9]{1,2}", arena) for arena in arenas) else None


def one_of(*names: str) -> Callable[[str], str | None]:
    """Any of these names, as it is."""
    return lambda said: said if said in names else None


def _numbered(*names: str) -> Callable[[str], str | None]:
    """A place in a list of names, counted from 0, for the name there."""
    return lambda said: names[int(said)] if said.isdecimal() and int(said) < len(names) else None


def _entry(key: str, does: str) -> Parameter:
    return Parameter("session_entries", SWITCH, _digit, does, key)


def _cuda(key: str, values: str, read: Callable[[str], Value | None], does: str) -> Parameter:
    return Parameter("cuda_options", values, read, does, key)


ALGORITHM_SEARCHES = ("EXHAUSTIVE", "HEURISTIC", "DEFAULT")
ARENA_STRATEGIES = ("kNextPowerOfTwo", "kSameAsRequested")

PARAMETERS: Mapping[str, Parameter] = MappingProxyType(
    {
        "intra_op_thread_count": Parameter(
            "intra_op_threads", COUNT, _count, "Threads that share the work inside an operator."
        ),
        "inter_op_thread_count": Parameter(
            "inter_op_threads", COUNT, _count, "Threads that run operators beside each other, in parallel mode."
        ),
        "execution_mode": Parameter(
            "parallel",
            "0 (sequential) or 1 (parallel)",
            yes_or_no,
            "Whether operators that do not need each other run beside each other.",
        ),
        "enable_mem_arena": Parameter(
            "memory_arena", SWITCH, yes_or_no, "Keep memory between runs instead of giving it back; 1 where not said."
        ),
        "enable_mem_pattern": Parameter(
            "memory_pattern",
            SWITCH,
            yes_or_no,
            "Plan the memory of a run from an earlier one of the same shapes; 1 where not said.",
        ),
        "memory.enable_memory_arena_shrinkage": Parameter(
            "shrink_arenas",
            "a list such as 'cpu:0' or 'cpu:0;gpu:0'",
            _arenas,
            "Give unused memory of these arenas back after each run.",
        ),
        "session.use_device_allocator_for_initializers": _entry(
            "session.use_device_allocator_for_initializers", "Allocate weights outside of the arena."
        ),
        "intra_op.allow_spinning": _entry(
            "session.intra_op.allow_spinning",
            "Let threads inside operators spin while they wait: microseconds won, whole cores used; 0 where not said.",
        ),
        "inter_op.allow_spinning": _entry(
            "session.inter_op.allow_spinning", "The same for threads between operators; 0 where not said."
        ),
        "session.intra_op.allow_spinning": _entry(
            "session.intra_op.allow_spinning", "The same as `intra_op.allow_spinning`."
        ),
        "session.inter_op.allow_spinning": _entry(
            "session.inter_op.allow_spinning", "The same as `inter_op.allow_spinning`."
        ),
        "session.disable_prepacking": _entry(
            "session.disable_prepacking", "Do not keep weights a second time in the order that kernels like."
        ),
        "session.dynamic_block_base": Parameter(
            "session_entries",
            "a number, 0 to turn it off",
            _block_base,
            "Cut work inside an operator into blocks that shrink towards its end.",
            "session.dynamic_block_base",
        ),
        "cudnn_conv_algo_search": _cuda(
            "cudnn_conv_algo_search",
            "0 (exhaustive), 1 (heuristic) or 2 (default)",
            _numbered(*ALGORITHM_SEARCHES),
            "How cuDNN chooses the algorithm of a convolution.",
        ),
        "gpu_mem_limit": _cuda("gpu_mem_limit", BYTES, whole_bytes, "The largest size of the GPU's arena."),
        "arena_extend_strategy": _cuda(
            "arena_extend_strategy",
            "0 (next power of two) or 1 (as requested)",
            _numbered(*ARENA_STRATEGIES),
            "By how much the GPU's arena grows.",
        ),
        "do_copy_in_default_stream": _cuda(
            "do_copy_in_default_stream", SWITCH, _digit, "Copy on the stream that computes."
        ),
        "cudnn_conv_use_max_workspace": _cuda(
            "cudnn_conv_use_max_workspace", SWITCH, _digit, "Let a convolution use as much memory as its search did."
        ),
    }
)

# Of gpu_execution_accelerator "cuda": the CUDA provider's options by its own names, in its own spelling.
CUDA_OPTIONS: Mapping[str, Parameter] = MappingProxyType(
    {
        "arena_extend_strategy": _cuda(
            "arena_extend_strategy",
            " or ".join(ARENA_STRATEGIES),
            one_of(*ARENA_STRATEGIES),
            "By how much the GPU's arena grows.",
        ),
        "cudnn_conv1d_pad_to_nc1d": _cuda(
            "cudnn_conv1d_pad_to_nc1d", SWITCH, _digit, "Where a convolution of one dimension gets its second one."
        ),
        "cudnn_conv_algo_search": _cuda(
            "cudnn_conv_algo_search",
            "EXHAUSTIVE, HEURISTIC or DEFAULT",
            one_of(*ALGORITHM_SEARCHES),
            "How cuDNN chooses the algorithm of a convolution.",
        ),
        "cudnn_conv_use_max_workspace": PARAMETERS["cudnn_conv_use_max_workspace"],
        "do_copy_in_default_stream": PARAMETERS["do_copy_in_default_stream"],
        "enable_cuda_graph": _cuda("enable_cuda_graph", SWITCH, _digit, "Record a run and replay it."),
        "enable_skip_layer_norm_strict_mode": _cuda(
            "enable_skip_layer_norm_strict_mode", SWITCH, _digit, "Add up layer norms in single precision."
        ),
        "fuse_conv_bias": _cuda("fuse_conv_bias", SWITCH, _digit, "Run a convolution and its bias as one."),
        "gpu_mem_limit": PARAMETERS["gpu_mem_limit"],
        "prefer_nhwc": _cuda("prefer_nhwc", SWITCH, _digit, "Keep images with their channels last."),
        "tunable_op_enable": _cuda("tunable_op_enable", SWITCH, _digit, "Use kernels that were chosen by trial."),
        "tunable_op_tuning_enable": _cuda("tunable_op_tuning_enable", SWITCH, _digit, "Try kernels as models run."),
        "use_ep_level_unified_stream": _cuda(
            "use_ep_level_unified_stream", SWITCH, _digit, "One stream for everything on the device."
        ),
        "use_tf32": _cuda("use_tf32", SWITCH, _digit, "Multiply FP32 in TF32."),
    }
)
