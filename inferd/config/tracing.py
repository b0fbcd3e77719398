"""Settings of traces."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from inferd.config.kinds import HOUR_MS, SECOND_MS, Section


class Tracing(Section):
    """Traces of requests, sent by OTLP."""

    enabled: bool = Field(
        default=False,
        description="Send traces. Needs `pip install 'inferd[tracing]'`. What is not set here is as OpenTelemetry's "
        "own variables have it: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_EXPORTER_OTLP_ENDPOINT and _HEADERS.",
    )
    endpoint: str = Field(
        default="",
        max_length=2048,
        description="Where the collector is, such as http://127.0.0.1:4317; for http with the path, often /v1/traces.",
    )
    protocol: Literal["grpc", "http"] = Field(default="grpc", description="What carries OTLP.")
    sample_rate: float = Field(
        default=0.01,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Part of the requests without a traceparent that are traced; the `sampled` flag of one decides for "
        "its request.",
    )
    max_pending: int = Field(
        default=4096,
        ge=1,
        le=1_000_000,
        description="Traces that may wait to be sent; more are dropped and counted.",
    )
    timeout_ms: int = Field(
        default=10 * SECOND_MS,
        ge=1,
        le=HOUR_MS,
        description="How long it may take to send one portion of traces, with all tries.",
    )
