"""Settings of the metrics page."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferd.config.kinds import Port, Section


class Metrics(Section):
    """Metrics for Prometheus."""

    enabled: bool = Field(default=True, description="Serve metrics for Prometheus.")
    port: Port = Field(default=9090, description="Port of the metrics endpoint; 0 turns it off.")
    dialect: Literal["inferd", "triton"] = Field(
        default="inferd",
        description="Names of the metrics: inferd's own, or with triton also nv_inference_* as Triton has them.",
    )
