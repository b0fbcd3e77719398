"""The Open Inference Protocol over REST: the same models, checks, queues and errors as over gRPC.

Facts: kserve/open-inference-protocol, specification/protocol/inference_rest.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferd.auth.current import require
from inferd.errors import InvalidRequest, NotAllowed
from inferd.http.bodies import Bodies, whole_number
from inferd.http.document import Asked, parse, render
from inferd.http.guard import method
from inferd.http.plain import plain
from inferd.offloop import OffLoop
from inferd.proto import inference_pb2 as pb

HEAD_LENGTH: Final = "inference-header-content-length"
EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_configuration", "schedule_policy", "statistics")
_SMALL_BYTES: Final = 64 * 1024
_UNCACHED: Final = {"cache-control": "no-store"}

T = TypeVar("T")


class Service(Protocol):
    """What REST needs of the protocol's service: handlers of gRPC's messages, and one inference as bytes."""

    async def infer(self, body: bytes, remaining_s: float | None, caller: str) -> bytes:
        """Bytes of a ModelInferRequest in, bytes of a ModelInferResponse out. Raises InferdError."""

    async def ServerMetadata(self, request: Any, context: Any) -> Any:
        """Name and version."""

    async def ServerReady(self, request: Any, context: Any) -> Any:
        """Whether the server takes requests."""

    async def ModelMetadata(self, request: Any, context: Any) -> Any:
        """Inputs and outputs. Raises InferdError."""

    async def ModelConfig(self, request: Any, context: Any) -> Any:
        """The configuration in force. Raises InferdError."""

    async def ModelStatistics(self, request: Any, context: Any) -> Any:
        """What has been counted. Raises InferdError."""

    async def ModelReady(self, request: Any, context: Any) -> Any:
        """Whether a version can answer. Raises InferdError."""


def about_routes(service: Service) -> list[Route]:
    """What is here and how it is; nothing below runs a model."""

    async def server(request: Request) -> Response:
        told = await service.ServerMetadata(pb.ServerMetadataRequest(), None)
        return JSONResponse({"name": told.name, "version": told.version, "extensions": EXTENSIONS})

    async def live(request: Request) -> Response:
        return JSONResponse({"live": True}, headers=_UNCACHED)

    async def ready(request: Request) -> Response:
        is_ready = (await service.ServerReady(pb.ServerReadyRequest(), None)).ready
        return JSONResponse({"ready": is_ready}, status_code=200 if is_ready else 503, headers=_UNCACHED)

    async def model(request: Request) -> Response:
        name, version = _asked(request)
        told = await service.ModelMetadata(pb.ModelMetadataRequest(name=name, version=version), None)
        return JSONResponse(
            {
                "name": told.name,
                "versions": list(told.versions),
                "platform": told.platform,
                "inputs": [_tensor(one) for one in told.inputs],
                "outputs": [_tensor(one) for one in told.outputs],
            }
        )

    async def model_ready(request: Request) -> Response:
        name, version = _asked(request)
        is_ready = (await service.ModelReady(pb.ModelReadyRequest(name=name, version=version), None)).ready
        return JSONResponse({"name": name, "ready": is_ready}, status_code=200 if is_ready else 503, headers=_UNCACHED)

    async def config(request: Request) -> Response:
        name, version = _asked(request)
        told = await service.ModelConfig(pb.ModelConfigRequest(name=name, version=version), None)
        return JSONResponse(plain(told.config))

    async def statistics(request: Request) -> Response:
        name, version = request.path_params.get("model", ""), request.path_params.get("version", "")
        require(name)
        told = await service.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version), None)
        return JSONResponse(plain(told), headers=_UNCACHED)

    return [
        Route("/v2", server, name=method("ServerMetadata")),
        Route("/v2/models/stats", statistics, name=method("ModelStatistics")),
        Route("/v2/health/live", live, name=method("ServerLive")),
        Route("/v2/health/ready", ready, name=method("ServerReady")),
        *_of_model("", model, method("ModelMetadata")),
        *_of_model("/ready", model_ready, method("ModelReady")),
        *_of_model("/config", config, method("ModelConfig")),
        *_of_model("/stats", statistics, method("ModelStatistics")),
    ]


def inference_routes(service: Service, max_body_bytes: int) -> list[Route]:
    """Inference. Bodies over `max_body_bytes` are refused with 413; large ones are read on a worker thread."""
    # Two, because Python lets only one of them work at a time anyway; more would only hold more bodies in memory.
    workers = OffLoop("rest", 2)
    bodies = Bodies(max_body_bytes)

    async def infer(request: Request) -> Response:
        _refuse_other_sites(request)
        name, version = _asked(request)
        async with bodies.read(request) as body:
            head = _head_length(request, len(body))
            asked: Asked = await _work(workers, len(body), partial(parse, name, version, body, head))
            del body  # what is queued holds bytes of its own
        answer = await _while_connected(request, service.infer(asked.message, None, _caller(request)))
        parts, json_bytes = await _work(workers, len(answer), partial(render, answer, asked))
        if len(parts) == 1:
            return Response(parts[0], media_type="application/json")
        headers = {HEAD_LENGTH: str(json_bytes)}
        return Response(b"".join(parts), media_type="application/octet-stream", headers=headers)

    return _of_model("/infer", infer, method("ModelInfer"), methods=["POST"])


# --- inside -----------------------------------------------------------------------------------------


def _of_model(
    path: str, endpoint: Callable[[Request], Any], name: str, methods: list[str] | None = None
) -> list[Route]:
    return [
        Route(f"/v2/models/{{model}}{path}", endpoint, methods=methods, name=name),
        Route(f"/v2/models/{{model}}/versions/{{version}}{path}", endpoint, methods=methods, name=name),
    ]


def _asked(request: Request) -> tuple[str, str]:
    return request.path_params["model"], request.path_params.get("version", "")


def _caller(request: Request) -> str:
    """Whose requests are counted together: a connection's."""
    return f"http:{request.client.host}:{request.client.port}" if request.client else "http"


def _tensor(told: Any) -> dict[str, Any]:
    return {"name": told.name, "datatype": told.datatype, "shape": list(told.shape)}


def _refuse_other_sites(request: Request) -> None:
    """Browsers name the page that sends a request; only ours may run models, whatever the visitor's network reaches."""
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
        raise NotAllowed("pages of other sites may not run models here; send requests from a program")


def _head_length(request: Request, body_bytes: int) -> int:
    """How much of the body is JSON: all of it unless a header says less."""
    told = request.headers.get(HEAD_LENGTH)
    if told is None:
        return body_bytes
    length = whole_number(told)
    if length is None or length > body_bytes:
        raise InvalidRequest(f"Inference-Header-Content-Length is no number up to the length of the body, {body_bytes}")
    return length


async def _work(workers: OffLoop, size: int, work: Callable[[], T]) -> T:
    return work() if size <= _SMALL_BYTES else await workers.run(work)


async def _while_connected(request: Request, answering: Coroutine[Any, Any, bytes]) -> bytes:
    """The answer, unless the client goes before it is there: then its request leaves the queue."""
    answer = asyncio.create_task(answering)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise HTTPException(499, "the client went away")
        return answer.result()
    finally:
        answer.cancel()
        gone.cancel()
