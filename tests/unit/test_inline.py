"""Inline runs: short batches run on the loop's own thread, the others are left to the runners'."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_models
import pytest
import uvloop

from inferd._native.bind import bind
from inferd._native.doorbell import Doorbell, LoopBell
from inferd._native.queue import BatchQueue
from inferd._native.stats import ModelStats
from inferd._native.wire import Request, decode
from inferd.batchable import signature_of
from inferd.device import CpuDevice
from inferd.errors import DeadlineExceeded, InputRefused
from inferd.inline import InlineRuns
from inferd.instance import Instance, Paces
from inferd.proto import inference_pb2 as pb
from inferd.session import Session, SessionOptions, Slot

SIZE_CLASS = 4  # of a row of one token, 8 bytes
BUDGET_NS = 50_000_000


class Model:
    """The embedding model, of whose batches those of up to `short_rows` rows are short."""

    def __init__(self, path: Path, runs: InlineRuns, short_rows: int) -> None:
        self.session = Session(path, SessionOptions(), CpuDevice())
        self.signature = signature_of(self.session, "embedding", "1", batched=True, max_rows=64)
        self.queue = BatchQueue(self.signature, batch_rows=64, max_queue_rows=1000, max_queue_bytes=1 << 20)
        self.queue.set_short_rows(SIZE_CLASS, short_rows)
        self.stats = ModelStats([1.0], [1, 8])
        self.settled: list[list[Request]] = []
        self.doorbell = Doorbell()
        instance = Instance(self.queue, Slot(self.session), Paces(self.queue, 64, learn=False), self.stats)
        self.bell: LoopBell = runs.add(self.queue, self.doorbell, instance, self.settled.append).bell

    def put(self, token: int, deadline_ns: int = 0) -> Request:
        message = pb.ModelInferRequest(model_name="embedding")
        message.inputs.add(name=self.session.inputs[0].name, datatype="INT64", shape=[1, 1])
        message.raw_input_contents.append(np.array([token], "<i8").tobytes())
        request = decode(message.SerializeToString())
        bind(self.signature, request)
        request.deadline_ns = deadline_ns
        self.queue.put(request, time.monotonic_ns())
        self.bell.ring()
        return request

    @property
    def is_left_to_threads(self) -> bool:
        return self.doorbell.wait(0)


Make = Callable[..., Model]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    onnx.save(onnx_models.embedding(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@asynccontextmanager
async def models(path: Path, budget_ns: int = BUDGET_NS) -> AsyncIterator[Make]:
    runs = InlineRuns(asyncio.get_running_loop(), budget_ns)
    yield lambda short_rows=64: Model(path, runs, short_rows)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def answer_of(request: Request) -> np.ndarray:
    assert request.answer is not None, request.error
    return np.frombuffer(pb.ModelInferResponse.FromString(request.answer).raw_output_contents[0], "<f4")


def test_what_came_in_one_turn_of_the_loop_runs_in_one_batch(path: Path) -> None:
    async def main() -> None:
        async with models(path) as make:
            model = make()
            requests = [model.put(token) for token in (0, 1, 2)]
            assert model.settled == []  # others may still come in this turn
            await turns()
            assert model.settled == [requests]
            assert model.stats.batches == 1
            for token, request in enumerate(requests):
                np.testing.assert_array_equal(answer_of(request), onnx_models.EMBEDDING[token])
            assert not model.is_left_to_threads

    run(main)


def test_a_batch_that_is_not_short_is_left_to_the_threads(path: Path) -> None:
    async def main() -> None:
        async with models(path) as make:
            model = make(short_rows=2)
            for token in range(3):
                model.put(token)
            await turns()
            assert model.settled == []
            assert model.queue.requests == 3
            assert model.is_left_to_threads

    run(main)


def test_a_request_whose_deadline_has_passed_is_settled_without_a_run(path: Path) -> None:
    async def main() -> None:
        async with models(path) as make:
            model = make()
            late = model.put(1, deadline_ns=1)
            await turns()
            assert model.settled == [[late]]
            assert isinstance(late.error, DeadlineExceeded)
            assert model.stats.batches == 0

    run(main)


def test_one_bad_row_fails_alone_here_too(path: Path) -> None:
    async def main() -> None:
        async with models(path) as make:
            model = make()
            good, bad = model.put(1), model.put(10**6)
            await turns()
            assert isinstance(bad.error, InputRefused)
            np.testing.assert_array_equal(answer_of(good), onnx_models.EMBEDDING[1])

    run(main)


def test_what_is_left_after_a_batch_runs_in_the_next_turn(path: Path) -> None:
    async def main() -> None:
        async with models(path) as make:
            model = make()
            model.queue.set_batch_rows(SIZE_CLASS, 2)
            for token in range(5):
                model.put(token)
            await turns(5)
            assert [len(batch) for batch in model.settled] == [2, 2, 1]

    run(main)


def test_models_beyond_the_budget_of_a_turn_are_left_to_the_threads(path: Path) -> None:
    async def main() -> None:
        async with models(path, budget_ns=1) as make:
            first, second = make(), make()
            first.put(0)
            second.put(0)
            await turns()
            assert len(first.settled) == 1
            assert second.settled == []
            assert second.is_left_to_threads

    run(main)
