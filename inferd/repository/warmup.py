"""The model_warmup section of config.pbtxt: requests to run before the model is called ready."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from inferd.proto.model_config_pb2 import ModelConfig, ModelWarmup
from inferd.repository.faults import fault
from inferd.repository.tensors import DATATYPES

WARMUP_FOLDER = "warmup"

MOST_WARMUP_ROWS = 65536


@dataclass(frozen=True, slots=True)
class SampleTensor:
    """What one input of a sample holds in each of its rows."""

    datatype: str
    dims: tuple[int, ...]
    source: Literal["zero", "random", "file"]
    file: Path | None = None
    """The raw bytes of one row, relative to the model's warmup folder until the scan has found it there."""


@dataclass(frozen=True, slots=True)
class WarmupSample:
    """One request of `rows` equal rows, to be run `count` times."""

    name: str
    rows: int
    count: int
    inputs: Mapping[str, SampleTensor]


def read_warmup(config: ModelConfig) -> tuple[tuple[WarmupSample, ...], list[str]]:
    """The samples in their order, and warnings about those that are skipped. Raises RepositoryError."""
    samples: list[WarmupSample] = []
    warnings: list[str] = []
    for index, asked in enumerate(config.model_warmup):
        name = asked.name or f"#{index + 1}"
        if asked.batch_size == 0:
            warnings.append(f"model_warmup {name!r} has batch_size 0 and is skipped")
            continue
        most = config.max_batch_size or MOST_WARMUP_ROWS
        if asked.batch_size > most:
            raise fault(f"model_warmup {name!r}: batch_size must be at most {most}, not {asked.batch_size}")
        inputs = {key: _tensor(f"model_warmup {name!r}, input {key!r}", asked.inputs[key]) for key in asked.inputs}
        samples.append(WarmupSample(name, asked.batch_size, max(asked.count, 1), MappingProxyType(inputs)))
    return tuple(samples), warnings


def _tensor(what: str, asked: ModelWarmup.Input) -> SampleTensor:
    datatype = DATATYPES.get(asked.data_type, "")
    if not datatype:
        raise fault(f"{what} needs a data_type, for example TYPE_FP32")
    dims = tuple(asked.dims)
    if any(size < 1 for size in dims):
        raise fault(f"{what}: dims must all be 1 or more: a request leaves none open")
    match asked.WhichOneof("input_data_type"):
        case "zero_data":
            return SampleTensor(datatype, dims, "zero")
        case "random_data":
            return SampleTensor(datatype, dims, "random")
        case "input_data_file":
            return SampleTensor(datatype, dims, "file", _file(what, asked.input_data_file))
    raise fault(f"{what} needs one of zero_data, random_data and input_data_file")


def _file(what: str, said: str) -> Path:
    if not said or said.startswith("/") or any(char in said for char in "\\\0") or ".." in said.split("/"):
        raise fault(f"{what}: input_data_file must be a path below the folder {WARMUP_FOLDER!r}, not {said!r}")
    return Path(said)
