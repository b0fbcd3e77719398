"""The status page: static files, and the one document that they show."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from inferd.models import Model, Models, State
from inferd.samples import sample_of
from inferd.telemetry.recent import RecentErrors
from inferd.telemetry.sample import BuildInfo
from inferd.telemetry.series import by_name

FILES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "status.css": "text/css",
        "status.js": "text/javascript",
        "overview.js": "text/javascript",
        "model.js": "text/javascript",
        "trial.js": "text/javascript",
        "series.js": "text/javascript",
        "elements.js": "text/javascript",
        "icon.svg": "image/svg+xml",
    }
)
_GUARDED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
    }
)
_SHARED_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Shown:
    """What the page is about, beside the models; `tryable` says that it may send inferences to /v2."""

    build: BuildInfo
    transport: str
    started_s: float
    tryable: bool


class StatusPage:
    """The page at ``/``, its files under ``/page/``, and ``/status.json``, made at most four times a second."""

    def __init__(self, shown: Shown, models: Models, errors: RecentErrors, is_ready: Callable[[], bool]) -> None:
        """`is_ready` tells whether the server takes requests."""
        self._shown, self._models, self._errors, self._is_ready = shown, models, errors, is_ready
        folder = files("inferd.http") / "page"
        self._contents = {name: (folder / name).read_bytes() for name in (*FILES, "index.html")}
        self._made: tuple[float, bytes] = (-_SHARED_S, b"")

    def routes(self) -> list[Route]:
        """Where it is served."""
        return [Route("/", self._page), Route("/page/{name}", self._part), Route("/status.json", self._status)]

    async def _page(self, request: Request) -> Response:
        return _file(self._contents["index.html"], "text/html")

    async def _part(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404)
        return _file(self._contents[name], FILES[name])

    async def _status(self, request: Request) -> Response:
        now_s = asyncio.get_running_loop().time()
        # However many people look, the loop writes it as often as for a few.
        if now_s - self._made[0] >= _SHARED_S:
            self._made = now_s, json.dumps(self._document(), separators=(",", ":")).encode()
        headers = {"cache-control": "no-store", **_GUARDED}
        return Response(self._made[1], media_type="application/json", headers=headers)

    def _document(self) -> dict[str, Any]:
        now_s = time.time()
        return {
            "server": {
                **asdict(self._shown.build),
                "transport": self._shown.transport,
                "ready": self._is_ready(),
                "tryable": self._shown.tryable,
                "uptime_s": round(now_s - self._shown.started_s, 3),
                "now_s": round(now_s, 3),
            },
            "models": [_model(model) for model in self._models.all()],
            "errors": [asdict(told) for told in self._errors.listed()],
        }


def _file(content: bytes, kind: str) -> Response:
    # Small and near: asking again costs less than a page of the last release.
    return Response(content, media_type=kind, headers={"cache-control": "no-cache", **_GUARDED})


def _model(model: Model) -> dict[str, Any]:
    sample = sample_of(model)
    told: dict[str, Any] = {
        "name": model.name,
        "version": str(model.version),
        "state": model.state.name,
        "codes": by_name(sample.requests_by_code),
        "rows": sample.rows,
        "batches": sample.batches,
        "queue_rows": sample.queue_rows,
        "queue_bytes": sample.queue_bytes,
        "request": asdict(sample.request),
        "queue": asdict(sample.queue),
        "compute": asdict(sample.compute),
        "compute_input": asdict(sample.compute_input),
        "compute_infer": asdict(sample.compute_infer),
        "compute_output": asdict(sample.compute_output),
        "batch_rows": asdict(sample.batch_rows),
        "last_run_ms": model.stats.last_run_ms,
    }
    loaded = model.loaded
    if model.state is State.READY and loaded is not None:
        batched = loaded.signature.batched
        told |= {
            "batched": batched,
            "max_rows": loaded.signature.max_rows if batched else 1,
            "best_rows": model.paces.largest_batch if batched and model.paces is not None else 1,
            "instances": len(loaded.slots),
            "threads": loaded.threads,
            "inputs": [_tensor(one, batched) for one in loaded.decl.inputs],
            "outputs": [_tensor(one, batched) for one in loaded.decl.outputs],
        }
    return told


def _tensor(decl: Any, batched: bool) -> dict[str, Any]:
    shape = [-1, *decl.dims] if batched else list(decl.dims)
    return {"name": decl.name, "datatype": decl.datatype, "shape": shape, "optional": decl.optional}
