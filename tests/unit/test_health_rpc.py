"""The gRPC health service over a real server and real stubs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd.health import LIVENESS, READINESS, HealthBoard, Status
from inferd.rpc.health import LIST_LIMIT, SERVICE_NAME, HealthServicer
from inferd.rpc.health_list import list_messages

UNKNOWN_NAME = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


class Client:
    def __init__(self, channel: grpc.aio.Channel) -> None:
        list_request, list_response = list_messages()
        self._stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
        self._list = channel.unary_unary(
            f"/{SERVICE_NAME}/List", list_request.SerializeToString, list_response.FromString
        )
        self._nothing = list_request()

    async def check(self, name: str) -> int:
        reply = await self._stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert isinstance(reply, health_pb2.HealthCheckResponse)
        return reply.status

    async def list(self) -> dict[str, int]:
        reply: Any = await self._list(self._nothing)
        return {name: answer.status for name, answer in reply.statuses.items()}

    def watch(self, name: str) -> Any:
        return self._stub.Watch(health_pb2.HealthCheckRequest(service=name))


async def told(call: Any) -> int:
    reply = await call.read()
    assert isinstance(reply, health_pb2.HealthCheckResponse), "the stream ended"
    return reply.status


async def left_by_all(board: HealthBoard) -> None:
    while board.watcher_count:
        await asyncio.sleep(0)


@asynccontextmanager
async def serving(board: HealthBoard) -> AsyncIterator[tuple[Client, grpc.aio.Server]]:
    server = grpc.aio.server()
    HealthServicer(board).add_to(server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            yield Client(channel), server
        finally:
            await server.stop(None)


def test_check_follows_the_board() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with serving(board) as (client, _):
            assert await client.check("") == NOT_SERVING
            board.set_ready(True)
            assert [await client.check(name) for name in ("", READINESS)] == [SERVING, SERVING]

    run(main())


def test_check_of_an_unknown_name_is_not_found() -> None:
    async def main() -> None:
        async with serving(HealthBoard()) as (client, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.check("resnet")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run(main())


def test_check_of_liveness_asks_the_probes() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.add_liveness_probe(lambda: "the engine thread ended")
        async with serving(board) as (client, _):
            assert await client.check(LIVENESS) == NOT_SERVING

    run(main())


def test_a_drain_is_seen_in_readiness_and_not_in_liveness() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set_ready(True)
        board.set_ready(False)
        async with serving(board) as (client, _):
            assert await client.check(READINESS) == NOT_SERVING
            assert await client.check(LIVENESS) == SERVING

    run(main())


# --- List -----------------------------------------------------------------------------------------


def test_list_tells_every_name() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set("resnet", Status.SERVING)
        board.set("resnet/1", Status.NOT_SERVING)
        async with serving(board) as (client, _):
            assert await client.list() == {
                "": NOT_SERVING,
                READINESS: NOT_SERVING,
                LIVENESS: SERVING,
                "inference.GRPCInferenceService": NOT_SERVING,
                "resnet": SERVING,
                "resnet/1": NOT_SERVING,
            }

    run(main())


def test_list_answers_as_many_names_as_the_protocol_allows() -> None:
    async def main() -> None:
        board = board_with(LIST_LIMIT)
        async with serving(board) as (client, _):
            assert len(await client.list()) == 100

    run(main())


def test_list_of_more_names_than_the_protocol_allows_is_exhausted() -> None:
    async def main() -> None:
        board = board_with(LIST_LIMIT + 1)
        async with serving(board) as (client, _):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await client.list()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(main())


def board_with(names: int) -> HealthBoard:
    board = HealthBoard()
    for number in range(names - len(board.names())):
        board.set(f"model {number}", Status.SERVING)
    return board


def test_the_list_messages_have_the_protocols_wire_format() -> None:
    request, response = list_messages()
    answer: Any = response()
    answer.statuses["m"].status = NOT_SERVING
    assert request().SerializeToString() == b""
    # field 1: an entry of 7 bytes; in it field 1 is the name, field 2 a HealthCheckResponse.
    assert answer.SerializeToString() == b"\x0a\x07\x0a\x01m\x12\x02\x08\x02"
    assert isinstance(answer, Message)


# --- Watch ----------------------------------------------------------------------------------------


def test_a_watcher_is_told_now_and_at_every_change() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with serving(board) as (client, _):
            call = client.watch(READINESS)
            assert await told(call) == NOT_SERVING
            board.set_ready(True)
            assert await told(call) == SERVING
            board.set_ready(False)
            assert await told(call) == NOT_SERVING
            call.cancel()

    run(main())


def test_a_watch_of_an_unknown_name_stays_open_until_it_appears() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with serving(board) as (client, _):
            call = client.watch("resnet/1")
            assert await told(call) == UNKNOWN_NAME
            board.set("resnet/1", Status.SERVING)
            assert await told(call) == SERVING
            board.remove("resnet/1")
            assert await told(call) == UNKNOWN_NAME
            call.cancel()

    run(main())


def test_watchers_of_different_names_hear_only_theirs() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set("a", Status.NOT_SERVING)
        board.set("b", Status.NOT_SERVING)
        async with serving(board) as (client, _):
            of_a, of_b = client.watch("a"), client.watch("b")
            assert [await told(of_a), await told(of_b)] == [NOT_SERVING, NOT_SERVING]
            board.set("a", Status.SERVING)
            assert await told(of_a) == SERVING
            board.remove("b")
            assert await told(of_b) == UNKNOWN_NAME
            of_a.cancel()
            of_b.cancel()

    run(main())


def test_a_watcher_of_liveness_is_told_of_a_death() -> None:
    async def main() -> None:
        reason: list[str | None] = [None]
        board = HealthBoard()
        board.add_liveness_probe(lambda: reason[0])
        polling = asyncio.create_task(board.run(interval_s=0.001))
        async with serving(board) as (client, _):
            call = client.watch(LIVENESS)
            assert await told(call) == SERVING
            reason[0] = "stuck"
            assert await told(call) == NOT_SERVING
            board.close()
        await polling

    run(main())


def test_a_client_that_cancels_is_forgotten() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with serving(board) as (client, _):
            call = client.watch("")
            await told(call)
            assert board.watcher_count == 1
            call.cancel()
            await left_by_all(board)
            assert await client.check("") == NOT_SERVING

    run(main())


def test_a_client_whose_connection_is_gone_is_forgotten() -> None:
    async def main() -> None:
        board = HealthBoard()
        server = grpc.aio.server()
        HealthServicer(board).add_to(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
        await told(Client(channel).watch(""))
        await channel.close()
        await left_by_all(board)
        await server.stop(None)

    run(main())


def test_closing_the_board_ends_streams_after_the_last_status() -> None:
    async def main() -> None:
        board = HealthBoard()
        board.set_ready(True)
        async with serving(board) as (client, server):
            call = client.watch("")
            assert await told(call) == SERVING
            board.set_ready(False)
            board.close()
            assert await told(call) == NOT_SERVING
            assert await call.read() is grpc.aio.EOF
            assert await call.code() is grpc.StatusCode.OK
            async with asyncio.timeout(5):
                await server.stop(grace=60)

    run(main())


def test_a_server_stopped_without_a_word_ends_streams_as_well() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with serving(board) as (client, server):
            call = client.watch("")
            await told(call)
            await server.stop(None)
            assert await call.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            await left_by_all(board)

    run(main())


def test_no_task_is_left_of_many_watches() -> None:
    async def main() -> None:
        board = HealthBoard()
        async with serving(board) as (client, _):
            before = len(asyncio.all_tasks())
            calls = [client.watch(f"model {number}") for number in range(40)]
            assert [await told(call) for call in calls] == [UNKNOWN_NAME] * 40
            for call in calls:
                call.cancel()
            await left_by_all(board)
            while len(asyncio.all_tasks()) > before:
                await asyncio.sleep(0)

    run(main())


def test_the_generated_function_registers_it_as_well() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(  # type: ignore[no-untyped-call]
            HealthServicer(HealthBoard()), server
        )
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert await Client(channel).check("") == NOT_SERVING
        await server.stop(None)

    run(main())
