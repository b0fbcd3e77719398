"""Versions that come and go a hundred times under load: every answer is right, and nothing of the old ones stays."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnx
import onnx_models as models
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from .calls import arrays, request, rows
from .controlling import READY, WAIT_S, Controlled, bytes_of, wait_until
from .process import Server

EXPLICIT = "--model-control-mode=explicit"
SWAPS = 100
RELOADS = 200
CLIENTS = 4
WEIGHT_BYTES = 8 << 20
# What may stay of a hundred models of 8 MB each: far less than one of them a swap, whatever the allocator keeps.
KEPT_BYTES = 32 << 20


def heavy(factor: float) -> onnx.ModelProto:
    """y = factor * x, with weights that take memory: an average of equal numbers."""
    made = models.scale(factor)
    weights = np.full(WEIGHT_BYTES // 4, factor, "f4")
    made.graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    # A slice that is not folded into a constant, so that the weights are kept.
    made.graph.node[0].input[1] = "mean"
    made.graph.node.insert(0, helper.make_node("ReduceMean", ["seen"], ["mean"], keepdims=0))
    made.graph.node.insert(0, helper.make_node("Mul", ["weights", "one"], ["seen"]))
    made.graph.node.insert(0, helper.make_node("ReduceMax", ["even"], ["one"], keepdims=0))
    made.graph.node.insert(0, helper.make_node("Where", ["is_nan", "x", "ones"], ["even"]))
    made.graph.node.insert(0, helper.make_node("IsNaN", ["x"], ["is_nan"]))
    made.graph.initializer.append(numpy_helper.from_array(np.array(1, "f4"), "ones"))
    assert made.graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT
    return made


class Load:
    """Clients that ask without a pause, and check each answer against the version that it says it is from."""

    def __init__(self, model: Controlled, factor_of: Callable[[int], float]) -> None:
        self._model, self._factor_of = model, factor_of
        self._stopped = threading.Event()
        self.answers: Counter[int] = Counter()
        self.faults: list[str] = []

    @contextmanager
    def running(self) -> Iterator[Load]:
        """All clients at work."""
        threads = [threading.Thread(target=self._ask, args=(seed,)) for seed in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    def _ask(self, seed: int) -> None:
        x = np.abs(rows(seed, 1 + seed)) + 1
        with self._model.server.stub() as stub:
            while not self._stopped.is_set():
                try:
                    answer = stub.ModelInfer(request(self._model.name, x=x), timeout=WAIT_S)
                except grpc.RpcError as error:
                    self.faults.append(f"{error.code()}: {error.details()}")
                    continue
                version = int(answer.model_version)
                if not np.allclose(arrays(answer)["y"], x * self._factor_of(version), rtol=1e-4):
                    self.faults.append(f"an answer of version {version} is not that version's")
                self.answers[version] += 1


@pytest.fixture
def model(repository: Path, server: Callable[..., Server]) -> Iterator[Controlled]:
    """Version 1, loaded."""
    started = server(repository, EXPLICIT)
    with started.stub() as stub:
        made = Controlled(started, stub, repository, "heavy")
        made.put(bytes_of(heavy(1.0)))
        made.load()
        yield made


def test_a_hundred_swaps_under_load_lose_no_request_and_keep_no_memory(model: Controlled) -> None:
    process = psutil.Process(model.server.process.pid)

    def factor_of(version: int) -> float:
        return 1.0 + version % 7

    model.put(bytes_of(heavy(factor_of(1))))
    model.load()
    with Load(model, factor_of).running() as load:
        early_bytes = 0
        for version in range(2, SWAPS + 2):
            model.put(bytes_of(heavy(factor_of(version))), version=version)
            model.load()
            before = load.answers[version]
            wait_until(lambda version=version, before=before: load.answers[version] > before or bool(load.faults))
            shutil.rmtree(model.file(version - 1).parent)
            if version == SWAPS // 10:
                wait_until(lambda version=version: model.states() == {str(version): READY})
                early_bytes = process.memory_info().rss
        wait_until(lambda: model.states() == {str(SWAPS + 1): READY})
    assert load.faults == []
    assert len(load.answers) >= SWAPS
    kept = process.memory_info().rss - early_bytes
    assert kept < KEPT_BYTES, f"{kept} bytes more than after {SWAPS // 10} swaps"


def test_two_hundred_loads_and_unloads_leave_memory_and_threads_as_they_were(model: Controlled) -> None:
    process = psutil.Process(model.server.process.pid)

    def again() -> tuple[int, int]:
        model.unload()
        wait_until(lambda: model.states() == {"": "UNAVAILABLE"})
        found = process.memory_info().rss, process.num_threads()
        model.load()
        return found

    for _ in range(RELOADS // 10):
        early_bytes, early_threads = again()
    for _ in range(RELOADS - RELOADS // 10):
        late_bytes, late_threads = again()
    assert model.answer() == ("1", 1.0)
    assert late_bytes - early_bytes < KEPT_BYTES, f"{late_bytes - early_bytes} bytes more"
    assert late_threads <= early_threads + 1
