"""Requests of strangers share runs, and nobody can tell from an answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from onnx_models import EMBEDDING, MLP_BIAS, MLP_WEIGHTS

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import arrays, code_of, request, rows, slow
from .process import Server
from .scrape import counted

CLIENTS = 16
# Matrix products of one row and of many take different kernels, which round differently in the last bits.
MATRIX_TOLERANCE = 1e-5


@pytest.fixture
def clients(zoo: Server) -> Iterator[list[GRPCInferenceServiceStub]]:
    """Several clients, each on a connection of its own."""
    channels = [zoo.channel() for _ in range(CLIENTS)]
    yield [GRPCInferenceServiceStub(one) for one in channels]
    for one in channels:
        one.close()


def test_concurrent_clients_share_runs(zoo: Server, clients: list[GRPCInferenceServiceStub]) -> None:
    before = counted(zoo, "mlp")

    def many(client: GRPCInferenceServiceStub) -> int:
        calls = [client.ModelInfer.future(request("mlp", x=rows(seed))) for seed in range(50)]
        return sum(len(arrays(call.result())["y"]) for call in calls)

    with ThreadPoolExecutor(CLIENTS) as threads:
        assert list(threads.map(many, clients)) == [50] * CLIENTS
    after = counted(zoo, "mlp").since(before)
    assert after.rows == 50 * CLIENTS
    assert after.batches < after.rows
    assert max(after.batch_rows) > 1


def test_every_client_gets_its_own_rows_bit_for_bit(zoo: Server, clients: list[GRPCInferenceServiceStub]) -> None:
    before = counted(zoo, "scale")

    def differing(number: int) -> list[int]:
        sent = [rows(1000 * number + k, 1 + k % 3) for k in range(40)]
        calls = [clients[number].ModelInfer.future(request("scale", x=x)) for x in sent]
        return [
            k
            for k, (x, call) in enumerate(zip(sent, calls, strict=True))
            if arrays(call.result())["y"].tobytes() != (x * np.float32(2)).tobytes()
        ]

    with ThreadPoolExecutor(CLIENTS) as threads:
        assert list(threads.map(differing, range(CLIENTS))) == [[]] * CLIENTS
    assert max(counted(zoo, "scale").since(before).batch_rows) > 1


def test_a_matrix_product_in_a_batch_is_that_of_the_row_alone(
    zoo: Server, clients: list[GRPCInferenceServiceStub]
) -> None:
    calls = [client.ModelInfer.future(request("mlp", x=rows(seed))) for seed, client in enumerate(clients)]
    for seed, call in enumerate(calls):
        expected = np.maximum(rows(seed) @ MLP_WEIGHTS + MLP_BIAS, 0)
        np.testing.assert_allclose(arrays(call.result())["y"], expected, rtol=MATRIX_TOLERANCE, atol=MATRIX_TOLERANCE)


def test_strings_of_strangers_are_not_mixed_up(zoo: Server, clients: list[GRPCInferenceServiceStub]) -> None:
    def encoded(number: int) -> bytes:
        texts = [f"{number}-{column}".encode() * (number + 1) for column in range(3)]
        return b"".join(len(text).to_bytes(4, "little") + text for text in texts)

    calls = []
    for number, client in enumerate(clients):
        message = request("identity_BYTES")
        message.inputs.add(name="IN", datatype="BYTES", shape=[1, 3])
        message.raw_input_contents.append(encoded(number))
        calls.append(client.ModelInfer.future(message))
    assert [call.result().raw_output_contents[0] for call in calls] == [encoded(n) for n in range(CLIENTS)]


def test_rows_of_different_lengths_never_share_a_run(zoo: Server, clients: list[GRPCInferenceServiceStub]) -> None:
    sent = [np.arange(1 + number % 4).reshape(1, -1) + number for number in range(64)]
    calls = [clients[n % CLIENTS].ModelInfer.future(request("sequence", ids=ids)) for n, ids in enumerate(sent)]
    for ids, call in zip(sent, calls, strict=True):
        assert np.array_equal(arrays(call.result())["out"], ids + ids.sum())


def test_a_bad_row_fails_alone_and_its_neighbours_are_right(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    solo = arrays(stub.ModelInfer(request("embedding", ids=np.array([[5]]))))["vectors"]
    before = counted(zoo, "embedding_by_4")
    # The delay of this model gathers the four.
    calls = [stub.ModelInfer.future(request("embedding_by_4", ids=np.array([[index]]))) for index in (5, 1, 99, 5)]
    with pytest.raises(grpc.RpcError) as refused:
        calls[2].result()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "refused a value of this request" in refused.value.details()
    assert "Gather" not in refused.value.details()
    for call, index in ((calls[0], 5), (calls[1], 1), (calls[3], 5)):
        assert np.array_equal(arrays(call.result())["vectors"][0, 0], EMBEDDING[index])
    assert arrays(calls[0].result())["vectors"].tobytes() == solo.tobytes()
    assert counted(zoo, "embedding_by_4").since(before).codes == {"OK": 3, "INVALID_ARGUMENT": 1}


def test_a_batch_of_nothing_but_bad_rows_is_refused_row_by_row(stub: GRPCInferenceServiceStub) -> None:
    calls = [stub.ModelInfer.future(request("embedding_by_4", ids=np.array([[99]]))) for _ in range(4)]
    assert {code_of(call) for call in calls} == {grpc.StatusCode.INVALID_ARGUMENT}
    assert code_of(stub.ModelInfer.future(request("embedding_by_4", ids=np.array([[1]])))) is grpc.StatusCode.OK


def test_a_model_that_is_busy_does_not_hold_up_another(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    busy = stub.ModelInfer.future(slow(rows(0), 1000))
    assert np.array_equal(arrays(stub.ModelInfer(request("scale", x=rows(1))))["y"], rows(1) * np.float32(2))
    assert not busy.done()
    assert code_of(busy) is grpc.StatusCode.OK


def test_a_model_without_a_config_takes_any_number_of_rows_in_one_request(stub: GRPCInferenceServiceStub) -> None:
    x = rows(7, 1000)
    np.testing.assert_array_equal(arrays(stub.ModelInfer(request("scale", x=x)))["y"], x * np.float32(2))


def test_a_model_without_a_config_answers_no_rows_with_no_rows(stub: GRPCInferenceServiceStub) -> None:
    assert arrays(stub.ModelInfer(request("scale", x=rows(7, 0))))["y"].shape == (0, 4)


def test_a_model_without_a_config_broadcasts_as_it_does_anywhere(clients: list[GRPCInferenceServiceStub]) -> None:
    a, b = rows(1, 3, 3), np.array([[5]])
    message = request("broadcast", a=a, b=b)
    answers = [arrays(call.result()) for call in [client.ModelInfer.future(message) for client in clients]]
    for answer in answers:
        np.testing.assert_array_equal(answer["total"], a + b.astype("f4"))
        np.testing.assert_array_equal(answer["product"], a * b.astype("f4"))


def test_a_declared_largest_batch_is_kept(stub: GRPCInferenceServiceStub) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request("scale_by_4", x=rows(7, 5)))
    assert code_of(caught.value) is grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 4" in caught.value.details()
