"""Requests over HTTP as calls: each has its end noted, in the log, in its trace and in how long it took."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from inferd.errors import Code
from inferd.telemetry.calls import OTHER, Calls, HttpFacts, take_up
from inferd.telemetry.watching import Metadata

PATH_LETTERS: Final = 512
METHOD_LETTERS: Final = 32
CODES: Final[Mapping[int, Code]] = MappingProxyType(
    {
        401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 404: Code.NOT_FOUND, 405: Code.UNIMPLEMENTED,
        408: Code.DEADLINE_EXCEEDED, 413: Code.RESOURCE_EXHAUSTED, 415: Code.UNIMPLEMENTED,
        429: Code.RESOURCE_EXHAUSTED, 499: Code.CANCELLED, 501: Code.UNIMPLEMENTED, 503: Code.UNAVAILABLE,
        504: Code.DEADLINE_EXCEEDED,
    }
)  # fmt: skip
"""What a status means where no error of ours is behind it; of others 4xx the caller's fault, 5xx ours."""


def noted(app: Starlette, calls: Calls) -> ASGIApp:
    """The application, with each of its requests noted by the name of its route."""

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        begun_ns = time.monotonic_ns()
        route, model = _found(app.routes, scope)
        facts = HttpFacts(
            scope["method"][:METHOD_LETTERS],
            scope["path"][:PATH_LETTERS],
            scope["scheme"],
            scope["http_version"],
            None if route is None else route.path,
        )
        method = OTHER if route is None else route.name.removeprefix("/")
        one = calls.begin(method, begun_ns, lambda: _metadata(scope), carrier="http", http=facts, model=model)
        take_up(one)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
            await send(message)

        try:
            await app(scope, receive, sent)
        finally:
            # Without a status nobody was there any more to be sent one.
            facts.status = facts.status or 499
            one.end(_code(facts.status) if one.code is None else one.code)

    return call


def _found(routes: Sequence[BaseRoute], scope: Scope) -> tuple[Route | None, str]:
    """Whose request it is, also if it is not by a method that the route takes; and the model that it names."""
    for route in routes:
        match, more = route.matches(scope)
        if match is not Match.NONE and isinstance(route, Route):
            return route, more["path_params"].get("model", "")
    return None, ""


def _metadata(scope: Scope) -> Metadata:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]


def _code(status: int) -> Code:
    if status < 400:
        return Code.OK
    return CODES.get(status, Code.INVALID_ARGUMENT if status < 500 else Code.INTERNAL)
