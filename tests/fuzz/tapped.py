"""Real clients of the receive target, over real sockets, and all that they send as its inputs."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
from receive import Loop, Run, Socket
from recorded import HEADERS, PSEUDO, infer
from served import SERVICE
from steps import Kind, Step, input_of

from inferd._native.h2 import Connection
from inferd._native.load import Generator


class Wire(Socket):
    """A Socket that somebody is at the other end of."""

    other: asyncio.Transport

    def write(self, data: Any) -> None:
        super().write(data)
        self.other.write(data)


class Tap(asyncio.Protocol):
    """Keeps what comes in as steps, which are taken at once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.steps: list[Step] = []
        self.is_gone = asyncio.Event()

    def take(self, kind: Kind, data: bytes = b"") -> None:
        self.steps.append(Step(kind, data))
        self.run.take(self.steps[-1])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        wire = self.run.slots[0] = Wire(self.run.loop, Connection(self.run.hub))
        wire.other = self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone.set()

    def data_received(self, data: bytes) -> None:
        self.take(Kind.RECEIVE, data)

    async def settle(self, count: int) -> None:
        """Run what is queued once so many requests are."""
        while self.run.model.queue.requests < count:
            await asyncio.sleep(0)
        while self.run.model.queue.requests:
            self.take(Kind.TAKE)
        self.take(Kind.SETTLE)


@asynccontextmanager
async def tapped(run: Run) -> AsyncIterator[tuple[Tap, int]]:
    """A port where one client is awaited."""
    tap = Tap(run)
    server = await run.loop.create_server(lambda: tap, "127.0.0.1", 0)
    try:
        yield tap, server.sockets[0].getsockname()[1]
    finally:
        tap.transport.abort()
        await tap.is_gone.wait()
        server.close()
        await server.wait_closed()


async def grpcio(tap: Tap, port: int) -> None:
    options = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{port}", options=options, compression=grpc.Compression.Gzip
    ) as channel:

        def path(method: str) -> str:
            return f"/{SERVICE}/{method}"

        assert await channel.unary_unary(path("Echo"))(b"abc" * 100, metadata=(("x-bin", b"\0\1"),)) == b"abc" * 100
        calls = [channel.unary_unary(path("Infer"))(infer(rows), timeout=60) for rows in (1, 2, 3)]
        await tap.settle(len(calls))
        await asyncio.gather(*calls)
        chat = channel.stream_stream(path("Chat"))()
        for body in (b"one", b"two" * 50):
            await chat.write(body)
            assert await chat.read() == body
        await chat.done_writing()
        assert await chat.read() is grpc.aio.EOF
        assert len([one async for one in channel.unary_stream(path("Spread"))(b"x")]) == 5
        cancelled = channel.stream_unary(path("Collect"))()
        await cancelled.write(b"x")
        cancelled.cancel()


async def inferd_bench(tap: Tap, port: int) -> None:
    address = struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, socket.inet_aton("127.0.0.1"))
    headers: Sequence[tuple[str, str]] = (*PSEUDO, (":path", f"/{SERVICE}/Infer"), *HEADERS)
    sent = [(name.encode(), value.encode()) for name, value in headers]
    generator = Generator(address, sent, [infer(), infer(2)], connections=1, streams=4, limit=8)
    running = tap.run.loop.run_in_executor(None, generator.run, time.monotonic_ns() + 10_000_000_000)
    for _ in range(2):
        await tap.settle(4)
    assert (await running).ok == 8
    generator.close()


CLIENTS: dict[str, Callable[[Tap, int], Awaitable[None]]] = {"grpcio": grpcio, "inferd_bench": inferd_bench}


def record(loop: Loop, client: Callable[[Tap, int], Awaitable[None]]) -> bytes:
    """The input that stands for what a client did."""

    async def hold() -> bytes:
        run = Run(loop)
        async with asyncio.timeout(30), tapped(run) as (tap, port):
            await client(tap, port)
            await run.end()
        return input_of(tap.steps)

    return loop.run_until_complete(hold())
