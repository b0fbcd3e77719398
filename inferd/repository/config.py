"""config.pbtxt to ModelDecl: what a model's folder says about how the model is to be served.

A file may say more than is acted on; fields.py says what becomes of the rest. Nothing here opens the
model, so nothing here knows whether the file tells the truth about it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from google.protobuf import text_format

from inferd.errors import RepositoryError
from inferd.proto.model_config_pb2 import (
    DataType,
    ModelConfig,
    ModelDynamicBatching,
    ModelInput,
    ModelInstanceGroup,
    ModelOutput,
)
from inferd.repository.fields import Place, placed

CONFIG_FILE = "config.pbtxt"
MODEL_FILE = "model.onnx"

PLATFORMS = frozenset({"", "onnxruntime", "onnxruntime_onnx"})

DATATYPES: Mapping[int, str] = MappingProxyType(
    {number: name.removeprefix("TYPE_") for name, number in DataType.items()}
    | {DataType.TYPE_STRING: "BYTES", DataType.TYPE_INVALID: ""}
)

KINDS_REFUSED: Mapping[int, str] = MappingProxyType(
    {
        ModelInstanceGroup.KIND_GPU: "KIND_GPU is not offered: the CUDA path is not built yet; use KIND_CPU",
        ModelInstanceGroup.KIND_MODEL: "KIND_MODEL is not offered; use KIND_CPU",
    }
)

# A typing error must not become a million sessions, or a wait that never ends.
MOST_INSTANCES = 1024
LONGEST_QUEUE_DELAY_US = 3_600_000_000


@dataclass(frozen=True, slots=True)
class TensorDecl:
    """One tensor as the file describes it: v2 datatype, dims without the batch axis, -1 for any length."""

    name: str
    datatype: str
    dims: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchingDecl:
    """What the file says about batches; None where it says nothing."""

    max_batch_size: int | None = None
    preferred_sizes: tuple[int, ...] = ()
    max_queue_delay_ns: int | None = None
    max_queue_size: int | None = None
    declared: bool = False
    """The file has a dynamic_batching section, be it an empty one."""


@dataclass(frozen=True, slots=True)
class ModelDecl:
    """Everything a model's folder says about serving it. Warnings are for the log, one a line."""

    name: str
    inputs: tuple[TensorDecl, ...] = ()
    outputs: tuple[TensorDecl, ...] = ()
    batching: BatchingDecl = BatchingDecl()
    instance_count: int = 1
    graph_level: int = 0
    """optimization.graph.level: 0 all optimizations, 1 basic and extended, -1 basic, 2 none."""
    parameters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """As written, but those of PARAMETERS as plain digits; a yes is "1", a no is "0"."""
    model_file: str = MODEL_FILE
    warnings: tuple[str, ...] = ()
    config: ModelConfig | None = None
    """The whole file; None where there is none. Never changed after it was read."""


def parse(text: str) -> ModelConfig:
    """Read the text of a config.pbtxt. Raises RepositoryError with the number of the line that is wrong."""
    config = ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as exc:
        # The text comes with "line:column : " in front of it.
        fault = re.sub(r"^\d+:\d+ : ", "", " ".join(str(exc).split()))
        line = exc.GetLine()
        where = f"{CONFIG_FILE} line {line}" if line else CONFIG_FILE
        raise RepositoryError(
            f"{where}: {fault}; correct it, or remove the file to serve the model as it describes itself"
        ) from None
    return config


def declare(config: ModelConfig, name: str) -> ModelDecl:
    """Take from a parsed config what is acted on, for the model of that name.

    Raises RepositoryError for what contradicts itself, and for what is not supported and changes answers.
    """
    if config.name not in ("", name):
        raise _fault(f"name is {config.name!r} but the folder is {name!r}; make them equal or remove name")
    for key, said in (("platform", config.platform), ("backend", config.backend)):
        if said not in PLATFORMS:
            raise _fault(f"{key} {said!r} is not served here; ONNX models are ('onnxruntime')")
    places = placed(config)
    refused = [path for path, place in places.items() if place is Place.REFUSED]
    if refused:
        raise _fault(f"{_quoted(refused)} {'is' if len(refused) == 1 else 'are'} not supported yet")
    _check_version_policy(config)
    batching, batching_warnings = _batching(config)
    parameters, parameter_warnings = _parameters(config)
    ignored = [f"{path!r} is not acted on" for path, place in places.items() if place is Place.IGNORED]
    return ModelDecl(
        name=name,
        inputs=_tensors("input", config.input),
        outputs=_tensors("output", config.output),
        batching=batching,
        instance_count=_instance_count(config.instance_group),
        graph_level=_graph_level(config),
        parameters=parameters,
        model_file=_model_file(config.default_model_filename),
        warnings=tuple(f"{CONFIG_FILE}: {w}" for w in [*ignored, *batching_warnings, *parameter_warnings]),
        config=config,
    )


def selected(versions: Sequence[int], config: ModelConfig | None) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The versions that the policy picks out of those on disk, rising, and warnings about those it misses."""
    rising = sorted(versions)
    policy = config.version_policy if config is not None else None
    choice = policy.WhichOneof("policy_choice") if policy is not None else None
    if policy is None or choice is None:
        return tuple(rising[-1:]), ()
    if choice == "all":
        return tuple(rising), ()
    if choice == "latest":
        return tuple(rising[-policy.latest.num_versions :]), ()
    wanted = set(policy.specific.versions)
    missing = sorted(wanted - set(rising))
    warnings = tuple(f"{CONFIG_FILE}: version_policy names version {v}, which has no folder" for v in missing)
    return tuple(v for v in rising if v in wanted), warnings


def _fault(what: str) -> RepositoryError:
    return RepositoryError(f"{CONFIG_FILE}: {what}")


def _quoted(names: Iterable[str]) -> str:
    *first, last = [repr(name) for name in names]
    return f"{', '.join(first)} and {last}" if first else last


def _tensors(side: str, tensors: Iterable[ModelInput | ModelOutput]) -> tuple[TensorDecl, ...]:
    found: dict[str, TensorDecl] = {}
    for tensor in tensors:
        datatype = DATATYPES.get(tensor.data_type, "")
        if not tensor.name:
            raise _fault(f"an {side} has no name")
        if tensor.name in found:
            raise _fault(f"{side} {tensor.name!r} is there twice")
        if not datatype:
            raise _fault(f"{side} {tensor.name!r} needs a data_type, for example TYPE_FP32")
        if any(size < 1 and size != -1 for size in tensor.dims):
            raise _fault(f"{side} {tensor.name!r}: dims must be 1 or more, or -1 for any length")
        found[tensor.name] = TensorDecl(tensor.name, datatype, tuple(tensor.dims))
    return tuple(found.values())


def _batching(config: ModelConfig) -> tuple[BatchingDecl, list[str]]:
    max_batch_size = config.max_batch_size if config.HasField("max_batch_size") else None
    if max_batch_size is not None and max_batch_size < 0:
        raise _fault(f"max_batch_size must be 0 (no batch axis) or more, not {max_batch_size}")
    if not config.HasField("dynamic_batching"):
        return BatchingDecl(max_batch_size=max_batch_size), []
    asked: ModelDynamicBatching = config.dynamic_batching
    for size in asked.preferred_batch_size:
        if size < 1 or (max_batch_size is not None and size > max_batch_size):
            most = "max_batch_size" if max_batch_size is None else f"max_batch_size ({max_batch_size})"
            raise _fault(f"preferred_batch_size must be from 1 to {most}, not {size}")
    if asked.max_queue_delay_microseconds > LONGEST_QUEUE_DELAY_US:
        raise _fault("max_queue_delay_microseconds is more than an hour")
    batching = BatchingDecl(
        max_batch_size=max_batch_size,
        preferred_sizes=tuple(sorted(set(asked.preferred_batch_size))),
        max_queue_delay_ns=asked.max_queue_delay_microseconds * 1_000 or None,
        max_queue_size=asked.default_queue_policy.max_queue_size or None,
        declared=True,
    )
    idle = ["'dynamic_batching' batches nothing while max_batch_size is 0"]
    return batching, idle if max_batch_size == 0 else []


def _instance_count(groups: Iterable[ModelInstanceGroup]) -> int:
    total = 0
    for group in groups:
        if group.kind not in (ModelInstanceGroup.KIND_AUTO, ModelInstanceGroup.KIND_CPU):
            raise _fault("instance_group " + KINDS_REFUSED.get(group.kind, f"kind {group.kind} is unknown"))
        if group.count < 0:
            raise _fault(f"instance_group count must be 1 or more, not {group.count}")
        total += group.count or 1
    if total > MOST_INSTANCES:
        raise _fault(f"instance_group asks for {total} instances; {MOST_INSTANCES} is the most")
    return total or 1


def _graph_level(config: ModelConfig) -> int:
    level = config.optimization.graph.level
    if level not in (-1, 0, 1, 2):
        raise _fault(f"optimization.graph.level must be -1, 0, 1 or 2, not {level}")
    return level


def _model_file(said: str) -> str:
    # One path component and no more: the file lies in the version folder, nowhere else.
    if said in (".", "..") or any(char in said for char in "/\\\0"):
        raise _fault(f"default_model_filename must be the bare name of a file, not {said!r}")
    return said or MODEL_FILE


def _check_version_policy(config: ModelConfig) -> None:
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "latest" if policy.latest.num_versions < 1:
            raise _fault("version_policy.latest.num_versions must be 1 or more")
        case "specific" if not policy.specific.versions or min(policy.specific.versions) < 1:
            raise _fault("version_policy.specific.versions must name versions, each 1 or more")


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


def _parameters(config: ModelConfig) -> tuple[Mapping[str, str], list[str]]:
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
            raise _fault(f"parameter {key!r} must be {meaning}, not {said!r}")
        found[key] = value
    return MappingProxyType(found), warnings
