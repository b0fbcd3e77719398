"""The runner's thread with real sessions: what happens to a batch, and to its members one by one."""

from __future__ import annotations

import queue
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest
from shared import memory

from inferd._native.bind import bind
from inferd._native.doorbell import Doorbell
from inferd._native.queue import BatchQueue
from inferd._native.region import Regions
from inferd._native.signature import Signature
from inferd._native.stats import ModelStats
from inferd._native.wire import Request, decode
from inferd.batchable import signature_of
from inferd.device import CpuDevice
from inferd.errors import DeadlineExceeded, InputRefused, RegionShrank
from inferd.instance import Instance, Paces
from inferd.proto import inference_pb2 as pb
from inferd.runner import Runner
from inferd.session import Session, SessionOptions, Slot

WAIT_S = 20


def ended(runner: Runner) -> bool:
    """Whether the runner's thread ends within the time that a test waits."""
    end_s = time.monotonic() + WAIT_S
    while not runner.has_ended and time.monotonic() < end_s:
        time.sleep(0.001)
    return runner.has_ended


class Running:
    """A runner over the embedding model, held until `go`, with what it delivered."""

    def __init__(self, path: Path) -> None:
        self.session = Session(path, SessionOptions(), CpuDevice())
        self.signature: Signature = signature_of(self.session, "embedding", "1", batched=True, max_rows=64)
        self.queue = BatchQueue(self.signature, batch_rows=64, max_queue_rows=1000, max_queue_bytes=1 << 20)
        self.bell = Doorbell()
        self.stats = ModelStats([1.0], [1, 8])
        self.delivered: queue.Queue[Request] = queue.Queue()
        paces = Paces(self.queue, 64, learn=False)
        instance = Instance(self.queue, Slot(self.session), paces, self.stats)
        self.runner = Runner("embedding", self.queue, self.bell, instance, self._deliver)

    def _deliver(self, requests: list[Request]) -> None:
        for request in requests:
            self.delivered.put(request)

    def put(self, token: int | Regions, deadline_ns: int = 0) -> Request:
        """Queue a request for a token, or for that at the start of the region r."""
        info = self.session.inputs[0]
        message = pb.ModelInferRequest(model_name="embedding")
        tensor = message.inputs.add(name=info.name, datatype="INT64", shape=[1, 1])
        if isinstance(token, Regions):
            tensor.parameters["shared_memory_region"].string_param = "r"
            tensor.parameters["shared_memory_byte_size"].int64_param = 8
        else:
            message.raw_input_contents.append(np.array([token], "<i8").tobytes())
        request = decode(message.SerializeToString())
        bind(self.signature, request, token if isinstance(token, Regions) else None)
        request.deadline_ns = deadline_ns
        self.queue.put(request, now_ns=0)
        return request

    def finish(self, count: int) -> list[Request]:
        self.runner.start()
        found = [self.delivered.get(timeout=WAIT_S) for _ in range(count)]
        self.queue.close()
        self.bell.ring()
        assert ended(self.runner)
        return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.embedding(), path)
    made = Running(path)
    yield made
    made.queue.close()
    made.bell.ring()


def answer_of(request: Request) -> np.ndarray:
    assert request.answer is not None, request.error
    return np.frombuffer(pb.ModelInferResponse.FromString(request.answer).raw_output_contents[0], "<f4")


def test_requests_that_wait_together_run_together(running: Running) -> None:
    requests = [running.put(token) for token in (0, 1, 2)]
    running.finish(3)
    assert running.stats.batches == 1
    for token, request in enumerate(requests):
        np.testing.assert_array_equal(answer_of(request), onnx_models.EMBEDDING[token])


def test_one_bad_row_fails_alone_and_its_neighbours_are_answered(running: Running) -> None:
    good, bad, other = running.put(1), running.put(10**6), running.put(2)
    running.finish(3)
    assert isinstance(bad.error, InputRefused)
    np.testing.assert_array_equal(answer_of(good), onnx_models.EMBEDDING[1])
    np.testing.assert_array_equal(answer_of(other), onnx_models.EMBEDDING[2])


def test_what_the_runtime_said_does_not_reach_the_client(running: Running) -> None:
    bad = running.put(10**6)
    running.finish(1)
    assert bad.error is not None
    assert "Gather" not in bad.error.public_text


def test_an_expired_request_leaves_before_the_run(running: Running) -> None:
    late, good = running.put(1, deadline_ns=1), running.put(2)
    running.finish(2)
    assert isinstance(late.error, DeadlineExceeded)
    assert running.stats.rows == 1
    np.testing.assert_array_equal(answer_of(good), onnx_models.EMBEDDING[2])


def test_a_dropped_request_is_never_delivered(running: Running) -> None:
    dropped, good = running.put(1), running.put(2)
    assert running.queue.drop(dropped)
    assert running.finish(1) == [good]
    assert running.delivered.empty()


def test_a_closed_queue_is_emptied_before_the_runner_ends(running: Running) -> None:
    requests = [running.put(token) for token in range(4)]
    running.queue.close()
    running.runner.start()
    assert ended(running.runner)
    assert all(request.answer for request in requests)
    assert running.runner.death_reason() is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_runner_that_dies_says_so(running: Running) -> None:
    def broken(requests: list[Request]) -> None:
        raise RuntimeError("deliver is broken")

    instance = Instance(running.queue, Slot(running.session), Paces(running.queue, 64, learn=False), running.stats)
    runner = Runner("broken", running.queue, running.bell, instance, broken)
    running.put(1)
    runner.start()
    assert ended(runner)
    assert "broken" in (runner.death_reason() or "")


def test_shared_memory_that_shrinks_in_the_queue_is_the_error_of_its_request_alone(running: Running) -> None:
    with memory(np.array([3], "<i8").tobytes()) as kept, memory(bytes(8)) as shrinking:
        regions, other = Regions(1), Regions(1)
        regions.register("r", kept.key, 0, 8)
        other.register("r", shrinking.key, 0, 8)
        requests = [running.put(2), running.put(other), running.put(regions)]
        shrinking.shrink(4)
        running.finish(3)
    assert np.array_equal(answer_of(requests[0]).ravel(), onnx_models.EMBEDDING[2])
    assert np.array_equal(answer_of(requests[2]).ravel(), onnx_models.EMBEDDING[3])
    assert isinstance(requests[1].error, RegionShrank)
    assert "has become smaller" in requests[1].error.public_text
