"""Classes in place of scores, asked for with the client that most users have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx_models as models
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from .calls import rows
from .process import CHANNEL_OPTIONS, Server

LABELS = ("up left", "", "down left", "down: right")
WEIGHTS = np.eye(4, dtype="f4") + np.float32(0.5)
OUTPUTS = (
    'output { name: "scores" data_type: TYPE_FP32 dims: [ 2, 2 ] label_filename: "labels.txt" } '
    'output { name: "words" data_type: TYPE_STRING dims: 4 }'
)


def repository_of(folder: Path) -> Path:
    models.write(folder, "heads", models.two_heads(), config=f"max_batch_size: 8 dynamic_batching {{ }} {OUTPUTS}")
    (folder / "heads" / "labels.txt").write_text("\n".join(LABELS) + "\n")
    models.write(folder, "flat", models.scale(dims=[4]))
    return folder


@pytest.fixture(scope="module")
def heads(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a model of two outputs, one of which has labels, and a model without rows."""
    folder = tmp_path_factory.mktemp("heads")
    started = Server(repository_of(folder / "repository"), folder, transport, (), {})
    with started.while_ready():
        yield started


@pytest.fixture
def client(heads: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(heads.address, channel_args=list(CHANNEL_OPTIONS)) as connected:
        yield connected


def ask(
    client: triton.InferenceServerClient, x: np.ndarray, *outputs: triton.InferRequestedOutput, model: str = "heads"
) -> triton.InferResult:
    made = triton.InferInput("x", list(x.shape), "FP32")
    made.set_data_from_numpy(x)
    return client.infer(model, [made], outputs=list(outputs))


def expected(x: np.ndarray, classes: int) -> list[list[bytes]]:
    """What the best classes of each row read as, from the scores as numpy has them."""
    found = []
    for scores in x @ WEIGHTS:
        order = np.argsort(-scores, kind="stable")[:classes]
        texts = [f"{scores[index]:f}:{index}" + (f":{LABELS[index]}" if LABELS[index] else "") for index in order]
        found.append([text.encode() for text in texts])
    return found


def exact(count: int, seed: int = 0) -> np.ndarray:
    """Rows whose sums are exact, so that every order of adding them gives the same text."""
    return np.random.default_rng(seed).integers(-64, 64, (count, 4)).astype("f4") / np.float32(4)


def test_the_server_says_that_it_classifies(client: triton.InferenceServerClient) -> None:
    assert "classification" in client.get_server_metadata().extensions


@pytest.mark.parametrize("classes", [1, 3, 4, 1000])
def test_the_best_classes_of_each_row_come_with_their_labels(
    client: triton.InferenceServerClient, classes: int
) -> None:
    x = exact(3)
    answer = ask(client, x, triton.InferRequestedOutput("scores", class_count=classes))
    assert answer.as_numpy("scores").tolist() == expected(x, classes)
    assert list(answer.get_output("scores").shape) == [3, min(classes, 4)]


def test_a_model_without_rows_has_one_list_of_classes(client: triton.InferenceServerClient) -> None:
    x = np.array([0.5, -1, 8, 0.25], "f4")
    answer = ask(client, x, triton.InferRequestedOutput("y", class_count=3), model="flat")
    assert answer.as_numpy("y").tolist() == [b"16.000000:2", b"1.000000:0", b"0.500000:3"]


def test_the_other_outputs_of_the_request_are_answered_as_they_are(client: triton.InferenceServerClient) -> None:
    x = exact(2)
    answer = ask(
        client, x, triton.InferRequestedOutput("words"), triton.InferRequestedOutput("scores", class_count=2)
    )  # fmt: skip
    assert answer.as_numpy("scores").tolist() == expected(x, 2)
    assert answer.as_numpy("words").shape == (2, 4)
    assert [float(word) for word in answer.as_numpy("words").ravel()] == x.ravel().tolist()


def test_requests_that_share_runs_get_what_each_asked_for(client: triton.InferenceServerClient) -> None:
    def one(seed: int) -> bool:
        x, classes = exact(1 + seed % 2, seed), seed % 4
        answer = ask(client, x, triton.InferRequestedOutput("scores", class_count=classes))
        found = answer.as_numpy("scores")
        if classes:
            return bool(found.tolist() == expected(x, classes))
        return np.array_equal(found.reshape(-1, 4), x @ WEIGHTS)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(one, range(200)))


def test_strings_are_not_classified(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as refused:
        ask(client, rows(1), triton.InferRequestedOutput("words", class_count=1))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "output 'words' is BYTES" in refused.value.message()


def test_a_number_below_one_is_no_number_of_classes(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException) as refused:
        ask(client, rows(1), triton.InferRequestedOutput("scores", class_count=-2))
    assert refused.value.status() == "StatusCode.INVALID_ARGUMENT"
    assert "'classification' of output 'scores' is not an int64 of at least 1" in refused.value.message()


def test_a_model_whose_labels_cannot_be_read_is_not_served(server: Callable[..., Server], repository: Path) -> None:
    repository_of(repository)
    (repository / "heads" / "labels.txt").unlink()
    one = server(repository, "--models-strict=false")
    with triton.InferenceServerClient(one.address, channel_args=list(CHANNEL_OPTIONS)) as client:
        assert client.is_model_ready("flat")
        assert not client.is_model_ready("heads")
    assert "label_filename 'labels.txt' of output 'scores' cannot be read" in one.stderr
