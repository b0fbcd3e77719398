"""How long connections of the native server live; the test says what time it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import h2.errors
import h2.events
import pytest
from native_server import ECHO, HEADERS, PSEUDO, Peer, path, peer, run, serving

from inferd._native.h2 import Connection
from inferd.rpc.native.housekeeping import CLOSE_TIMEOUT_NS, GOAWAY_TIMEOUT_NS, Housekeeping
from inferd.rpc.native.limits import Limits

SECOND_NS = 1_000_000_000


class House:
    """One connection, and a housekeeping of its own beside the server's, whose times are too long to matter."""

    def __init__(self, hub: Any, one: Peer, limits: Limits) -> None:
        self.hub, self.one = hub, one
        self.keeping = Housekeeping(hub, limits)
        self.now_ns = time.monotonic_ns()

    @property
    def connection(self) -> Connection:
        (found,) = self.hub.connections
        assert isinstance(found, Connection)
        return found

    def turn(self, after_s: float = 0.0) -> None:
        self.now_ns += int(after_s * SECOND_NS)
        self.keeping.turn(self.now_ns)

    async def pinged(self) -> None:
        await self.one.until(lambda event: isinstance(event, h2.events.PingReceived))

    async def closed(self) -> None:
        """Until the socket is closed; raises if that takes too long."""
        while await self.one.reader.read(65536):
            pass


@asynccontextmanager
async def house(limits: Limits, handlers: dict[str, Any] = ECHO) -> AsyncIterator[House]:
    async with serving(handlers) as (server, port), peer(port) as one:
        await one.answers_a_ping()
        await one.answers_a_ping()  # behind the acknowledgement of the server's settings
        made = House(server.hub, one, limits)
        made.turn()
        yield made


async def echoed(one: Peer, *, end: bool = True) -> int:
    stream = one.call()
    one.message(stream, b"abc", end=end)
    await one.flush()
    if end:
        assert (await one.ended(stream))["grpc-status"] == "0"
    return stream


def test_a_silent_client_is_asked_and_lives_on_if_it_answers() -> None:
    async def main() -> None:
        async with house(Limits(keepalive_s=100, keepalive_timeout_s=20)) as made:
            life = made.connection.life
            # Silent so far, as if it were 101 seconds ago that it spoke.
            made.keeping.turn(made.connection.received_ns + 101 * SECOND_NS)
            assert life.pinged_ns
            await made.pinged()
            life.pinged_ns = asked_ns = made.connection.received_ns + 1
            while made.connection.received_ns < asked_ns:
                await asyncio.sleep(0)
            made.keeping.turn(asked_ns + 21 * SECOND_NS)
            assert life.pinged_ns == 0
            assert not made.connection.closing_ns
            await echoed(made.one)

    run(main)


def test_a_client_that_does_not_answer_is_dropped_after_the_timeout() -> None:
    async def main() -> None:
        async with house(Limits(keepalive_s=100, keepalive_timeout_s=20)) as made:
            made.one.writer.transport.pause_reading()  # type: ignore[attr-defined]
            made.turn(101)
            made.turn(19)
            assert not made.connection.closing_ns
            made.turn(2)
            assert made.connection.closing_ns

    run(main)


def test_a_client_is_not_asked_while_it_talks() -> None:
    async def main() -> None:
        async with house(Limits(keepalive_s=100)) as made:
            await echoed(made.one)
            made.turn(99)
            assert made.connection.life.pinged_ns == 0

    run(main)


def test_a_connection_without_calls_is_asked_to_leave_and_closes() -> None:
    async def main() -> None:
        async with house(Limits(max_idle_s=100)) as made:
            await echoed(made.one)
            made.turn(50)  # notices the call
            made.turn(99)
            assert not made.connection.is_leaving
            made.turn(2)
            assert made.connection.is_leaving
            made.turn(GOAWAY_TIMEOUT_NS / SECOND_NS + 0.1)  # this client does not answer the ping of the GOAWAY
            await made.closed()

    run(main)


def test_a_call_under_way_is_no_idleness() -> None:
    async def main() -> None:
        async with house(Limits(max_idle_s=100)) as made:
            stream = await echoed(made.one, end=False)
            await made.one.answers_a_ping()
            for _ in range(5):
                made.turn(99)
            assert not made.connection.is_leaving
            made.one.h2.end_stream(stream)
            await made.one.flush()
            assert (await made.one.ended(stream))["grpc-status"] == "0"

    run(main)


def test_an_old_connection_finishes_its_calls_and_is_cut_at_the_grace() -> None:
    release = asyncio.Event()

    async def handler(request: bytes, context: Any) -> bytes:
        await release.wait()
        return b"late"

    async def main() -> None:
        handlers = {"S": grpc.unary_unary_rpc_method_handler(handler)}
        async with house(Limits(max_age_s=100, max_age_grace_s=30), handlers) as made:
            calls = [made.one.h2.get_next_available_stream_id() + 2 * number for number in range(2)]
            for stream in calls:
                made.one.h2.send_headers(stream, [*PSEUDO, (":path", path("S")), *HEADERS])
                made.one.message(stream, b"")
            await made.one.answers_a_ping()
            made.turn(89)
            assert not made.connection.is_leaving
            made.turn(22)
            assert made.connection.is_leaving
            made.turn(29)
            assert made.connection.streams == 2
            made.turn(2)
            await made.closed()

    run(main)


def test_calls_of_an_old_connection_end_by_themselves_without_a_grace() -> None:
    async def main() -> None:
        async with house(Limits(max_age_s=100, max_age_grace_s=None)) as made:
            await echoed(made.one, end=False)
            await made.one.answers_a_ping()
            made.turn(120)
            made.turn(10_000)
            assert made.connection.streams == 1
            assert not made.connection.closing_ns

    run(main)


def test_connections_of_one_age_do_not_all_leave_at_once() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port):
            peers = [peer(port) for _ in range(20)]
            for one in peers:
                await (await one.__aenter__()).answers_a_ping()
            keeping = Housekeeping(server.hub, Limits(max_age_s=100))
            keeping.turn(time.monotonic_ns())
            ages = {one.life.leaves_ns - one.opened_ns for one in server.hub.connections}
            assert len(ages) == 20
            assert min(ages) >= 90 * SECOND_NS
            assert max(ages) <= 110 * SECOND_NS
            for one in peers:
                await one.__aexit__(None, None, None)

    run(main)


def test_headers_that_never_end_are_waited_for_as_long_as_a_handshake() -> None:
    async def main() -> None:
        async with house(Limits(handshake_timeout_s=10)) as made:
            block = made.one.h2.encoder.encode([*PSEUDO, (":path", path("Echo"))])
            # HEADERS without END_HEADERS, and no CONTINUATION.
            made.one.writer.write(len(block).to_bytes(3, "big") + b"\x01\x00" + (1).to_bytes(4, "big") + block)
            while not made.connection.headers_since_ns:
                await asyncio.sleep(0)
            made.turn(9)
            assert not made.connection.closing_ns
            made.turn(2)
            assert made.connection.closing_ns

    run(main)


def test_a_client_that_does_not_read_the_end_is_cut_off() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        return bytes(50_000_000)

    async def main() -> None:
        async with house(Limits(), {"S": grpc.unary_unary_rpc_method_handler(handler)}) as made:
            made.one.h2.update_settings({4: 2**31 - 1})
            made.one.h2.increment_flow_control_window(2**31 - 1 - 65535)
            made.one.message(made.one.call("S"), b"")
            await made.one.flush()
            made.one.writer.transport.pause_reading()  # type: ignore[attr-defined]
            connection = made.connection
            while not connection.is_paused:
                await asyncio.sleep(0)
            connection.close()
            made.keeping.turn(connection.closing_ns + CLOSE_TIMEOUT_NS)
            await asyncio.sleep(0)
            assert connection.transport is not None
            made.keeping.turn(connection.closing_ns + CLOSE_TIMEOUT_NS + 1)
            while connection.transport is not None:
                await asyncio.sleep(0)

    run(main)


@pytest.mark.parametrize(
    ("limits", "every_s"),
    [(Limits(keepalive_timeout_s=100), 1.0), (Limits(max_age_s=0.5), 0.1), (Limits(max_idle_s=0.001), 0.01)],
)
def test_it_looks_often_enough_for_the_shortest_time_and_not_more(limits: Limits, every_s: float) -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, _):
            assert Housekeeping(server.hub, limits).every_s == pytest.approx(every_s)

    run(main)
