"""config.pbtxt to ModelDecl: what a model's folder says about how the model is to be served.

A file may say more than is acted on; fields.py says what becomes of the rest. Nothing here opens the
model, so nothing here knows whether the file tells the truth about it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from google.protobuf import text_format

from inferd.errors import RepositoryError
from inferd.near import hint
from inferd.proto.model_config_pb2 import ModelConfig
from inferd.repository.batching import BatchingDecl, read_batching
from inferd.repository.faults import CONFIG_FILE, fault, quoted
from inferd.repository.fields import Place, placed
from inferd.repository.instances import InstancesDecl, read_instances
from inferd.repository.runtime import RuntimeDecl, read_runtime
from inferd.repository.tensors import TensorDecl, read_tensors
from inferd.repository.warmup import WarmupSample, read_warmup

MODEL_FILE = "model.onnx"

PLATFORMS = frozenset({"", "onnxruntime", "onnxruntime_onnx"})


@dataclass(frozen=True, slots=True)
class ModelDecl:
    """Everything a model's folder says about serving it. Warnings are for the log, one a line."""

    name: str
    inputs: tuple[TensorDecl, ...] = ()
    outputs: tuple[TensorDecl, ...] = ()
    batching: BatchingDecl = field(default_factory=BatchingDecl)
    instances: InstancesDecl = field(default_factory=InstancesDecl)
    runtime: RuntimeDecl = field(default_factory=RuntimeDecl)
    model_file: str = MODEL_FILE
    warmup: tuple[WarmupSample, ...] = ()
    warnings: tuple[str, ...] = ()
    labels: Mapping[str, tuple[bytes, ...]] = field(default_factory=lambda: MappingProxyType({}))
    """What the files say that outputs name with label_filename, by output."""
    config: ModelConfig | None = None
    """The whole file; None where there is none. Never changed after it was read."""

    @property
    def instance_count(self) -> int:
        """How many batches may run at once."""
        return self.instances.count


def parse(text: str) -> ModelConfig:
    """Read the text of a config.pbtxt. Raises RepositoryError with the number of the line that is wrong."""
    config = ModelConfig()
    try:
        text_format.Parse(text, config)
    except text_format.ParseError as exc:
        # The text comes with "line:column : " in front of it.
        said = re.sub(r"^\d+:\d+ : ", "", " ".join(str(exc).split()))
        line = exc.GetLine()
        near = _nearest(said)
        remedy = f"{near} correct it" if near else "; correct it"
        where = f"{CONFIG_FILE} line {line}" if line else CONFIG_FILE
        raise RepositoryError(
            f"{where}: {said}{remedy}, or remove the file to serve the model as it describes itself"
        ) from None
    return config


def _nearest(said: str) -> str:
    """A hint where the parser says that a message has no such field."""
    found = re.search(r'Message type "([\w.]+)" has no field named "(\w+)"', said)
    if found is None:
        return ""
    kinds: dict[str, Any] = {}
    waiting: list[Any] = [ModelConfig.DESCRIPTOR]
    while waiting:
        kind = waiting.pop()
        if kind.full_name not in kinds:
            kinds[kind.full_name] = kind
            waiting += [field.message_type for field in kind.fields if field.message_type is not None]
    return hint(found[2], [field.name for field in kinds[found[1]].fields]) if found[1] in kinds else ""


def declare(config: ModelConfig, name: str) -> ModelDecl:
    """Take from a parsed config what is acted on, for the model of that name.

    Raises RepositoryError for what contradicts itself, and for what is not supported and changes answers.
    """
    if config.name not in ("", name):
        raise fault(f"name is {config.name!r} but the folder is {name!r}; make them equal or remove name")
    for key, said in (("platform", config.platform), ("backend", config.backend)):
        if said not in PLATFORMS:
            raise fault(f"{key} {said!r} is not served here; ONNX models are ('onnxruntime')")
    places = placed(config)
    refused = [path for path, place in places.items() if place is Place.REFUSED]
    if refused:
        raise fault(f"{quoted(refused)} {'is' if len(refused) == 1 else 'are'} not supported yet")
    _check_version_policy(config)
    batching, batching_warnings = read_batching(config)
    runtime, runtime_warnings = read_runtime(config)
    warmup, warmup_warnings = read_warmup(config)
    ignored = [f"{path!r} is not acted on" for path, place in places.items() if place is Place.IGNORED]
    return ModelDecl(
        name=name,
        inputs=read_tensors("input", config.input),
        outputs=read_tensors("output", config.output),
        batching=batching,
        instances=read_instances(config.instance_group),
        runtime=runtime,
        model_file=_model_file(config.default_model_filename),
        warmup=warmup,
        warnings=tuple(
            f"{CONFIG_FILE}: {w}" for w in [*ignored, *batching_warnings, *runtime_warnings, *warmup_warnings]
        ),
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


def _model_file(said: str) -> str:
    # One path component and no more: the file lies in the version folder, nowhere else.
    if said in (".", "..") or any(char in said for char in "/\\\0"):
        raise fault(f"default_model_filename must be the bare name of a file, not {said!r}")
    return said or MODEL_FILE


def _check_version_policy(config: ModelConfig) -> None:
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "latest" if policy.latest.num_versions < 1:
            raise fault("version_policy.latest.num_versions must be 1 or more")
        case "specific" if not policy.specific.versions or min(policy.specific.versions) < 1:
            raise fault("version_policy.specific.versions must name versions, each 1 or more")
