"""ModelInfer on the native server, from a client's bytes to the queue and back; the test runs the batches itself."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import h2.events
import pytest
from handmade import message
from native_model import BODY, Model, answer
from native_server import OPTIONS, path, peer, run

from inferd._native.doorbell import Doorbell
from inferd._native.infer import Endpoint
from inferd._native.trace import Sampling, Traces
from inferd._native.wire import Request
from inferd.errors import NotReady, Overloaded, RunFailed
from inferd.rpc.native.limits import Limits
from inferd.rpc.native.server import NativeServer


@asynccontextmanager
async def serving(model: Model, *, heeds_traces: bool = False, **more: Any) -> AsyncIterator[tuple[Any, int]]:
    server = NativeServer(Limits(max_unpaid_frames=50_000))
    server.heeds_traces = heeds_traces
    server.methods[path("Infer").encode()] = model.method
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    model.hub = server.hub
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS, **more) as channel:
        try:
            yield channel.unary_unary(path("Infer")), port
        finally:
            await server.stop(None)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), str(dict(caught.value.trailing_metadata() or ()).get("kind"))


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize("compression", [None, grpc.Compression.Gzip])
def test_a_batch_is_answered_and_one_failure_in_it_is_its_own(
    compression: grpc.Compression | None, at_once: bool
) -> None:
    async def main() -> None:
        model = Model()
        async with serving(model, compression=compression) as (infer, _):
            if not at_once:
                model.hub = None
            calls = [infer(BODY) for _ in range(3)]
            await model.queued(3)

            def finish(request: Request, seen: list[Request] = []) -> None:  # noqa: B006
                seen.append(request)
                if len(seen) == 2:
                    request.error = RunFailed("it did not work")
                else:
                    request.answer = b"answer"

            model.settle(model.take(), finish)
            ends = sorted([await call.code() for call in calls], key=lambda code: code.value[0])
            assert ends == [grpc.StatusCode.OK, grpc.StatusCode.OK, grpc.StatusCode.INTERNAL]
            await model.counted({0: 2, 13: 1})
            assert model.lookups == 1

    run(main)


@pytest.mark.parametrize("smaller", [zlib.compress(b"answer"), None], ids=["smaller", "not smaller"])
def test_an_answer_may_be_compressed_and_says_how(smaller: bytes | None) -> None:
    async def main() -> None:
        model = Model(packed=lambda stream, body: None if smaller is None else (smaller, b"deflate"))
        async with serving(model) as (_, port), peer(port) as one:
            stream = one.call("Infer")
            one.message(stream, BODY)
            await one.flush()
            await model.queued()
            model.settle(model.take(), answer)
            told = await one.ended(stream)
            sent = b"".join(event.data for event in one.events if isinstance(event, h2.events.DataReceived))
            assert told["grpc-status"] == "0"
            assert told.get("grpc-encoding") == ("deflate" if smaller else None)
            assert sent[0] == (smaller is not None)
            assert sent[5:] == (smaller or b"answer")

    run(main)


def test_a_request_that_is_cancelled_in_the_queue_leaves_it() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as (infer, _):
            first, second = infer(BODY), infer(BODY)
            await model.queued(2)
            first.cancel()
            await model.queued(1)
            model.settle(model.take(), answer)
            assert await second == b"answer"
            await model.counted({0: 1, 1: 1})

    run(main)


def test_a_request_that_is_cancelled_while_it_runs_is_settled_to_nobody() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as (infer, _):
            first, second = infer(BODY), infer(BODY)
            await model.queued(2)
            members = model.take()
            first.cancel()
            await model.counted({1: 1})
            model.settle(members, answer)
            assert await second == b"answer"
            await model.counted({0: 1, 1: 1})

    run(main)


def test_a_deadline_that_passes_while_it_runs_is_told_at_once() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as (_, port), peer(port) as one:
            stream = one.call("Infer", ("grpc-timeout", "30m"))
            one.message(stream, BODY)
            await one.flush()
            await model.queued()
            members = model.take()
            assert (await one.ended(stream))["grpc-status"] == "4"
            model.settle(members, answer)
            await model.counted({4: 1})

    run(main)


def test_a_connection_that_is_lost_takes_its_requests_with_it() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as (_, port):
            async with peer(port) as one:
                for _ in range(5):
                    one.message(one.call("Infer"), BODY)
                await one.flush()
                await model.queued(5)
            await model.queued(0)
            await model.counted({1: 5})

    run(main)


def test_refusals_are_counted_where_they_belong() -> None:
    async def main() -> None:
        model = Model(max_queue_rows=1)
        async with serving(model) as (infer, _):
            other = message(("x", "FP32", [1, 2], bytes(8)))
            other.model_name = "other"
            assert await refused(infer(other.SerializeToString())) == (grpc.StatusCode.NOT_FOUND, "UnknownModel")
            assert (await refused(infer(b"\xff")))[0] is grpc.StatusCode.INVALID_ARGUMENT
            assert model.unknown.requests_by_code == {5: 1, 3: 1}
            waiting = infer(BODY)
            await model.queued()
            assert await refused(infer(BODY)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, Overloaded.__name__)
            model.settle(model.take(), answer)
            await waiting
            await model.counted({0: 1, 8: 1})

    run(main)


def test_a_change_of_the_model_is_seen_after_forget() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as (infer, _):
            call = infer(BODY)
            await model.queued()
            model.settle(model.take(), answer)
            await call
            model.refusal = NotReady("it is leaving")
            model.method.forget()
            for _ in range(2):
                assert await refused(infer(BODY)) == (grpc.StatusCode.UNAVAILABLE, "NotReady")
            assert model.lookups == 2
            await model.counted({0: 1, 14: 2})

    run(main)


def test_ten_thousand_cancelled_calls_leave_nothing() -> None:
    async def main() -> None:
        model = Model(max_queue_rows=20_000)
        async with serving(model) as (_, port), peer(port) as one:
            for number in range(10_000):
                stream = one.call("Infer")
                one.message(stream, BODY, end=bool(number % 3))
                one.h2.reset_stream(stream)
                if number % 500 == 0:
                    await one.answers_a_ping()
            stream = one.call("Infer")
            one.message(stream, BODY)
            await one.flush()
            await model.queued()
            model.settle(model.take(), answer)
            assert (await one.ended(stream))["grpc-status"] == "0"

    run(main)


def test_what_is_a_bug_is_logged_with_its_code_and_the_call_has_an_end(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Model):
        def find(self, name: str, version: str) -> Endpoint:
            raise RuntimeError("no idea")

    async def main() -> None:
        async with serving(Broken()) as (infer, _):
            assert await refused(infer(BODY)) == (grpc.StatusCode.INTERNAL, "Internal")

    run(main)
    [record] = [one for one in caplog.records if one.name == "inferd.rpc"]
    assert record.exc_info is not None
    assert "no idea" in str(record.exc_info[1])
    assert vars(record)["code"].name == "INTERNAL"


@pytest.mark.parametrize("heeds", [True, False])
def test_a_traceparent_is_looked_for_only_where_traces_are_heeded(heeds: bool) -> None:
    sampling = Sampling(Traces(10))
    sampling.on = True

    class Sampled(Model):
        def find(self, name: str, version: str) -> Endpoint:
            return Endpoint(self.queue, Doorbell(), self.stats, sampling=sampling)

    async def main() -> None:
        model = Sampled()
        async with serving(model, heeds_traces=heeds) as (infer, _):
            call = infer(BODY, metadata=(("traceparent", f"00-{'a' * 32}-{'b' * 16}-01"),))
            await model.queued()
            model.settle(model.take(), answer)
            assert await call == b"answer"

    run(main)
    assert [trace.trace_id.hex() for trace in sampling.traces.take()] == (["a" * 32] if heeds else [])
