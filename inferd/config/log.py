"""Settings of the log."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferd.config.kinds import LogLevel, Section


class Log(Section):
    """What is logged, and how it looks."""

    level: LogLevel = Field(default="info", description="Least severe level that is logged.")
    format: Literal["human", "json"] = Field(
        default="human",
        description="One short line per event for people, or one JSON object per line for collectors.",
    )
    access: bool = Field(
        default=False,
        description="Log each request and other call that has ended, at level info: method, model, code, times, ids; "
        "never tensors or metadata. What cannot be written in time is dropped and counted.",
    )
    access_probes: bool = Field(
        default=False,
        description="With that, log health checks too, over gRPC and HTTP, and what the status page asks for.",
    )
