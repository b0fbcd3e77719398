"""An HTTP application from its routes: paths are exact, and every refusal is JSON."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferd.errors import Code, InferdError, Internal, Overloaded
from inferd.telemetry.calls import CALL

log = logging.getLogger("inferd.http")

STATUS: Final[Mapping[Code, int]] = MappingProxyType(
    {
        Code.OK: 200,
        Code.CANCELLED: 499,
        Code.UNKNOWN: 500,
        Code.INVALID_ARGUMENT: 400,
        Code.DEADLINE_EXCEEDED: 504,
        Code.NOT_FOUND: 404,
        Code.ALREADY_EXISTS: 409,
        Code.PERMISSION_DENIED: 403,
        Code.RESOURCE_EXHAUSTED: 429,
        Code.FAILED_PRECONDITION: 400,
        Code.ABORTED: 409,
        Code.OUT_OF_RANGE: 400,
        Code.UNIMPLEMENTED: 501,
        Code.INTERNAL: 500,
        Code.UNAVAILABLE: 503,
        Code.DATA_LOSS: 500,
        Code.UNAUTHENTICATED: 401,
    }
)
"""The HTTP status of each gRPC code, as googleapis/googleapis google/rpc/code.proto has it."""


def application(routes: Sequence[Route]) -> Starlette:
    """Serve ``routes`` and nothing else: unknown paths are 404, wrong methods 405, our bugs 500.

    An InferdError of a route is answered with the status of its code and its text for clients.
    """
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse, InferdError: _tell, Exception: _fail})
    # A redirect to the path without its slash would hide a misconfigured probe.
    app.router.redirect_slashes = False
    return app


async def _refuse(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"error": exc.detail}, status_code=exc.status_code, headers=exc.headers)


async def _tell(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, InferdError)
    if isinstance(exc, Internal):
        log.error("This is a bug.", exc_info=exc, extra={"code": exc.code})
    if (call := CALL.get()) is not None:
        call.code = exc.code
    headers = {"retry-after": str(-(-exc.pushback_ms // 1000))} if isinstance(exc, Overloaded) else None
    return JSONResponse({"error": exc.public_text}, status_code=STATUS[exc.code], headers=headers)


async def _fail(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "internal error; the server's log has the details"}, status_code=500)
