"""Settings: declared in one place, put together from defaults, a YAML file, the environment and flags."""

from __future__ import annotations

from inferd.config.auth import Auth
from inferd.config.http import Http
from inferd.config.leaves import Leaf, leaves, sections, shown
from inferd.config.log import Log
from inferd.config.masks import masked
from inferd.config.metrics import Metrics
from inferd.config.names import FLAGS_ELSEWHERE
from inferd.config.settings import (
    Batching,
    Drain,
    Grpc,
    Inference,
    Models,
    Settings,
    Threads,
    Warmup,
)
from inferd.config.sources import Loaded, load, unknown_flag
from inferd.config.tls import Tls
from inferd.config.tracing import Tracing

__all__ = [
    "FLAGS_ELSEWHERE",
    "Auth",
    "Batching",
    "Drain",
    "Grpc",
    "Http",
    "Inference",
    "Leaf",
    "Loaded",
    "Log",
    "Metrics",
    "Models",
    "Settings",
    "Threads",
    "Tls",
    "Tracing",
    "Warmup",
    "leaves",
    "load",
    "masked",
    "sections",
    "shown",
    "unknown_flag",
]
