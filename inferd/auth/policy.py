"""The policy: rules that say who may call which methods for which models. What no rule allows is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Annotated, Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from inferd.errors import StartError

ANYONE: Final = "anyone"
KNOWN: Final = "known"
MAX_WEIGHT: Final = 100
"""A caller of this weight may keep others waiting for so many batches, each time."""

_V2: Final = "inference.GRPCInferenceService"
# What is not gRPC goes by names of the same form.
HTTP: Final = "inferd.Http"

GROUPS: Final = MappingProxyType(
    {
        "health": (
            "grpc.health.v1.Health/*", f"{_V2}/ServerLive", f"{_V2}/ServerReady", f"{_V2}/ModelReady", f"{HTTP}/Health",
            f"{HTTP}/Ready",
        ),
        "metrics": (f"{HTTP}/Metrics",),
        "about": (f"{_V2}/ServerMetadata", f"{_V2}/ModelMetadata", f"{_V2}/ModelConfig"),
        "infer": (f"{_V2}/ModelInfer", f"{_V2}/ModelStreamInfer"),
        "statistics": (f"{_V2}/ModelStatistics", f"{_V2}/RepositoryIndex", f"{HTTP}/StatusPage"),
        "repository": (f"{_V2}/RepositoryModelLoad", f"{_V2}/RepositoryModelUnload"),
        "shared_memory": (f"{_V2}/SystemSharedMemory*", f"{_V2}/CudaSharedMemory*"),
        "settings": (f"{_V2}/LogSettings", f"{_V2}/TraceSetting"),
        "reflection": ("grpc.reflection.*/*",),
    }
)  # fmt: skip
"""Names for methods that are granted together."""


def _is_one(names: Sequence[str], who: str) -> bool:
    return (who == KNOWN and bool(names)) or any(fnmatchcase(name, who) for name in names)


class Rule(BaseModel):
    """Whoever matches `who` may call what matches `may`, for models that match `models`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    who: tuple[str, ...] = Field(min_length=1)
    may: tuple[str, ...] = Field(min_length=1)
    models: tuple[str, ...] = Field(default=("*",), min_length=1)

    def is_for(self, names: Sequence[str]) -> bool:
        """Whether it speaks of a caller that goes by these names."""
        return any(who == ANYONE or _is_one(names, who) for who in self.who)

    def grants(self, method: str) -> bool:
        """Whether it speaks of this method."""
        return any(fnmatchcase(method, pattern) for may in self.may for pattern in GROUPS.get(may, (may,)))


Weight = Annotated[int, Field(strict=True, ge=1, le=MAX_WEIGHT)]


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[Rule, ...]
    weights: dict[str, Weight] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Policy:
    """All rules there are. Whoever asks gets the union of what they grant, and the greatest weight."""

    rules: tuple[Rule, ...]
    weights: tuple[tuple[str, int], ...] = ()

    def patterns(self, names: Sequence[str], method: str) -> tuple[str, ...]:
        """What a model's name must match one of, for this caller and method; nothing if the method is not allowed."""
        found = [rule.models for rule in self.rules if rule.is_for(names) and rule.grants(method)]
        return tuple(dict.fromkeys(pattern for models in found for pattern in models))

    def weight(self, names: Sequence[str]) -> int:
        """How large this caller's share of a queue is beside others, who have 1 if nothing is said of them."""
        return max((weight for who, weight in self.weights if _is_one(names, who)), default=1)


UNWRITTEN: Final = Policy((Rule(who=(ANYONE,), may=("health", "metrics")), Rule(who=(KNOWN,), may=("*",))))
"""What holds where there are credentials and no policy."""


def covers(patterns: Sequence[str], model: str) -> bool:
    """Whether patterns speak of a model; no name stands for all models, and asks for the right to all."""
    return "*" in patterns or (bool(model) and any(fnmatchcase(model, pattern) for pattern in patterns))


def parse(text: str) -> Policy:
    """The policy in the text of a YAML file. Raises StartError that says where it is wrong."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as failure:
        mark = getattr(failure, "problem_mark", None)
        raise StartError("it is no YAML" + (f", from line {mark.line + 1} on" if mark else "")) from None
    try:
        file = _File.model_validate(found)
    except ValidationError as failure:
        first = failure.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise StartError(f"{where}: {first['msg']}") from None
    for number, rule in enumerate(file.rules):
        for may in rule.may:
            if may not in GROUPS and "/" not in may and may != "*":
                raise StartError(
                    f"rules.{number}.may: {may!r} is no group; there are {', '.join(GROUPS)}, and methods go by "
                    "package.Service/Method"
                )
        for who in rule.who:
            if who != ANYONE and not _may_be_known(who):
                raise StartError(
                    f"rules.{number}.who: {who!r} is nobody; write anyone, known, or key:NAME, jwt:SUBJECT, cert:NAME"
                )
    for who in file.weights:
        if not _may_be_known(who):
            raise StartError(f"weights: {who!r} is nobody who is known; write known, key:NAME, jwt:SUBJECT, cert:NAME")
    return Policy(file.rules, tuple(file.weights.items()))


def _may_be_known(who: str) -> bool:
    return who == KNOWN or who.startswith(("key:", "jwt:", "cert:", "*"))
