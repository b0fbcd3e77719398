"""Leaving: clients are sent elsewhere first, and nothing is refused before they have heard of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from native_server import ECHO, Peer, peer, run, serving

GOAWAY, PING, HEADERS = 7, 6, 1
ACK = END_STREAM = 1
ANY_MORE = 2**31 - 1


async def frames(one: Peer) -> AsyncIterator[tuple[int, int, int, bytes]]:
    """Kind, flags, stream and payload of what comes. By hand: for the library a GOAWAY is the end of everything."""
    try:
        while True:
            head = await one.reader.readexactly(9)
            payload = await one.reader.readexactly(int.from_bytes(head[:3], "big"))
            yield head[3], head[4], int.from_bytes(head[5:], "big"), payload
    except (asyncio.IncompleteReadError, ConnectionError):
        return


def ping_answer(payload: bytes) -> bytes:
    return bytes([0, 0, 8, PING, ACK, 0, 0, 0, 0]) + payload


async def first(came: AsyncIterator[tuple[int, int, int, bytes]], kind: int, flag: int = 0) -> bytes:
    """The payload of the first frame of a kind, with this flag set; what comes before it is passed over."""
    async for is_kind, flags, _, payload in came:
        if is_kind == kind and flags & flag == flag:
            return payload
    raise EOFError


def last_stream(payload: bytes) -> int:
    return int.from_bytes(payload[:4], "big")


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


def test_a_call_that_crosses_with_the_news_is_answered_before_the_server_has_left() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port), peer(port) as one:
            await one.answers_a_ping()
            leaving = asyncio.create_task(server.leave(20))
            came = frames(one)
            assert last_stream(await first(came, GOAWAY)) == ANY_MORE
            asked = await first(came, PING)
            # Until the ping is answered the client may not have read the news.
            stream = one.call()
            one.message(stream, b"abc")
            await one.flush()
            await first(came, HEADERS, END_STREAM)
            assert not leaving.done()
            one.writer.write(ping_answer(asked))
            await leaving
            assert last_stream(await first(came, GOAWAY)) == stream

    run(main)


def test_a_client_that_does_not_listen_is_waited_for_no_longer_than_that() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port), peer(port) as one:
            await one.answers_a_ping()
            await server.leave(0.01)
            came = frames(one)
            assert last_stream(await first(came, GOAWAY)) == ANY_MORE
            # And is served on: what is refused is for others to say.
            stream = one.call()
            one.message(stream, b"abc")
            await one.flush()
            await first(came, HEADERS, END_STREAM)

    run(main)


def test_a_client_that_goes_has_heard() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port), peer(port) as one:
            await one.answers_a_ping()
            leaving = asyncio.create_task(server.leave(20))
            await first(frames(one), PING)
            assert not leaving.done()
            one.writer.transport.abort()
            await leaving

    run(main)


def test_without_connections_there_is_nobody_to_wait_for() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port):
            await server.leave(20)
            with pytest.raises(OSError):  # noqa: PT011
                await asyncio.open_connection("127.0.0.1", port)

    run(main)


def test_who_was_let_in_at_the_last_moment_is_sent_away_too() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port), peer(port) as one:
            await one.answers_a_ping()
            assert server.hub is not None
            # Stands for a connection that is accepted before leave() and made after it, which only a race brings about.
            server.hub.is_leaving = True
            async with peer(port) as late:
                assert last_stream(await first(frames(late), GOAWAY)) == ANY_MORE
            server.hub.is_leaving = False

    run(main)
