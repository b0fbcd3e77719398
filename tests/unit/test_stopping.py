"""Runs that nobody waits for: stopped if nobody at all does, and the next one is right."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx_models
import pytest

from inferd._native.bind import bind
from inferd._native.queue import BatchQueue
from inferd._native.stats import ModelStats
from inferd._native.wire import Request, decode
from inferd.batchable import signature_of
from inferd.device import CpuDevice
from inferd.errors import RunStopped
from inferd.instance import Instance, Paces
from inferd.proto import inference_pb2 as pb
from inferd.session import Session, SessionOptions, Slot

LIMIT_S = 30.0
MINUTES = 10**9  # turns of the model's loop: far more than anybody waits for


class Slow:
    """One instance of the slow model, which runs on a thread when it is told to."""

    def __init__(self, path: Path) -> None:
        self.session = Session(path, SessionOptions(), CpuDevice())
        self.signature = signature_of(self.session, "slow", "1", batched=True, max_rows=64)
        self.queue = BatchQueue(self.signature, batch_rows=64, max_queue_rows=1000, max_queue_bytes=1 << 20)
        self.stats = ModelStats([1.0], [1, 8])
        self.slot = Slot(self.session)
        self.instance = Instance(self.queue, self.slot, Paces(self.queue, 64, learn=False), self.stats)

    def put(self, trips: int) -> Request:
        """A request that somebody waits for."""
        message = pb.ModelInferRequest(model_name="slow")
        values = {"x": np.ones((1, 4), "<f4"), "trips": np.full((1, 1), trips, "<i8")}
        for name, datatype in (("x", "FP32"), ("trips", "INT64")):
            message.inputs.add(name=name, datatype=datatype, shape=values[name].shape)
            message.raw_input_contents.append(values[name].tobytes())
        request = decode(message.SerializeToString())
        bind(self.signature, request)
        request.completion = object()
        self.queue.put(request, now_ns=0)
        return request

    def begin(self) -> threading.Thread:
        """Run what waits, on a thread."""
        self.batch = batch = self.queue.take(0)
        assert batch is not None
        thread = threading.Thread(target=self.instance.run, args=(batch,))
        thread.start()
        return thread


@pytest.fixture
def slow(tmp_path: Path) -> Iterator[Slow]:
    path = tmp_path / "model.onnx"
    onnx.save(onnx_models.slow(), path)
    made = Slow(path)
    yield made
    # pytest holds what it gave to a test longer than a debug build counts.
    vars(made).clear()


def until(is_so: Callable[[], bool], meanwhile: Callable[[], object]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not is_so():
        assert time.monotonic() < end_s
        meanwhile()
        time.sleep(0.001)


def test_a_run_is_stopped_once_nobody_waits_for_any_of_its_members_and_the_next_one_is_right(slow: Slow) -> None:
    members = [slow.put(MINUTES), slow.put(MINUTES)]
    thread = slow.begin()
    for member in members:
        member.completion = None
    # It may not have begun yet, and then there is nothing to stop.
    until(lambda: not thread.is_alive(), slow.instance.gone)
    assert [type(member.error) for member in members] == [RunStopped, RunStopped]
    assert (slow.stats.stopped_batches, slow.stats.wasted_rows, slow.stats.batches) == (1, 2, 0)
    following = slow.put(1)
    slow.begin().join(LIMIT_S)
    assert following.answer is not None
    assert slow.stats.batches == 1


def test_a_run_goes_on_while_somebody_waits_for_one_of_its_members(slow: Slow) -> None:
    left, waiting = slow.put(400_000), slow.put(400_000)
    thread = slow.begin()
    left.completion = None
    until(lambda: not thread.is_alive(), slow.instance.gone)
    assert waiting.answer is not None
    assert (slow.stats.stopped_batches, slow.stats.batches) == (0, 1)


def test_somebody_who_waits_for_a_run_that_was_stopped_all_the_same_gets_a_run_of_his_own(slow: Slow) -> None:
    left, waiting = slow.put(MINUTES), slow.put(2)
    thread = slow.begin()
    left.completion = None
    batch = slow.batch
    assert batch is not None
    until(lambda: not thread.is_alive(), lambda: slow.slot.stop(batch))
    assert waiting.answer is not None
    assert isinstance(left.error, RunStopped)


def test_only_the_run_of_that_batch_is_stopped(slow: Slow) -> None:
    slot = Slot(slow.session)
    slow.put(1)
    other = slow.queue.take(0)
    slow.put(1)
    batch = slow.queue.take(0)
    assert other is not None
    assert batch is not None
    slot.stop(other)
    assert slot.run(batch)
