"""The ONNX project's backend tests as single rows that arrive at once: whatever inferd batches, it may batch.

The models are rewritten to leave their first dimension open, as exporters do. For many operators that makes a
batch dimension of it, for others a trap, and only the probe at load can tell. The yardstick is the recorded
outputs: row r of a request's inputs, sent alone, must be answered with row r of its outputs.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .onnx_backend_cases import (
    KINDS,
    Case,
    Tensors,
    Verdict,
    cases,
    chunks,
    difference,
    model_path,
    verdict,
    with_open_rows,
    write_repository,
)
from .onnx_backend_wire import answer_tensors, infer_request
from .process import Server
from .scrape import samples

# The least number of models that must be found batchable, or there is nothing to see here.
# With onnx 1.23.2 and ONNX Runtime 1.32.0 they are 575, 7, 45 and 8.
FLOORS = {"node": 500, "simple": 5, "pytorch-converted": 40, "pytorch-operator": 6}
MOST_ROWS = 8
CALL_TIMEOUT_S = 30.0
FLAGS = (
    "--models-strict=false",
    "--warmup-budget-ms=0",
    "--batching-learn=false",
    "--batching-max-queue-delay-us=5000",  # so that rows sent at once meet in a batch
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One batched model; an empty reason means that every row was answered as recorded."""

    name: str
    requests: int
    batches: int
    reason: str


@dataclass(frozen=True, slots=True)
class Batched:
    """All models of one kind that the server batches."""

    kind: str
    outcomes: tuple[Outcome, ...]

    @property
    def requests(self) -> int:
        """How many requests were answered."""
        return sum(one.requests for one in self.outcomes)

    @property
    def batches(self) -> int:
        """How many runs that took."""
        return sum(one.batches for one in self.outcomes)


@pytest.fixture(scope="module", params=KINDS)
def batched(request: pytest.FixtureRequest, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Batched:
    """One kind of the suite with open first dimensions, its rows sent through servers that must end well."""
    outcomes: list[Outcome] = []
    suitable = [with_open_rows(case) for case in cases(request.param) if case.carried and 2 <= case.rows <= MOST_ROWS]
    for chunk in chunks(suitable):
        folder = tmp_path_factory.mktemp(f"{request.param}-rows")
        repository = write_repository(chunk, folder / "repository")
        server = Server(repository, folder, transport, FLAGS, {})
        try:
            right = {
                case.name
                for case in chunk
                if verdict(case, model_path(repository, case))[0] in (Verdict.PASSES, Verdict.NOT_FED)
            }
            server.wait_until_ready()
            served = {one["model"]: one["batching"] for one in server.log() if one["message"] == "serving model"}
            with server.stub() as stub:
                reasons = {
                    case.name: _rows_served(stub, case)
                    for case in chunk
                    if case.name in right and not served.get(case.name, "off").startswith("off")
                }
            counts = Counter(
                {
                    (name, labels["model"]): int(value)
                    for name, labels, value in samples(server)
                    if name in ("inferd_requests_total", "inferd_batches_total") and labels.get("code", "OK") == "OK"
                }
            )
        finally:
            server.stop()
        outcomes += [
            Outcome(name, counts["inferd_requests_total", name], counts["inferd_batches_total", name], reason)
            for name, reason in reasons.items()
        ]
    return Batched(request.param, tuple(outcomes))


def _rows_served(stub: GRPCInferenceServiceStub, case: Case) -> str:
    """Send one row while no other is there, then all at once; why an answer is not as recorded, or nothing."""
    for inputs, outputs in case.data_sets:
        rows = list(_rows(inputs, outputs))
        for batch in (rows[:1], rows):
            calls = [stub.ModelInfer.future(infer_request(case, row), timeout=CALL_TIMEOUT_S) for row, _ in batch]
            for index, (call, (_, expected)) in enumerate(zip(calls, batch, strict=True)):
                try:
                    reason = difference(case, answer_tensors(case, call.result()), expected)
                except grpc.RpcError as failure:
                    reason = f"{failure.code().name}: {failure.details()}"
                if reason:
                    return f"row {index} of {len(batch)}: {reason}"
    return ""


def _rows(inputs: Tensors, outputs: Tensors) -> Iterator[tuple[Tensors, Tensors]]:
    for row in range(len(inputs[0])):
        yield (
            tuple(np.ascontiguousarray(tensor[row : row + 1]) for tensor in inputs),
            tuple(tensor[row : row + 1] for tensor in outputs),
        )


def test_rows_of_different_requests_are_answered_as_recorded(batched: Batched) -> None:
    broken = [one for one in batched.outcomes if one.reason]
    assert not broken, "\n".join(f"{one.name}: {textwrap.shorten(one.reason, 300)}" for one in broken)


def test_enough_models_are_batched_for_this_to_mean_something(batched: Batched) -> None:
    # Shown by pytest -rA, for whoever updates the counts in the documentation.
    print(
        f"{batched.kind}: {len(batched.outcomes)} models batched, "
        f"{batched.requests} requests in {batched.batches} batches"
    )
    assert len(batched.outcomes) >= FLOORS[batched.kind]


def test_the_rows_did_share_runs(batched: Batched) -> None:
    assert batched.batches < 0.9 * batched.requests
