"""What Triton's examples do with its client, each against inferd and against a real Triton: one address is changed.

Done after triton-inference-server/client, src/python/examples, and written anew. In tests/serve the same client is put
to the harder questions.
"""

from __future__ import annotations

import asyncio
import os
import queue
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as aioclient
from serve.process import CHANNEL_OPTIONS
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException, serialize_byte_tensor, serialized_byte_size, shared_memory

# In the repository, and not loaded at the start.
LENT = "lent"
WAIT_S = 30.0
A = np.array([[1, 2, 3]], "f4")
B = np.array([[4]], "i8")


@pytest.fixture
def client(address: str) -> Iterator[grpcclient.InferenceServerClient]:
    with grpcclient.InferenceServerClient(address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield connected


@pytest.fixture
def segment() -> Iterator[Callable[[str, int], tuple[Any, str]]]:
    """Makes shared memory as the client does: ``segment("in", 64)`` gives its handle and key."""
    with ExitStack() as ends:

        def make(name: str, size: int) -> tuple[Any, str]:
            key = f"/inferd-tests-{os.getpid()}-{name}-client"
            made = shared_memory.create_shared_memory_region(name, key, size)
            ends.callback(shared_memory.destroy_shared_memory_region, made)
            return made, key

        yield make


def inputs(module: Any = grpcclient) -> list[Any]:
    """The two inputs of two_by_two."""
    a, b = module.InferInput("a", [1, 3], "FP32"), module.InferInput("b", [1, 1], "INT64")
    a.set_data_from_numpy(A)
    b.set_data_from_numpy(B)
    return [a, b]


def outputs(module: Any = grpcclient) -> list[Any]:
    return [module.InferRequestedOutput("total"), module.InferRequestedOutput("product")]


def is_right(result: Any) -> bool:
    return np.array_equal(result.as_numpy("total"), A + 4) and np.array_equal(result.as_numpy("product"), A * 4)


def test_health_and_metadata(client: grpcclient.InferenceServerClient) -> None:
    assert client.is_server_live(headers={"test": "1", "dummy": "2"})
    assert client.is_server_ready()
    assert client.is_model_ready("two_by_two")
    assert client.get_server_metadata().extensions
    assert client.get_model_metadata("two_by_two", headers={"test": "1"}).name == "two_by_two"
    assert client.get_model_config("two_by_two", as_json=True)["config"]["name"] == "two_by_two"
    with pytest.raises(InferenceServerException) as wrong:
        client.get_model_metadata("wrong_model_name")
    assert wrong.value.status() == "StatusCode.NOT_FOUND"


def test_statistics(client: grpcclient.InferenceServerClient) -> None:
    before = client.get_inference_statistics("two_by_two").model_stats[0].inference_count
    client.infer("two_by_two", inputs())
    [after] = client.get_inference_statistics("two_by_two").model_stats
    assert after.inference_count == before + 1


def test_one_inference(client: grpcclient.InferenceServerClient) -> None:
    assert is_right(client.infer("two_by_two", inputs(), outputs=outputs(), headers={"test": "1"}))


def test_one_inference_without_naming_outputs(client: grpcclient.InferenceServerClient) -> None:
    assert is_right(client.infer("two_by_two", inputs()))


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_inference(client: grpcclient.InferenceServerClient, algorithm: str) -> None:
    assert is_right(client.infer("two_by_two", inputs(), compression_algorithm=algorithm))


def test_inferences_with_callbacks(client: grpcclient.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for _ in range(5):
        client.async_infer("two_by_two", inputs(), lambda result, error: answers.put(error or result))
    assert all(is_right(answers.get(timeout=WAIT_S)) for _ in range(5))


def test_inferences_with_asyncio(address: str) -> None:
    async def all_right() -> bool:
        async with aioclient.InferenceServerClient(address, channel_args=list(CHANNEL_OPTIONS)) as client:
            asked = (client.infer("two_by_two", inputs(aioclient), outputs=outputs(aioclient)) for _ in range(5))
            return all([is_right(answer) for answer in await asyncio.gather(*asked)])

    assert asyncio.run(all_right())


def test_a_stream(client: grpcclient.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    for number in range(5):
        client.async_stream_infer("two_by_two", inputs(), request_id=str(number), enable_empty_final_response=True)
    got = [answers.get(timeout=WAIT_S) for _ in range(5)]
    client.stop_stream()
    assert [one.get_response().id for one in got] == ["0", "1", "2", "3", "4"]
    assert all(one.get_response().parameters["triton_final_response"].bool_param for one in got)
    assert all(map(is_right, got))


def test_an_error_in_a_stream(client: grpcclient.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result))
    client.async_stream_infer("wrong_model_name", inputs())
    client.async_stream_infer("two_by_two", inputs())
    assert isinstance(answers.get(timeout=WAIT_S), InferenceServerException)
    assert is_right(answers.get(timeout=WAIT_S))
    client.stop_stream()


def test_a_stream_with_asyncio(address: str) -> None:
    async def requests() -> Any:
        for number in range(5):
            yield {"model_name": "two_by_two", "inputs": inputs(aioclient), "request_id": str(number)}

    async def answered() -> list[str]:
        async with aioclient.InferenceServerClient(address, channel_args=list(CHANNEL_OPTIONS)) as client:
            return [
                result.get_response().id
                async for result, error in client.stream_infer(requests())
                if error is None and is_right(result)
            ]

    assert asyncio.run(answered()) == ["0", "1", "2", "3", "4"]


def test_explicit_contents(address: str) -> None:
    message = pb.ModelInferRequest(model_name="two_by_two")
    message.inputs.add(name="a", datatype="FP32", shape=[1, 3]).contents.fp32_contents.extend(A.flat)
    message.inputs.add(name="b", datatype="INT64", shape=[1, 1]).contents.int64_contents.append(4)
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=WAIT_S)
    # By position, as the examples read it.
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[0], "f4"), (A + 4)[0])
    assert np.array_equal(np.frombuffer(answer.raw_output_contents[1], "f4"), (A * 4)[0])


def test_explicit_texts(address: str) -> None:
    message = pb.ModelInferRequest(model_name="texts")
    message.inputs.add(name="IN", datatype="BYTES", shape=[1, 3]).contents.bytes_contents.extend([b"1", b"", b"333"])
    with grpc.insecure_channel(address, options=CHANNEL_OPTIONS) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(message, timeout=WAIT_S)
    assert answer.raw_output_contents[0] == b"\1\0\0\0001\0\0\0\0\3\0\0\000333"


@pytest.mark.parametrize("texts", [np.array([["1", "", "\u00e9"]], object), np.array([[b"1", b"22", b"333"]], "S3")])
def test_texts(client: grpcclient.InferenceServerClient, texts: np.ndarray) -> None:
    sent = grpcclient.InferInput("IN", [1, 3], "BYTES")
    sent.set_data_from_numpy(texts)
    got = client.infer("texts", [sent]).as_numpy("OUT")
    assert got.tolist() == [[one if isinstance(one, bytes) else one.encode() for one in texts[0]]]


def test_the_best_classes(client: grpcclient.InferenceServerClient) -> None:
    sent = grpcclient.InferInput("IN", [1, 3], "FP32")
    sent.set_data_from_numpy(A)
    got = client.infer("animals", [sent], outputs=[grpcclient.InferRequestedOutput("OUT", class_count=2)])
    assert got.as_numpy("OUT").tolist() == [[b"3.000000:2:fish", b"2.000000:1:dog"]]


def test_tensors_in_shared_memory(client: grpcclient.InferenceServerClient, segment: Callable[..., Any]) -> None:
    (there, its_key), (back, other_key) = segment("in", A.nbytes + B.nbytes), segment("out", 2 * A.nbytes)
    shared_memory.set_shared_memory_region(there, [A, B])
    client.register_system_shared_memory("in", its_key, A.nbytes + B.nbytes)
    client.register_system_shared_memory("out", other_key, 2 * A.nbytes)
    asked, wanted = inputs(), outputs()
    asked[0].set_shared_memory("in", A.nbytes)
    asked[1].set_shared_memory("in", B.nbytes, offset=A.nbytes)
    wanted[0].set_shared_memory("out", A.nbytes)
    wanted[1].set_shared_memory("out", A.nbytes, offset=A.nbytes)
    result = client.infer("two_by_two", asked, outputs=wanted)
    assert list(result.get_output("total").shape) == [1, 3]
    assert np.array_equal(shared_memory.get_contents_as_numpy(back, np.float32, [1, 3]), A + 4)
    assert np.array_equal(shared_memory.get_contents_as_numpy(back, np.float32, [1, 3], offset=A.nbytes), A * 4)
    assert set(client.get_system_shared_memory_status().regions) == {"in", "out"}
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions


def test_texts_in_shared_memory(client: grpcclient.InferenceServerClient, segment: Callable[..., Any]) -> None:
    sent = serialize_byte_tensor(np.array([[b"1", b"", b"333"]], object))
    size = serialized_byte_size(sent)
    (there, its_key), (back, other_key) = segment("in", size), segment("out", 64)
    shared_memory.set_shared_memory_region(there, [sent])
    client.register_system_shared_memory("in", its_key, size)
    client.register_system_shared_memory("out", other_key, 64)
    asked, wanted = grpcclient.InferInput("IN", [1, 3], "BYTES"), grpcclient.InferRequestedOutput("OUT")
    asked.set_shared_memory("in", size)
    wanted.set_shared_memory("out", 64)
    client.infer("texts", [asked], outputs=[wanted])
    assert shared_memory.get_contents_as_numpy(back, np.object_, [1, 3]).tolist() == [[b"1", b"", b"333"]]
    client.unregister_system_shared_memory()


def test_keepalive(address: str) -> None:
    options = grpcclient.KeepAliveOptions(
        keepalive_time_ms=2**31 - 1,
        keepalive_timeout_ms=20_000,
        keepalive_permit_without_calls=False,
        http2_max_pings_without_data=2,
    )
    with grpcclient.InferenceServerClient(address, keepalive_options=options) as client:
        assert is_right(client.infer("two_by_two", inputs()))


def test_arguments_of_the_channel(address: str) -> None:
    arguments = [
        ("grpc.max_send_message_length", 1024 * 1024),
        ("grpc.max_receive_message_length", 1024 * 1024),
        ("grpc.keepalive_time_ms", 2**31 - 1),
        ("grpc.http2.max_pings_without_data", 2),
        ("grpc.dns_enable_srv_queries", 1),
    ]
    with grpcclient.InferenceServerClient(address, channel_args=arguments) as client:
        assert is_right(client.infer("two_by_two", inputs(), headers={"test": "1"}))


def test_model_control(client: grpcclient.InferenceServerClient) -> None:
    assert LENT in [one.name for one in client.get_model_repository_index().models]
    client.load_model(LENT)
    assert client.is_model_ready(LENT)
    client.load_model(LENT, config='{"max_batch_size": 16, "platform": "onnxruntime_onnx"}')
    assert client.get_model_config(LENT).config.max_batch_size == 16
    client.unload_model(LENT)
    with pytest.raises(InferenceServerException):
        client.infer(LENT, [])
    with pytest.raises(InferenceServerException):
        client.load_model("wrong_model_name")


def test_log_settings(client: grpcclient.InferenceServerClient) -> None:
    assert client.update_log_settings({"log_verbose_level": 1}, as_json=True)
    told = client.get_log_settings(as_json=True)["settings"]
    assert told["log_verbose_level"]["uint32_param"] == 1
    client.update_log_settings({"log_verbose_level": 0})


def test_a_timeout_of_the_client_and_of_the_protocol(client: grpcclient.InferenceServerClient) -> None:
    assert is_right(client.infer("two_by_two", inputs(), client_timeout=WAIT_S, timeout=60_000_000, priority=1))
