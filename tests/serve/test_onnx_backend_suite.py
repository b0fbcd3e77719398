"""The ONNX project's backend tests through a running server: what ONNX Runtime gets right, inferd gets right.

Each model is served without config.pbtxt, so the probe for batchability meets every operator there is.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import grpc
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .onnx_backend_cases import (
    KINDS,
    Case,
    Verdict,
    cases,
    chunks,
    difference,
    model_path,
    verdict,
    write_repository,
)
from .onnx_backend_wire import answer_tensors, infer_request
from .process import Server

# The least number of cases that ONNX Runtime must pass by itself: without it, a suite that has become empty
# would pass as well. With onnx 1.23.2 and ONNX Runtime 1.32.0 they are 1566, 17, 59 and 24.
FLOORS = {"node": 1520, "simple": 15, "pytorch-converted": 55, "pytorch-operator": 20}
CALL_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """One case, run both ways; an empty reason means that it passed."""

    name: str
    verdict: Verdict
    in_process: str
    served: str
    load_failure: str | None  # the server's reason for not loading the model


@dataclass(frozen=True, slots=True)
class Results:
    """All cases of one kind."""

    kind: str
    results: tuple[Result, ...]

    def of(self, *verdicts: Verdict) -> list[Result]:
        """The cases of which ONNX Runtime in this process has such an opinion."""
        return [result for result in self.results if result.verdict in verdicts]


@pytest.fixture(scope="module", params=KINDS)
def suite(request: pytest.FixtureRequest, transport: str, tmp_path_factory: pytest.TempPathFactory) -> Results:
    """One kind of the suite, run in this process and through servers, each of which must end well."""
    results: list[Result] = []
    for chunk in chunks(cases(request.param)):
        folder = tmp_path_factory.mktemp(request.param)
        repository = write_repository(chunk, folder / "repository")
        server = Server(repository, folder, transport, ("--models-strict=false", "--warmup-budget-ms=0"), {})
        try:
            verdicts = [verdict(case, model_path(repository, case)) for case in chunk]  # the server loads meanwhile
            server.wait_until_ready()
            with server.stub() as stub:
                served = [_served(stub, case) for case in chunk]
            failures = {one["model"]: one["reason"] for one in server.log() if one["message"] == "model failed to load"}
        finally:
            server.stop()
        results += [
            Result(case.name, opinion, reason, outcome, failures.get(case.name))
            for case, (opinion, reason), outcome in zip(chunk, verdicts, served, strict=True)
        ]
    return Results(request.param, tuple(results))


def _served(stub: GRPCInferenceServiceStub, case: Case) -> str:
    """Run a case through the server; why it does not pass, or nothing."""
    if not case.carried:
        return Verdict.NOT_CARRIED.value
    for inputs, expected in case.data_sets:
        try:
            answer = stub.ModelInfer(infer_request(case, inputs), timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as failure:
            return f"{failure.code().name}: {failure.details()}"
        reason = difference(case, answer_tensors(case, answer), expected)
        if reason:
            return reason
    return ""


def test_what_onnxruntime_passes_in_process_passes_through_the_server(suite: Results) -> None:
    print(_table(suite))  # shown by pytest -rA, for whoever updates the counts in the documentation
    broken = [one for one in suite.of(Verdict.PASSES) if one.served]
    assert not broken, _listed(broken)


def test_onnxruntime_passes_enough_cases_for_this_to_mean_something(suite: Results) -> None:
    assert len(suite.of(Verdict.PASSES)) >= FLOORS[suite.kind], _table(suite)


def test_bf16_passes_through_the_server_although_numpy_has_no_such_type(suite: Results) -> None:
    broken = [one for one in suite.of(Verdict.NOT_FED) if one.served]
    assert not broken, _listed(broken)


def test_what_onnxruntime_or_the_protocol_cannot_take_is_refused_at_load(suite: Results) -> None:
    loaded = [one for one in suite.of(Verdict.NOT_CARRIED, Verdict.NOT_LOADED) if not one.load_failure]
    assert not loaded, _listed(loaded)


def test_nothing_else_is_refused_at_load(suite: Results) -> None:
    refused = [one for one in suite.of(Verdict.PASSES, Verdict.NOT_FED, Verdict.DIFFERS) if one.load_failure]
    assert not refused, _listed(refused)


def _listed(results: Sequence[Result]) -> str:
    reasons = (
        f"{one.name}: {textwrap.shorten(one.load_failure or one.served or 'it was loaded', 300)}" for one in results
    )
    return "\n".join([f"{len(results)} cases:", *reasons])


def _table(suite: Results) -> str:
    counts = Counter(one.verdict for one in suite.results)
    through = Counter(one.verdict for one in suite.results if not one.served)
    lines = [f"{suite.kind}: {len(suite.results)} cases, {through.total()} pass through the server"]
    lines += [f"  {counts[one]:5} {one.value}: {through[one]} pass through the server" for one in Verdict]
    lines += [f"    {one.name}: {textwrap.shorten(one.in_process, 120)}" for one in suite.of(Verdict.DIFFERS)]
    return "\n".join(lines)
