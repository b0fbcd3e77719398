"""The parameters of the accelerator `tensorrt`: Triton's names, and what ONNX Runtime's provider is told for them.

The binding for Python wants switches spelled True and False, whatever the C interface takes. What would have the server
load a library, or write a file where the model likes, is not taken: config.pbtxt comes with the model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from inferd.repository.parameters import BYTES, SWITCH, Parameter, one_of, whole_bytes, yes_or_no

PRECISIONS: Final[Mapping[str, str]] = MappingProxyType(
    {"FP32": "", "FP16": "trt_fp16_enable", "BF16": "trt_bf16_enable", "INT8": "trt_int8_enable"}
)
CACHES: Final[Mapping[str, str]] = MappingProxyType(
    {"trt_engine_cache_enable": "trt_engine_cache_path", "trt_timing_cache_enable": "trt_timing_cache_path"}
)
"""The switch of each cache, and the folder that it is kept in, which is the server's to allow."""

ON: Final = "True"
SHAPES: Final = "a list such as 'input:1x3x224x224,mask:1x128'"
FOLDER: Final = "a folder below device.cache_path"

_SHAPES: Final = re.compile(r"[^:,\s]+:\d+(x\d+)*(,[^:,\s]+:\d+(x\d+)*)*", re.ASCII)
_TACTICS: Final = re.compile(r"[+-][A-Z_]+(,[+-][A-Z_]+)*")
_BARE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def _switch(said: str) -> str | None:
    said_yes = yes_or_no(said)
    return None if said_yes is None else str(said_yes)


def _number(said: str) -> str | None:
    return said if re.fullmatch("[0-9]{1,9}", said) else None


def _like(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda said: said if pattern.fullmatch(said) else None


def _folder(said: str) -> str | None:
    return said if said and ".." not in said.split("/") and said.isprintable() else None


def _trt(key: str, values: str, read: Callable[[str], str | None], does: str) -> Parameter:
    return Parameter("tensorrt_options", values, read, does, key)


TENSORRT_OPTIONS: Final[Mapping[str, Parameter]] = MappingProxyType(
    {
        "precision_mode": _trt(
            "precision_mode",
            "FP32, FP16, BF16 or INT8",
            one_of(*PRECISIONS),
            "The least precise type that TensorRT may compute in; FP32 where not said.",
        ),
        "max_workspace_size_bytes": _trt(
            "trt_max_workspace_size", BYTES, whole_bytes, "The most memory that building an engine may take."
        ),
        "int8_calibration_table_name": _trt(
            "trt_int8_calibration_table_name",
            "a file's name, in the folder of the engines",
            _like(_BARE),
            "The ranges of values that INT8 needs, for models without quantization of their own.",
        ),
        "int8_use_native_calibration_table": _trt(
            "trt_int8_use_native_calibration_table", SWITCH, _switch, "Whether that table was written by TensorRT."
        ),
        "trt_max_partition_iterations": _trt(
            "trt_max_partition_iterations", "a number", _number, "How often the graph is cut anew to suit TensorRT."
        ),
        "trt_min_subgraph_size": _trt(
            "trt_min_subgraph_size", "a number", _number, "The fewest operators that are worth an engine."
        ),
        "trt_engine_cache_enable": _trt(
            "trt_engine_cache_enable",
            SWITCH,
            _switch,
            "Keep engines in files, so that the next load need not build them; where `device.cache_path` is set.",
        ),
        "trt_engine_cache_path": _trt(
            "trt_engine_cache_path", FOLDER, _folder, "Where; a folder of the model version's own where not said."
        ),
        "trt_engine_cache_prefix": _trt(
            "trt_engine_cache_prefix", "letters, digits and ._-", _like(_BARE), "How the names of those files begin."
        ),
        "trt_timing_cache_enable": _trt(
            "trt_timing_cache_enable", SWITCH, _switch, "Keep what was measured of kernels, which shortens building."
        ),
        "trt_timing_cache_path": _trt("trt_timing_cache_path", FOLDER, _folder, "Where, as for engines."),
        "trt_force_timing_cache": _trt(
            "trt_force_timing_cache", SWITCH, _switch, "Use what was measured on another GPU too."
        ),
        "trt_force_sequential_engine_build": _trt(
            "trt_force_sequential_engine_build", SWITCH, _switch, "Build the engines of several GPUs one by one."
        ),
        "trt_context_memory_sharing_enable": _trt(
            "trt_context_memory_sharing_enable", SWITCH, _switch, "Let the engines of a model share their memory."
        ),
        "trt_layer_norm_fp32_fallback": _trt(
            "trt_layer_norm_fp32_fallback", SWITCH, _switch, "Compute layer norms in FP32 where the rest is FP16."
        ),
        "trt_detailed_build_log": _trt("trt_detailed_build_log", SWITCH, _switch, "Time the steps of building."),
        "trt_build_heuristics_enable": _trt(
            "trt_build_heuristics_enable", SWITCH, _switch, "Guess instead of trying every kernel."
        ),
        "trt_sparsity_enable": _trt("trt_sparsity_enable", SWITCH, _switch, "Use that weights are sparse."),
        "trt_builder_optimization_level": _trt(
            "trt_builder_optimization_level",
            "0 to 5",
            _like(re.compile("[0-5]")),
            "How long to search for better kernels; 3 where not said.",
        ),
        "trt_auxiliary_streams": _trt(
            "trt_auxiliary_streams",
            "-1 to let TensorRT choose, or a number",
            _like(re.compile("-1|[0-9]{1,2}")),
            "Streams beside the one that computes.",
        ),
        "trt_tactic_sources": _trt(
            "trt_tactic_sources", "a list such as '-CUDNN,+CUBLAS'", _like(_TACTICS), "Libraries to take kernels from."
        ),
        "trt_profile_min_shapes": _trt(
            "trt_profile_min_shapes", SHAPES, _like(_SHAPES), "The smallest inputs of an engine; all three or none."
        ),
        "trt_profile_opt_shapes": _trt(
            "trt_profile_opt_shapes", SHAPES, _like(_SHAPES), "The inputs that it is made fastest for."
        ),
        "trt_profile_max_shapes": _trt("trt_profile_max_shapes", SHAPES, _like(_SHAPES), "The largest inputs."),
    }
)

NOT_TAKEN: Final[Mapping[str, str]] = MappingProxyType(
    {
        "trt_extra_plugin_lib_paths": "it would have the server load a library that the model names",
        "trt_dump_subgraphs": "it would write files where the server runs",
        "trt_dump_ep_context_model": "it would write files where the server runs",
        "trt_ep_context_file_path": "it would write files where the model likes",
        "trt_cuda_graph_enable": "a graph of TensorRT's belongs to one address, and each slot has its own",
    }
)
"""Parameters of Triton's that are refused, with the reason."""


def told(found: Mapping[str, str]) -> Mapping[str, str]:
    """The provider's options, by its own names, for what was read by the table."""
    made = {key: value for key, value in found.items() if key != "precision_mode"}
    precision = PRECISIONS[found.get("precision_mode", "FP32")]
    if precision:
        made[precision] = ON
    return MappingProxyType(made)
