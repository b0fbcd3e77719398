"""The policy over HTTP: each route bears the name of what it does, and asks for the permission for that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.auth.current import CURRENT, WHO, require
from inferd.auth.judge import Judge
from inferd.auth.policy import HTTP

HEALTH: Final = f"/{HTTP}/Health"
READY: Final = f"/{HTTP}/Ready"
METRICS: Final = f"/{HTTP}/Metrics"
STATUS_PAGE: Final = f"/{HTTP}/StatusPage"


def method(name: str) -> str:
    """The name of a route that does what this method of the protocol does."""
    return f"/inference.GRPCInferenceService/{name}"


def guarded(routes: Sequence[Route], judge: Judge | None) -> list[Route]:
    """The routes, each behind the judge if there is one. A route without a name of that form is for nobody."""
    if judge is None:
        return list(routes)
    return [_behind(judge, route) for route in routes]


def _behind(judge: Judge, route: Route) -> Route:
    endpoint: Callable[[Request], Awaitable[Response]] = route.endpoint

    async def ask(request: Request) -> Response:
        # A client's certificate is not looked at here: what carries HTTP does not show it.
        peer = f"{request.client.host}:{request.client.port}" if request.client else ""
        principal, permission = judge.admit((), request.headers, route.name, route.name.removeprefix("/"), peer)
        token, named = CURRENT.set(permission), WHO.set(principal)
        try:
            if "model" in request.path_params:
                require(request.path_params["model"])
            return await endpoint(request)
        finally:
            CURRENT.reset(token)
            WHO.reset(named)

    return Route(route.path, ask, methods=list(route.methods or ()), name=route.name)
