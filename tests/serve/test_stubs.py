"""The protocol's own methods, called with the stubs that inferd installs."""

from __future__ import annotations

from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf.message_factory import GetMessageClass
from onnx_models import MANY_OUTPUTS, MLP_BIAS, MLP_WEIGHTS

from inferd.proto import inference_pb2 as pb
from inferd.proto import model_config_pb2
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.rpc.inference import SERVICE

from .calls import arrays, request, rows

OFFERED = {
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer",
    "ModelStatistics", "ModelStreamInfer", "LogSettings",
    "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload",
}  # fmt: skip
NOT_OFFERED = sorted(method.name for method in SERVICE.methods if method.name not in OFFERED)


def test_a_ready_server_is_live_and_ready(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready


def test_server_metadata_names_the_server_and_only_extensions_that_work(stub: GRPCInferenceServiceStub) -> None:
    answer = stub.ServerMetadata(pb.ServerMetadataRequest())
    assert answer.name == "inferd"
    assert answer.version
    assert list(answer.extensions) == ["classification", "model_configuration", "schedule_policy", "statistics"]


def test_a_loaded_model_is_ready_with_and_without_a_version(stub: GRPCInferenceServiceStub) -> None:
    assert stub.ModelReady(pb.ModelReadyRequest(name="versioned")).ready
    assert stub.ModelReady(pb.ModelReadyRequest(name="versioned", version="1")).ready


def test_model_metadata_shows_the_batch_dimension_as_any_size(stub: GRPCInferenceServiceStub) -> None:
    answer = stub.ModelMetadata(pb.ModelMetadataRequest(name="two_by_two"))
    assert (answer.name, answer.platform, list(answer.versions)) == ("two_by_two", "onnxruntime_onnx", ["1"])
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.inputs] == [
        ("a", "FP32", [-1, 3]),
        ("b", "INT64", [-1, 1]),
    ]
    assert [(one.name, one.datatype, list(one.shape)) for one in answer.outputs] == [
        ("total", "FP32", [-1, 3]),
        ("product", "FP32", [-1, 3]),
    ]


def test_model_metadata_lists_every_version_that_is_served(stub: GRPCInferenceServiceStub) -> None:
    assert list(stub.ModelMetadata(pb.ModelMetadataRequest(name="versioned")).versions) == ["1", "3"]


def test_model_config_has_dims_without_the_batch_dimension(stub: GRPCInferenceServiceStub) -> None:
    config = stub.ModelConfig(pb.ModelConfigRequest(name="two_by_two")).config
    assert config.max_batch_size == 64
    assert [list(one.dims) for one in config.input] == [[3], [1]]
    assert config.input[1].data_type == model_config_pb2.TYPE_INT64


def test_model_config_of_a_model_that_cannot_batch_says_0_and_full_dims(stub: GRPCInferenceServiceStub) -> None:
    config = stub.ModelConfig(pb.ModelConfigRequest(name="coupled")).config
    assert config.max_batch_size == 0
    assert list(config.input[0].dims) == [-1, 4]


def test_an_inference_answers_what_the_model_computes(stub: GRPCInferenceServiceStub) -> None:
    x = rows(1, 5)
    y = arrays(stub.ModelInfer(request("mlp", x=x)))["y"]
    np.testing.assert_allclose(y, np.maximum(x @ MLP_WEIGHTS + MLP_BIAS, 0), rtol=1e-5, atol=1e-6)


def test_the_answer_has_the_id_the_name_and_the_version_that_answered(stub: GRPCInferenceServiceStub) -> None:
    answer = stub.ModelInfer(request("versioned", id="r-1/é", x=rows(2)))
    assert (answer.id, answer.model_name, answer.model_version) == ("r-1/é", "versioned", "3")


@pytest.mark.parametrize(("version", "factor"), [("", 30), ("1", 10), ("3", 30)])
def test_the_version_asked_for_answers(stub: GRPCInferenceServiceStub, version: str, factor: int) -> None:
    x = rows(3)
    y = arrays(stub.ModelInfer(request("versioned", version=version, x=x)))["y"]
    assert np.array_equal(y, x * np.float32(factor))


def test_inputs_may_come_in_any_order(stub: GRPCInferenceServiceStub) -> None:
    a, b = rows(4, 2, 3), np.array([[2], [3]], "i8")
    got = arrays(stub.ModelInfer(request("two_by_two", b=b, a=a)))
    assert np.array_equal(got["total"], a + b.astype("f4"))
    assert np.array_equal(got["product"], a * b.astype("f4"))


@pytest.mark.parametrize(
    ("asked", "answered"),
    [((), ["total", "product"]), (("product", "total"), ["total", "product"]), (("product",), ["product"])],
)
def test_outputs_come_in_the_models_order_whatever_was_asked(
    stub: GRPCInferenceServiceStub, asked: tuple[str, ...], answered: list[str]
) -> None:
    message = request("two_by_two", a=rows(5, 1, 3), b=np.array([[1]], "i8"), outputs=asked)
    assert [one.name for one in stub.ModelInfer(message).outputs] == answered


def test_many_outputs_come_complete_and_in_order(stub: GRPCInferenceServiceStub) -> None:
    got = arrays(stub.ModelInfer(request("many_outputs", x=np.array([[0.5]], "f4"))))
    assert list(got) == [f"out_{index:02}" for index in range(MANY_OUTPUTS)]
    assert [float(one[0, 0]) for one in got.values()] == [0.5 + index for index in range(MANY_OUTPUTS)]


def test_the_last_of_many_outputs_can_be_asked_for_alone(stub: GRPCInferenceServiceStub) -> None:
    last = f"out_{MANY_OUTPUTS - 1:02}"
    assert list(arrays(stub.ModelInfer(request("many_outputs", x=np.zeros((1, 1), "f4"), outputs=[last])))) == [last]


def test_a_scalar_goes_in_and_comes_out_without_dimensions(stub: GRPCInferenceServiceStub) -> None:
    y = arrays(stub.ModelInfer(request("scalar", x=np.float32(1.5))))["y"]
    assert y.shape == ()
    assert y == 3.0


def test_a_model_without_a_batch_dimension_takes_its_own_shape(stub: GRPCInferenceServiceStub) -> None:
    x = rows(6)[0]
    assert np.array_equal(arrays(stub.ModelInfer(request("no_batch", x=x)))["y"], x * 2)


@pytest.mark.parametrize("x", [[0, 1, 0, 2, 3], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]])
def test_an_output_may_be_as_long_as_the_values_make_it(stub: GRPCInferenceServiceStub, x: list[int]) -> None:
    found = arrays(stub.ModelInfer(request("nonzero", x=np.array(x, "i8"))))["indices"]
    assert found.tolist() == [[index for index, value in enumerate(x) if value]]


@pytest.mark.parametrize("length", [1, 7, 300])
def test_rows_may_have_any_length_where_the_model_leaves_it_open(stub: GRPCInferenceServiceStub, length: int) -> None:
    ids = np.arange(2 * length).reshape(2, length)
    assert np.array_equal(arrays(stub.ModelInfer(request("sequence", ids=ids)))["out"], ids + ids.sum(1, keepdims=True))


def test_rows_of_a_model_that_couples_them_are_not_mixed_with_strangers(stub: GRPCInferenceServiceStub) -> None:
    sent = [rows(seed, 2) for seed in range(24)]
    calls = [stub.ModelInfer.future(request("coupled", x=x)) for x in sent]
    for x, call in zip(sent, calls, strict=True):
        np.testing.assert_allclose(arrays(call.result())["y"], x + x.sum(0, keepdims=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("fill", "datatype", "model"),
    [
        (lambda c: c.fp32_contents.extend([1, 2, 3]), "FP32", "identity_FP32"),
        (lambda c: c.fp64_contents.extend([1, 2, 3]), "FP64", "identity_FP64"),
        (lambda c: c.int_contents.extend([-1, 2, 3]), "INT8", "identity_INT8"),
        (lambda c: c.uint_contents.extend([1, 2, 65535]), "UINT16", "identity_UINT16"),
        (lambda c: c.int64_contents.extend([-(2**63), 2, 3]), "INT64", "identity_INT64"),
        (lambda c: c.uint64_contents.extend([2**64 - 1, 2, 3]), "UINT64", "identity_UINT64"),
        (lambda c: c.bool_contents.extend([True, False, True]), "BOOL", "identity_BOOL"),
        (lambda c: c.bytes_contents.extend([b"a", b"", "é".encode()]), "BYTES", "identity_BYTES"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isupper() else "",
)
def test_typed_contents_are_answered_with_raw_ones(
    stub: GRPCInferenceServiceStub, fill: Any, datatype: str, model: str
) -> None:
    message = pb.ModelInferRequest(model_name=model)
    tensor = message.inputs.add(name="IN", datatype=datatype, shape=[1, 3])
    fill(tensor.contents)
    answer = stub.ModelInfer(message)
    assert not answer.outputs[0].HasField("contents")
    sent = [value for _, values in tensor.contents.ListFields() for value in values]
    if datatype == "BYTES":
        assert answer.raw_output_contents[0] == b"".join(len(one).to_bytes(4, "little") + one for one in sent)
    else:
        assert arrays(answer)["OUT"].ravel().tolist() == sent


def test_a_request_may_say_that_it_expects_an_empty_final_response(stub: GRPCInferenceServiceStub) -> None:
    message = request("scale", x=rows(7))
    message.parameters["triton_enable_empty_final_response"].bool_param = False
    assert stub.ModelInfer(message).outputs[0].name == "y"


@pytest.mark.parametrize("method", NOT_OFFERED)
def test_a_method_that_is_not_offered_says_so_by_name(stub: GRPCInferenceServiceStub, method: str) -> None:
    descriptor = SERVICE.methods_by_name[method]
    message = GetMessageClass(descriptor.input_type)()
    call = getattr(stub, method)
    with pytest.raises(grpc.RpcError) as refused:
        call(message)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert method in refused.value.details()


def test_a_method_that_nobody_knows_is_unimplemented(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary("/inference.GRPCInferenceService/ModelDance")(b"")
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
