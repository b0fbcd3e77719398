"""The metrics page with Triton's names, beside that of a real Triton that was asked the same."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.calls import request, rows
from serve.process import POLL_S, Server

from .answers import Call, ask
from .cases.queueing import FEW, IMPATIENT, several
from .oracle import Oracle

TIMEOUT_S = 30.0
# All that a Triton without GPUs has of models by default.
NAMES = {
    "nv_inference_request_success", "nv_inference_request_failure", "nv_inference_count", "nv_inference_exec_count",
    "nv_inference_request_duration_us", "nv_inference_queue_duration_us", "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us", "nv_inference_compute_output_duration_us",
    "nv_inference_pending_request_count",
}  # fmt: skip
COUNTED = ("nv_inference_request_success", "nv_inference_count", "nv_inference_exec_count")
Found = dict[tuple[str, ...], float]


@pytest.fixture(params=("native", "grpcio", "triton"))
def asked(request: pytest.FixtureRequest) -> Iterator[tuple[Callable[[], str], grpc.Channel]]:
    """The metrics page of a server, and a connection to it: inferd on each transport, and the real one."""
    one: Oracle | Server
    if request.param == "triton":
        one = request.getfixturevalue("real")
    else:
        one = request.getfixturevalue("started")(request.param)
    with one.channel() as channel:
        yield one.metrics_text, channel


def told(text: str, model: str) -> Found:
    """The samples of one model with Triton's names, by name and reason, over its versions."""
    found: Found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.startswith("nv_inference") and sample.labels.get("model") == model:
                assert set(sample.labels) <= {"model", "version", "reason"}
                # The parser gives counters an ending that the page does not have.
                name = sample.name.removesuffix("_total")
                key = (name, *(value for label, value in sample.labels.items() if label == "reason"))
                found[key] = found.get(key, 0) + sample.value
    return found


def grown(text: Callable[[], str], model: str, before: Found, name: tuple[str, ...], least: float) -> Found:
    """What has been counted since, once that of one name has come to `least`: Triton counts after it has answered."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        since = {key: value - before.get(key, 0) for key, value in told(text(), model).items()}
        if since[name] >= least:
            return since
        assert time.monotonic() < end, since
        time.sleep(POLL_S)


def test_the_names_and_labels_are_tritons(asked: tuple[Callable[[], str], grpc.Channel]) -> None:
    text, _ = asked
    assert {name for name, *_ in told(text(), "scale")} == NAMES
    reasons = {key[1] for key in told(text(), "scale") if len(key) == 2}
    assert reasons == {"REJECTED", "CANCELED", "BACKEND", "OTHER"}


def test_requests_rows_and_runs_are_counted_alike(asked: tuple[Callable[[], str], grpc.Channel]) -> None:
    text, channel = asked
    before = told(text(), "scale")
    calls = [Call("ModelInfer", request("scale", x=rows(1, count))) for count in (1, 2, 4)]
    wrong = Call("ModelInfer", request("scale", x=rows(1), outputs=["nothing"]))
    ask(channel, (*calls, wrong))
    since = grown(text, "scale", before, ("nv_inference_request_success",), 3)
    assert {name: since[(name,)] for name in COUNTED} == dict(zip(COUNTED, (3, 7, 3), strict=True))
    # What is wrong in itself is refused before anything is counted.
    assert {key[1]: value for key, value in since.items() if len(key) == 2} == {
        "REJECTED": 0, "CANCELED": 0, "BACKEND": 0, "OTHER": 0,
    }  # fmt: skip
    assert since[("nv_inference_pending_request_count",)] == 0
    durations = {name for (name, *_), value in since.items() if name.endswith("_duration_us") and value > 0}
    assert {"nv_inference_request_duration_us", "nv_inference_compute_infer_duration_us"} <= durations
    # A request takes at least as long as its parts.
    parts = sum(value for (name, *_), value in since.items() if name.endswith("_us") and "request" not in name)
    assert since[("nv_inference_request_duration_us",)] >= parts - len(calls) * 4  # each is rounded


@pytest.mark.parametrize(("level", "requests"), [(FEW, 6), (IMPATIENT, 3)])
def test_who_waited_too_long_was_rejected_and_who_never_queued_is_not_counted(
    asked: tuple[Callable[[], str], grpc.Channel], level: int, requests: int
) -> None:
    text, channel = asked
    before = told(text(), "levels")
    ok = sum(answer.code == "OK" for answer in ask(channel, several(requests, level), at_once=True))
    assert 0 < ok < requests
    since = grown(text, "levels", before, ("nv_inference_request_success",), ok)
    assert since[("nv_inference_request_success",)] == ok
    if level == IMPATIENT:
        since = grown(text, "levels", before, ("nv_inference_request_failure", "REJECTED"), requests - ok)
    failures = {key[1]: value for key, value in since.items() if len(key) == 2}
    late = requests - ok if level == IMPATIENT else 0
    assert failures == {"REJECTED": late, "CANCELED": 0, "BACKEND": 0, "OTHER": 0}
