"""The standard gRPC health service, reading the health board. It decides nothing itself."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from inferd.health import HealthBoard, Status
from inferd.rpc.health_list import list_messages

SERVICE_NAME: Final = "grpc.health.v1.Health"
LIST_LIMIT: Final = 100
"""The most names List answers with, as the protocol says; beyond it the call is refused."""

_WIRE = {
    Status.SERVING: health_pb2.HealthCheckResponse.SERVING,
    Status.NOT_SERVING: health_pb2.HealthCheckResponse.NOT_SERVING,
    None: health_pb2.HealthCheckResponse.SERVICE_UNKNOWN,
}

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class HealthServicer:
    """grpc.health.v1: Check, List and Watch over a ``HealthBoard``.

    Not the servicer of grpcio-health-checking, which lacks List in the releases we can use and whose
    graceful shutdown turns every name to NOT_SERVING, liveness too, so that a drain reads as a death.
    """

    def __init__(self, board: HealthBoard) -> None:
        self._board = board
        self._list_request, self._list_response = list_messages()

    def add_to(self, server: grpc.aio.Server) -> None:
        """Register all three methods; the generated function knows List only in recent releases."""
        check_request = health_pb2.HealthCheckRequest.FromString
        check_response = health_pb2.HealthCheckResponse.SerializeToString
        handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Check": grpc.unary_unary_rpc_method_handler(self.Check, check_request, check_response),
            "Watch": grpc.unary_stream_rpc_method_handler(self.Watch, check_request, check_response),
            "List": grpc.unary_unary_rpc_method_handler(
                self.List, self._list_request.FromString, self._list_response.SerializeToString
            ),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))
        server.add_registered_method_handlers(SERVICE_NAME, handlers)

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Answer the status of one name, or NOT_FOUND."""
        status = self._board.status(request.service)
        if status is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "nothing of that name has a health status here")
        return health_pb2.HealthCheckResponse(status=_WIRE[status])

    async def List(self, request: Message, context: Context) -> Message:
        """Answer the status of every name, or RESOURCE_EXHAUSTED when they are more than ``LIST_LIMIT``."""
        names = self._board.names()
        if len(names) > LIST_LIMIT:
            await context.abort(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"List answers at most {LIST_LIMIT} names and here are {len(names)}; use Check or Watch",
            )
        answer: Any = self._list_response()
        for name in names:
            answer.statuses[name].status = _WIRE[self._board.status(name)]
        assert isinstance(answer, Message)
        return answer

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: Context) -> None:
        """Send the status of one name, known or not, and every later one until the board is closed.

        A closed board ends the stream with OK, on which clients reconnect after their back-off.
        """
        # Writing here, and not yielding, keeps the watch inside the call's task: it ends when that does.
        async with aclosing(self._board.watch(request.service)) as statuses:
            async for status in statuses:
                await context.write(health_pb2.HealthCheckResponse(status=_WIRE[status]))
