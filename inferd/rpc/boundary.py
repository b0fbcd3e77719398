"""The one place where an error becomes a gRPC status. Nothing escapes it that we did not word ourselves."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from inferd.auth.current import require
from inferd.errors import Code, InferdError, Internal, InvalidRequest, Overloaded
from inferd.telemetry.calls import CALL

log = logging.getLogger("inferd.rpc")

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = Callable[[Any, Context], Awaitable[Any]]

STATUS = {code: next(status for status in grpc.StatusCode if status.value[0] == code) for code in Code}
COMPRESSION = {
    "none": grpc.Compression.NoCompression,
    "gzip": grpc.Compression.Gzip,
    "deflate": grpc.Compression.Deflate,
}
PUSHBACK_KEY = "grpc-retry-pushback-ms"


def guarded(handler: Handler) -> Handler:
    """Wrap a unary handler: InferdError becomes its status, anything else INTERNAL without its text.

    A CancelledError leaves as it is: it means that the caller has gone and nobody reads a status.
    """

    async def call(request: Any, context: Context) -> Any:
        try:
            return await handler(request, context)
        except InferdError as failure:
            # Not the error itself: it would keep this frame, and with it the request, alive.
            code, text, metadata = failure.code, failure.public_text, trailing_metadata(failure)
        except Exception:
            log.exception("This is a bug.", extra={"code": Internal.code})
            code, text, metadata = Internal.code, Internal().public_text, ()
        # Outside the try, because abort() leaves by an exception that must not be caught.
        return await context.abort(STATUS[code], text, metadata)

    return call


def parsed(message: type[Message], handler: Handler) -> Handler:
    """Wrap a handler of messages as one of bytes. Bytes that are no such message are the caller's mistake.

    Left to the transport, the parser's exception would be UNKNOWN and its text would reach the client.
    """
    field = model_field(message)
    version = "version" if field == "name" else "model_version"

    async def call(body: bytes, context: Context) -> Any:
        try:
            request = message.FromString(body)
        except DecodeError:
            raise InvalidRequest(f"the bytes of the request are not a {message.DESCRIPTOR.name}") from None
        if field is not None:
            if (noted := CALL.get()) is not None:
                noted.asks_for(getattr(request, field), getattr(request, version, ""))
            require(getattr(request, field))
        return await handler(request, context)

    return call


def model_field(message: type[Message]) -> str | None:
    """Which field of a request names the model that it is for, as the protocol calls it in its messages."""
    fields = message.DESCRIPTOR.fields_by_name
    if "model_name" in fields:
        return "model_name"
    return "name" if message.DESCRIPTOR.name.startswith("Model") and "name" in fields else None


def trailing_metadata(failure: InferdError) -> tuple[tuple[str, str], ...]:
    """What retrying clients and proxies look for (gRFC A6)."""
    if isinstance(failure, Overloaded):
        return ((PUSHBACK_KEY, str(failure.pushback_ms)),)
    return ()
