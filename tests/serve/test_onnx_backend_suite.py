"""The ONNX project's backend tests through a running server: what ONNX Runtime gets right, inferd gets right.

Each model is served without config.pbtxt, so the probe for batchability meets every operator there is.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grpc
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .onnx_backend_cases import Case, Verdict, cases, difference, model_path, verdict, write_repository
from .onnx_backend_wire import answer_tensors, infer_request
from .served_repository import ServedRepository

# The least number of cases that ONNX Runtime must pass by itself: without it, a suite that has become empty
# would pass as well. With onnx 1.23.2 and ONNX Runtime 1.32.0 they are 1,566, 17, 59 and 24.
FLOORS = {"node": 1520, "simple": 15, "pytorch-converted": 55, "pytorch-operator": 20}
MODELS_PER_SERVER = 500
READY_TIMEOUT_S, STOP_TIMEOUT_S, CALL_TIMEOUT_S = 60.0, 30.0, 30.0


@dataclass(frozen=True, slots=True)
class Result:
    """One case, run both ways; an empty reason means that it passed."""

    name: str
    verdict: Verdict
    in_process: str
    served: str
    load_failure: str | None  # the server's reason for not loading the model


@dataclass(frozen=True, slots=True)
class KindResults:
    """All cases of one kind and how the servers that they needed have ended."""

    kind: str
    results: tuple[Result, ...]
    exit_codes: tuple[int, ...]
    bugs: tuple[str, ...]

    def of(self, *verdicts: Verdict) -> list[Result]:
        """The cases of which ONNX Runtime in this process has such an opinion."""
        return [result for result in self.results if result.verdict in verdicts]


@pytest.fixture(scope="module", params=list(FLOORS))
def suite(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> KindResults:
    """One kind of the suite, run in this process and through servers."""
    results: list[Result] = []
    exit_codes: list[int] = []
    bugs: list[str] = []
    everything = cases(request.param)
    root = tmp_path_factory.mktemp(request.param)
    for number, chunk in enumerate(_chunks(everything)):
        repository = root / f"repository{number}"
        write_repository(chunk, repository)
        server = ServedRepository(repository, "--models-strict", "false", "--warmup-budget-ms", "0")
        try:
            # The server loads meanwhile.
            verdicts = [verdict(case, model_path(repository, case)) for case in chunk]
            address = server.wait_until_ready(READY_TIMEOUT_S)
            with grpc.insecure_channel(address) as channel:
                stub = GRPCInferenceServiceStub(channel)
                served = [_served(stub, case) for case in chunk]
            exit_codes.append(server.stop(STOP_TIMEOUT_S))
        finally:
            server.kill()
        failures = {one["model"]: one["reason"] for one in server.records() if one["message"] == "model failed to load"}
        bugs += [str(one) for one in server.records() if "This is a bug" in one["message"]]
        results += [
            Result(case.name, opinion, reason, outcome, failures.get(case.name))
            for case, (opinion, reason), outcome in zip(chunk, verdicts, served, strict=True)
        ]
    return KindResults(request.param, tuple(results), tuple(exit_codes), tuple(bugs))


def _chunks(everything: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for start in range(0, len(everything), MODELS_PER_SERVER):
        yield everything[start : start + MODELS_PER_SERVER]


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


def test_what_onnxruntime_passes_in_process_passes_through_the_server(suite: KindResults) -> None:
    broken = [one for one in suite.of(Verdict.PASSES) if one.served]
    assert not broken, _listed(broken)


def test_onnxruntime_passes_enough_cases_for_this_to_mean_something(suite: KindResults) -> None:
    assert len(suite.of(Verdict.PASSES)) >= FLOORS[suite.kind], _table(suite)


def test_what_onnxruntime_or_the_protocol_cannot_take_is_refused_at_load_with_a_reason(suite: KindResults) -> None:
    loaded = [one for one in suite.of(Verdict.NOT_CARRIED, Verdict.NOT_LOADED) if not one.load_failure]
    assert not loaded, _listed(loaded)


def test_nothing_else_is_refused_at_load(suite: KindResults) -> None:
    refused = [one for one in suite.of(Verdict.PASSES, Verdict.NOT_FED, Verdict.DIFFERS) if one.load_failure]
    assert not refused, _listed(refused)


def test_bf16_passes_through_the_server_although_python_cannot_feed_it(suite: KindResults) -> None:
    broken = [one for one in suite.of(Verdict.NOT_FED) if one.served]
    assert not broken, _listed(broken)


def test_every_server_ends_cleanly_and_reports_no_bug_of_its_own(suite: KindResults) -> None:
    print(_table(suite))  # shown by pytest -rA, for whoever updates the counts in the documentation
    assert set(suite.exit_codes) == {0}
    assert not suite.bugs


def _listed(results: Sequence[Result]) -> str:
    reasons = (
        f"{one.name}: {textwrap.shorten(one.served or one.load_failure or 'it was loaded', 300)}" for one in results
    )
    return "\n".join([f"{len(results)} cases:", *reasons])


def _table(suite: KindResults) -> str:
    through = sum(not one.served for one in suite.results)
    counts = Counter(one.verdict for one in suite.results)
    lines = [f"{suite.kind}: {len(suite.results)} cases, {through} pass through the server"]
    lines += [f"  {counts[verdict]:5} {verdict.value}" for verdict in Verdict]
    lines += [
        f"    {one.name}: {textwrap.shorten(one.in_process, 120)}" for one in suite.of(Verdict.DIFFERS) if one.served
    ]
    return "\n".join(lines)
