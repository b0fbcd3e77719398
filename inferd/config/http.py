"""Settings of the HTTP port."""

from __future__ import annotations

from pydantic import Field

from inferd.config.kinds import KIB, MIB, Port, Section


class Http(Section):
    """The HTTP server."""

    port: Port = Field(default=8080, description="Port of the HTTP server; 0 turns it off.")
    inference: bool = Field(
        default=True, description="Answer the protocol over REST on it, /v2 and below; false leaves inference to gRPC."
    )
    status_page: bool = Field(
        default=True,
        description="Serve a page for people at /: models, live figures, recent errors, a form.",
    )
    max_body_bytes: int = Field(
        default=16 * MIB,
        ge=KIB,
        le=2**31 - 1,
        description="Largest body of an inference over REST; a larger one is refused with 413.",
    )
