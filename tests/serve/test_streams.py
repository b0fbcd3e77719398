"""ModelStreamInfer as clients use it: order, failures on the way, cancels, slow readers, and the end of the server."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from onnx_models import EMBEDDING

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import occupy
from .calls import arrays, request, rows, slow, trips_for
from .conftest import UNLEARNT
from .process import CHANNEL_OPTIONS, POLL_S, Server
from .scrape import counted, wait_for

LIMIT_S = 60


@pytest.fixture(scope="module")
def several(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a slow model of three instances, another of one, and short ones."""
    folder = tmp_path_factory.mktemp("several")
    repository = folder / "repository"
    models.write(repository, "slow", models.slow(), config="max_batch_size: 1")
    models.write(repository, "three", models.slow(), config="max_batch_size: 1 instance_group { count: 3 }")
    models.write(repository, "scale", models.scale())
    models.write(repository, "counted", models.scale())
    models.write(repository, "embedding", models.embedding())
    started = Server(repository, folder, transport, UNLEARNT, {})
    with started.while_ready():
        yield started


class Talk:
    """A stream of the stub's: requests when the test says so, answers as they are asked for."""

    def __init__(self, stub: GRPCInferenceServiceStub, **more: Any) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.call = stub.ModelStreamInfer(iter(self._requests.get, None), **{"timeout": LIMIT_S, **more})

    def send(self, *messages: Any) -> None:
        for message in messages:
            self._requests.put(message)

    def done_sending(self) -> None:
        self._requests.put(None)

    def answers(self, count: int) -> list[Any]:
        return [next(self.call) for _ in range(count)]

    def rest(self) -> list[Any]:
        """The answers to the end, which is a good one."""
        self.done_sending()
        return list(self.call)

    def refusal(self) -> grpc.StatusCode:
        """The status of a call that ends badly, and with no more answers."""
        with pytest.raises(grpc.RpcError) as refused:
            next(self.call)
        self.done_sending()
        found: grpc.StatusCode = refused.value.code()
        return found


def triton_input(module: Any, value: np.ndarray, name: str = "x") -> Any:
    made = module.InferInput(name, list(value.shape), "INT64" if value.dtype.kind == "i" else "FP32")
    made.set_data_from_numpy(value)
    return made


# --- Triton's clients ---------------------------------------------------------------------------------------


def test_ten_thousand_requests_on_one_stream_are_answered_in_their_order(several: Server) -> None:
    answers: list[tuple[Any, Any]] = []
    with triton.InferenceServerClient(several.address, channel_args=list(CHANNEL_OPTIONS)) as client:
        client.start_stream(lambda result, error: answers.append((result, error)))
        for number in range(10_000):
            value = np.full((1 + number % 3, 4), number, "f4")
            model = "nobody" if number % 1000 == 7 else "scale"
            client.async_stream_infer(model, [triton_input(triton, value)], request_id=str(number))
        client.stop_stream()
    assert len(answers) == 10_000
    for number, (result, error) in enumerate(answers):
        if number % 1000 == 7:
            assert "'nobody'" in error.message()
        else:
            assert error is None
            assert result.get_response().id == str(number)
            assert np.array_equal(result.as_numpy("y"), np.full((1 + number % 3, 4), 2 * number, "f4"))


def test_several_models_and_instances_do_not_change_the_order(several: Server) -> None:
    # What comes first takes longest, on three instances at once, and in between are models that answer at once.
    durations_ms = [120, 60, 0, 90, 0, 30, 0, 0, 15, 60, 0, 0]

    async def talk() -> list[tuple[Any, Any]]:
        async def asked() -> AsyncIterator[dict[str, Any]]:
            for number, duration_ms in enumerate(durations_ms):
                trips = np.full((1, 1), trips_for(duration_ms), "i8")
                x = triton_input(triton_aio, np.full((1, 4), number, "f4"))
                yield {
                    "model_name": "three", "request_id": f"{number}",
                    "inputs": [x, triton_input(triton_aio, trips, "trips")],
                }  # fmt: skip
                yield {"model_name": "scale", "inputs": [x], "request_id": f"{number} twice"}
                ids = triton_input(triton_aio, np.array([[number % 8]], "i8"), "ids")
                yield {"model_name": "embedding", "inputs": [ids], "request_id": f"{number} looked up"}

        async with triton_aio.InferenceServerClient(several.address, channel_args=list(CHANNEL_OPTIONS)) as client:
            return [answer async for answer in client.stream_infer(asked(), stream_timeout=LIMIT_S)]

    answers = asyncio.run(talk())
    assert [error for _, error in answers if error is not None] == []
    for number in range(len(durations_ms)):
        own, twice, looked_up = (result for result, _ in answers[3 * number : 3 * number + 3])
        assert own.get_response().id == f"{number}"
        assert np.array_equal(own.as_numpy("y"), np.full((1, 4), number, "f4"))
        assert twice.get_response().id == f"{number} twice"
        assert np.array_equal(twice.as_numpy("y"), np.full((1, 4), 2 * number, "f4"))
        assert looked_up.get_response().id == f"{number} looked up"
        assert np.array_equal(looked_up.as_numpy("vectors")[0, 0], EMBEDDING[number % 8])


@pytest.mark.parametrize("compression", ["gzip", "deflate", None])
def test_each_answer_is_final_and_asking_for_an_empty_one_after_it_changes_nothing(
    several: Server, compression: str | None
) -> None:
    answers: queue.SimpleQueue[tuple[Any, Any]] = queue.SimpleQueue()
    with triton.InferenceServerClient(several.address, channel_args=list(CHANNEL_OPTIONS)) as client:
        client.start_stream(
            lambda result, error: answers.put((result, error)),
            compression_algorithm=compression,
            stream_timeout=LIMIT_S,
        )
        x = np.zeros((60, 4), "f4")
        for wanted in (False, True):
            inputs = [triton_input(triton, x)]
            client.async_stream_infer("scale", inputs, enable_empty_final_response=wanted, priority=1)
        client.stop_stream()
    for _ in range(2):
        result, error = answers.get(timeout=LIMIT_S)
        assert error is None
        assert result.get_response().parameters["triton_final_response"].bool_param
        assert np.array_equal(result.as_numpy("y"), x)
    assert answers.empty()


def test_a_client_that_cancels_its_stream_leaves_nothing_in_the_queue(several: Server) -> None:
    with several.stub() as stub:
        busy = occupy(several, stub, duration_ms=1500)
        before = counted(several, "slow")
        answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with triton.InferenceServerClient(several.address, channel_args=list(CHANNEL_OPTIONS)) as client:
            client.start_stream(lambda result, error: answers.put(error))
            inputs = [triton_input(triton, rows(0)), triton_input(triton, np.zeros((1, 1), "i8"), "trips")]
            for _ in range(5):
                client.async_stream_infer("slow", inputs)
            wait_for(several, "slow", lambda now: now.queue_rows == 5)
            client.stop_stream(cancel_requests=True)
        left = wait_for(several, "slow", lambda now: now.queue_rows == 0 and now.codes != before.codes)
        assert left.since(before).codes == {"CANCELLED": 5}
        assert not busy.done()
        busy.result(timeout=LIMIT_S)
        assert "cancelled" in str(answers.get(timeout=LIMIT_S)).lower()


# --- failures ---------------------------------------------------------------------------------------------------


def failing() -> list[tuple[Any, str]]:
    """Requests that fail before they run and while they run, and words of the failure."""
    return [
        (request("nobody", x=rows(0), id="a"), "'nobody'"),
        (request("scale", x=rows(0, 1, 3), id="b"), "shape [1, 3]"),
        (request("scale", y=rows(0), id="c"), "'y'"),
        (request("embedding", ids=np.array([[10**6]], "i8"), id="d"), "'embedding' refused a value"),
    ]


def test_failures_are_told_in_their_place_and_the_stream_goes_on(several: Server) -> None:
    with several.stub() as stub:
        talk = Talk(stub)
        for message, words in failing():
            talk.send(request("scale", x=rows(1), id="before"), message, request("scale", x=rows(2), id="after"))
            before, failed, after = talk.answers(3)
            assert (before.error_message, after.error_message) == ("", "")
            assert (before.infer_response.id, after.infer_response.id) == ("before", "after")
            assert words in failed.error_message
            assert failed.infer_response.id == message.id
            assert list(failed.infer_response.outputs) == []
        assert talk.rest() == []
        assert talk.call.code() is grpc.StatusCode.OK


@pytest.mark.parametrize("number", range(4))
def test_a_client_that_asks_for_true_errors_gets_the_status_of_the_first(several: Server, number: int) -> None:
    codes = [grpc.StatusCode.NOT_FOUND, *[grpc.StatusCode.INVALID_ARGUMENT] * 3]
    message, words = failing()[number]
    with several.stub() as stub:
        talk = Talk(stub, metadata=(("triton_grpc_error", "true"),))
        talk.send(*[request("scale", x=rows(seed)) for seed in range(3)], message, request("scale", x=rows(3)))
        for seed, answer in enumerate(talk.answers(3)):
            assert np.array_equal(arrays(answer.infer_response)["y"], rows(seed) * np.float32(2))
        assert talk.refusal() is codes[number]
        assert words in talk.call.details()


def test_a_stream_that_is_late_ends_with_its_deadline_and_takes_its_requests_along(several: Server) -> None:
    with several.stub() as stub:
        busy = occupy(several, stub, duration_ms=1500)
        before = counted(several, "slow")
        talk = Talk(stub, timeout=0.2)
        talk.send(*[slow(rows(seed), 0) for seed in range(4)])
        assert talk.refusal() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert not busy.done()
        after = wait_for(several, "slow", lambda now: now.requests == before.requests + 4).since(before)
        assert after.queue_rows == 0
        assert set(after.codes) <= {"DEADLINE_EXCEEDED", "CANCELLED"}  # whoever was first to notice
        busy.result(timeout=LIMIT_S)


def test_a_message_that_is_no_request_is_told_and_the_stream_goes_on(several: Server) -> None:
    sent = iter([b"\xff\xff", request("scale", x=rows(1)).SerializeToString()])
    with several.channel() as channel:
        call = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=pb.ModelStreamInferResponse.FromString,
        )
        wrong, right = call(sent, timeout=LIMIT_S)
    assert "malformed" in wrong.error_message
    assert np.array_equal(arrays(right.infer_response)["y"], rows(1) * np.float32(2))


# --- what it costs ------------------------------------------------------------------------------------------------


def test_streamed_requests_count_as_others_do(several: Server) -> None:
    with several.stub() as stub:
        before = counted(several, "counted")
        talk = Talk(stub)
        talk.send(*[request("counted", x=rows(seed, 1 + seed)) for seed in range(4)], request("counted", y=rows(0)))
        assert len(talk.rest()) == 5
        after = counted(several, "counted").since(before)
        assert (after.codes, after.rows) == ({"OK": 4, "INVALID_ARGUMENT": 1}, 10)
        (told,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name="counted")).model_stats
        assert (told.inference_stats.success.count, told.inference_stats.fail.count) == (4, 1)
        assert told.inference_count == sum(one.batch_size * one.compute_infer.count for one in told.batch_stats) == 10


def resident(server: Server) -> int:
    """The most memory that the process has had so far."""
    (line,) = [
        line for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines() if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) * 1024


def test_a_client_that_does_not_read_is_held_back_and_costs_the_server_little(several: Server) -> None:
    count, nrows = 2000, 8192  # 256 MB of answers, and as much of requests
    sent = 0

    def requests() -> Iterator[Any]:
        nonlocal sent
        for number in range(count):
            sent = number
            yield request("scale", x=np.full((nrows, 4), number, "f4"), id=str(number))

    with several.stub() as stub:
        for _ in range(3):  # so that buffers for a run of this size are there
            stub.ModelInfer(request("scale", x=np.zeros((nrows, 4), "f4")))
        before = resident(several)
        answers = stub.ModelStreamInfer(requests(), timeout=LIMIT_S)
        assert next(answers).infer_response.id == "0"
        stalled_since, last = time.monotonic(), -1
        # A machine so slow that this is over too soon makes the test weaker and never wrong.
        while time.monotonic() - stalled_since < 0.5:
            if sent != last:
                stalled_since, last = time.monotonic(), sent
            time.sleep(POLL_S)
        assert sent < count - 1
        assert [one.infer_response.id for one in answers] == [str(number) for number in range(1, count)]
        assert resident(several) - before < 64 << 20


def test_many_clients_stream_at_once_and_each_gets_its_own(several: Server) -> None:
    wrong: list[str] = []

    def client(number: int) -> None:
        with several.stub() as stub:
            sent = [
                request("scale", x=np.full((1, 4), 1000 * number + k, "f4"), id=f"{number}/{k}") for k in range(200)
            ]
            for k, answer in enumerate(stub.ModelStreamInfer(iter(sent), timeout=LIMIT_S)):
                found = answer.infer_response
                if found.id != f"{number}/{k}" or arrays(found)["y"][0, 0] != 2 * (1000 * number + k):
                    wrong.append(f"{number}/{k}: {found.id} {answer.error_message}")

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join(LIMIT_S)
    assert wrong == []
    assert not any(one.is_alive() for one in clients)


# --- the end of the server ----------------------------------------------------------------------------------------


def test_a_server_that_stops_answers_what_it_has_begun_and_ends_idle_streams(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "slow", models.slow(), config="max_batch_size: 1")
    one = server(repository)
    with one.stub() as stub, one.stub() as other:
        idle, busy = Talk(other), Talk(stub)
        idle.send(slow(rows(9), 0))
        idle.answers(1)
        busy.send(*[slow(rows(seed), 100 if seed else 1500) for seed in range(3)])
        wait_for(one, "slow", lambda now: now.queue_rows == 2)
        one.terminate()
        assert idle.refusal() is grpc.StatusCode.UNAVAILABLE
        for seed, answer in enumerate(busy.answers(3)):
            assert np.array_equal(arrays(answer.infer_response)["y"], rows(seed))
        assert busy.refusal() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in busy.call.details()
    # Not after the grace for calls under way, which is half a minute.
    assert one.wait(timeout_s=10) == 0
