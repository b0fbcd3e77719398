"""What every transport says when it cannot listen."""

from __future__ import annotations

from pathlib import Path

from inferd.errors import StartError


def cannot_listen(host: str, port: int, cause: BaseException | None, flag: str = "--grpc-port") -> StartError:
    """The error for an address that cannot be had, with the flags that choose another."""
    return StartError(f"gRPC port {port} on {host} cannot be had: {_why(cause)}; choose another with {flag} or --host")


def cannot_listen_at(path: Path, cause: BaseException | None) -> StartError:
    """The same for a Unix socket."""
    return StartError(f"the Unix socket {path} cannot be had: {_why(cause)}; choose another with --grpc-unix-socket")


def _why(cause: BaseException | None) -> object:
    return (isinstance(cause, OSError) and cause.strerror) or cause or "it cannot be bound"
