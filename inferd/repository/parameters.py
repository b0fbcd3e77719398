"""The parameters section of config.pbtxt: settings of ONNX Runtime, by the names that Triton's backend has for them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType

from inferd.proto.model_config_pb2 import ModelConfig
from inferd.repository.faults import fault


def _count(said: str) -> str | None:
    return str(int(said)) if re.fullmatch("[0-9]{1,4}", said) else None


def _yes_or_no(said: str) -> str | None:
    return {"1": "1", "true": "1", "0": "0", "false": "0"}.get(said.lower())


# The parameters that are acted on: what each may say, and the reader that gives None for anything else.
PARAMETERS: Mapping[str, tuple[str, Callable[[str], str | None]]] = MappingProxyType(
    {
        "intra_op_thread_count": ("a number of threads, 0 to let the server choose", _count),
        "inter_op_thread_count": ("a number of threads, 0 to let the server choose", _count),
        "execution_mode": ("0 (sequential) or 1 (parallel)", _yes_or_no),
        "enable_mem_arena": ("0 or 1", _yes_or_no),
        "enable_mem_pattern": ("0 or 1", _yes_or_no),
        "intra_op.allow_spinning": ("0 or 1", _yes_or_no),
        "inter_op.allow_spinning": ("0 or 1", _yes_or_no),
    }
)


def read_parameters(config: ModelConfig) -> tuple[Mapping[str, str], list[str]]:
    """Every parameter by name, and warnings about those that are not acted on. Raises RepositoryError."""
    found: dict[str, str] = {}
    warnings: list[str] = []
    for key in sorted(config.parameters):
        said = config.parameters[key].string_value
        if key not in PARAMETERS:
            found[key] = said
            warnings.append(f"parameter {key!r} is not acted on")
            continue
        meaning, read = PARAMETERS[key]
        value = read(said)
        if value is None:
            raise fault(f"parameter {key!r} must be {meaning}, not {said!r}")
        found[key] = value
    return MappingProxyType(found), warnings
