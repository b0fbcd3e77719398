"""Leaving: clients are sent elsewhere first, and asked whether they have heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from native_server import ECHO, Peer, peer, run, serving

GOAWAY, PING = 7, 6


async def frames(one: Peer) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of what comes. By hand: for the library a GOAWAY is the end of everything."""
    try:
        while True:
            head = await one.reader.readexactly(9)
            payload = await one.reader.readexactly(int.from_bytes(head[:3], "big"))
            yield head[3], head[4], int.from_bytes(head[5:], "big"), payload
    except (asyncio.IncompleteReadError, ConnectionError):
        return


def test_a_client_is_asked_whether_it_has_heard_after_it_was_told() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port), peer(port) as one:
            await one.answers_a_ping()
            assert server.hub is not None
            for connection in server.hub.connections:
                connection.go_away()
            kinds = []
            async for kind, _, _, _ in frames(one):
                kinds.append(kind)
                if PING in kinds:
                    break
            assert kinds == [GOAWAY, PING]

    run(main)
