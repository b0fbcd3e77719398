"""What a model's config.pbtxt says is what happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .backlog import occupy, queue_behind
from .calls import arrays, request, rows
from .conftest import Refusal
from .process import Server
from .scrape import counted

PREFER_2 = "max_batch_size: 8 dynamic_batching { preferred_batch_size: [ 2 ] }"
DELAY_1_S = "max_batch_size: 8 dynamic_batching { max_queue_delay_microseconds: 1000000 }"


@pytest.fixture(scope="module")
def configured(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server whose models each have something to say."""
    folder = tmp_path_factory.mktemp("configured")
    repository = folder / "repository"
    models.write(repository, "at_most_2", models.scale(), config="max_batch_size: 2")
    models.write(repository, "no_batches", models.scale(), config="max_batch_size: 0")
    models.write(repository, "prefers_2", models.slow(), config=PREFER_2)
    models.write(repository, "waits", models.scale(), config=DELAY_1_S)
    models.write(repository, "coupled_but_declared", models.coupled(), config="max_batch_size: 4")
    models.write(
        repository,
        "declares_all",
        models.two_by_two(),
        config="""
            name: "declares_all" platform: "onnxruntime_onnx" max_batch_size: 4
            input [ { name: "a" data_type: TYPE_FP32 dims: [ 3 ] }, { name: "b" data_type: TYPE_INT64 dims: [ 1 ] } ]
            output [ { name: "total" data_type: TYPE_FP32 dims: [ -1 ] } ]
            parameters { key: "intra_op_thread_count" value { string_value: "1" } }
        """,
    )
    started = Server(repository, folder, transport, ("--warmup-budget-ms=0", "--batching-learn=false"), {})
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.stop()


def test_a_request_of_more_rows_than_max_batch_size_is_refused(configured: Server) -> None:
    with configured.stub() as stub:
        assert len(arrays(stub.ModelInfer(request("at_most_2", x=rows(1, 2))))["y"]) == 2
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(request("at_most_2", x=rows(1, 3)))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "'x' has 3 rows" in refused.value.details()


def test_batches_keep_to_max_batch_size(configured: Server) -> None:
    with configured.stub() as stub:
        for call in [stub.ModelInfer.future(request("at_most_2", x=rows(seed))) for seed in range(40)]:
            call.result()
    assert max(counted(configured, "at_most_2").batch_rows) <= 2


def test_max_batch_size_0_takes_any_rows_and_never_joins_requests(configured: Server) -> None:
    before = counted(configured, "no_batches")
    with configured.stub() as stub:
        calls = [stub.ModelInfer.future(request("no_batches", x=rows(seed, 3))) for seed in range(20)]
        for seed, call in enumerate(calls):
            assert np.array_equal(arrays(call.result())["y"], rows(seed, 3) * np.float32(2))
    assert counted(configured, "no_batches").since(before).batches == 20


def test_requests_that_wait_leave_in_batches_of_the_preferred_size(configured: Server) -> None:
    with configured.stub() as stub:
        busy = occupy(configured, stub, "prefers_2")
        before = counted(configured, "prefers_2")
        calls = [*queue_behind(configured, stub, 6, "prefers_2"), busy]
        for call in calls:
            call.result()
    # The batch that was under way, then the six by twos.
    assert counted(configured, "prefers_2").since(before).batches == 1 + 3


def test_a_queue_delay_gathers_requests_that_would_have_run_alone(configured: Server) -> None:
    before = counted(configured, "waits")
    with configured.stub() as stub:
        for call in [stub.ModelInfer.future(request("waits", x=rows(seed))) for seed in range(3)]:
            call.result()
    after = counted(configured, "waits").since(before)
    assert (after.rows, after.batches) == (3, 1)


def test_a_batch_that_is_full_does_not_wait_for_the_delay(configured: Server) -> None:
    with configured.stub() as stub:
        stub.ModelInfer(request("waits", x=rows(0, 8)), timeout=0.9)


def test_a_config_that_contradicts_the_probe_is_obeyed_with_a_warning(configured: Server) -> None:
    with configured.stub() as stub:
        config = stub.ModelConfig(pb.ModelConfigRequest(name="coupled_but_declared")).config
    assert config.max_batch_size == 4
    warnings = [one for one in configured.log() if one["level"] == "warning"]
    [warning] = [one["message"] for one in warnings if one["model"] == "coupled_but_declared"]
    assert "rows run together differ from rows run alone in output 'y'" in warning


def test_a_config_is_completed_from_the_model(configured: Server) -> None:
    with configured.stub() as stub:
        config = stub.ModelConfig(pb.ModelConfigRequest(name="declares_all")).config
    assert [one.name for one in config.output] == ["total", "product"]
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    assert config.instance_group[0].count == 1


def test_a_model_without_a_config_batches_if_its_rows_are_independent(stub: GRPCInferenceServiceStub) -> None:
    sizes = {
        name: stub.ModelConfig(pb.ModelConfigRequest(name=name)).config.max_batch_size
        for name in ("mlp", "two_by_two", "sequence", "embedding", "identity_BYTES", "coupled", "no_batch", "scalar")
    }
    assert sizes == {
        "mlp": 64, "two_by_two": 64, "sequence": 64, "embedding": 64, "identity_BYTES": 64,
        "coupled": 0, "no_batch": 0, "scalar": 0,
    }  # fmt: skip


WRONG = {
    "dims": ('input { name: "x" data_type: TYPE_FP32 dims: [ 5 ] } max_batch_size: 4', "has dims [5]"),
    "datatype": ('input { name: "x" data_type: TYPE_INT32 dims: [ 4 ] }', "is INT32; the model says FP32"),
    "input name": ('input { name: "z" data_type: TYPE_FP32 dims: [ 4 ] }', "names the input 'z'"),
    "output name": ('output { name: "z" data_type: TYPE_FP32 dims: [ 4 ] }', "names the output 'z'"),
    "syntax": ("max_batch_size 4 {", "line 1"),
    "unknown field": ("max_batchsize: 4", "max_batchsize"),
    "folder name": ('name: "other"', "'other'"),
    "negative size": ("max_batch_size: -1", "max_batch_size"),
    "platform": ('platform: "tensorrt_plan"', "'tensorrt_plan'"),
}


@pytest.mark.parametrize(("config", "said"), WRONG.values(), ids=WRONG)
def test_a_config_that_is_wrong_keeps_the_server_from_starting(
    repository: Path, refused: Callable[..., Refusal], config: str, said: str
) -> None:
    models.write(repository, "scale", models.scale(), config=config)
    ended = refused(repository)
    assert ended.code == 2
    [line] = ended.lines
    assert line.startswith("inferd: model 'scale")
    assert said in line


def test_a_batch_size_for_a_model_with_a_fixed_first_dimension_is_refused(
    repository: Path, refused: Callable[..., Refusal]
) -> None:
    models.write(repository, "fixed", models.scale(dims=[2, 4]), config="max_batch_size: 4")
    ended = refused(repository)
    assert ended.code == 2
    [line] = ended.lines
    assert "input 'x' has the fixed first dimension 2" in line
