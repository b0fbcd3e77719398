"""Bodies over real sockets: bounded by one, by all together, and in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from inferd.http.bodies import Bodies
from inferd.http.routes import application
from inferd.http.server import HttpServer

HEAD = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n"


def serving(bodies: Bodies, talk: Callable[[int], Coroutine[Any, Any, None]]) -> None:
    """A server that says how long a body is, while `talk` speaks to its port."""

    async def measure(request: Request) -> Response:
        async with bodies.read(request) as body:
            return JSONResponse(len(body))

    async def main() -> None:
        server = HttpServer(application([Route("/", measure, methods=["POST"])]), "127.0.0.1", 0, "http", flag="")
        await server.start()
        try:
            async with asyncio.timeout(30):
                await talk(server.port)
        finally:
            await server.stop(1)
        assert bodies.held == 0

    asyncio.run(main())


async def opened(port: int, announced: int, sent: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(HEAD.format(announced).encode() + b"x" * sent)
    await writer.drain()
    return reader, writer


async def answer(reader: asyncio.StreamReader) -> tuple[int, Any]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.split("content-length: ")[1].split("\r\n")[0])
    return int(head.split()[1]), json.loads(await reader.readexactly(length))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_body_is_read_whole() -> None:
    async def talk(port: int) -> None:
        reader, writer = await opened(port, 100, 60)
        writer.write(b"y" * 40)
        assert await answer(reader) == (200, 100)
        writer.close()

    serving(Bodies(100), talk)


def test_one_that_is_announced_too_large_is_refused_unread() -> None:
    async def talk(port: int) -> None:
        reader, writer = await opened(port, 101, 0)
        status, told = await answer(reader)
        assert (status, "http.max_body_bytes" in told["error"]) == (413, True)
        assert await reader.read() == b""
        writer.close()

    serving(Bodies(100), talk)


def test_one_that_does_not_come_is_not_waited_for() -> None:
    async def talk(port: int) -> None:
        reader, writer = await opened(port, 100, 10)
        assert (await answer(reader))[0] == 408
        writer.close()

    serving(Bodies(100, read_s=0.1), talk)


def test_many_at_a_time_are_refused_and_later_ones_read() -> None:
    bodies = Bodies(100)

    async def talk(port: int) -> None:
        slow = [await opened(port, 100, 99) for _ in range(4)]
        await until(lambda: bodies.held == 4 * 99)
        reader, writer = await opened(port, 50, 50)
        assert (await answer(reader))[0] == 429
        writer.close()
        for reader, writer in slow:
            writer.write(b"x")
            assert await answer(reader) == (200, 100)
            writer.close()
        reader, writer = await opened(port, 50, 50)
        assert await answer(reader) == (200, 50)
        writer.close()

    serving(bodies, talk)


def test_a_client_that_goes_away_holds_nothing() -> None:
    bodies = Bodies(100)

    async def talk(port: int) -> None:
        _, writer = await opened(port, 100, 50)
        await until(lambda: bodies.held == 50)
        writer.close()
        await until(lambda: bodies.held == 0)

    serving(bodies, talk)
