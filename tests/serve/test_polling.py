"""--model-control-mode poll: the server follows its repository, and loads nothing that is still being written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx_models as models
import pytest

from inferd.proto import inference_pb2 as pb

from .conftest import UNLEARNT
from .controlling import NOT_A_MODEL, READY, UNAVAILABLE, Controlled, bytes_of, wait_until
from .process import Server

POLL = "--model-control-mode=poll"
SETTLE_MS = 300


@pytest.fixture(scope="module")
def following(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that follows a repository, which is empty at first; each test brings a model of its own."""
    folder = tmp_path_factory.mktemp("poll")
    (folder / "repository").mkdir()
    flags = (*UNLEARNT, POLL, f"--models-settle-ms={SETTLE_MS}", "--models-rescan-ms=0")
    started = Server(folder / "repository", folder, transport, flags, {})
    with started.while_ready():
        yield started, folder / "repository"


@pytest.fixture
def model(following: tuple[Server, Path], request: pytest.FixtureRequest) -> Iterator[Controlled]:
    """It doubles, and is served."""
    server, repository = following
    with server.stub() as stub:
        made = Controlled.named(server, stub, repository, request.node.name)
        wait_until(lambda: made.states() == {"1": READY})
        yield made
        shutil.rmtree(repository / made.name, ignore_errors=True)


def test_a_server_of_an_empty_repository_is_ready(following: tuple[Server, Path]) -> None:
    with following[0].stub() as stub:
        assert stub.ServerReady(pb.ServerReadyRequest()).ready


def test_a_model_that_comes_is_served_and_one_that_goes_is_not(model: Controlled) -> None:
    assert model.answer() == ("1", 2.0)
    shutil.rmtree(model.repository / model.name)
    wait_until(lambda: model.index() == {})
    assert model.server.health(model.name) == "NOT_FOUND"
    model.write(3.0)
    wait_until(lambda: model.states() == {"1": READY})
    assert model.answer() == ("1", 3.0)


def test_a_new_version_takes_over_and_one_that_is_taken_away_gives_way(model: Controlled) -> None:
    model.write(3.0, version=2)
    wait_until(lambda: model.states() == {"2": READY})
    assert model.answer() == ("2", 3.0)
    shutil.rmtree(model.file(2).parent)
    wait_until(lambda: model.states() == {"1": READY})
    assert model.answer() == ("1", 2.0)


def test_a_file_that_is_written_anew_is_loaded_anew(model: Controlled) -> None:
    model.write(7.0)
    wait_until(lambda: model.answer() == ("1", 7.0))


def test_a_config_that_is_written_later_is_followed(model: Controlled) -> None:
    model.configure("max_batch_size: 5")

    def batch_size() -> int:
        return int(model.stub.ModelConfig(pb.ModelConfigRequest(name=model.name)).config.max_batch_size)

    wait_until(lambda: batch_size() == 5)


def test_a_version_that_is_still_being_copied_is_not_loaded(model: Controlled) -> None:
    content = bytes_of(models.scale(3.0))
    model.file(2).parent.mkdir()
    with model.file(2).open("wb", buffering=0) as file:
        for at in range(0, len(content), 8):
            file.write(content[at : at + 8])
            time.sleep(SETTLE_MS / 1000 / 10)
            assert model.states() == {"1": READY}
    wait_until(lambda: model.states() == {"2": READY})
    assert model.answer() == ("2", 3.0)


def test_a_version_that_does_not_load_never_takes_over_until_it_is_mended(model: Controlled) -> None:
    model.put(NOT_A_MODEL, version=2)
    wait_until(lambda: model.states() == {"1": READY, "2": UNAVAILABLE})
    assert "ONNX Runtime cannot load it" in model.index()["2"][1]
    assert model.answer() == ("1", 2.0)
    model.write(3.0, version=2)
    wait_until(lambda: model.states() == {"2": READY})
    assert model.answer() == ("2", 3.0)


def test_a_config_that_is_wrong_is_listed_and_what_serves_goes_on(model: Controlled) -> None:
    model.configure("max_batch_size: many")
    wait_until(lambda: model.index().get("", ("", ""))[0] == UNAVAILABLE)
    assert "config.pbtxt" in model.index()[""][1]
    assert model.answer() == ("1", 2.0)
    model.configure("max_batch_size: 4")
    wait_until(lambda: model.states() == {"1": READY})


def test_a_link_to_elsewhere_is_not_followed(model: Controlled, tmp_path: Path) -> None:
    elsewhere = tmp_path / "model.onnx"
    elsewhere.write_bytes(bytes_of(models.scale(3.0)))
    model.file(2).parent.mkdir()
    model.file(2).symlink_to(elsewhere)
    wait_until(lambda: model.index().get("", ("", ""))[0] == UNAVAILABLE)
    assert "leads out of the repository" in model.index()[""][1]
    assert model.answer() == ("1", 2.0)


def test_changes_that_the_system_does_not_tell_of_are_found_by_looking(
    repository: Path, server: Callable[..., Server]
) -> None:
    # What lies behind a link to the repository itself is watched where it lay at the start.
    first, second = repository / "first", repository / "second"
    for folder, factor in ((first, 2.0), (second, 3.0)):
        folder.mkdir()
        models.write(folder, "scale", models.scale(factor))
    (repository / "current").symlink_to("first")
    one = server(repository / "current", POLL, "--models-settle-ms=100", "--models-rescan-ms=200")
    with one.stub() as stub:
        model = Controlled(one, stub, repository, "scale")
        assert model.answer() == ("1", 2.0)
        (repository / "next").symlink_to("second")
        (repository / "next").rename(repository / "current")
        wait_until(lambda: model.answer() == ("1", 3.0))
