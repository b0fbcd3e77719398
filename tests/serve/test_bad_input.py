"""What a client can get wrong: each is refused for what it is, by name, and harms nobody."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, request, rows
from .process import Server

INFER = "/inference.GRPCInferenceService/ModelInfer"
INVALID = grpc.StatusCode.INVALID_ARGUMENT


def good() -> Any:
    return request("two_by_two", a=np.array([[1, 2, 3]], "f4"), b=np.array([[2]], "i8"))


def changed(change: Callable[[Any], object]) -> Any:
    message = good()
    change(message)
    return message


def set_shape(index: int, *dims: int) -> Callable[[Any], object]:
    def change(message: Any) -> None:
        message.inputs[index].shape[:] = dims

    return change


def set_raw(index: int, raw: bytes) -> Callable[[Any], object]:
    def change(message: Any) -> None:
        message.raw_input_contents[index] = raw

    return change


def set_datatype(datatype: str) -> Callable[[Any], object]:
    def change(message: Any) -> None:
        message.inputs[1].datatype = datatype

    return change


def only_typed(message: Any) -> None:
    del message.raw_input_contents[:]
    message.inputs[0].contents.fp32_contents.extend([1, 2, 3])
    message.inputs[1].contents.int_contents.append(2)


def no_data(message: Any) -> None:
    del message.raw_input_contents[:]


def drop_input(message: Any) -> None:
    del message.inputs[1]
    del message.raw_input_contents[1]


def rename_input(message: Any) -> None:
    message.inputs[1].name = "c"


def repeat_input(message: Any) -> None:
    message.inputs[1].CopyFrom(message.inputs[0])
    message.raw_input_contents[1] = message.raw_input_contents[0]


def one_more_input(message: Any) -> None:
    message.inputs.add(name="extra", datatype="FP32", shape=[1])
    message.raw_input_contents.append(b"\0\0\0\0")


def mix_raw_and_typed(message: Any) -> None:
    message.inputs[1].contents.int64_contents.append(2)


def more_rows_in_b(message: Any) -> None:
    message.inputs[1].shape[:] = [2, 1]
    message.raw_input_contents[1] = bytes(16)


# name of the case -> (what is wrong with the request, the tensor that the answer must name)
MALFORMED: dict[str, tuple[Any, str]] = {
    "an input is missing": (changed(drop_input), "'b'"),
    "an input is unknown": (changed(rename_input), "'c'"),
    "an input is there twice": (changed(repeat_input), "'a'"),
    "an input too many": (changed(one_more_input), "'extra'"),
    "another datatype": (changed(set_datatype("INT32")), "'b'"),
    "a datatype that does not exist": (changed(set_datatype("INT128")), "'b'"),
    "no datatype": (changed(set_datatype("")), "'b'"),
    "a rank too low": (changed(set_shape(0, 3)), "'a'"),
    "a rank too high": (changed(set_shape(0, 1, 3, 1)), "'a'"),
    "a wrong fixed dimension": (changed(set_shape(0, 1, 4)), "'a'"),
    "a negative dimension": (changed(set_shape(0, -1, 3)), "'a'"),
    "more elements than can be counted": (changed(set_shape(1, 2**62, 1)), "'b'"),
    "a byte too few": (changed(set_raw(0, bytes(11))), "'a'"),
    "a byte too many": (changed(set_raw(0, bytes(13))), "'a'"),
    "an empty raw entry": (changed(set_raw(1, b"")), "'b'"),
    "no data at all": (changed(no_data), "'a'"),
    "a raw entry too few": (changed(lambda m: m.raw_input_contents.pop()), "'b'"),
    "a raw entry too many": (changed(lambda m: m.raw_input_contents.append(b"")), "raw_input_contents"),
    "raw and typed contents": (changed(mix_raw_and_typed), "'b'"),
    "typed contents of another type": (changed(only_typed), "'b'"),
    "different numbers of rows": (changed(more_rows_in_b), "'b'"),
    "more rows than allowed": (request("scale_by_4", x=rows(1, 5)), "'x'"),
    "no rows": (request("scale_by_4", x=rows(1, 0)), "'x'"),
    "an output that does not exist": (changed(lambda m: m.outputs.add(name="nothing")), "'nothing'"),
    "an output asked for twice": (changed(lambda m: [m.outputs.add(name="total") for _ in "12"]), "'total'"),
}

BYTES_FAULTS = {
    "a prefix cut off": b"\x01\x00",
    "a length beyond the end": (5).to_bytes(4, "little") + b"abc",
    "a huge length": b"\xff\xff\xff\xff",
    "too few elements": (1).to_bytes(4, "little") + b"a",
    "no UTF-8": (1).to_bytes(4, "little") + b"\xff" + bytes(8),
}


def assert_still_right(stub: GRPCInferenceServiceStub) -> None:
    assert np.array_equal(arrays(stub.ModelInfer(good()))["total"], [[3, 4, 5]])


@pytest.mark.parametrize(("message", "named"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_request_is_refused_by_the_name_of_its_tensor(
    stub: GRPCInferenceServiceStub, message: Any, named: str
) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message)
    assert refused.value.code() is INVALID
    assert named in refused.value.details()
    assert_still_right(stub)


@pytest.mark.parametrize("raw", BYTES_FAULTS.values(), ids=BYTES_FAULTS)
def test_malformed_strings_are_refused_by_the_name_of_their_tensor(stub: GRPCInferenceServiceStub, raw: bytes) -> None:
    message = pb.ModelInferRequest(model_name="identity_BYTES")
    message.inputs.add(name="IN", datatype="BYTES", shape=[1, 3])
    message.raw_input_contents.append(raw)
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message)
    assert refused.value.code() is INVALID
    assert "'IN'" in refused.value.details()
    assert_still_right(stub)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_floats_have_no_typed_contents(stub: GRPCInferenceServiceStub, datatype: str) -> None:
    message = pb.ModelInferRequest(model_name=f"identity_{datatype}")
    message.inputs.add(name="IN", datatype=datatype, shape=[1, 3]).contents.fp32_contents.extend([1, 2, 3])
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message)
    assert refused.value.code() is INVALID
    assert "raw_input_contents" in refused.value.details()


@pytest.mark.parametrize(
    "body",
    [b"\xff", b"\x0a", b"\x0a\x7fabc", b"\x00", b"\x0b" * 200, good().SerializeToString()[:-3], b"\x0a\x01\xff"],
    ids=["tag", "no length", "length", "field 0", "groups", "cut", "UTF-8"],
)
def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel, body: bytes) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(INFER)(body)
    assert refused.value.code() is INVALID
    assert_still_right(GRPCInferenceServiceStub(channel))


@pytest.mark.parametrize("method", ["ModelMetadata", "ModelReady", "ModelConfig", "RepositoryIndex"])
def test_other_methods_refuse_bytes_that_are_no_message(channel: grpc.Channel, method: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(b"\xff")
    assert refused.value.code() is INVALID
    assert f"{method}Request" in refused.value.details()


@pytest.mark.parametrize("parameter", ["sequence_id", "shared_memory_region"])
def test_a_feature_that_is_not_offered_is_unimplemented(stub: GRPCInferenceServiceStub, parameter: str) -> None:
    message = good()
    if parameter == "sequence_id":
        message.parameters[parameter].int64_param = 7
    else:
        message.inputs[0].parameters[parameter].string_param = "region"
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(message)
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


# --- names ---------------------------------------------------------------------------------------------

HOSTILE = [
    "", "nothing", "../../etc/passwd", "mlp/1", "mlp ", "MLP", ".", "%s%n", "\n{injected}", "\x00", "é\u202e",
    "inferd.models", "x" * 10_000, "'; drop table models; --",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_model_that_is_not_here_is_not_found_and_its_name_is_shown_safely(
    stub: GRPCInferenceServiceStub, name: str
) -> None:
    for call in (
        lambda: stub.ModelInfer(request(name, x=rows(1))),
        lambda: stub.ModelReady(pb.ModelReadyRequest(name=name)),
        lambda: stub.ModelMetadata(pb.ModelMetadataRequest(name=name)),
        lambda: stub.ModelConfig(pb.ModelConfigRequest(name=name)),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            call()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert refused.value.details().isprintable()
        assert len(refused.value.details()) < 200


NO_VERSIONS = ["2", "0", "-1", "01", "1.0", " 1", "latest", "9" * 40, "0" * 19 + "1999", "\u0663", "\x00"]


@pytest.mark.parametrize("version", NO_VERSIONS)
def test_a_version_that_is_not_here_is_not_found(stub: GRPCInferenceServiceStub, version: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request("versioned", version=version, x=rows(1)))
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    assert refused.value.details().isprintable()


def test_names_that_clients_invent_do_not_become_labels(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError):
        stub.ModelInfer(request("invented_by_a_client", x=rows(1)))
    assert "invented_by_a_client" not in zoo.metrics_text()


# --- size ----------------------------------------------------------------------------------------------


@pytest.fixture
def narrow(repository: Path, server: Callable[..., Server]) -> Server:
    """A server that reads messages of up to 64 KiB."""
    models.write(repository, "scale", models.scale(dims=["rows", "length"]))
    return server(repository, "--grpc-max-message-bytes=65536", "--batching-max-queue-bytes=65536")


def sized(bytes_in_x: int) -> Any:
    return request("scale", x=np.zeros((1, bytes_in_x // 4), "f4"))


def test_a_message_beyond_the_limit_is_refused_and_one_below_it_is_not(narrow: Server) -> None:
    with narrow.stub() as stub:
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(sized(70_000))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert arrays(stub.ModelInfer(sized(65_000)))["y"].nbytes == 65_000


def test_a_small_message_that_unpacks_beyond_the_limit_is_refused(narrow: Server) -> None:
    message = sized(8_000_000)
    assert len(gzip.compress(message.SerializeToString())) < 65_536
    with narrow.channel(compression=grpc.Compression.Gzip) as channel:
        stub = GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(message)
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert arrays(stub.ModelInfer(sized(400)))["y"].nbytes == 400
