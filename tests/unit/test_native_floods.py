"""A flood is over when the server says so: its connection is neither read from nor closed for a while."""

from __future__ import annotations

import asyncio

import h2.events
from native_server import ECHO, Peer, peer, run, serving

from inferd._native.h2 import Connection
from inferd.rpc.native.limits import Limits
from inferd.rpc.native.server import NativeServer

FEW = Limits(max_unpaid_frames=300)
PING = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)


async def flooded(server: NativeServer, one: Peer) -> Connection:
    """Flood until the server has enough of it, and find its end of the connection."""
    await one.answers_a_ping()
    one.writer.write(PING * 2000)
    await one.until(lambda event: isinstance(event, h2.events.ConnectionTerminated))
    assert server.hub is not None
    (connection,) = server.hub.connections
    assert isinstance(connection, Connection)
    return connection


def test_a_connection_that_flooded_is_left_open_unread_so_that_the_flood_does_not_begin_again() -> None:
    async def main() -> None:
        async with serving(ECHO, FEW) as (server, port), peer(port) as one:
            connection = await flooded(server, one)
            assert connection.closing_ns
            heard_ns = connection.received_ns
            one.writer.write(PING * 2000)
            for _ in range(20):
                await asyncio.sleep(0)
            assert connection.received_ns == heard_ns
            assert not one.reader.at_eof()
            # It comes by itself, or now to whoever asks again.
            connection.close()
            assert await one.closed() is None

    run(main)


def test_a_server_that_stops_does_not_wait_for_connections_that_flooded() -> None:
    async def main() -> None:
        async with serving(ECHO, FEW) as (server, port), peer(port) as one:
            await flooded(server, one)
            stopping = asyncio.create_task(server.stop(30))
            for _ in range(20):
                await asyncio.sleep(0)
            assert server.hub is not None
            assert not server.hub.connections
            await stopping

    run(main)
