"""Names that are no settings, and what to say to somebody who uses one.

Some stand for things that are not built yet: they are refused by name, because a setting that is silently
ignored is worse than none. Some are what the same thing is called elsewhere: they lead to the setting here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Final

NOT_BUILT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "cache": "the response cache",
        "inference.cache": "the response cache",
        "redis": "the response cache in Redis",
        "database": "the prediction log in a database",
        "postgres": "the prediction log in a database",
    }
)


FLAGS_ELSEWHERE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "--model-repository": "models.path",
        "--model-store": "models.path",
        "--model-control-mode": "models.control_mode",
        "--load-model": "models.load",
    }
)
"""Flags of tritonserver that are taken as they are; --load-model as often as there are models."""


@dataclass(frozen=True, slots=True)
class ElsewhereName:
    """What a setting is called in the manifests of other model servers."""

    name: str
    setting: str
    remark: str = ""


ELSEWHERE: Final = (
    ElsewhereName("MODEL_PATH", "models.path", "a model repository folder or one .onnx file, never a pickle"),
    ElsewhereName("model.path", "models.path"),
    ElsewhereName("LOG_LEVEL", "log.level", "in any case: INFO is info"),
    ElsewhereName("MAX_BATCH_SIZE", "batching.max_batch_size", "rows"),
    ElsewhereName("inference.max_batch_size", "batching.max_batch_size", "rows"),
    ElsewhereName("INFERENCE_TIMEOUT", "inference.timeout_ms", "milliseconds"),
    ElsewhereName("inference.timeout", "inference.timeout_ms", "milliseconds"),
    ElsewhereName("ENABLE_METRICS", "metrics.enabled"),
    ElsewhereName("monitoring.enabled", "metrics.enabled"),
    ElsewhereName("METRICS_PORT", "metrics.port"),
    ElsewhereName("monitoring.metrics_port", "metrics.port"),
    ElsewhereName("PORT", "http.port", "the port of /health, /ready and REST; gRPC has its own, grpc.port"),
    ElsewhereName("CACHE_TTL", "cache.ttl"),
    ElsewhereName("inference.cache_enabled", "cache.enabled"),
    ElsewhereName("inference.cache_ttl", "cache.ttl"),
    ElsewhereName("REDIS_HOST", "redis.host", "likewise every other REDIS_ name"),
    ElsewhereName("POSTGRES_HOST", "database.host", "likewise every other POSTGRES_ name"),
    ElsewhereName("DATABASE_URL", "database.url"),
    ElsewhereName("API_KEY", "auth.keys", "a file of hashed keys, written by `inferd key`"),
    ElsewhereName("JWT_SECRET", "auth.jwks", "a file of public keys; secrets that are shared are not taken"),
)

# A Service named inferd, or inferd-<anything>, puts these into every pod of its namespace. INFERD_GRPC_PORT
# can so be a link, tcp://10.0.0.1:8001, although it is a setting too; its value tells the two apart.
_LINK_NAME = re.compile(
    r"INFERD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://")


def is_service_link(variable: str, value: str) -> bool:
    """Tell whether Kubernetes, not an operator, set this variable."""
    if variable.endswith("_PORT") and _LINK_VALUE.match(value):
        return True
    return _LINK_NAME.fullmatch(variable) is not None


def not_built(path: str) -> str | None:
    """Name the thing a dotted path would configure, if inferd does not have that thing yet."""
    for prefix, thing in NOT_BUILT.items():
        if path == prefix or path.startswith((f"{prefix}.", f"{prefix}_")):
            return thing
    return None


def not_built_path(joined: str) -> str | None:
    """Find the dotted path in a name whose parts are joined by underscores, if it is not built yet."""
    for prefix in NOT_BUILT:
        head = prefix.replace(".", "_")
        if joined == head:
            return prefix
        if joined.startswith(f"{head}_"):
            return f"{prefix}.{joined.removeprefix(head + '_')}"
    return None


def elsewhere(name: str) -> str | None:
    """Give the setting that a name from elsewhere stands for."""
    return next((entry.setting for entry in ELSEWHERE if entry.name.lower() == name.lower()), None)


def closest(name: str, known: Iterable[str], *, prefix: str = "") -> str | None:
    """Give the known name that somebody who wrote this one most likely meant.

    A prefix that all names share says nothing, so it is left out of the comparison.
    """
    bare = [other.removeprefix(prefix) for other in known]
    found = get_close_matches(name.removeprefix(prefix), bare, n=1)
    return prefix + found[0] if found else None
