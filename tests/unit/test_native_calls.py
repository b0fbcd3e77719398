"""Servicers on the native server: stock clients see what they would see from grpc.aio's server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc
from native_server import ECHO, OPTIONS, SERVICE, connected, path, peer, run, serving

from inferd.rpc.native.limits import Limits
from inferd.rpc.native.server import NativeServer

BIG = b"0123456789" * 100_000


async def joined(requests: AsyncIterator[bytes], context: Any) -> bytes:
    return b"".join([one async for one in requests])


async def split(request: bytes, context: Any) -> AsyncIterator[bytes]:
    for byte in request:
        yield bytes([byte])


async def each(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
    async for one in requests:
        yield one.upper()


async def split_writing(request: bytes, context: Any) -> None:
    for byte in request:
        await context.write(bytes([byte]))


async def each_reading(requests: Any, context: Any) -> None:
    while (one := await context.read()) is not grpc.aio.EOF:
        await context.write(one.upper())


def plain_joined(requests: Iterator[bytes], context: Any) -> bytes:
    return b"".join(requests)


def plain_split(request: bytes, context: Any) -> Iterator[bytes]:
    for byte in request:
        yield bytes([byte])


def plain_each(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    for one in requests:
        yield one.upper()


KINDS = {
    "coroutines": (joined, split, each),
    "coroutines that read and write": (joined, split_writing, each_reading),
    "plain functions": (plain_joined, plain_split, plain_each),
}


@pytest.mark.parametrize("functions", KINDS.values(), ids=KINDS)
def test_every_kind_of_method_answers(functions: tuple[Any, Any, Any]) -> None:
    stream_unary, unary_stream, stream_stream = functions
    handlers = ECHO | {
        "Joined": grpc.stream_unary_rpc_method_handler(stream_unary),
        "Split": grpc.unary_stream_rpc_method_handler(unary_stream),
        "Each": grpc.stream_stream_rpc_method_handler(stream_stream),
    }

    async def main() -> None:
        async with connected(handlers) as channel:
            assert await channel.unary_unary(path("Echo"))(b"abc") == b"abc"
            assert await channel.unary_unary(path("Echo"))(b"") == b""
            assert await channel.stream_unary(path("Joined"))([b"a", b"", b"bc"]) == b"abc"
            assert [one async for one in channel.unary_stream(path("Split"))(b"abc")] == [b"a", b"b", b"c"]
            assert [one async for one in channel.stream_stream(path("Each"))([b"a", b"bc"])] == [b"A", b"BC"]
            assert [one async for one in channel.stream_stream(path("Each"))([])] == []

    run(main)


def test_a_conversation_goes_back_and_forth() -> None:
    async def main() -> None:
        async with connected({"Each": grpc.stream_stream_rpc_method_handler(each)}) as channel:
            call = channel.stream_stream(path("Each"))()
            for one in (b"a", b"b", b"c"):
                await call.write(one)
                assert await call.read() == one.upper()
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF

    run(main)


def test_large_messages_pass_both_ways() -> None:
    async def main() -> None:
        options = (("grpc.max_receive_message_length", -1),)
        async with connected(ECHO, Limits(max_message_bytes=2**26), options=options) as channel:
            body = BIG * 20
            assert await channel.unary_unary(path("Echo"))(body) == body

    run(main)


def test_stock_health_and_reflection_servicers_work() -> None:
    async def main() -> None:
        server = NativeServer()
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
        reflection.enable_server_reflection((health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        port = server.add_insecure_port("[::1]:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"[::1]:{port}", options=OPTIONS) as channel:
            stub = health_pb2_grpc.HealthStub(channel)  # type: ignore[no-untyped-call]
            await servicer.set("model", health_pb2.HealthCheckResponse.SERVING)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service="model"))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="model"))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await servicer.set("model", health_pb2.HealthCheckResponse.NOT_SERVING)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            reflect = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[no-untyped-call]
            asked = reflection_pb2.ServerReflectionRequest(list_services="")
            [listed] = [one async for one in reflect.ServerReflectionInfo([asked])]
            names = {one.name for one in listed.list_services_response.service}
            assert names == {health.SERVICE_NAME, reflection.SERVICE_NAME}
        await server.stop(None)

    run(main)


# --- metadata ------------------------------------------------------------------------------------------


def test_metadata_goes_both_ways_and_bin_values_are_bytes() -> None:
    seen: list[tuple[str, str | bytes]] = []

    async def handler(request: bytes, context: Any) -> bytes:
        seen.extend(context.invocation_metadata())
        await context.send_initial_metadata((("first", "1"), ("first-bin", b"\x00\xff")))
        context.set_trailing_metadata((("last", "2"), ("last-bin", b"\xfe,\x01")))
        return b""

    async def main() -> None:
        async with connected({"M": grpc.unary_unary_rpc_method_handler(handler)}) as channel:
            sent = (("key", "value"), ("key", "other"), ("raw-bin", b"\x00\x01\xff"))
            call = channel.unary_unary(path("M"))(b"", metadata=sent)
            await call
            told = dict(await call.initial_metadata())
            assert told["first"] == "1"
            assert told["first-bin"] == b"\x00\xff"
            assert list(await call.trailing_metadata()) == [("last", "2"), ("last-bin", b"\xfe,\x01")]
            assert [one for one in seen if one[0] != "user-agent"] == list(sent)
            assert [name for name, _ in seen].count("user-agent") == 1

    run(main)


def test_abort_ends_the_call_with_its_status_text_and_trailers() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer als 100% \n\t☃", (("why", "because"),))
        raise AssertionError("abort() came back")

    def plain(request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "größer als 100% \n\t☃", (("why", "because"),))

    async def main() -> None:
        handlers = {name: grpc.unary_unary_rpc_method_handler(one) for name, one in (("A", handler), ("P", plain))}
        async with connected(handlers) as channel:
            for method in handlers:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(path(method))(b"")
                assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
                assert caught.value.details() == "größer als 100% \n\t☃"
                assert list(caught.value.trailing_metadata()) == [("why", "because")]

    run(main)


def test_abort_after_messages_ends_the_stream_after_them() -> None:
    async def handler(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"one"
        await asyncio.sleep(0)
        await context.abort(grpc.StatusCode.DATA_LOSS, "the rest is gone")

    async def main() -> None:
        async with connected({"S": grpc.unary_stream_rpc_method_handler(handler)}) as channel:
            call = channel.unary_stream(path("S"))(b"")
            assert await call.read() == b"one"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.DATA_LOSS

    run(main)


def test_set_code_and_details_are_the_end_of_a_call() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode.NOT_FOUND)
        context.set_details("not here")
        return b"never sent"

    async def main() -> None:
        async with connected({"S": grpc.unary_unary_rpc_method_handler(handler)}) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path("S"))(b"")
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.NOT_FOUND, "not here")

    run(main)


def test_an_exception_of_a_servicer_is_unknown_without_its_text_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        raise RuntimeError("a secret")

    async def main() -> None:
        async with connected({"S": grpc.unary_unary_rpc_method_handler(handler)} | ECHO) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path("S"))(b"")
            assert caught.value.code() is grpc.StatusCode.UNKNOWN
            assert "secret" not in caught.value.details()
            assert await channel.unary_unary(path("Echo"))(b"x") == b"x"

    run(main)
    assert "a secret" in caplog.text
    caplog.clear()  # its records hold the traceback, and that the call


def test_a_method_that_does_not_exist_is_unimplemented() -> None:
    async def main() -> None:
        async with connected(ECHO) as channel:
            for name in (path("Nothing"), "/no.Such/Echo", "/"):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(name)(b"")
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    run(main)


# --- time and cancellation -----------------------------------------------------------------------------


def test_a_handler_is_cancelled_when_the_deadline_passes() -> None:
    ended: list[bool] = []

    async def handler(request: bytes, context: Any) -> bytes:
        # A client rounds up what it sends.
        assert context.time_remaining() <= 0.6
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(context.cancelled())
        return b""

    async def main() -> None:
        async with connected({"S": grpc.unary_unary_rpc_method_handler(handler)}) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path("S"))(b"", timeout=0.5)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            while not ended:
                await asyncio.sleep(0)
            assert ended == [True]

    run(main)


def test_the_server_keeps_the_deadline_of_a_client_that_does_not() -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        await asyncio.Event().wait()
        return b""

    async def main() -> None:
        async with serving({"S": grpc.unary_unary_rpc_method_handler(handler)}) as (_, port), peer(port) as one:
            stream = one.call("S", ("grpc-timeout", "50m"))
            one.message(stream, b"")
            await one.flush()
            assert (await one.ended(stream))["grpc-status"] == "4"

    run(main)


@pytest.mark.parametrize("kind", ["unary", "stream"])
def test_a_handler_is_cancelled_when_the_client_cancels(kind: str) -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        told: list[Any] = []

        async def handler(request: Any, context: Any) -> bytes:
            context.add_done_callback(told.append)
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                assert context.cancelled()
                ended.set()
            return b""

        made = {
            "unary": grpc.unary_unary_rpc_method_handler(handler),
            "stream": grpc.stream_unary_rpc_method_handler(handler),
        }
        async with connected({"S": made[kind]}) as channel:
            call: Any = channel.unary_unary(path("S"))(b"") if kind == "unary" else channel.stream_unary(path("S"))()
            await begun.wait()
            call.cancel()
            await ended.wait()
            while not told:
                await asyncio.sleep(0)
            assert told[0].done()

    run(main)


def test_a_plain_function_whose_client_left_is_let_go() -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def handler(requests: Iterator[bytes], context: Any) -> bytes:
            loop.call_soon_threadsafe(begun.set)
            try:
                list(requests)
            finally:
                loop.call_soon_threadsafe(ended.set)
            return b""

        async with connected({"S": grpc.stream_unary_rpc_method_handler(handler)}) as channel:
            call = channel.stream_unary(path("S"))()
            await begun.wait()
            call.cancel()
            await ended.wait()

    run(main)


# --- size, compression, flow ---------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_messages_are_compressed_both_ways(compression: grpc.Compression) -> None:
    async def main() -> None:
        # The server may send no more than this, so the answer only passes compressed.
        limits = Limits(max_message_bytes=2**21)
        async with connected(ECHO, limits, compression=compression) as channel:
            assert await channel.unary_unary(path("Echo"))(BIG) == BIG

        async with connected(ECHO, limits, compression=compression, threads=None) as channel:
            call = channel.unary_unary(path("Echo"))(b"x")
            assert await call == b"x"

        server = NativeServer(limits, compression=compression)
        server.add_registered_method_handlers(SERVICE, ECHO)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
            call = channel.unary_unary(path("Echo"))(BIG)
            assert await call == BIG
        await server.stop(None)

    run(main)


def test_a_message_beyond_the_limit_is_exhausted_as_it_is_and_once_unpacked() -> None:
    async def main() -> None:
        for compression in (None, grpc.Compression.Gzip, grpc.Compression.Deflate):
            async with connected(ECHO, Limits(max_message_bytes=1000), compression=compression) as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary(path("Echo"))(bytes(100_000))
                assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                assert await channel.unary_unary(path("Echo"))(bytes(900)) == bytes(900)

    run(main)


def test_metadata_beyond_the_limit_is_exhausted() -> None:
    async def main() -> None:
        async with connected(ECHO, Limits(max_metadata_bytes=4096)) as channel:
            call = channel.unary_unary(path("Echo"))(b"", metadata=(("key", "x" * 3000),))
            assert await call == b""
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(path("Echo"))(b"", metadata=(("key", "x" * 5000),))
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(main)


def test_a_writer_waits_for_a_client_that_does_not_read() -> None:
    written: list[int] = []

    async def handler(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(1000):
            written.append(number)
            yield bytes(10_000)

    async def main() -> None:
        async with serving({"S": grpc.unary_stream_rpc_method_handler(handler)}) as (_, port), peer(port) as one:
            stream = one.call("S")
            one.message(stream, b"")
            await one.flush()
            # It acknowledges no DATA, so the stream's first window of 64 KiB is all that leaves.
            await one.until(lambda event: one.h2.remote_flow_control_window(stream) < 20_000)
            await asyncio.sleep(0.05)
            assert len(written) < 20

    run(main)


def test_a_client_waits_for_a_handler_that_does_not_read() -> None:
    async def main() -> None:
        release = asyncio.Event()
        taken: list[bytes] = []

        async def handler(requests: AsyncIterator[bytes], context: Any) -> bytes:
            await release.wait()
            async for one in requests:
                taken.append(one)
            return b"%d" % len(taken)

        handlers = {"S": grpc.stream_unary_rpc_method_handler(handler)}
        async with serving(handlers, Limits(window_bytes=65535)) as (_, port), peer(port) as one:
            stream = one.call("S")
            await one.flush()
            sent = 0

            async def send_all() -> None:
                nonlocal sent
                for number in range(100):
                    while one.h2.local_flow_control_window(stream) < 10_005:
                        waited = len(one.events)
                        await one.until(lambda event, waited=waited: len(one.events) > waited)  # type: ignore[misc]
                    one.message(stream, bytes(10_000), end=number == 99)
                    await one.flush()
                    sent += 1

            sending = asyncio.create_task(send_all())
            while sent < 6:
                await asyncio.sleep(0)
            await asyncio.sleep(0.05)
            assert sent < 20
            release.set()
            await sending
            assert (await one.ended(stream))["grpc-status"] == "0"
            assert len(taken) == 100

    run(main)


# --- the end -------------------------------------------------------------------------------------------


def test_stop_lets_calls_finish_and_takes_no_more() -> None:
    async def main() -> None:
        begun, release = asyncio.Event(), asyncio.Event()

        async def handler(request: bytes, context: Any) -> bytes:
            begun.set()
            await release.wait()
            return b"done"

        async with (
            serving({"S": grpc.unary_unary_rpc_method_handler(handler)}) as (server, port),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel,
        ):
            call = channel.unary_unary(path("S"))(b"")
            await begun.wait()
            stopping = asyncio.create_task(server.stop(20))
            assert not await server.wait_for_termination(0.05)
            with pytest.raises(OSError):  # noqa: PT011
                await asyncio.open_connection("127.0.0.1", port)
            release.set()
            assert await call == b"done"
            await stopping
            assert await server.wait_for_termination()

    run(main)


def test_stop_cuts_what_outlives_the_grace() -> None:
    async def main() -> None:
        begun, ended = asyncio.Event(), asyncio.Event()

        async def handler(request: bytes, context: Any) -> bytes:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            return b""

        async with (
            serving({"S": grpc.unary_unary_rpc_method_handler(handler)}) as (server, port),
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel,
        ):
            call = channel.unary_unary(path("S"))(b"")
            await begun.wait()
            await server.stop(0.05)
            assert ended.is_set()
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

    run(main)


def test_ports_are_had_once_and_unix_sockets_work(tmp_path: Any) -> None:
    seen: list[str] = []

    async def handler(request: bytes, context: Any) -> bytes:
        seen.append(context.peer())
        assert context.peer_identities() is None
        return request

    async def main() -> None:
        server = NativeServer()
        server.add_registered_method_handlers(SERVICE, {"S": grpc.unary_unary_rpc_method_handler(handler)})
        port = server.add_insecure_port("localhost:0")
        with pytest.raises(RuntimeError, match=f"127.0.0.1:{port}"):
            NativeServer().add_insecure_port(f"127.0.0.1:{port}")
        with pytest.raises(NotImplementedError, match="add_tls_port"):
            server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(b"", b"")]))
        six = server.add_insecure_port("[::1]:0")
        server.add_insecure_port(f"unix:{tmp_path}/socket")
        await server.start()
        for target in (f"127.0.0.1:{port}", f"[::1]:{six}", f"unix:{tmp_path}/socket"):
            async with grpc.aio.insecure_channel(target, options=OPTIONS) as channel:
                assert await channel.unary_unary(path("S"))(b"x") == b"x"
        await server.stop(None)
        assert seen[0].startswith("ipv4:127.0.0.1:")
        assert seen[1].startswith("ipv6:%5B::1%5D:")
        assert seen[2] == "unix:"

    run(main)
