"""Liveness and readiness over HTTP, for whoever cannot probe over gRPC."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferd.auth.current import CURRENT
from inferd.health import READINESS, HealthBoard, Status
from inferd.http.guard import HEALTH, READY

_UNCACHED = {"cache-control": "no-store"}


@dataclass(frozen=True, slots=True)
class ModelState:
    """What ``/ready`` says of one model version; ``reason`` is for its operator, empty when all is well."""

    name: str
    version: str
    state: str
    reason: str = ""


def probe_routes(board: HealthBoard, model_states: Callable[[], Iterable[ModelState]]) -> list[Route]:
    """Answer ``/health`` from the probes of ``board`` and ``/ready`` from its readiness.

    The states of the models are shown, never judged: one that failed makes the server unready only if
    the board says so.
    """

    # Both are coroutines because plain functions would run on a worker thread, off the board's loop.
    async def health(request: Request) -> Response:
        reason = board.death_reason()
        if reason is None:
            return JSONResponse({"status": "alive"}, headers=_UNCACHED)
        return JSONResponse({"status": "dead", "reason": reason}, status_code=503, headers=_UNCACHED)

    async def ready(request: Request) -> Response:
        is_ready = board.status(READINESS) is Status.SERVING
        answer = {
            "status": "ready" if is_ready else "not ready",
            # Where callers are asked who they are, names and reasons are for those who may have them elsewhere.
            "models": [asdict(model) for model in model_states()] if CURRENT.get() is None else [],
        }
        return JSONResponse(answer, status_code=200 if is_ready else 503, headers=_UNCACHED)

    return [Route("/health", health, name=HEALTH), Route("/ready", ready, name=READY)]
