"""ModelStatistics of a running server: what it tells is what was really sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import occupy
from .calls import request, rows, slow
from .conftest import UNLEARNT
from .process import CHANNEL_OPTIONS, Server
from .scrape import counted, wait_for

PARTS = ("compute_input", "compute_infer", "compute_output")


def told(stub: GRPCInferenceServiceStub, name: str, version: str = "") -> Any:
    """The one entry for a model with one version."""
    (found,) = stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version)).model_stats
    return found


def sizes(found: Any) -> dict[int, int]:
    """Runs by batch size; each of a size's parts was counted as often as the others."""
    for one in found.batch_stats:
        assert len({getattr(one, part).count for part in PARTS}) == 1
    return {one.batch_size: one.compute_infer.count for one in found.batch_stats}


def adds_up(found: Any) -> bool:
    """What holds between the figures of any model at rest."""
    by_size = sizes(found)
    assert sum(size * count for size, count in by_size.items()) == found.inference_count
    assert sum(by_size.values()) == found.execution_count
    assert len({getattr(found.inference_stats, part).count for part in (*PARTS, "queue")}) == 1
    return True


@pytest.fixture(scope="module")
def alone(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server where each model is asked by one test only."""
    folder = tmp_path_factory.mktemp("alone")
    repository = folder / "repository"
    for name in ("by_size", "refused", "paged"):
        models.write(repository, name, models.mlp())
    for name in ("shared", "left"):
        models.write(repository, name, models.slow(), config="max_batch_size: 4")
    models.write(repository, "idle", models.scale())
    models.write(repository, "free", models.sequence())
    models.write(repository, "versioned", models.scale())
    models.write(repository, "versioned", models.scale(), version=2, config="version_policy { all { } }")
    started = Server(repository, folder, transport, UNLEARNT, {})
    with started.while_ready():
        yield started


def test_what_was_sent_one_by_one_is_told_by_rows_runs_and_sizes(alone: Server) -> None:
    with alone.stub() as stub:
        before_ms = time.time_ns() // 1_000_000
        for count in (1, 3, 3, 5):
            stub.ModelInfer(request("by_size", x=rows(count, count)))
        after_ms = time.time_ns() // 1_000_000
        found = told(stub, "by_size")
        assert adds_up(found)
        assert (found.name, found.version) == ("by_size", "1")
        assert (found.inference_count, found.execution_count) == (12, 4)
        assert sizes(found) == {1: 1, 3: 2, 5: 1}
        assert before_ms <= found.last_inference <= after_ms
        stats = found.inference_stats
        assert (stats.success.count, stats.fail.count, stats.queue.count) == (4, 0, 4)
        assert stats.success.ns >= stats.queue.ns + sum(getattr(stats, part).ns for part in PARTS) > 0
        for part in PARTS:  # alone in its batch, a request takes what its batch takes
            in_batches = sum(getattr(one, part).ns for one in found.batch_stats)
            assert getattr(stats, part).ns == pytest.approx(in_batches, abs=100)
            assert in_batches > 0
        assert (stats.cache_hit.count, stats.cache_miss.count, list(found.memory_usage)) == (0, 0, [])


def test_requests_that_share_a_run_each_count_the_whole_of_it(alone: Server) -> None:
    with alone.stub() as stub:
        busy = occupy(alone, stub, "shared", duration_ms=1500)
        before = told(stub, "shared")
        waiting = [stub.ModelInfer.future(slow(rows(seed), 20, "shared")) for seed in range(4)]
        wait_for(alone, "shared", lambda now: now.queue_rows == 4)
        for call in (busy, *waiting):
            call.result(timeout=20)
        found = told(stub, "shared")
        assert adds_up(found)
        # The one that kept it busy, and the four that waited.
        assert found.inference_count - before.inference_count == 5
        assert found.execution_count - before.execution_count == 2
        (batch,) = [one for one in found.batch_stats if one.batch_size == 4]
        assert batch.compute_infer.count == 1
        others_ns = sum(one.compute_infer.ns for one in found.batch_stats if one.batch_size != 4)
        assert found.inference_stats.compute_infer.ns == pytest.approx(4 * batch.compute_infer.ns + others_ns, abs=1000)
        assert found.inference_stats.queue.ns > 4 * batch.compute_input.ns


def test_a_refused_request_fails_and_is_no_inference(alone: Server) -> None:
    with alone.stub() as stub:
        stub.ModelInfer(request("refused", x=rows(1)))
        for width in (3, 5):
            with pytest.raises(grpc.RpcError):
                stub.ModelInfer(request("refused", x=rows(1, 1, width)))
        found = told(stub, "refused")
        assert adds_up(found)
        assert (found.inference_count, found.execution_count) == (1, 1)
        assert (found.inference_stats.success.count, found.inference_stats.fail.count) == (1, 2)
        assert found.inference_stats.fail.ns > 0


def test_a_request_whose_client_went_while_it_waited_is_no_inference(alone: Server) -> None:
    with alone.stub() as stub:
        busy = occupy(alone, stub, "left", duration_ms=1500)
        before = told(stub, "left")
        with pytest.raises(grpc.RpcError) as late:
            stub.ModelInfer(slow(rows(0), 0, "left"), timeout=0.05)
        assert late.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        busy.result(timeout=20)
        # The next one runs after whatever was still waiting.
        stub.ModelInfer(slow(rows(0), 0, "left"))
        found = told(stub, "left")
        assert adds_up(found)
        assert found.inference_count - before.inference_count == 2
        assert found.inference_stats.fail.count - before.inference_stats.fail.count == 1


def test_rows_that_run_alone_are_counted_as_the_batch_that_they_are(alone: Server) -> None:
    with alone.stub() as stub:
        stub.ModelInfer(request("free", ids=np.zeros((100, 2), "i8")))
        found = told(stub, "free")
        assert adds_up(found)
        assert sizes(found) == {100: 1}


def test_every_loaded_version_is_told_and_each_alone_if_asked_for(alone: Server) -> None:
    with alone.stub() as stub:
        stub.ModelInfer(request("versioned", version="1", x=rows(0, 2)))
        everything = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
        names = [(one.name, one.version) for one in everything]
        assert names[-2:] == [("versioned", "1"), ("versioned", "2")]
        assert [name for name, _ in names] == sorted(name for name, _ in names)
        assert {name for name, _ in names} == {
            "by_size",
            "refused",
            "paged",
            "shared",
            "left",
            "idle",
            "free",
            "versioned",
        }
        both = stub.ModelStatistics(pb.ModelStatisticsRequest(name="versioned")).model_stats
        assert [(one.version, one.inference_count) for one in both] == [("1", 2), ("2", 0)]
        assert told(stub, "versioned", "2").inference_count == 0
        assert told(stub, "versioned", "1").inference_count == 2


def test_a_model_that_has_done_nothing_says_so(alone: Server) -> None:
    with alone.stub() as stub:
        found = told(stub, "idle")
        assert (found.last_inference, found.inference_count, found.execution_count) == (0, 0, 0)
        assert list(found.batch_stats) == []
        assert found.inference_stats.success.ns == 0


@pytest.mark.parametrize(("name", "version"), [("nothing", ""), ("mlp", "2"), ("mlp", "one")])
def test_what_is_not_there_has_no_statistics(stub: GRPCInferenceServiceStub, name: str, version: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelStatistics(pb.ModelStatisticsRequest(name=name, version=version))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_a_model_that_did_not_load_has_no_statistics_and_keeps_nobody_else_from_theirs(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "mlp", models.mlp())
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "1" / "model.onnx").write_bytes(b"no model")
    with server(repository, "--models-strict=false").stub() as stub:
        everything = stub.ModelStatistics(pb.ModelStatisticsRequest()).model_stats
        assert [one.name for one in everything] == ["mlp"]
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelStatistics(pb.ModelStatisticsRequest(name="broken"))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_tritonclient_reads_them(zoo: Server) -> None:
    with triton.InferenceServerClient(zoo.address, channel_args=list(CHANNEL_OPTIONS)) as client:
        assert "statistics" in client.get_server_metadata().extensions
        found = client.get_inference_statistics("mlp", as_json=True)
        assert [one["name"] for one in found["model_stats"]] == ["mlp"]


def test_the_metrics_page_tells_the_same(alone: Server) -> None:
    with alone.stub() as stub:
        for count in (1, 2, 2):
            stub.ModelInfer(request("paged", x=rows(count, count)))
        found, page = told(stub, "paged"), counted(alone, "paged")
        assert (found.inference_count, found.execution_count) == (page.rows, page.batches)
        text = alone.metrics_text()
        for part in PARTS:
            assert f'inferd_{part}_duration_seconds_count{{model="paged",version="1"}} 3.0' in text
