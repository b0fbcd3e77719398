"""ModelStreamInfer on the native server: order, failures in their place, bounds, and every way a stream can end."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import h2.events
import h2.settings
import pytest
from handmade import message
from hypothesis import given, settings
from hypothesis import strategies as st
from native_model import Model
from native_server import OPTIONS, path, peer, run

from inferd._native.infer_stream import InferStreamMethod
from inferd._native.wire import Request
from inferd.errors import NotReady, RunFailed
from inferd.proto import inference_pb2 as pb
from inferd.rpc.native.limits import Limits
from inferd.rpc.native.server import NativeServer

MOST_BEGUN = 256


def body(id: object, model: str = "m", nbytes: int = 8) -> bytes:
    made = message(("x", "FP32", [1, nbytes // 4], bytes(nbytes)))
    made.id, made.model_name = str(id), model
    return made.SerializeToString()


def echo_id(request: Request) -> None:
    """An answer by which a test knows the request again."""
    request.answer = pb.ModelStreamInferResponse(infer_response={"id": request.id}).SerializeToString()


def fail(request: Request) -> None:
    request.error = RunFailed("it did not work")


def told(answer: bytes) -> tuple[str, str]:
    """Id and error of an answer."""
    found = pb.ModelStreamInferResponse.FromString(answer)
    return found.infer_response.id, found.error_message


class Served:
    """A model behind both methods, and a connection to it."""

    def __init__(self, model: Model, encoding: Any = None) -> None:
        self.model = model
        self.method = InferStreamMethod(model.method, encoding)
        self.server = NativeServer(Limits(max_unpaid_frames=50_000))
        self.server.methods[path("Stream").encode()] = self.method
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.channel: grpc.aio.Channel | None = None

    def open(self, **more: Any) -> Any:
        assert self.channel is not None
        return self.channel.stream_stream(path("Stream"))(**more)

    async def run_all(self) -> None:
        """Answer whatever comes, for as long as the test likes."""
        while True:
            while self.model.queue.requests:
                self.model.settle(self.model.take(), echo_id)
            await asyncio.sleep(0)


@asynccontextmanager
async def serving(model: Model, encoding: Any = None, **more: Any) -> AsyncIterator[Served]:
    one = Served(model, encoding)
    await one.server.start()
    model.hub = one.server.hub
    async with grpc.aio.insecure_channel(f"127.0.0.1:{one.port}", options=OPTIONS, **more) as one.channel:
        try:
            yield one
        finally:
            await one.server.stop(None)


async def ended(call: Any) -> tuple[grpc.StatusCode, list[tuple[str, str]]]:
    """How a call ends, and the answers until then."""
    answers = []
    try:
        while (answer := await call.read()) is not grpc.aio.EOF:
            answers.append(told(answer))
    except grpc.aio.AioRpcError:
        pass
    return await call.code(), answers


# --- order ------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.permutations(range(6)))
def test_answers_leave_in_the_order_of_the_requests_whichever_is_there_first(order: list[int]) -> None:
    async def main() -> None:
        model = Model(batch_rows=1)
        async with serving(model) as one:
            call = one.open()
            for number in range(6):
                await call.write(body(number))
            await call.done_writing()
            await model.queued(6)
            members = [model.take() for _ in range(6)]
            for number in order:
                model.settle(members[number], echo_id)
            assert await ended(call) == (grpc.StatusCode.OK, [(str(number), "") for number in range(6)])
            await model.counted({0: 6})

    run(main)


def test_requests_of_many_streams_share_runs() -> None:
    async def main() -> None:
        model = Model(batch_rows=8)
        async with serving(model) as one:
            calls = [one.open() for _ in range(4)]
            for call in calls:
                await call.write(body("a"))
                await call.write(body("b"))
                await call.done_writing()
            await model.queued(8)
            model.settle(model.take(), echo_id)
            for call in calls:
                assert await ended(call) == (grpc.StatusCode.OK, [("a", ""), ("b", "")])

    run(main)


def test_a_stream_without_a_request_ends_well() -> None:
    async def main() -> None:
        async with serving(Model()) as one:
            call = one.open()
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [])

    run(main)


def test_an_answer_leaves_while_the_client_still_writes() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as one:
            call = one.open()
            for number in range(3):
                await call.write(body(number))
                await model.queued()
                model.settle(model.take(), echo_id)
                assert told(await call.read()) == (str(number), "")
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [])

    run(main)


# --- failures -----------------------------------------------------------------------------------------------


def test_each_failure_is_told_in_its_place_and_the_stream_goes_on() -> None:
    async def main() -> None:
        model = Model(batch_rows=1, max_queue_rows=3)
        async with serving(model) as one:
            call = one.open()
            wrong = message(("y", "FP32", [1, 2], bytes(8)))
            wrong.id = "wrong"
            for sent in (
                body(0),
                body(1),
                wrong.SerializeToString(),
                b"\xff",
                body("other", "other"),
                body(2),
                body(3),
            ):
                await call.write(sent)
            await call.done_writing()
            await model.queued(3)
            model.settle(model.take(), echo_id)
            model.settle(model.take(), fail)
            model.settle(model.take(), echo_id)
            code, answers = await ended(call)
            assert code is grpc.StatusCode.OK
            assert [id for id, _ in answers] == ["0", "1", "wrong", "", "other", "2", "3"]
            texts = [text for _, text in answers]
            assert [bool(text) for text in texts] == [False, True, True, True, True, False, True]
            assert texts[1] == "it did not work"
            assert "'y'" in texts[2]
            assert "malformed" in texts[3]
            assert texts[4] == "there is no such model"
            assert "is full" in texts[6]
            await model.counted({0: 2, 13: 1, 3: 1, 8: 1})
            assert model.unknown.requests_by_code == {3: 1, 5: 1}

    run(main)


def test_a_failure_says_that_it_is_final() -> None:
    async def main() -> None:
        async with serving(Model()) as one:
            call = one.open()
            await call.write(body(7, "other"))
            found = pb.ModelStreamInferResponse.FromString(await call.read())
            assert found.infer_response.parameters["triton_final_response"].bool_param
            assert (found.infer_response.model_name, found.infer_response.outputs) == ("", [])
            call.cancel()

    run(main)


def test_a_model_that_leaves_is_told_to_each_request() -> None:
    async def main() -> None:
        model = Model()
        model.refusal = NotReady("it is leaving")
        async with serving(model) as one:
            call = one.open()
            for number in range(3):
                await call.write(body(number))
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [(str(number), "it is leaving") for number in range(3)])
            await model.counted({14: 3})

    run(main)


def test_a_client_that_asks_for_true_errors_gets_the_first_after_what_was_answered_before_it() -> None:
    async def main() -> None:
        model = Model(batch_rows=1)
        async with serving(model) as one:
            call = one.open(metadata=(("triton_grpc_error", "true"),))
            for number in range(5):
                await call.write(body(number))
            await model.queued(5)
            members = [model.take() for _ in range(3)]
            model.settle(members[2], echo_id)
            model.settle(members[1], fail)
            model.settle(members[0], echo_id)
            assert await ended(call) == (grpc.StatusCode.INTERNAL, [("0", "")])
            assert await call.details() == "it did not work"
            assert dict(await call.trailing_metadata())["kind"] == "RunFailed"
            await model.queued(0)
            await model.counted({0: 1, 13: 1, 1: 3})

    run(main)


def test_a_client_that_says_anything_else_of_errors_gets_them_as_messages() -> None:
    async def main() -> None:
        async with serving(Model()) as one:
            call = one.open(metadata=(("triton_grpc_error", "false"),))
            await call.write(body(0, "other"))
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [("0", "there is no such model")])

    run(main)


# --- bounds -------------------------------------------------------------------------------------------------


def test_a_fast_writer_is_held_back_and_every_request_is_answered_in_order() -> None:
    async def main() -> None:
        model = Model(max_queue_rows=5000)
        async with serving(model) as one:
            call = one.open()

            async def write() -> None:
                for number in range(5000):
                    await call.write(body(number, nbytes=1024))
                await call.done_writing()

            writing = asyncio.create_task(write())
            await model.queued(MOST_BEGUN)
            # Whatever else arrives is parked, and what no longer fits there stays with the client.
            for _ in range(200):
                await asyncio.sleep(0)
                assert model.queue.requests == MOST_BEGUN
            assert not writing.done()
            running = asyncio.create_task(one.run_all())
            code, answers = await ended(call)
            running.cancel()
            assert code is grpc.StatusCode.OK
            assert answers == [(str(number), "") for number in range(5000)]
            await writing

    run(main)


@pytest.mark.parametrize(("answer_bytes", "least", "most"), [(10, MOST_BEGUN, MOST_BEGUN + 7), (1 << 20, 4, 9)])
def test_a_client_that_reads_nothing_has_no_more_begun_than_its_bounds_allow(
    answer_bytes: int, least: int, most: int
) -> None:
    async def main() -> None:
        model = Model(batch_rows=1, max_queue_rows=5000)
        answered = 0

        def finish(request: Request) -> None:
            nonlocal answered
            answered += 1
            request.answer = bytes(answer_bytes)

        async with serving(model) as one, peer(one.port) as other:
            other.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
            stream = other.call("Stream")
            other.message(stream, body(0), end=False)
            await other.flush()
            await model.queued()
            model.settle(model.take(), finish)  # from now on it is known how large answers are
            for number in range(1000):
                other.message(stream, body(number), end=False)
            await other.answers_a_ping()
            idle = 0
            while idle < 50:
                idle = 0 if model.queue.requests else idle + 1
                while model.queue.requests:
                    model.settle(model.take(), finish)
                await asyncio.sleep(0)
            assert least <= answered <= most
            other.h2.reset_stream(stream)
            await other.answers_a_ping()

    run(main)


# --- compression --------------------------------------------------------------------------------------------


def test_compressed_requests_are_understood_and_broken_ones_told() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as one, peer(one.port) as other:
            stream = other.call("Stream", ("grpc-encoding", "deflate"))
            for sent in (zlib.compress(body(0)), b"no deflate"):
                other.h2.send_data(stream, b"\1" + len(sent).to_bytes(4, "big") + sent)
            other.message(stream, body(2))
            await other.flush()
            await model.queued(2)
            model.settle(model.take(), echo_id)
            assert (await other.ended(stream))["grpc-status"] == "0"
            sent = b"".join(event.data for event in other.events if isinstance(event, h2.events.DataReceived))
            answers = []
            while sent:
                size = int.from_bytes(sent[1:5], "big")
                answers.append(told(sent[5 : 5 + size]))
                sent = sent[5 + size :]
            assert [answers[0], answers[2]] == [("0", ""), ("2", "")]
            assert "deflate" in answers[1][1]

    run(main)


def test_answers_may_be_compressed_and_only_those_that_gain_by_it() -> None:
    async def main() -> None:
        def packed(stream: Any, answer: bytes) -> tuple[bytes, bytes] | None:
            return (zlib.compress(answer), b"deflate") if told(answer)[0] == "1" else None

        model = Model(packed=packed)
        async with serving(model, lambda stream: b"deflate") as one, peer(one.port) as other:
            stream = other.call("Stream")
            for number in range(2):
                other.message(stream, body(number), end=number == 1)
            await other.flush()
            await model.queued(2)
            model.settle(model.take(), echo_id)
            told_ = await other.ended(stream)
            assert (told_["grpc-status"], told_["grpc-encoding"]) == ("0", "deflate")
            sent = b"".join(event.data for event in other.events if isinstance(event, h2.events.DataReceived))
            first = 5 + int.from_bytes(sent[1:5], "big")
            assert (sent[0], told(sent[5:first])) == (0, ("0", ""))
            assert (sent[first], told(zlib.decompress(sent[first + 5 :]))) == (1, ("1", ""))

    run(main)


# --- ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["cancel", "connection"])
def test_a_stream_that_is_gone_takes_its_requests_with_it_at_every_stage(by: str) -> None:
    async def main() -> None:
        model = Model(batch_rows=1, max_queue_rows=5000)
        async with serving(model) as one:
            async with peer(one.port) as other:
                stream = other.call("Stream")
                for number in range(MOST_BEGUN + 50):
                    other.message(stream, body(number), end=False)
                await other.flush()
                await model.queued(MOST_BEGUN)
                running, waiting_for_its_turn = model.take(), model.take()
                model.settle(waiting_for_its_turn, echo_id)
                if by == "cancel":
                    other.h2.reset_stream(stream)
                    await other.answers_a_ping()
            await model.queued(0)
            await model.counted({1: MOST_BEGUN})
            model.settle(running, echo_id)
            await model.counted({1: MOST_BEGUN})

    run(main)


def test_a_deadline_of_the_stream_ends_it_and_empties_the_queue() -> None:
    async def main() -> None:
        model = Model(batch_rows=1)
        async with serving(model) as one, peer(one.port) as other:
            stream = other.call("Stream", ("grpc-timeout", "50m"))
            for number in range(3):
                other.message(stream, body(number), end=False)
            await other.flush()
            await model.queued(3)
            running = model.take()
            assert (await other.ended(stream))["grpc-status"] == "4"
            assert model.queue.requests == 0
            model.settle(running, echo_id)
            await model.counted({4: 3})

    run(main)


def test_a_runner_that_notices_the_deadline_of_the_stream_first_ends_it_too() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as one, peer(one.port) as other:
            stream = other.call("Stream", ("grpc-timeout", "100m"))
            for number in range(3):
                other.message(stream, body(number), end=False)
            await other.flush()
            await model.queued(3)
            # The loop does not turn, so nothing but this can notice it.
            while not (late := model.queue.expire(time.monotonic_ns())):
                time.sleep(0.001)
            model.settle(late, lambda request: None)
            assert (await other.ended(stream))["grpc-status"] == "4"
            assert not any(isinstance(event, h2.events.DataReceived) for event in other.events)
            await model.counted({4: 1, 1: 2})

    run(main)


def test_a_request_that_is_late_by_its_own_account_leaves_a_stream_with_time_open() -> None:
    async def main() -> None:
        model = Model()
        async with serving(model) as one:
            call = one.open(timeout=3600)
            await call.write(body(0))
            await model.queued()
            model.settle(model.queue.expire(1 << 62), lambda request: None)
            id, error = told(await call.read())
            assert (id, "the deadline passed" in error) == ("0", True)
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [])

    run(main)


def test_requests_of_a_stream_without_a_deadline_each_get_the_default_one() -> None:
    async def main() -> None:
        model = Model(timeout_ns=3_600_000_000_000)
        async with serving(model) as one:
            call = one.open()
            await call.write(body(0))
            await model.queued()
            assert model.queue.expire(1) == []
            late = model.queue.expire(1 << 62)
            model.settle(late, lambda request: None)
            id, error = told(await call.read())
            assert (id, "the deadline passed" in error) == ("0", True)
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [])

    run(main)


def test_an_answer_that_comes_after_the_default_deadline_is_too_late() -> None:
    async def main() -> None:
        model = Model(timeout_ns=1)
        async with serving(model) as one:
            call = one.open()
            await call.write(body(0))
            await model.queued()
            model.settle(model.take(), echo_id)
            assert told(await call.read()) == ("0", "the deadline passed while model 'm' was working on the request")
            await call.done_writing()
            assert await ended(call) == (grpc.StatusCode.OK, [])
            await model.counted({4: 1})

    run(main)


def test_a_server_that_leaves_answers_what_it_has_begun_and_ends_every_stream() -> None:
    async def main() -> None:
        model = Model(max_queue_rows=5000)
        async with serving(model) as one:
            idle, busy, done = one.open(), one.open(), one.open()
            await idle.write(body(0, "other"))
            assert told(await idle.read())[0] == "0"
            await busy.write(body(1))
            await done.write(body(2))
            await done.done_writing()
            await model.queued(2)
            # Until the server has heard of the half-close too.
            await idle.write(body(3, "other"))
            await idle.read()
            one.method.leave()
            assert await ended(idle) == (grpc.StatusCode.UNAVAILABLE, [])
            model.settle(model.take(), echo_id)
            assert await ended(busy) == (grpc.StatusCode.UNAVAILABLE, [("1", "")])
            assert await ended(done) == (grpc.StatusCode.OK, [("2", "")])
            assert (await ended(one.open()))[0] is grpc.StatusCode.UNAVAILABLE
            assert "stopping" in await idle.details()

    run(main)


def test_thousands_of_streams_that_are_cut_leave_nothing() -> None:
    async def main() -> None:
        model = Model(max_queue_rows=20_000)
        async with serving(model) as one, peer(one.port) as other:
            for number in range(3000):
                stream = other.call("Stream")
                for _ in range(number % 4):
                    other.message(stream, body(number), end=False)
                if number % 3 == 0:
                    other.message(stream, b"\xff")
                other.h2.reset_stream(stream)
                if number % 200 == 0:
                    await other.answers_a_ping()
            stream = other.call("Stream")
            other.message(stream, body(0))
            await other.flush()
            await model.queued()
            model.settle(model.take(), echo_id)
            assert (await other.ended(stream))["grpc-status"] == "0"

    run(main)
