"""Requests whose messages are still to come: refused before they are sent, or with a permit that always comes back."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import h2.events
import h2.settings
import pytest
from handmade import message
from native_model import BODY, Model, answer
from native_server import Peer, path, peer, run

from inferd._native.admission import Admission
from inferd.errors import NotReady
from inferd.rpc.native.limits import Limits
from inferd.rpc.native.server import NativeServer

LARGE = message(("x", "FP32", [1, 100_000], bytes(400_000))).SerializeToString()
PREFIX = b"\0" + len(LARGE).to_bytes(4, "big")
FIRST_WINDOW = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
NO_ERROR = "0"


@asynccontextmanager
async def serving(model: Model) -> AsyncIterator[tuple[NativeServer, int]]:
    server = NativeServer(Limits())
    server.methods[path("Infer").encode()] = model.method
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    model.hub = server.hub
    try:
        yield server, port
    finally:
        await server.stop(None)


async def until(is_it: Callable[[], bool]) -> None:
    """run() has the limit."""
    while not is_it():
        await asyncio.sleep(0)


async def send(one: Peer, stream: int, data: bytes, *, end: bool = False) -> None:
    """As far and as fast as the server lets it."""
    while data:
        room = min(one.h2.local_flow_control_window(stream), one.h2.max_outbound_frame_size, len(data))
        if room > 0:
            one.h2.send_data(stream, data[:room], end_stream=end and room == len(data))
            data = data[room:]
        else:
            await one.flush()
            read = await one.reader.read(65536)
            assert read, "the server closed the connection"
            one.events += one.h2.receive_data(read)
    await one.flush()


def begin(one: Peer, *more: tuple[str, str], beginning: int = 1000) -> int:
    """Send the prefix of a large message, and a little of it."""
    stream = one.call("Infer", *more)
    one.h2.send_data(stream, PREFIX + LARGE[:beginning])
    return stream


async def first_window(one: Peer, size: int) -> None:
    await one.until(
        lambda event: (
            isinstance(event, h2.events.RemoteSettingsChanged)
            and FIRST_WINDOW in event.changed_settings
            and event.changed_settings[FIRST_WINDOW].new_value == size
        )
    )


async def busy(model: Model, one: Peer) -> None:
    """With one request in the queue."""
    one.message(one.call("Infer"), BODY)
    await one.flush()
    await model.queued()


@pytest.mark.parametrize("beginning", [0, 1000], ids=["its prefix", "its prefix and its first bytes"])
def test_a_large_request_without_a_permit_is_refused_by(beginning: int) -> None:
    async def main() -> None:
        model = Model(admission=Admission(max_requests=1))
        async with serving(model) as (_, port), peer(port) as other, peer(port) as one:
            await busy(model, other)
            stream = begin(one, beginning=beginning)
            await one.flush()
            told = await one.ended(stream)
            assert (told["grpc-status"], told["kind"]) == ("8", "ServerBusy")
            assert not any(isinstance(event, h2.events.TrailersReceived) for event in one.events)
            # So that the client stops sending, RFC 9113 section 8.1.
            await one.until(lambda event: isinstance(event, h2.events.StreamReset))
            assert (await one.ended(stream))["reset"] == NO_ERROR
            assert model.queue.requests == 1
            model.settle(model.take(), answer)
            # The connection goes on.
            await busy(model, one)

    run(main)


def test_what_still_comes_for_a_refused_request_is_thrown_away_and_its_connection_has_its_window_back() -> None:
    async def main() -> None:
        model = Model(admission=Admission(max_requests=1))
        async with serving(model) as (_, port), peer(port) as other, peer(port) as one:
            await busy(model, other)
            await one.answers_a_ping()
            room = one.h2.outbound_flow_control_window
            # A client that hears nothing meanwhile may send so much.
            streams = []
            while one.h2.outbound_flow_control_window > len(LARGE):
                streams.append(one.call("Infer"))
                for data in (PREFIX, LARGE[:100_000], LARGE[100_000:300_000]):
                    one.h2.send_data(streams[-1], data)
            await one.flush()
            for stream in streams:
                assert (await one.ended(stream))["grpc-status"] == "8"
            while one.h2.outbound_flow_control_window < room // 2:
                await one.answers_a_ping()
            assert (model.admission.requests, model.queue.requests) == (1, 1)

    run(main)


def test_a_request_has_its_permit_from_its_first_bytes_to_its_end() -> None:
    async def main() -> None:
        admission = Admission(max_requests=10, max_bytes=1 << 20)
        model = Model(admission=admission)
        async with serving(model) as (_, port), peer(port) as one:
            stream = begin(one)
            await one.answers_a_ping()
            assert (admission.requests, admission.bytes) == (1, len(LARGE))
            await send(one, stream, LARGE[1000:], end=True)
            await model.queued()
            assert (admission.requests, admission.bytes) == (1, len(LARGE))
            model.settle(model.take(), answer)
            assert (await one.ended(stream))["grpc-status"] == "0"
            assert (admission.requests, admission.bytes) == (0, 0)

    run(main)


def test_bytes_that_are_promised_count_before_they_come() -> None:
    async def main() -> None:
        model = Model(admission=Admission(max_bytes=3 * len(LARGE)))
        async with serving(model) as (_, port), peer(port) as one, peer(port) as two, peer(port) as three:
            for other in (one, two):
                begin(other)
                await other.answers_a_ping()
            # What these two hold and it would hold is all that there is, so it would leave nothing free.
            stream = begin(three)
            begin(three)
            await three.answers_a_ping()
            assert model.admission.bytes == 3 * len(LARGE)
            assert three.h2.get_next_available_stream_id() == stream + 4
            [reset] = [event for event in three.events if isinstance(event, h2.events.ResponseReceived)]
            assert reset.stream_id == stream + 2

    run(main)


async def cancel(one: Peer, stream: int) -> None:
    one.h2.reset_stream(stream, 8)


async def stop_half_way(one: Peer, stream: int) -> None:
    one.h2.send_data(stream, b"", end_stream=True)


async def vanish(one: Peer, stream: int) -> None:
    one.writer.transport.abort()


async def garble(one: Peer, stream: int) -> None:
    one.writer.write(b"\0\0\1\4\0\0\0\0\0\0")  # SETTINGS of one byte


async def wait(one: Peer, stream: int) -> None:
    """For the deadline of the call."""


@pytest.mark.parametrize("ends", [cancel, stop_half_way, vanish, garble, wait], ids=lambda how: how.__name__)
def test_a_permit_comes_back_if_the_message_does_not_come(ends: Callable[[Peer, int], Awaitable[None]]) -> None:
    async def main() -> None:
        admission = Admission(max_requests=1)
        model = Model(admission=admission)
        async with serving(model) as (_, port), peer(port) as one:
            stream = begin(one, *([("grpc-timeout", "300m")] if ends is wait else []))
            await one.answers_a_ping()
            assert admission.requests == 1
            await ends(one, stream)
            if ends is not vanish:
                one.writer.write(one.h2.data_to_send())
            await until(lambda: (admission.requests, admission.bytes) == (0, 0))
            async with peer(port) as other:
                await busy(model, other)

    run(main)


def test_a_server_that_stops_has_its_permits_back() -> None:
    async def main() -> None:
        admission = Admission(max_requests=1)
        model = Model(admission=admission)
        async with serving(model) as (server, port), peer(port) as one:
            begin(one)
            await one.answers_a_ping()
            assert admission.requests == 1
            stopping = asyncio.create_task(server.stop(0.01))
            await until(lambda: (admission.requests, admission.bytes) == (0, 0))
            one.writer.transport.abort()
            await stopping

    run(main)


def test_who_sends_too_slowly_loses_the_permit() -> None:
    async def main() -> None:
        admission = Admission(max_requests=1, message_ns=200_000_000)
        model = Model(admission=admission)
        async with serving(model) as (_, port), peer(port) as one:
            stream = begin(one)
            await one.flush()
            told = await one.ended(stream)
            assert told["grpc-status"] == "4"
            assert "admission.message_timeout_ms" in told["grpc-message"]
            assert admission.requests == 0
            # One that is here has no such limit.
            stream = begin(one)
            await send(one, stream, LARGE[1000:], end=True)
            await model.queued()
            held = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > held + 0.3)
            model.settle(model.take(), answer)
            assert (await one.ended(stream))["grpc-status"] == "0"

    run(main)


def test_a_compressed_message_counts_as_what_it_unpacks_to() -> None:
    async def main() -> None:
        admission = Admission(max_requests=1)
        model = Model(admission=admission)
        # Not all of it may come at once, so it has to be larger than it needs to be.
        packed = zlib.compress(LARGE, 0)
        async with serving(model) as (_, port), peer(port) as one:
            stream = one.call("Infer", ("grpc-encoding", "deflate"))
            one.h2.send_data(stream, b"\1" + len(packed).to_bytes(4, "big") + packed[:1000])
            await one.answers_a_ping()
            assert admission.bytes == len(packed)
            await send(one, stream, packed[1000:], end=True)
            await model.queued()
            assert (admission.requests, admission.bytes) == (1, len(LARGE))
            model.settle(model.take(), answer)
            assert (await one.ended(stream))["grpc-status"] == "0"
            assert (admission.requests, admission.bytes) == (0, 0)

    run(main)


@pytest.mark.parametrize("why", ["full", "not ready"])
def test_what_its_model_would_refuse_is_refused_by_its_name_and_counted_there(why: str) -> None:
    async def main() -> None:
        model = Model(admission=Admission(), max_queue_bytes=len(LARGE))
        if why == "not ready":
            model.refusal = NotReady("it is loading")
        async with serving(model) as (_, port), peer(port) as one:
            stream = one.call("Infer")
            one.message(stream, BODY)
            await one.flush()
            if why == "full":
                await model.queued()
            else:
                assert (await one.ended(stream))["grpc-status"] == "14"
            stream = begin(one)
            await one.flush()
            told = await one.ended(stream)
            assert (told["grpc-status"], told["kind"]) == (("8", "Overloaded") if why == "full" else ("14", "NotReady"))
            await model.counted({8: 1} if why == "full" else {14: 2})
            assert model.admission.requests == model.queue.requests

    run(main)


def test_a_name_that_cannot_be_read_yet_is_left_for_when_the_message_is_here() -> None:
    async def main() -> None:
        model = Model(admission=Admission())
        async with serving(model) as (_, port), peer(port) as one:
            for begun in (b"", b"\n", b"\n\5m", b"\n\1\xff", b"\n\1\xff\x12\0", b"\x7a\1m", b"\n\1m\x12\xff"):
                stream = one.call("Infer")
                one.h2.send_data(stream, b"\0" + (1_000).to_bytes(4, "big") + begun)
                await one.answers_a_ping()
                assert model.admission.requests == 1
                one.h2.send_data(stream, bytes(1_000 - len(begun)), end_stream=True)
                await one.flush()
                assert (await one.ended(stream))["grpc-status"] in ("3", "5")
                assert model.admission.requests == 0

    run(main)


def test_where_a_large_message_was_refused_the_next_ones_are_let_come_first() -> None:
    async def main() -> None:
        model = Model(admission=Admission(max_requests=2))
        async with serving(model) as (_, port), peer(port) as other, peer(port) as one:
            await busy(model, other)
            # One that is on its way already comes whole all the same.
            await one.answers_a_ping()
            under_way = begin(one, beginning=50_000)
            await one.answers_a_ping()
            refused = begin(one)
            await one.flush()
            assert (await one.ended(refused))["grpc-status"] == "8"
            await first_window(one, 16384)
            await send(one, under_way, LARGE[50_000:], end=True)
            await model.queued(2)
            model.settle([*model.take(), *(model.take() if model.queue.requests else [])], answer)
            assert (await one.ended(under_way))["grpc-status"] == "0"

            let = one.call("Infer")
            assert one.h2.local_flow_control_window(let) == 16384
            await send(one, let, PREFIX + LARGE, end=True)
            await model.queued()
            model.settle(model.take(), answer)
            assert (await one.ended(let))["grpc-status"] == "0"
            # Small ones need nobody's word.
            await busy(model, one)
            model.settle(model.take(), answer)

            # After a while without a refusal all is as before.
            def is_open(event: Any) -> bool:
                return (
                    isinstance(event, h2.events.RemoteSettingsChanged)
                    and event.changed_settings[FIRST_WINDOW].new_value == Limits().window_bytes
                    and event.changed_settings[FIRST_WINDOW].original_value == 16384
                    if isinstance(event, h2.events.RemoteSettingsChanged) and FIRST_WINDOW in event.changed_settings
                    else False
                )

            while not any(is_open(event) for event in one.events):
                again = one.call("Infer")
                await send(one, again, PREFIX + LARGE, end=True)
                await model.queued()
                model.settle(model.take(), answer)
                assert (await one.ended(again))["grpc-status"] == "0"

    run(main)


def test_near_the_memory_limit_a_large_message_is_refused_by_its_prefix_and_a_small_one_is_read() -> None:
    async def main() -> None:
        model = Model(admission=Admission())
        async with serving(model) as (server, port), peer(port) as one:
            assert server.hub is not None
            server.hub.spare_bytes = len(LARGE)
            stream = one.call("Infer")
            one.h2.send_data(stream, PREFIX)
            await one.flush()
            told = await one.ended(stream)
            assert told["grpc-status"] == "8"
            assert int(told["grpc-retry-pushback-ms"]) > 0
            assert "admission.memory_share" in told["grpc-message"]
            assert server.hub.unread == 1
            await busy(model, one)

    run(main)
