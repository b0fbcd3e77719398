"""Everything on the HTTP port, in one place: who may see what is decided over these lists of routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starlette.applications import Starlette

from inferd.auth.judge import Judge
from inferd.config import Http
from inferd.health import HealthBoard
from inferd.http.guard import guarded
from inferd.http.health import ModelState, probe_routes
from inferd.http.rest import Service, about_routes, inference_routes
from inferd.http.routes import application
from inferd.http.status import StatusPage


def site(
    settings: Http,
    board: HealthBoard,
    model_states: Callable[[], Iterable[ModelState]],
    service: Service,
    page: StatusPage | None,
    judge: Judge | None = None,
) -> Starlette:
    """The HTTP port's application. With a judge each route asks for the permission that its name stands for."""
    routes = probe_routes(board, model_states)
    if settings.inference:
        routes += about_routes(service)
        routes += inference_routes(service, settings.max_body_bytes)
    if page is not None:
        routes += page.routes()
    return application(guarded(routes, judge))
