"""Settings of what the server takes on at a time, over all models."""

from __future__ import annotations

from pydantic import Field

from inferd.config.kinds import HOUR_MS, KIB, MIB, SECOND_MS, Section


class Admission(Section):
    """How much the server works on at a time, whatever the models; more is refused with RESOURCE_EXHAUSTED."""

    max_requests: int = Field(
        default=16384,
        ge=0,
        description="Requests that may wait or run; one caller may hold as many as it leaves free for others. 0 sets "
        "no bound.",
    )
    max_bytes: int = Field(
        default=512 * MIB,
        ge=0,
        description="Bytes of their messages; one caller may hold as many as it leaves free for others. 0 sets no "
        "bound.",
    )
    max_caller_requests: int = Field(
        default=0,
        ge=0,
        description="Requests that one caller, which is a connection, may have waiting or running at most; 0 leaves it "
        "at what it leaves free for others.",
    )
    message_timeout_ms: int = Field(
        default=60 * SECOND_MS,
        ge=0,
        le=HOUR_MS,
        description="How long the message of a request may take to come, which has its permit from its first bytes on; "
        "native transport only. 0 leaves it at the call's deadline.",
    )
    memory_share: float = Field(
        default=0.9,
        ge=0,
        le=1,
        description="Share of the cgroup's memory limit in use from which on large requests are refused; from half-way "
        "between it and the limit on all are. 0 looks at no memory.",
    )
    large_bytes: int = Field(
        default=64 * KIB, ge=1, description="Requests of so many bytes and more are large to memory_share."
    )
