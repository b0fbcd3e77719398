"""A NativeServer in this process: with real grpc clients, and with clients that write frames themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import h2.config
import h2.connection
import h2.events
import uvloop

from inferd.rpc.native.limits import Limits
from inferd.rpc.native.server import NativeServer

OPTIONS = (("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1))
SERVICE = "test.Service"
PSEUDO = ((":method", "POST"), (":scheme", "http"), (":authority", "test"))
HEADERS = (("te", "trailers"), ("content-type", "application/grpc"))


def run(main: Callable[[], Awaitable[None]]) -> None:
    """On the loop that serves in production, and with a limit on how long nothing may happen."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(limited())


@asynccontextmanager
async def serving(
    handlers: dict[str, Any], limits: Limits | None = None, **more: Any
) -> AsyncIterator[tuple[NativeServer, int]]:
    """A started server with these handlers, by method name, and its port."""
    server = NativeServer(limits, **more)
    server.add_registered_method_handlers(SERVICE, handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield server, port
    finally:
        await server.stop(None)


@asynccontextmanager
async def connected(
    handlers: dict[str, Any],
    limits: Limits | None = None,
    *,
    options: tuple[tuple[str, Any], ...] = (),
    compression: grpc.Compression | None = None,
    **more: Any,
) -> AsyncIterator[grpc.aio.Channel]:
    """A started server, and a channel to it."""
    async with (
        serving(handlers, limits, **more) as (_, port),
        grpc.aio.insecure_channel(
            f"127.0.0.1:{port}", options=(*OPTIONS, *options), compression=compression
        ) as channel,
    ):
        yield channel


def path(method: str) -> str:
    return f"/{SERVICE}/{method}"


async def echo(request: bytes, context: Any) -> bytes:
    return request


ECHO = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}


class Peer:
    """A client that speaks HTTP/2 frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(validate_outbound_headers=False))
        self.events: list[h2.events.Event] = []

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    def call(self, method: str = "Echo", *more: tuple[str, str], end: bool = False) -> int:
        """Send a call's headers; the number of its stream."""
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, [*PSEUDO, (":path", path(method)), *HEADERS, *more], end_stream=end)
        return stream

    def message(self, stream: int, body: bytes, *, end: bool = True) -> None:
        self.h2.send_data(stream, b"\0" + len(body).to_bytes(4, "big") + body, end_stream=end)

    async def until(self, is_it: Callable[[h2.events.Event], bool]) -> h2.events.Event:
        """Read until an event of which this is true, among those that came before too. EOFError at the end."""
        seen = 0
        while True:
            for event in self.events[seen:]:
                if is_it(event):
                    return event
            seen = len(self.events)
            data = await self.reader.read(65536)
            if not data:
                raise EOFError
            self.events += self.h2.receive_data(data)
            await self.flush()

    async def answers_a_ping(self) -> None:
        """Flush, and wait until the server has read all of it."""
        self.h2.ping(len(self.events).to_bytes(8, "big"))
        await self.flush()
        told = len(self.events)
        await self.until(lambda event: isinstance(event, h2.events.PingAckReceived) and event in self.events[told:])

    async def ended(self, stream: int) -> dict[str, str]:
        """The headers and trailers of a call that has ended."""

        def ends(event: Any) -> bool:
            return isinstance(event, h2.events.StreamEnded | h2.events.StreamReset) and event.stream_id == stream

        await self.until(ends)
        told: dict[str, str] = {}
        for event in self.events:
            if isinstance(event, h2.events.ResponseReceived | h2.events.TrailersReceived) and event.stream_id == stream:
                told |= {name.decode(): value.decode() for name, value in event.headers or ()}
            if isinstance(event, h2.events.StreamReset) and event.stream_id == stream:
                told["reset"] = str(int(event.error_code))
        return told

    async def closed(self) -> int | None:
        """Read to the end of the connection; the error code of the GOAWAY, None if none came."""
        code: int | None = None
        try:
            while data := await self.reader.read(65536):
                for event in self.h2.receive_data(data):
                    if isinstance(event, h2.events.ConnectionTerminated):
                        code = int(event.error_code or 0)
        except ConnectionError:
            pass
        return code


@asynccontextmanager
async def peer(port: int) -> AsyncIterator[Peer]:
    """A connection with its preface sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    one = Peer(reader, writer)
    one.h2.initiate_connection()
    await one.flush()
    try:
        yield one
    finally:
        writer.transport.abort()
        # Lets the loop see the end of the transport before it is closed itself.
        await asyncio.sleep(0)
