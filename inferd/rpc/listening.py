"""What every transport says when it cannot listen."""

from __future__ import annotations

from inferd.errors import StartError


def cannot_listen(host: str, port: int, cause: BaseException | None) -> StartError:
    """The error for an address that cannot be had, with the flags that choose another."""
    why = (isinstance(cause, OSError) and cause.strerror) or cause or "it cannot be bound"
    return StartError(f"gRPC port {port} on {host} cannot be had: {why}; choose another with --grpc-port or --host")
