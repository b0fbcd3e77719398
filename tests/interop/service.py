"""TestService of gRPC's interop tests, as servicers that any server for grpc.aio takes.

After grpc/grpc doc/interop-test-descriptions.md. Whether a request came compressed is not checked, because Python's
API does not tell: the client looks at what it sends. The stubs are made by whoever starts the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import orca_load_report_pb2
import orca_pb2_grpc
import testing_pb2
import testing_pb2_grpc

ECHO_INITIAL, ECHO_TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"
LOAD_REPORT = "endpoint-load-metrics-bin"


class TestService(testing_pb2_grpc.TestServiceServicer):
    """The methods but the one that is there to be missing."""

    def __init__(self, server_id: str, loads: Loads) -> None:
        self._server_id, self._loads = server_id, loads

    async def EmptyCall(self, request: Any, context: Any) -> Any:
        return testing_pb2.Empty()

    async def UnaryCall(self, request: Any, context: Any) -> Any:
        trailers = []
        if request.HasField("orca_per_query_report"):
            trailers.append((LOAD_REPORT, report(request.orca_per_query_report).SerializeToString()))
        if request.response_compressed.value:
            context.set_compression(grpc.Compression.Gzip)
        # grpc.aio forgets how to compress a unary answer unless its headers are sent by hand.
        await echo_metadata(context, trailers, start=request.response_compressed.value)
        await abort_if_told(request, context)
        answer = testing_pb2.SimpleResponse(payload=payload(request.response_size))
        if request.fill_server_id:
            answer.server_id = self._server_id
        return answer

    async def StreamingOutputCall(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if any(one.compressed.value for one in request.response_parameters):
            context.set_compression(grpc.Compression.Gzip)
        async for answer in answers(request, context):
            yield answer

    async def StreamingInputCall(self, requests: AsyncIterator[Any], context: Any) -> Any:
        total = sum([len(one.payload.body) async for one in requests])
        return testing_pb2.StreamingInputCallResponse(aggregated_payload_size=total)

    async def FullDuplexCall(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        await echo_metadata(context, [])
        async for request in requests:
            await abort_if_told(request, context)
            if request.HasField("orca_oob_report"):
                self._loads.now = report(request.orca_oob_report)
            async for answer in answers(request, context):
                yield answer


class Loads(orca_pb2_grpc.OpenRcaServiceServicer):
    """Tells the load that was last set, whoever set it."""

    def __init__(self) -> None:
        self.now = orca_load_report_pb2.OrcaLoadReport()

    async def StreamCoreMetrics(self, request: Any, context: Any) -> AsyncIterator[Any]:
        while True:
            yield self.now
            await asyncio.sleep(request.report_interval.ToTimedelta().total_seconds())


def payload(size: int) -> Any:
    return testing_pb2.Payload(body=bytes(size))


def report(asked: Any) -> Any:
    return orca_load_report_pb2.OrcaLoadReport(
        cpu_utilization=asked.cpu_utilization,
        mem_utilization=asked.memory_utilization,
        request_cost=asked.request_cost,
        utilization=asked.utilization,
    )


async def echo_metadata(context: Any, trailers: list[tuple[str, bytes]], *, start: bool = False) -> None:
    sent = context.invocation_metadata()
    initial = tuple(pair for pair in sent if pair[0] == ECHO_INITIAL)
    trailing = tuple(pair for pair in sent if pair[0] == ECHO_TRAILING)
    if trailing or trailers:
        context.set_trailing_metadata((*trailing, *trailers))
    if initial or start:
        await context.send_initial_metadata(initial)


async def abort_if_told(request: Any, context: Any) -> None:
    if request.response_status.code:
        codes = {code.value[0]: code for code in grpc.StatusCode}
        await context.abort(codes[request.response_status.code], request.response_status.message)


async def answers(request: Any, context: Any) -> AsyncIterator[Any]:
    for one in request.response_parameters:
        await asyncio.sleep(one.interval_us / 1e6)
        if not one.compressed.value:
            context.disable_next_message_compression()
        yield testing_pb2.StreamingOutputCallResponse(payload=payload(one.size))
