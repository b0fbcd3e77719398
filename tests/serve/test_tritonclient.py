"""The client that most users have: tritonclient.grpc, blocking and asyncio."""

from __future__ import annotations

import asyncio
import queue
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from onnx_models import ELEMENT_TYPES
from tritonclient.utils import InferenceServerException

from .calls import NUMPY_TYPES, rows
from .process import CHANNEL_OPTIONS, Server


@pytest.fixture
def client(zoo: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(zoo.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield connected


def edge_values(datatype: str) -> np.ndarray:
    """Two rows of three values that a careless conversion would change."""
    if datatype == "BYTES":
        return np.array([[b"", b"plain", "é \U0001f600".encode()], [b"\x00\x00", b"a" * 1000, b"\n"]], object)
    if datatype == "BOOL":
        return np.array([[True, False, True], [False, False, True]])
    if datatype == "BF16":
        bits = np.array([[0x7F80, 0xFF80, 0x8000], [0x0001, 0x3F80, 0x7FC1]], "<u2")
        return bits.view(ml_dtypes.bfloat16)
    numpy_type = np.dtype(NUMPY_TYPES[datatype])
    if numpy_type.kind == "f":
        info = np.finfo(numpy_type)
        return np.array([[info.max, info.tiny, -0.0], [np.inf, -np.inf, info.smallest_subnormal]], numpy_type)
    whole = np.iinfo(numpy_type)
    return np.array([[whole.max, whole.min, 0], [1, whole.max - 1, 42]], numpy_type)


def infer_input(module: Any, name: str, datatype: str, values: np.ndarray) -> Any:
    made = module.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def same_bits(got: np.ndarray, sent: np.ndarray) -> bool:
    if sent.dtype == object:
        return got.shape == sent.shape and got.ravel().tolist() == sent.ravel().tolist()
    return (got.dtype, got.shape, got.tobytes()) == (sent.dtype, sent.shape, sent.tobytes())


@pytest.mark.parametrize("shape", ["identity", "fixed"])
@pytest.mark.parametrize("datatype", ELEMENT_TYPES)
def test_every_datatype_comes_back_bit_for_bit(client: triton.InferenceServerClient, datatype: str, shape: str) -> None:
    sent = edge_values(datatype)
    answer = client.infer(f"{shape}_{datatype}", [infer_input(triton, "IN", datatype, sent)])
    assert answer.get_output("OUT").datatype == datatype
    assert same_bits(answer.as_numpy("OUT"), sent)


def test_every_datatype_comes_back_bit_for_bit_with_asyncio(zoo: Server) -> None:
    async def differing() -> list[str]:
        async with triton_aio.InferenceServerClient(zoo.address, channel_args=list(CHANNEL_OPTIONS)) as client:
            answers = await asyncio.gather(
                *(
                    client.infer(
                        f"identity_{datatype}", [infer_input(triton_aio, "IN", datatype, edge_values(datatype))]
                    )
                    for datatype in ELEMENT_TYPES
                )
            )
        return [
            datatype
            for datatype, answer in zip(ELEMENT_TYPES, answers, strict=True)
            if not same_bits(answer.as_numpy("OUT"), edge_values(datatype))
        ]

    assert asyncio.run(differing()) == []


def test_nan_payloads_survive(client: triton.InferenceServerClient) -> None:
    sent = np.array([[0x7FC00001, 0xFFC00000, 0x7F800001]], "<u4").view("<f4")
    answer = client.infer("identity_FP32", [infer_input(triton, "IN", "FP32", sent)])
    assert same_bits(answer.as_numpy("OUT"), sent)


def test_the_id_is_repeated_and_the_version_is_filled_in(client: triton.InferenceServerClient) -> None:
    answer = client.infer("scale", [infer_input(triton, "x", "FP32", rows(1))], request_id="request 7")
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == ("request 7", "scale", "1")


def test_outputs_asked_for_backwards_come_in_the_models_order(client: triton.InferenceServerClient) -> None:
    inputs = [
        infer_input(triton, "a", "FP32", rows(2, 1, 3)),
        infer_input(triton, "b", "INT64", np.array([[4]], "i8")),
    ]
    asked = [triton.InferRequestedOutput("product"), triton.InferRequestedOutput("total")]
    answer = client.infer("two_by_two", inputs, outputs=asked)
    assert [one.name for one in answer.get_response().outputs] == ["total", "product"]
    assert np.array_equal(answer.as_numpy("product"), rows(2, 1, 3) * np.float32(4))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_understood(client: triton.InferenceServerClient, algorithm: str) -> None:
    x = np.zeros((64, 4), "f4")
    answer = client.infer("scale", [infer_input(triton, "x", "FP32", x)], compression_algorithm=algorithm)
    assert same_bits(answer.as_numpy("y"), x)


def test_a_callback_gets_the_answer(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.async_infer(
        "scale", [infer_input(triton, "x", "FP32", rows(3))], lambda result, error: answers.put((result, error))
    )
    result, error = answers.get(timeout=10)
    assert error is None
    assert same_bits(result.as_numpy("y"), rows(3) * np.float32(2))


def test_the_questions_a_client_asks_first_are_answered(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mlp")
    assert client.get_server_metadata().name == "inferd"
    assert client.get_model_metadata("mlp").inputs[0].name == "x"
    assert client.get_model_config("mlp").config.backend == "onnxruntime"


def test_an_unknown_model_is_an_exception_with_its_status(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as refused:
        client.infer("nothing", [infer_input(triton, "x", "FP32", rows(4))])
    assert refused.value.status() == "StatusCode.NOT_FOUND"
    assert "'nothing'" in refused.value.message()


def test_the_clients_own_timeout_ends_the_call(client: triton.InferenceServerClient) -> None:
    inputs = [
        infer_input(triton, "x", "FP32", rows(5)),
        infer_input(triton, "trips", "INT64", np.array([[400_000]], "i8")),
    ]
    with pytest.raises(InferenceServerException) as late:
        client.infer("slow", inputs, client_timeout=0.05)
    assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"


def test_priority_and_timeout_of_the_protocol_do_no_harm(client: triton.InferenceServerClient) -> None:
    answer = client.infer(
        "scale", [infer_input(triton, "x", "FP32", rows(6))], priority=1, timeout=5_000_000, headers={"x-anything": "1"}
    )
    assert same_bits(answer.as_numpy("y"), rows(6) * np.float32(2))


@pytest.mark.parametrize(
    "order",
    [
        "import tritonclient.grpc; import inferd.proto.inference_pb2_grpc",
        "import inferd.proto.inference_pb2_grpc; import tritonclient.grpc",
    ],
)
def test_the_client_and_inferds_own_messages_live_in_one_process(order: str) -> None:
    # A process of its own: in this one both are imported already.
    done = subprocess.run([sys.executable, "-c", order], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
