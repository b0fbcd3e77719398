"""The native server frame by frame: what HTTP/2 and gRPC ask of it, and what it does to clients that abuse it."""

from __future__ import annotations

import asyncio
import random
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import h2.errors
import h2.events
import h2.settings
import hpack
import pytest
from native_server import ECHO, HEADERS, PSEUDO, Peer, path, peer, run, serving

from inferd.rpc.native.limits import Limits

Codes = h2.errors.ErrorCodes


async def answered(port: int) -> None:
    """Another client is served."""
    async with peer(port) as other:
        stream = other.call()
        other.message(stream, b"abc")
        await other.flush()
        assert (await other.ended(stream))["grpc-status"] == "0"


def after(body: Callable[[Peer], Awaitable[None]], limits: Limits | None = None) -> None:
    """Do something on a connection of its own, then see another one served."""

    async def main() -> None:
        async with serving(ECHO, limits) as (_, port):
            async with peer(port) as one:
                await body(one)
            await answered(port)

    run(main)


# Headers of a call that leave no trace in the tables of headers, so that their bytes can be sent again and again.
CALL = hpack.Encoder().encode(
    [hpack.NeverIndexedHeaderTuple(*pair) for pair in (*PSEUDO, (":path", path("Echo")), *HEADERS)]
)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


# --- what gRPC asks ------------------------------------------------------------------------------------


def test_an_error_is_one_headers_frame() -> None:
    async def body(one: Peer) -> None:
        stream = one.call("Nothing", end=True)
        await one.flush()
        told = await one.ended(stream)
        assert told["grpc-status"] == "12"
        assert not [event for event in one.events if isinstance(event, h2.events.TrailersReceived)]

    after(body)


def test_a_refusal_before_the_request_ends_tells_the_client_to_send_no_more() -> None:
    async def body(one: Peer) -> None:
        stream = one.call("Nothing")
        await one.flush()
        reset: Any = await one.until(lambda event: isinstance(event, h2.events.StreamReset))
        assert reset.stream_id == stream
        assert reset.error_code == Codes.NO_ERROR
        assert (await one.ended(stream))["grpc-status"] == "12"

    after(body)


def test_text_is_percent_encoded() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.ABORTED, "100% ☃\n")
        raise AssertionError

    async def main() -> None:
        handlers = {"S": grpc.unary_unary_rpc_method_handler(handler)}
        async with serving(handlers) as (_, port), peer(port) as one:
            stream = one.call("S")
            one.message(stream, b"")
            await one.flush()
            assert (await one.ended(stream))["grpc-message"] == "100%25 %E2%98%83%0A"

    run(main)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(":method", "GET"), *PSEUDO[1:], (":path", path("Echo")), *HEADERS], "405"),
        ([(":method", "HEAD"), *PSEUDO[1:], (":path", path("Echo")), *HEADERS], "405"),
        ([*PSEUDO, (":path", path("Echo")), ("content-type", "text/html")], "415"),
        ([*PSEUDO, (":path", "/")], "415"),
    ],
)
def test_what_no_grpc_client_sends_gets_an_http_status_and_a_text(headers: list[tuple[str, str]], status: str) -> None:
    async def body(one: Peer) -> None:
        # Eight bytes at a time: the text has to wait for the client too.
        one.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 8})
        one.h2.send_headers(1, headers, end_stream=True)
        await one.flush()
        text, seen = b"", 0
        while not [event for event in one.events[:seen] if isinstance(event, h2.events.StreamEnded)]:
            await one.until(lambda event, seen=seen: len(one.events) > seen)  # type: ignore[misc]
            new, seen = one.events[seen:], len(one.events)
            for event in new:
                if isinstance(event, h2.events.DataReceived) and event.data:
                    assert len(event.data) <= 8
                    text += event.data
                    if event.stream_ended is None:
                        one.h2.increment_flow_control_window(len(event.data), 1)
                    await one.flush()
        told = await one.ended(1)
        assert told.pop("content-length") == "74"
        assert told == {":status": status, "allow": "POST", "content-type": "text/plain"}
        if headers[0] == (":method", "HEAD"):
            assert text == b""
        else:
            assert len(text) == 74
            assert text.startswith(b"This port speaks gRPC")

    after(body)


PREFIX = b"\0\0\0\0\3"
MESSAGES = {
    "a second message": (b"\0\0\0\0\0" * 2, (), "13"),
    "no message": (b"", (), "13"),
    "half a prefix": (b"\0\0", (), "13"),
    "half a message": (PREFIX + b"a", (), "13"),
    "a flag that is neither 0 nor 1": (b"\2\0\0\0\0", (), "13"),
    "compressed without an encoding": (b"\1\0\0\0\0", (), "13"),
    "compressed data that is none": (b"\1\0\0\0\3abc", (("grpc-encoding", "gzip"),), "13"),
    "compressed data cut short": (
        b"\1\0\0\0\7" + zlib.compress(b"abcdefghijklm")[:7], (("grpc-encoding", "deflate"),), "13",
    ),
    "an encoding nobody knows": (PREFIX + b"abc", (("grpc-encoding", "br"),), "12"),
    "a message too large": (b"\0\xff\xff\xff\xff", (), "8"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "headers", "status"), MESSAGES.values(), ids=MESSAGES)
def test_a_request_that_is_no_single_message_is_refused(data: bytes, headers: Any, status: str) -> None:
    async def body(one: Peer) -> None:
        stream = one.call("Echo", *headers)
        one.h2.send_data(stream, data, end_stream=True)
        await one.flush()
        assert (await one.ended(stream))["grpc-status"] == status

    after(body)


def test_a_message_may_come_byte_by_byte() -> None:
    async def body(one: Peer) -> None:
        stream = one.call()
        for byte in PREFIX + b"abc":
            one.h2.send_data(stream, bytes([byte]))
            await one.flush()
        one.h2.end_stream(stream)
        await one.flush()
        assert (await one.ended(stream))["grpc-status"] == "0"
        assert b"".join(event.data for event in one.events if isinstance(event, h2.events.DataReceived)) == (
            PREFIX + b"abc"
        )

    after(body)


@pytest.mark.parametrize("padding", [None, 7], ids=["plain", "padded"])
@pytest.mark.parametrize("piece_bytes", [1, 100_003, 1 << 30], ids=["first-byte-alone", "pieces", "at-once"])
def test_large_frames_of_several_calls_are_put_together_right(piece_bytes: int, padding: int | None) -> None:
    async def body(one: Peer) -> None:
        one.h2.update_settings({4: 2**31 - 1})
        one.h2.increment_flow_control_window(2**31 - 1 - 65535)
        await one.answers_a_ping()
        assert one.h2.max_outbound_frame_size == 262144
        bodies = [random.Random(seed).randbytes(size) for seed, size in enumerate((600_000, 70_000, 10, 300_000))]
        streams = [one.call() for _ in bodies]
        left = [b"\0" + len(body).to_bytes(4, "big") + body for body in bodies]
        while any(left):
            for number, stream in enumerate(streams):
                part, left[number] = left[number][:200_000], left[number][200_000:]
                if part:
                    one.h2.send_data(stream, part, end_stream=not left[number], pad_length=padding)
        data = one.h2.data_to_send()
        for start in range(0, len(data), piece_bytes) if piece_bytes > 1 else ():
            one.writer.write(data[start : start + piece_bytes])
            await one.writer.drain()
            await asyncio.sleep(0)  # lets the server, on the same loop, read what is there
        if piece_bytes == 1:
            for part in (data[:1], data[1:]):
                one.writer.write(part)
                await asyncio.sleep(0)
        for stream, sent in zip(streams, bodies, strict=True):
            assert (await one.ended(stream))["grpc-status"] == "0"
            got = b"".join(
                event.data
                for event in one.events
                if isinstance(event, h2.events.DataReceived) and event.stream_id == stream
            )
            assert got[5:] == sent

    after(body, Limits(window_bytes=2_000_000))


@pytest.mark.parametrize("end", ["reset", "deadline", "leave"])
def test_a_call_that_ends_in_the_middle_of_a_large_frame_leaves_nothing(end: str) -> None:
    async def body(one: Peer) -> None:
        await one.answers_a_ping()
        stream = one.call("Echo", *((("grpc-timeout", "20m"),) if end == "deadline" else ()))
        one.h2.send_data(stream, b"\0" + (500_000).to_bytes(4, "big") + bytes(200_000))
        data = one.h2.data_to_send()
        one.writer.write(data[:150_000])
        await one.writer.drain()
        if end == "leave":
            await asyncio.sleep(0.01)
            return
        if end == "deadline":
            assert (await one.ended(stream))["grpc-status"] == "4"
        one.writer.write(data[150_000:])
        if end == "reset":
            one.h2.reset_stream(stream)
        await one.answers_a_ping()

    after(body)


def test_values_of_bin_metadata_may_be_padded_and_joined() -> None:
    seen: list[Any] = []

    async def handler(request: bytes, context: Any) -> bytes:
        seen.extend(context.invocation_metadata())
        return b""

    async def main() -> None:
        async with serving({"S": grpc.unary_unary_rpc_method_handler(handler)}) as (_, port), peer(port) as one:
            stream = one.call("S", ("a-bin", "AA==,AQ"), ("b-bin", "Ag"), ("c", "x,y"))
            one.message(stream, b"")
            await one.flush()
            await one.ended(stream)
            assert seen == [("a-bin", b"\x00"), ("a-bin", b"\x01"), ("b-bin", b"\x02"), ("c", "x,y")]

    run(main)


def test_a_client_that_leaves_in_the_middle_of_everything_leaves_nothing() -> None:
    begun: list[bytes] = []

    async def handler(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            begun.append(one)
            yield bytes(100_000)

    async def main() -> None:
        handlers = ECHO | {"S": grpc.stream_stream_rpc_method_handler(handler)}
        async with serving(handlers) as (server, port):
            async with peer(port) as one:
                one.message(one.call("S"), b"abc", end=False)
                one.h2.send_data(one.call("S"), PREFIX + b"a")
                one.call("Echo")
                await one.flush()
                await one.until(lambda event: isinstance(event, h2.events.DataReceived))
            await answered(port)
            await server.stop(5)
        assert begun == [b"abc"]

    run(main)


def test_frames_of_unknown_types_are_ignored() -> None:
    async def body(one: Peer) -> None:
        stream = one.call()
        await one.flush()
        one.writer.write(frame(0xEE, 0xFF, 0, b"abc") + frame(0xEF, 0, stream))
        one.message(stream, b"abc")
        await one.flush()
        assert (await one.ended(stream))["grpc-status"] == "0"

    after(body)


def test_a_stream_whose_number_was_skipped_closes_the_connection() -> None:
    # Incremental HPACK state does not matter: these headers are literals without indexing.
    block = b"".join(
        b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in (*PSEUDO, (":path", path("Echo")), *HEADERS)
    )

    async def body(one: Peer) -> None:
        for stream in (1, 5, 3):
            one.writer.write(frame(1, 5, stream, block))
        assert await one.closed() == Codes.PROTOCOL_ERROR

    after(body)


def test_late_headers_of_a_stream_that_was_answered_are_let_pass() -> None:
    async def body(one: Peer) -> None:
        # The answer is a refusal and comes before the request ends; the client has not heard of it when it ends it.
        for stream in (1, 3):
            one.h2.get_next_available_stream_id()
            one.h2.send_headers(stream, [*PSEUDO, (":path", path("Nothing")), *HEADERS])
        await one.flush()
        await one.until(lambda event: isinstance(event, h2.events.StreamReset) and event.stream_id == 3)
        one.writer.write(frame(1, 5, 1, b"\x00\x01a\x01b"))
        await one.answers_a_ping()

    after(body)


# --- the connection ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/3"])
def test_what_is_no_http2_is_told_so_and_closed(sent: bytes) -> None:
    async def main() -> None:
        async with serving(ECHO) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            answer = await reader.read()
            writer.close()
            head, _, text = answer.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 426 ")
            assert f"content-length: {len(text)}".encode() in head
            await answered(port)

    run(main)


def test_a_connection_that_says_nothing_is_closed() -> None:
    async def main() -> None:
        async with serving(ECHO, Limits(handshake_timeout_s=0.1)) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert await reader.read() == b""
            writer.close()
            await answered(port)

    run(main)


def test_goaway_comes_in_two_steps_so_that_no_call_is_lost() -> None:
    async def main() -> None:
        release = asyncio.Event()

        async def handler(request: bytes, context: Any) -> bytes:
            await release.wait()
            return b""

        handlers = {"S": grpc.unary_unary_rpc_method_handler(handler)}
        async with serving(handlers) as (server, port), peer(port) as one:
            first = one.call("S")
            one.message(first, b"")
            await one.flush()
            await one.until(lambda event: isinstance(event, h2.events.SettingsAcknowledged))
            stopping = asyncio.create_task(server.stop(20))
            # Sent before it has heard of the GOAWAY: still answered.
            second = one.h2.get_next_available_stream_id()
            await asyncio.sleep(0)
            one.h2.send_headers(second, [*PSEUDO, (":path", path("S")), *HEADERS])
            one.message(second, b"")
            await one.flush()
            release.set()
            lasts = []
            try:
                while data := await one.reader.read(65536):
                    # The library takes a GOAWAY for the end of everything, so its frames are read by hand.
                    while data:
                        size, kind = int.from_bytes(data[:3], "big"), data[3]
                        payload = data[9 : 9 + size]
                        if kind == 7:
                            lasts.append((int.from_bytes(payload[:4], "big"), int.from_bytes(payload[4:8], "big")))
                        if kind == 6 and not data[4] & 1:
                            one.writer.write(frame(6, 1, 0, payload))
                        data = data[9 + size :]
            except ConnectionError:
                pass
            assert lasts == [(2**31 - 1, 0), (second, 0)]
            await stopping

    run(main)


# --- abuse ---------------------------------------------------------------------------------------------

FEW = Limits(max_unpaid_frames=300)
PING = frame(6, 0, 0, bytes(8))
SETTINGS = frame(4, 0, 0)
PRIORITY = frame(2, 0, 1, bytes(4) + b"\1")
WINDOW = frame(8, 0, 0, b"\0\0\0\1")


@pytest.mark.parametrize("flood", [PING, SETTINGS, PRIORITY, WINDOW], ids=["ping", "settings", "priority", "window"])
def test_a_flood_of_frames_that_bring_nothing_closes_the_connection(flood: bytes) -> None:
    async def body(one: Peer) -> None:
        one.writer.write(flood * 2000)
        assert await one.closed() in (Codes.ENHANCE_YOUR_CALM, None)

    after(body, FEW)


def test_a_flood_of_empty_data_closes_the_connection() -> None:
    async def body(one: Peer) -> None:
        stream = one.call()
        await one.flush()
        one.writer.write(frame(0, 0, stream) * 2000)
        assert await one.closed() in (Codes.ENHANCE_YOUR_CALM, None)

    after(body, FEW)


def test_a_flood_of_empty_continuations_closes_the_connection() -> None:
    async def body(one: Peer) -> None:
        one.writer.write(frame(1, 0, 1, b"\x83") + frame(9, 0, 1) * 2000)
        assert await one.closed() is not None

    after(body, FEW)


def test_rapid_resets_close_the_connection() -> None:
    async def body(one: Peer) -> None:
        for _ in range(1000):
            stream = one.call()
            one.h2.reset_stream(stream, Codes.CANCEL)
        await one.flush()
        assert await one.closed() in (Codes.ENHANCE_YOUR_CALM, None)

    after(body, FEW)


def test_as_many_cancelled_calls_as_the_limit_allows_harm_nobody() -> None:
    async def body(one: Peer) -> None:
        for _ in range(3000):
            stream = one.call()
            one.h2.reset_stream(stream, Codes.CANCEL)
        await one.flush()
        stream = one.call()
        one.message(stream, b"abc")
        await one.flush()
        assert (await one.ended(stream))["grpc-status"] == "0"

    after(body)


@pytest.mark.parametrize("limit", [1_000_000, 20_000], ids=["trusted", "suspect"])
def test_a_client_whose_frames_take_long_does_not_keep_the_others_waiting(limit: int) -> None:
    async def main() -> None:
        async with (
            serving(ECHO, Limits(max_unpaid_frames=limit)) as (server, port),
            peer(port) as hostile,
            peer(port) as polite,
        ):
            await polite.answers_a_ping()
            for _ in range(5000):
                last = hostile.call()
                hostile.h2.reset_stream(last)
            hostile.writer.write(hostile.h2.data_to_send())
            stream = polite.call()
            polite.message(stream, b"abc")
            await polite.flush()
            assert (await polite.ended(stream))["grpc-status"] == "0"
            # The other one is listened to, and has not been to the end.
            read = [one.last_stream_id for one in server.hub.connections if one.last_stream_id != stream]
            assert 0 < read[0] < last

    run(main)


def test_a_client_that_never_takes_our_settings_is_not_greeted() -> None:
    async def main() -> None:
        async with serving(ECHO) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0))
            await reader.readexactly(9)
            (connection,) = server.hub.connections
            assert not connection.is_greeted
            writer.write(frame(4, 1, 0))  # the acknowledgement
            while not connection.is_greeted:
                await asyncio.sleep(0)
            writer.close()

    run(main)


def test_calls_beyond_the_allowed_ones_are_counted_like_frames_that_bring_nothing() -> None:
    async def body(one: Peer) -> None:
        # Never acknowledging the settings, so that each call beyond them is refused by itself.
        one.call()
        await one.flush()
        one.writer.write(b"".join(frame(1, 4, 2 * number + 3, CALL) for number in range(400)))
        assert await one.closed() is not None

    after(body, Limits(max_streams=10, max_unpaid_frames=200))


def test_more_streams_than_allowed_are_refused_and_the_others_answered() -> None:
    async def body(one: Peer) -> None:
        streams = [one.call() for _ in range(20)]
        await one.flush()
        for _ in range(10):
            await one.until(
                lambda event: (
                    isinstance(event, h2.events.StreamReset)
                    and event.error_code == Codes.REFUSED_STREAM
                    and event.stream_id == streams[-1]
                )
            )
        for stream in streams[:10]:
            one.message(stream, b"abc")
        await one.flush()
        assert [(await one.ended(stream))["grpc-status"] for stream in streams[:10]] == ["0"] * 10

    after(body, Limits(max_streams=10))


def test_headers_without_end_close_the_connection() -> None:
    async def body(one: Peer) -> None:
        # Each byte refers to a header of four kilobytes in the table of headers.
        encoder = one.h2.encoder
        block = encoder.encode([*PSEUDO, (":path", path("Echo")), *HEADERS, ("key", "x" * 3900)])
        one.writer.write(frame(1, 4, 1, block))
        one.writer.write(frame(1, 4, 3, b"\x83\x86" + b"\xbe" * 16000))
        assert await one.closed() is not None

    after(body)


def test_a_client_that_asks_much_and_reads_nothing_costs_a_bounded_amount() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        return bytes(200_000)

    async def main() -> None:
        handlers = ECHO | {"S": grpc.unary_unary_rpc_method_handler(handler)}
        async with serving(handlers, Limits(max_streams=10, max_unpaid_frames=300)) as (_, port):
            async with peer(port) as one:
                one.h2.update_settings({4: 2**31 - 1})
                one.h2.increment_flow_control_window(2**31 - 1 - 65535)
                one.writer.transport.pause_reading()  # type: ignore[attr-defined]
                # Refused streams need an answer each, and answers cannot leave.
                while not one.writer.transport.is_closing():
                    if one.writer.transport.get_write_buffer_size() < 65536:
                        one.message(one.call("S"), b"")
                        one.writer.write(one.h2.data_to_send())
                    await asyncio.sleep(0)
            await answered(port)

    run(main)
