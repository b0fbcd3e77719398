"""A relay between a client and a server that hands on what the client sends in one piece, once it pauses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def gathering(port: int, quiet_s: float) -> AsyncIterator[int]:
    """The port of a relay to `port`. A client pauses when nothing has come from it for `quiet_s`."""

    async def relay(from_client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(hand_on(from_client, to_server, quiet_s), hand_on(from_server, to_client, None))
        finally:
            to_server.close()

    relaying = await asyncio.start_server(relay, "127.0.0.1", 0)
    try:
        yield relaying.sockets[0].getsockname()[1]
    finally:
        relaying.close()


async def hand_on(source: asyncio.StreamReader, target: asyncio.StreamWriter, quiet_s: float | None) -> None:
    held = b""
    with suppress(ConnectionError):
        while True:
            try:
                data = await asyncio.wait_for(source.read(65536), quiet_s if held else None)
            except TimeoutError:
                data = None
            if data and quiet_s is not None:
                held += data
                continue
            target.write(held or data or b"")
            held = b""
            await target.drain()
            if data == b"":
                break
    target.close()
