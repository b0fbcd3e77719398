"""Models whose tensors clients see in another shape, as config.pbtxt says it, with the client that most users have."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .calls import rows
from .process import CHANNEL_OPTIONS, Server

GRID = """
max_batch_size: 8
dynamic_batching { }
input { name: "x" data_type: TYPE_FP32 dims: [ 2, 2 ] reshape { shape: [ 4 ] } }
output { name: "y" data_type: TYPE_FP32 dims: [ 4, 1 ] reshape { shape: [ 4 ] } }
"""
NUMBERS = """
max_batch_size: 8
input [
  { name: "plus" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } },
  { name: "x" data_type: TYPE_FP32 dims: [ 4 ] }
]
output { name: "y" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } }
"""
PAIRS = """
input { name: "ids" data_type: TYPE_INT64 dims: [ -1, 1, -1 ] reshape { shape: [ -1, -1 ] } }
output { name: "out" data_type: TYPE_INT64 dims: [ 1, -1, -1 ] reshape { shape: [ -1, -1 ] } }
"""
SCALAR = """
max_batch_size: 0
input { name: "x" data_type: TYPE_FP32 dims: 1 }
output { name: "y" data_type: TYPE_FP32 dims: 1 }
"""


@pytest.fixture(scope="module")
def shaped(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of models that are not seen as they are."""
    folder = tmp_path_factory.mktemp("shaped")
    repository = folder / "repository"
    models.write(repository, "grid", models.scale(), config=GRID)
    models.write(repository, "numbers", models.means(), config=NUMBERS)
    models.write(repository, "pairs", models.sequence(), config=PAIRS)
    models.write(repository, "scalar", models.scale(dims=[]), config=SCALAR)
    models.write(repository, "plain_scalar", models.scale(dims=[]))
    started = Server(repository, folder, transport, (), {})
    with started.while_ready():
        yield started


@pytest.fixture
def client(shaped: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(shaped.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield connected


def ask(client: triton.InferenceServerClient, model: str, **inputs: np.ndarray) -> triton.InferResult:
    made = []
    for name, array in inputs.items():
        datatype = "INT64" if array.dtype == np.int64 else "FP32"
        made.append(triton.InferInput(name, list(array.shape), datatype))
        made[-1].set_data_from_numpy(array)
    return client.infer(model, made)


@pytest.mark.parametrize(
    ("model", "inputs", "outputs"),
    [
        ("grid", {"x": [-1, 2, 2]}, {"y": [-1, 4, 1]}),
        ("numbers", {"x": [-1, 4], "plus": [-1, 1]}, {"y": [-1, 1]}),
        ("scalar", {"x": [1]}, {"y": [1]}),
        ("plain_scalar", {"x": []}, {"y": []}),
    ],
)
def test_metadata_and_configuration_show_what_clients_send(
    client: triton.InferenceServerClient, model: str, inputs: dict[str, list[int]], outputs: dict[str, list[int]]
) -> None:
    told = client.get_model_metadata(model)
    assert {one.name: list(one.shape) for one in told.inputs} == inputs
    assert {one.name: list(one.shape) for one in told.outputs} == outputs
    config = client.get_model_config(model).config
    start = 1 if config.max_batch_size else 0
    assert {one.name: list(one.dims) for one in config.input} == {name: dims[start:] for name, dims in inputs.items()}
    assert {one.name: list(one.dims) for one in config.output} == {name: dims[start:] for name, dims in outputs.items()}


def test_the_configuration_tells_the_models_own_shape_too(client: triton.InferenceServerClient) -> None:
    (tensor,) = client.get_model_config("grid").config.input
    assert (list(tensor.dims), list(tensor.reshape.shape)) == ([2, 2], [4])
    (tensor,) = client.get_model_config("numbers").config.output
    assert (list(tensor.dims), tensor.HasField("reshape"), list(tensor.reshape.shape)) == ([1], True, [])


def test_rows_of_another_shape_share_runs(client: triton.InferenceServerClient) -> None:
    def one(seed: int) -> bool:
        x = rows(seed, 1 + seed % 3)
        found = ask(client, "grid", x=x.reshape(-1, 2, 2)).as_numpy("y")
        return np.array_equal(found, (x * np.float32(2)).reshape(-1, 4, 1))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(100)))


def test_a_number_for_each_row_is_sent_and_answered_with_an_axis_of_its_own(
    client: triton.InferenceServerClient,
) -> None:
    x = np.array([[1, 2, 3, 6], [0, 0, 0, 4]], "f4")
    found = ask(client, "numbers", x=x, plus=np.array([[10], [20]], "f4")).as_numpy("y")
    assert found.tolist() == [[13], [21]]


@pytest.mark.parametrize("shape", [(2, 1, 3), (1, 1, 7), (5, 1, 1)])
def test_open_dimensions_go_along(client: triton.InferenceServerClient, shape: tuple[int, ...]) -> None:
    ids = np.arange(np.prod(shape)).reshape(shape)
    found = ask(client, "pairs", ids=ids).as_numpy("out")
    flat = ids.reshape(shape[0], shape[2])
    assert np.array_equal(found[0], flat + flat.sum(axis=1, keepdims=True))


def test_a_scalar_may_be_sent_as_the_only_element_of_a_vector(client: triton.InferenceServerClient) -> None:
    assert ask(client, "scalar", x=np.array([1.5], "f4")).as_numpy("y").tolist() == [3]
    assert ask(client, "plain_scalar", x=np.array(1.5, "f4")).as_numpy("y").tolist() == 3


@pytest.mark.parametrize(
    ("model", "x", "expected"), [("grid", rows(0), "[-1, 2, 2]"), ("scalar", np.array(1, "f4"), "[1]")]
)
def test_the_models_own_shape_is_refused(
    client: triton.InferenceServerClient, model: str, x: np.ndarray, expected: str
) -> None:
    with pytest.raises(InferenceServerException) as refused:
        ask(client, model, x=x)
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert f"model '{model}' expects {expected}" in refused.value.message()
