"""An HTTP application from its routes: paths are exact, and every refusal is JSON."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def application(routes: Sequence[Route]) -> Starlette:
    """Serve ``routes`` and nothing else: unknown paths are 404, wrong methods 405, our bugs 500."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: _refuse, Exception: _fail})
    # A redirect to the path without its slash would hide a misconfigured probe.
    app.router.redirect_slashes = False
    return app


async def _refuse(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    return JSONResponse({"error": exc.detail}, status_code=exc.status_code, headers=exc.headers)


async def _fail(request: Request, exc: Exception) -> Response:
    return JSONResponse({"error": "internal error; the server's log has the details"}, status_code=500)
