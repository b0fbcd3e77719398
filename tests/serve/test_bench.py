"""``inferd bench`` as a person runs it, against real servers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.bench.result import Point, Report
from inferd.bench.sweep import knee
from inferd.errors import Code
from inferd.proto import inference_pb2 as pb

from .process import Server, free_ports

pytest.importorskip("inferd._native.load", reason="built without nghttp2")

SHORT = ("--warmup=0.1", "--duration=0.6")


def bench(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "inferd", "bench", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def measured(*arguments: object, code: int = 0) -> Report:
    done = bench(*arguments, "--json=-")
    assert done.returncode == code, done.stdout + done.stderr
    return Report.model_validate_json(done.stdout)


def only(report: Report) -> Point:
    (point,) = report.points
    return point


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 4), np.float32)


# --- figures ----------------------------------------------------------------------------------------------


def test_a_closed_loop_is_measured_and_described(zoo: Server, tmp_path: Path) -> None:
    report = measured(zoo.address, "mlp", *SHORT, "--concurrency=4", "--batch=3")
    point = only(report)
    assert (point.load.connections, point.load.streams, point.load.rate, point.rows) == (4, 1, None, 3)
    assert point.ok > 0
    assert point.failures == ()
    assert point.latency.count == point.ok == sum(count for _, count in point.latency.buckets)
    assert 0 < point.latency.min_ns <= point.latency.p50_ns <= point.latency.p99_ns <= point.latency.max_ns
    assert point.rows_per_second == pytest.approx(3 * point.requests_per_second)
    assert sum(one.ok for one in point.timeline if one.measured) == point.ok
    assert any(not one.measured for one in point.timeline)
    subject = report.subject
    assert (subject.server, subject.model, subject.model_version) == ("inferd", "mlp", "1")
    assert [(one.name, one.shape) for one in (*subject.inputs, *subject.outputs)] == [("x", (3, 4)), ("y", (3, 2))]
    assert report.local


def test_the_cost_of_a_local_server_is_its_own(zoo: Server) -> None:
    server = only(measured(zoo.address, "mlp", *SHORT)).server
    assert server is not None
    assert server.processes == 1
    assert server.cpu_seconds > 0
    resident = int(Path(f"/proc/{zoo.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    assert server.rss_end == pytest.approx(resident, rel=0.2)


def test_an_open_loop_offers_its_rate_whatever_the_server_does(zoo: Server) -> None:
    point = only(measured(zoo.address, "mlp", "--rate=200", "--arrivals=constant", "--warmup=0.2", "--duration=1"))
    assert point.load.rate == 200
    assert point.requests_per_second == pytest.approx(200, rel=0.3)


def test_an_open_loop_beyond_what_the_server_can_do_shows_what_it_left_unanswered(zoo: Server, tmp_path: Path) -> None:
    slow = npz(tmp_path / "in.npz", x=rows(1), trips=np.full((1, 1), 16_000, "i8"))
    load = ("--rate=500", "--max-in-flight=20", "--data", slow, *SHORT)
    point = only(measured(zoo.address, "slow", *load))
    assert point.requests_per_second < 250
    assert point.unanswered > 20
    assert point.oldest_unanswered_ns > 0


def test_a_number_of_requests_is_sent_exactly(zoo: Server) -> None:
    point = only(measured(zoo.address, "mlp", "--requests=137", "--concurrency=4", "--threads=2"))
    assert point.ok == 137
    assert all(one.measured for one in point.timeline)


def test_the_statistics_of_inferd_itself_are_those_of_the_load(zoo: Server) -> None:
    point = only(measured(zoo.address, "mlp", "--requests=60", "--batch=2", "--concurrency=3"))
    moved = point.statistics
    assert moved is not None
    assert (moved.inferences, point.ok) == (120, 60)
    assert 0 < moved.executions <= 60
    assert min(moved.queue_ns, moved.compute_input_ns, moved.compute_infer_ns, moved.compute_output_ns) > 0


def test_windows_are_measured_until_they_agree(zoo: Server) -> None:
    point = only(measured(zoo.address, "mlp", "--warmup=0", "--window=0.2", "--stability=1"))
    assert point.stable
    assert point.windows >= 3  # as many as are compared, or more where something else ran meanwhile


def test_a_sweep_has_a_point_per_load_and_its_knee(zoo: Server, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    # One at a time, about 8 ms each: more in flight cannot buy anything.
    slow = npz(tmp_path / "in.npz", x=rows(1), trips=np.full((1, 1), 6400, "i8"))
    sweep = ("--concurrency=1:8", "--data", slow, *SHORT)
    report = measured(zoo.address, "slow", *sweep, "--html", page)
    assert report.sweep == "concurrency"
    assert [one.load.connections * one.load.streams for one in report.points] == [1, 2, 4, 8]
    assert report.knee is not None
    assert report.knee == knee(report.points)
    assert page.read_text().startswith("<!")


def test_a_sweep_ends_where_latency_is_past_its_limit(zoo: Server) -> None:
    done = bench(zoo.address, "mlp", "--concurrency=1:64", "--latency-limit=0.001", *SHORT)
    assert done.returncode == 0
    assert "inferd: ended at 1 in flight: p99 is " in done.stderr
    assert "req/s" in done.stdout


# --- inputs and answers --------------------------------------------------------------------------------------


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)
    return path


def test_strings_come_back_as_they_were_sent(zoo: Server) -> None:
    point = only(measured(zoo.address, "identity_BYTES", "--requests=300", "--check"))
    assert point.answers is not None
    assert (point.answers.wrong, point.answers.right) == (0, 300)


@pytest.mark.parametrize("datatype", ["BOOL", "FP16", "BF16"])
def test_every_kind_of_number_is_accepted_and_checked(zoo: Server, datatype: str) -> None:
    point = only(measured(zoo.address, f"identity_{datatype}", "--requests=50", "--batch=2", "--check"))
    assert point.ok == 50
    assert point.answers is not None
    assert point.answers.wrong == 0


def test_expected_outputs_that_are_right_are_found_right(zoo: Server, tmp_path: Path) -> None:
    x = rows(6)
    y = np.maximum(x @ models.MLP_WEIGHTS + models.MLP_BIAS, 0)
    files = ("--data", npz(tmp_path / "in.npz", x=x), "--expect", npz(tmp_path / "out.npz", y=y))
    answers = only(measured(zoo.address, "mlp", "--batch=2", *files, "--requests=300", "--concurrency=1")).answers
    assert answers is not None
    assert (answers.right, answers.wrong) == (300, 0)


def test_wrong_answers_are_exit_code_1_and_the_first_is_told(zoo: Server, tmp_path: Path) -> None:
    x = rows(4)
    y = np.maximum(x @ models.MLP_WEIGHTS + models.MLP_BIAS, 0)
    y[2, 1] += 1
    files = ("--data", npz(tmp_path / "in.npz", x=x), "--expect", npz(tmp_path / "out.npz", y=y))
    # One at a time, so that every answer is looked into.
    report = measured(zoo.address, "mlp", *files, "--requests=40", "--concurrency=1", code=1)
    answers = only(report).answers
    assert answers is not None
    assert answers.wrong == 10
    assert answers.first_wrong is not None
    assert answers.first_wrong.startswith("request 2: output 'y'[0, 1]: expected ")


# --- errors ---------------------------------------------------------------------------------------------------


def test_errors_are_counted_by_code_and_nothing_else_is_exit_code_1(zoo: Server) -> None:
    point = only(measured(zoo.address, "mlp", "--parameter=priority=high", "--requests=20", code=1))
    (failure,) = point.failures
    assert (point.ok, failure.code, failure.count) == (0, "INVALID_ARGUMENT", 20)
    assert "priority" in failure.message


def test_a_deadline_that_is_missed_is_an_error(zoo: Server, tmp_path: Path) -> None:
    slow = npz(tmp_path / "in.npz", x=rows(1), trips=np.full((1, 1), 80_000, "i8"))
    point = only(measured(zoo.address, "slow", "--data", slow, "--timeout-ms=20", "--requests=5", code=1))
    assert [(one.code, one.count) for one in point.failures] == [("DEADLINE_EXCEEDED", 5)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nobody",), "has no model 'nobody' to offer (NOT_FOUND"),
        (("sequence",), "leaves dimensions open; give a length for each ?: --shape ids:?"),
        (("no_batch", "--batch=2"), "--batch 2: model 'no_batch' takes one row per request"),
        (("mlp", "--batch=4000"), "--batch 4000: model 'mlp' takes at most"),
        (("mlp", "--data=/nowhere.npz"), "/nowhere.npz: cannot be read: No such file or directory"),
        (("mlp", "--concurrency=1", "--rate=1"), "--concurrency and --rate exclude each other"),
        (("mlp", "--json=/nowhere/x", "--requests=1"), "/nowhere/x: cannot be written"),
        (("mlp", "--server-pid=4194304"), "--server-pid: "),
    ],
)
def test_what_cannot_be_measured_is_one_line_and_exit_code_2(
    zoo: Server, arguments: tuple[str, ...], told: str
) -> None:
    done = bench(zoo.address, *arguments)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("inferd: ")]
    assert told in line


def test_a_server_that_is_not_there_is_one_line_and_exit_code_2() -> None:
    done = bench(f"127.0.0.1:{free_ports(1)[0]}", "mlp")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "cannot be reached" in done.stderr


def test_a_server_that_stops_answering_ends_the_measurement_and_shows(
    server: Callable[..., Server], repository: Path
) -> None:
    models.write(repository, "mlp", models.mlp())
    one = server(repository)
    command = [sys.executable, "-m", "inferd", "bench", one.address, "mlp", "--requests=100000000", "--window=0.1"]
    with subprocess.Popen([*command, "--json=-"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        wait_for_requests(one)
        one.process.send_signal(signal.SIGSTOP)
        try:
            stdout, stderr = running.communicate(timeout=40)
        finally:
            one.process.send_signal(signal.SIGCONT)
    assert running.returncode == 1, stderr
    point = only(Report.model_validate_json(stdout))
    assert point.stalled
    assert point.ok > 0
    assert point.unanswered == 8
    assert point.oldest_unanswered_ns > 2_000_000_000
    assert "the server has stopped answering" in stderr


def wait_for_requests(server: Server) -> None:
    """Wait until a load has arrived: more requests than the runner sends on its own."""
    end = time.monotonic() + 30
    while True:
        counts = [line for line in server.metrics_text().splitlines() if line.startswith("inferd_requests_total")]
        if any(float(line.split()[-1]) > 50 for line in counts):
            return
        assert time.monotonic() < end, server.stderr


# --- other servers ---------------------------------------------------------------------------------------------


@contextmanager
def plain_server(**methods: Callable[[bytes], bytes]) -> Iterator[str]:
    """A server with these methods of the protocol and no others."""

    def handler(answer: Callable[[bytes], bytes]) -> grpc.RpcMethodHandler:
        def handle(request: bytes, context: grpc.ServicerContext) -> bytes:
            return answer(request)

        return grpc.unary_unary_rpc_method_handler(handle)

    service = {name: handler(answer) for name, answer in methods.items()}
    with ThreadPoolExecutor(max_workers=4) as pool:
        started = grpc.server(pool)
        generic = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", service)
        started.add_generic_rpc_handlers((generic,))
        port = started.add_insecure_port("127.0.0.1:0")
        started.start()
        yield f"127.0.0.1:{port}"
        started.stop(grace=None).wait()


def echo(request: bytes) -> bytes:
    """Inputs as outputs, with typed contents: servers need not answer raw."""
    asked = pb.ModelInferRequest.FromString(request)
    answer = pb.ModelInferResponse(model_name=asked.model_name, id=asked.id)
    for tensor, raw in zip(asked.inputs, asked.raw_input_contents, strict=True):
        output = answer.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        output.contents.fp32_contents.extend(np.frombuffer(raw, "<f4"))
    return answer.SerializeToString()


def test_a_server_with_nothing_but_inference_is_measured_with_arrays(tmp_path: Path) -> None:
    x = npz(tmp_path / "in.npz", x=np.arange(6, dtype="f4").reshape(2, 3))
    with plain_server(ModelInfer=echo) as address:
        report = measured(address, "m", "--data", x, "--check", "--requests=50")
        without = bench(address, "m")
    point = only(report)
    assert point.ok == 50
    assert point.answers is not None
    assert point.answers.right == 50
    assert point.statistics is None
    assert report.subject.inputs[0].shape == (2, 3)
    assert without.returncode == 2
    assert "does not tell the inputs of model 'm'; give --data FILE.npz" in without.stderr


def test_a_server_that_counts_is_asked_before_and_after() -> None:
    served = [0]

    def infer(request: bytes) -> bytes:
        served[0] += 1
        return echo(request)

    def metadata(request: bytes) -> bytes:
        told = pb.ModelMetadataResponse(name="m", versions=["7"])
        told.inputs.add(name="x", datatype="FP32", shape=[-1, 2])
        return told.SerializeToString()

    def statistics(request: bytes) -> bytes:
        told = pb.ModelStatisticsResponse()
        one = told.model_stats.add(name="m", inference_count=3 * served[0], execution_count=served[0])
        one.inference_stats.queue.ns = 5 * served[0]
        return told.SerializeToString()

    with plain_server(ModelInfer=infer, ModelMetadata=metadata, ModelStatistics=statistics) as address:
        report = measured(address, "m", "--requests=40")
    found = only(report).statistics
    assert report.subject.model_version == "7"
    assert found is not None
    assert (found.inferences, found.executions, found.queue_ns) == (120, 40, 200)


def test_metadata_goes_with_every_call_and_codes_are_told_as_they_come() -> None:
    refusals: list[str] = []

    def guarded(request: bytes, context: grpc.ServicerContext) -> bytes:
        if ("x-token", "secret") not in context.invocation_metadata():
            refusals.append("no token")
        context.abort(grpc.StatusCode.ABORTED, "not today: 100 %")
        raise AssertionError

    def ready(request: bytes, context: grpc.ServicerContext) -> bytes:
        if ("x-token", "secret") not in context.invocation_metadata():
            refusals.append("no token")
        told = pb.ModelMetadataResponse(name="m")
        told.inputs.add(name="x", datatype="FP32", shape=[2])
        return told.SerializeToString()

    handlers = {"ModelInfer": guarded, "ModelMetadata": ready}
    with ThreadPoolExecutor(max_workers=4) as pool:
        started = grpc.server(pool)
        service = {name: grpc.unary_unary_rpc_method_handler(one) for name, one in handlers.items()}
        generic = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", service)
        started.add_generic_rpc_handlers((generic,))
        port = started.add_insecure_port("127.0.0.1:0")
        started.start()
        report = measured(f"127.0.0.1:{port}", "m", "-H", "X-Token: secret", "--requests=10", code=1)
        started.stop(grace=None).wait()
    assert refusals == []
    assert [(one.code, one.count, one.message) for one in only(report).failures] == [
        (Code.ABORTED.name, 10, "not today: 100 %")
    ]
