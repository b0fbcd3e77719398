"""Tensors that stay in the memory of clients on the same machine, with the client that most users have."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, serialized_byte_size
from tritonclient.utils import serialize_byte_tensor as serialized
from tritonclient.utils import shared_memory as shm

from inferd.proto import inference_pb2 as pb

from .backlog import occupy
from .calls import rows, slow
from .conftest import SLOW_ALONE
from .process import CHANNEL_OPTIONS, Server
from .scrape import wait_for

ON = "--shared-memory-enabled=true"


@pytest.fixture(scope="module")
def sharing(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that offers shared memory, and tells all that it logs."""
    folder = tmp_path_factory.mktemp("sharing")
    repository = folder / "repository"
    models.write(repository, "scale", models.scale())
    models.write(repository, "two_by_two", models.two_by_two())
    models.write(repository, "words", models.identity("BYTES", ["rows", 2]))
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    started = Server(repository, folder, transport, (ON, "--log-level=debug", "--warmup-budget-ms=0"), {})
    with started.while_ready():
        yield started


@contextmanager
def connected(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.address, channel_args=list(CHANNEL_OPTIONS)) as made:
        yield made


@pytest.fixture
def client(sharing: Server) -> Iterator[triton.InferenceServerClient]:
    """With nothing registered, before and after."""
    with connected(sharing) as made:
        made.unregister_system_shared_memory()
        yield made
        made.unregister_system_shared_memory()


class Region:
    """Memory made by the client's own library, under a key that nobody else has."""

    def __init__(self, name: str, byte_size: int) -> None:
        self.name, self.byte_size, self.key = name, byte_size, f"/inferd-test-{secrets.token_hex(8)}"
        self.handle = shm.create_shared_memory_region(name, self.key, byte_size, create_only=True)

    def put(self, *arrays: np.ndarray, offset: int = 0) -> None:
        shm.set_shared_memory_region(self.handle, list(arrays), offset=offset)

    def get(self, datatype: Any, shape: list[int], offset: int = 0) -> np.ndarray:
        return np.array(shm.get_contents_as_numpy(self.handle, datatype, shape, offset=offset))

    def register(self, client: triton.InferenceServerClient) -> None:
        client.register_system_shared_memory(self.name, self.key, self.byte_size)


@pytest.fixture
def region() -> Iterator[Callable[..., Region]]:
    """Makes regions, which are gone after the test."""
    made: list[Region] = []

    def make(name: str, byte_size: int) -> Region:
        made.append(Region(name, byte_size))
        return made[-1]

    yield make
    for one in made:
        shm.destroy_shared_memory_region(one.handle)


def placed_input(name: str, shape: list[int], datatype: str, region: str, byte_size: int, offset: int = 0) -> Any:
    made = triton.InferInput(name, shape, datatype)
    made.set_shared_memory(region, byte_size, offset)
    return made


def placed_output(name: str, region: str, byte_size: int, offset: int = 0) -> Any:
    made = triton.InferRequestedOutput(name)
    made.set_shared_memory(region, byte_size, offset)
    return made


def sent_input(name: str, array: np.ndarray, datatype: str) -> Any:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


@contextmanager
def refusal(status: str, *words: str, secret: str = "") -> Iterator[None]:
    with pytest.raises(InferenceServerException) as refused:
        yield
    assert refused.value.status() == f"StatusCode.{status}"
    for word in words:
        assert word in refused.value.message()
    assert not secret or secret.strip("/") not in refused.value.message()


# --- while it is off ----------------------------------------------------------------------------------


def test_a_server_that_was_not_told_to_shares_nothing(zoo: Server, region: Callable[..., Region]) -> None:
    data = region("data", 64)
    with connected(zoo) as client:
        assert "system_shared_memory" not in client.get_server_metadata().extensions
        for call in (
            lambda: data.register(client),
            client.get_system_shared_memory_status,
            client.unregister_system_shared_memory,
            client.get_cuda_shared_memory_status,
            client.unregister_cuda_shared_memory,
        ):
            with refusal("UNIMPLEMENTED", "--shared-memory-enabled true"):
                call()
        with refusal("UNIMPLEMENTED", "input 'x' is in shared memory"):
            client.infer("scale", [placed_input("x", [1, 4], "FP32", "data", 16)])


# --- registering ----------------------------------------------------------------------------------------


def test_regions_come_and_go(client: triton.InferenceServerClient, region: Callable[..., Region]) -> None:
    extensions = client.get_server_metadata().extensions
    assert "system_shared_memory" in extensions
    assert "cuda_shared_memory" not in extensions
    first, second = region("first", 64), region("second", 32)
    first.register(client)
    client.register_system_shared_memory("second", second.key, 16, offset=8)
    told = client.get_system_shared_memory_status().regions
    assert {name: (one.name, one.key, one.offset, one.byte_size) for name, one in told.items()} == {
        "first": ("first", first.key, 0, 64),
        "second": ("second", second.key, 8, 16),
    }
    assert list(client.get_system_shared_memory_status("second").regions) == ["second"]
    client.unregister_system_shared_memory("first")
    client.unregister_system_shared_memory("first")
    assert list(client.get_system_shared_memory_status().regions) == ["second"]
    with refusal("NOT_FOUND", "no region 'first'"):
        client.get_system_shared_memory_status("first")
    client.unregister_system_shared_memory()
    assert not client.get_system_shared_memory_status().regions


def test_what_cannot_be_registered_is_refused_without_its_key(
    sharing: Server, client: triton.InferenceServerClient, region: Callable[..., Region]
) -> None:
    data = region("data", 64)
    data.register(client)
    with refusal("ALREADY_EXISTS", "region 'data'", secret=data.key):
        data.register(client)
    for offset, byte_size in ((0, 65), (64, 1), (2**64 - 1, 1), (1, 2**64 - 1)):
        with refusal("INVALID_ARGUMENT", "region 'more'", secret=data.key):
            client.register_system_shared_memory("more", data.key, byte_size, offset=offset)
    for key in (data.key + "-not", "/../etc/passwd", "a/b", ""):
        with refusal("INVALID_ARGUMENT", "region 'more'", secret=key):
            client.register_system_shared_memory("more", key, 4)
    with refusal("INVALID_ARGUMENT", "printable ASCII"):
        client.register_system_shared_memory("a b", data.key, 4)
    assert data.key[1:] not in sharing.stderr


def test_memory_of_a_gpu_is_refused_and_forgetting_it_is_not(client: triton.InferenceServerClient) -> None:
    client.unregister_cuda_shared_memory()
    assert not client.get_cuda_shared_memory_status().regions
    with refusal("UNIMPLEMENTED", "cannot open memory of a GPU"):
        client.register_cuda_shared_memory("gpu", b"AAAA", 0, 64)


# --- inference ------------------------------------------------------------------------------------------


def test_inputs_and_outputs_stay_in_memory(client: triton.InferenceServerClient, region: Callable[..., Region]) -> None:
    a, b = rows(1, 2, 3), np.array([[2], [-3]], "i8")
    inputs, outputs = region("inputs", 64), region("outputs", 64)
    inputs.put(a, offset=8)
    inputs.put(b, offset=48)
    inputs.register(client)
    outputs.register(client)
    answer = client.infer(
        "two_by_two",
        [placed_input("b", [2, 1], "INT64", "inputs", 16, 48), placed_input("a", [2, 3], "FP32", "inputs", 24, 8)],
        outputs=[placed_output("product", "outputs", 24), placed_output("total", "outputs", 40, 24)],
    )
    assert np.array_equal(outputs.get("<f4", [2, 3]), a * b.astype("f4"))
    assert np.array_equal(outputs.get("<f4", [2, 3], offset=24), a + b.astype("f4"))
    told = answer.get_response()
    assert [(one.name, one.datatype, list(one.shape)) for one in told.outputs] == [
        ("total", "FP32", [2, 3]),
        ("product", "FP32", [2, 3]),
    ]
    assert list(told.raw_output_contents) == [b"", b""]


def test_memory_and_message_may_be_mixed(client: triton.InferenceServerClient, region: Callable[..., Region]) -> None:
    a, b = rows(2, 1, 3), np.array([[5]], "i8")
    data = region("data", 64)
    data.put(b)
    data.register(client)
    answer = client.infer(
        "two_by_two",
        [placed_input("b", [1, 1], "INT64", "data", 8), sent_input("a", a, "FP32")],
        outputs=[triton.InferRequestedOutput("product"), placed_output("total", "data", 12, 16)],
    )
    told = answer.get_response()
    # As the C++ client reads them: the entry of an output has the output's own place, also where it is empty.
    entry = {one.name: told.raw_output_contents[index] for index, one in enumerate(told.outputs)}
    assert entry == {"total": b"", "product": (a * np.float32(5)).tobytes()}
    assert np.array_equal(answer.as_numpy("product"), a * np.float32(5))
    assert np.array_equal(data.get("<f4", [1, 3], offset=16), a + np.float32(5))


def test_strings_go_through_memory(client: triton.InferenceServerClient, region: Callable[..., Region]) -> None:
    words = np.array([["", "plain"], ["\u00e9 \U0001f600", "a" * 300]], object)
    raw = serialized(words)
    byte_size = serialized_byte_size(raw)
    data = region("data", 1000)
    data.put(raw, offset=100)
    data.register(client)
    client.infer(
        "words",
        [placed_input("IN", [2, 2], "BYTES", "data", byte_size, 100)],
        outputs=[placed_output("OUT", "data", byte_size, 100 + byte_size)],
    )
    found = data.get(np.object_, [2, 2], offset=100 + byte_size)
    assert [word.decode() for word in found.ravel()] == words.ravel().tolist()


def test_clients_with_memory_of_their_own_share_runs(sharing: Server, region: Callable[..., Region]) -> None:
    made = [region(f"client-{index}", 128) for index in range(8)]

    def one(index: int) -> bool:
        data = made[index]
        with connected(sharing) as client:
            data.register(client)
            for turn in range(20):
                x = rows(100 * index + turn, 1 + (index + turn) % 3)
                data.put(x)
                given = placed_input("x", list(x.shape), "FP32", data.name, x.nbytes)
                client.infer("scale", [given], outputs=[placed_output("y", data.name, x.nbytes, 64)])
                if not np.array_equal(data.get("<f4", list(x.shape), offset=64), x * np.float32(2)):
                    return False
            client.unregister_system_shared_memory(data.name)
        return True

    with ThreadPoolExecutor(len(made)) as pool:
        assert all(pool.map(one, range(len(made))))


def test_what_does_not_fit_is_refused_by_name(
    client: triton.InferenceServerClient, region: Callable[..., Region]
) -> None:
    data = region("data", 64)
    data.put(rows(3))
    data.register(client)
    with refusal("NOT_FOUND", "no region 'other'"):
        client.infer("scale", [placed_input("x", [1, 4], "FP32", "other", 16)])
    with refusal("INVALID_ARGUMENT", "input 'x' is 16 bytes at offset 56, but region 'data' has 64"):
        client.infer("scale", [placed_input("x", [1, 4], "FP32", "data", 16, 56)])
    with refusal("INVALID_ARGUMENT", "input 'x'", "takes 16 bytes but has 12"):
        client.infer("scale", [placed_input("x", [1, 4], "FP32", "data", 12)])
    with refusal("INVALID_ARGUMENT", "output 'y' is 16 bytes, but the request gives it 15"):
        given = placed_input("x", [1, 4], "FP32", "data", 16)
        client.infer("scale", [given], outputs=[placed_output("y", "data", 15, 16)])
    assert np.array_equal(data.get("<f4", [4], offset=0), rows(3)[0])
    assert not data.get("<f4", [12], offset=16).any()


def test_memory_that_its_owner_shrinks_is_an_error_and_the_server_lives(
    client: triton.InferenceServerClient, region: Callable[..., Region]
) -> None:
    data = region("data", 8192)
    data.register(client)
    os.truncate(Path("/dev/shm", data.key[1:]), 4096)
    given = placed_input("x", [1, 4], "FP32", "data", 16, 4096)
    with refusal("INVALID_ARGUMENT", "the memory of region 'data' has become smaller", secret=data.key):
        client.infer("scale", [given])
    given = sent_input("x", rows(4), "FP32")
    with refusal("INVALID_ARGUMENT", "output 'y'", "smaller", secret=data.key):
        client.infer("scale", [given], outputs=[placed_output("y", "data", 16, 4096)])
    assert np.array_equal(client.infer("scale", [given]).as_numpy("y"), rows(4) * np.float32(2))


def test_a_region_may_be_unregistered_while_a_request_waits_for_its_run(
    sharing: Server, client: triton.InferenceServerClient, region: Callable[..., Region]
) -> None:
    x = rows(5)
    data = region("data", 64)
    data.put(x)
    data.register(client)
    waiting: pb.ModelInferRequest = slow(x, 0)
    del waiting.raw_input_contents[0]
    for tensor, offset in ((waiting.inputs[0], 0), (waiting.outputs.add(name="y"), 32)):
        tensor.parameters["shared_memory_region"].string_param = "data"
        tensor.parameters["shared_memory_byte_size"].int64_param = 16
        tensor.parameters["shared_memory_offset"].int64_param = offset
    with sharing.stub() as stub:
        busy = occupy(sharing, stub)
        call = stub.ModelInfer.future(waiting)
        wait_for(sharing, "slow", lambda now: now.queue_rows == 1)
        client.unregister_system_shared_memory("data")
        assert not busy.done()
        assert list(call.result(timeout=30).raw_output_contents) == [b""]
        assert np.array_equal(data.get("<f4", [1, 4], offset=32), x)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(waiting)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
