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

from inferd.http.guard import STATUS_PAGE
from inferd.models import ROWS_BOUNDS, SECONDS_BOUNDS, Model, Models, State
from inferd.samples import sample_of
from inferd.telemetry.recent import RecentErrors
from inferd.telemetry.sample import BuildInfo, HistogramSample
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
    """What the page is about, beside the models; `tryable` says that it may send inferences to /v2.

    `started_s` is on the monotonic clock.
    """

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
        self._one_at_a_time = asyncio.Lock()
        self._made: tuple[float, bytes] = (-_SHARED_S, b"")

    def routes(self) -> list[Route]:
        """Where it is served."""
        return [
            Route("/", self._page, name=STATUS_PAGE),
            Route("/page/{name}", self._part, name=STATUS_PAGE),
            Route("/status.json", self._status, name=STATUS_PAGE),
        ]

    async def _page(self, request: Request) -> Response:
        return _file(self._contents["index.html"], "text/html")

    async def _part(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            raise HTTPException(404)
        return _file(self._contents[name], FILES[name])

    async def _status(self, request: Request) -> Response:
        # However many people look, the loop writes it as often as for a few.
        async with self._one_at_a_time:
            now_s = asyncio.get_running_loop().time()
            if now_s - self._made[0] >= _SHARED_S:
                self._made = now_s, await self._document()
        headers = {"cache-control": "no-store", **_GUARDED}
        return Response(self._made[1], media_type="application/json", headers=headers)

    async def _document(self) -> bytes:
        head = {
            "server": {
                **asdict(self._shown.build),
                "transport": self._shown.transport,
                "ready": self._is_ready(),
                "tryable": self._shown.tryable,
                "uptime_s": round(time.monotonic() - self._shown.started_s, 3),
                "now_s": round(time.time(), 3),
            },
            "bounds": {"seconds": SECONDS_BOUNDS, "rows": ROWS_BOUNDS},
            "errors": [asdict(told) for told in self._errors.listed()],
        }
        models = []
        for model in self._models.all():
            models.append(_json(_model(model)))
            # With many models even reading takes milliseconds; requests go first in between.
            await asyncio.sleep(0)
        return f'{_json(head)[:-1]},"models":[{",".join(models)}]}}'.encode()


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


def _histogram(sample: HistogramSample) -> dict[str, Any]:
    """Without its bounds, which are the same for all and told once."""
    return {"counts": sample.counts, "total": sample.total}


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
        "request": _histogram(sample.request),
        "queue": _histogram(sample.queue),
        "compute": _histogram(sample.compute),
        "compute_input": _histogram(sample.compute_input),
        "compute_infer": _histogram(sample.compute_infer),
        "compute_output": _histogram(sample.compute_output),
        "batch_rows": _histogram(sample.batch_rows),
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
            "fell_back": loaded.fell_back,
            "inputs": [_tensor(one, batched) for one in loaded.decl.inputs],
            "outputs": [_tensor(one, batched) for one in loaded.decl.outputs],
        }
    return told


def _tensor(decl: Any, batched: bool) -> dict[str, Any]:
    shape = [-1, *decl.dims] if batched else list(decl.dims)
    return {"name": decl.name, "datatype": decl.datatype, "shape": shape, "optional": decl.optional}
