"""--model-control-mode explicit: clients decide what is served, and what serves goes on while they do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import onnx_models as models
import pytest
from google.protobuf import json_format

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub
from inferd.proto.model_config_pb2 import ModelConfig

from .backlog import occupy, queue_behind
from .calls import code_of
from .conftest import SLOW_ALONE, UNLEARNT, Refusal
from .controlling import LOADING, NOT_A_MODEL, READY, UNAVAILABLE, UNLOADING, Controlled, bytes_of, wait_until
from .process import Server

NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT
FAILED_PRECONDITION, UNIMPLEMENTED = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED
EXPLICIT = "--model-control-mode=explicit"
UNLOADED = {"": (UNAVAILABLE, "unloaded")}


@pytest.fixture(scope="module")
def explicit(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Path]]:
    """A server that has loaded nothing, and its empty repository; each test brings a model of its own."""
    folder = tmp_path_factory.mktemp("explicit")
    (folder / "repository").mkdir()
    started = Server(folder / "repository", folder, transport, (*UNLEARNT, EXPLICIT), {})
    with started.while_ready():
        yield started, folder / "repository"


@pytest.fixture
def model(explicit: tuple[Server, Path], request: pytest.FixtureRequest) -> Iterator[Controlled]:
    """Its version 1 doubles; it is not loaded."""
    server, repository = explicit
    with server.stub() as stub:
        made = Controlled.named(server, stub, repository, request.node.name)
        yield made


def test_nothing_is_loaded_before_it_is_asked_for(model: Controlled) -> None:
    assert model.stub.ServerReady(pb.ServerReadyRequest()).ready
    assert model.index() == {"": (UNAVAILABLE, "")}
    assert model.index(ready=True) == {}
    assert code_of(model.answer) is NOT_FOUND


def test_a_model_is_loaded_served_unloaded_and_loaded_again(model: Controlled) -> None:
    for _ in range(3):
        model.load()
        assert model.answer() == ("1", 2.0)
        assert model.index(ready=True) == {"1": (READY, "")}
        model.unload()
        wait_until(lambda: model.index() == UNLOADED)
        assert code_of(model.answer) is NOT_FOUND


def test_a_new_version_takes_over_and_the_old_one_goes(model: Controlled) -> None:
    model.load()
    model.write(3.0, version=2)
    assert model.answer() == ("1", 2.0)  # nobody has asked for it
    model.load()
    assert model.answer() == ("2", 3.0)
    wait_until(lambda: model.states() == {"2": READY})
    shutil.rmtree(model.file(2).parent)
    model.load()
    assert model.answer() == ("1", 2.0)


def test_a_version_that_was_written_anew_takes_the_place_of_its_old_self(model: Controlled) -> None:
    model.load()
    model.write(5.0)
    model.load()
    assert model.answer() == ("1", 5.0)
    assert model.states() == {"1": READY}


def test_a_version_that_does_not_load_never_takes_over(model: Controlled) -> None:
    model.load()
    model.put(NOT_A_MODEL, version=2)
    with pytest.raises(grpc.RpcError) as error:
        model.load()
    assert error.value.code() is FAILED_PRECONDITION
    assert f"{model.name}/2" in error.value.details()
    assert model.answer() == ("1", 2.0)
    listed = model.index()
    assert listed["1"] == (READY, "")
    assert listed["2"][0] == UNAVAILABLE
    assert "ONNX Runtime cannot load it" in listed["2"][1]
    assert code_of(lambda: model.answer(version="2")) is FAILED_PRECONDITION
    model.write(4.0, version=2)
    model.load()
    assert model.answer() == ("2", 4.0)


def test_old_contents_serve_on_when_the_new_ones_of_the_same_version_do_not_load(model: Controlled) -> None:
    model.load()
    model.put(NOT_A_MODEL)
    assert code_of(model.load) is FAILED_PRECONDITION
    assert model.answer() == ("1", 2.0)
    state, reason = model.index()["1"]
    assert state == READY
    assert "does not load" in reason


def test_a_config_that_is_wrong_leaves_what_serves_alone(model: Controlled) -> None:
    model.load()
    model.configure("max_batch_size: many")
    assert code_of(model.load) is FAILED_PRECONDITION
    assert model.answer() == ("1", 2.0)
    model.configure("max_batch_size: 8")
    model.load()
    assert model.states() == {"1": READY}


def test_a_config_that_comes_with_the_load_holds_until_the_next_load(model: Controlled) -> None:
    def batch_size() -> int:
        return int(model.stub.ModelConfig(pb.ModelConfigRequest(name=model.name)).config.max_batch_size)

    model.load({"config": json_format.MessageToJson(ModelConfig(max_batch_size=7))})
    assert batch_size() == 7
    model.load()
    assert batch_size() != 7


def test_a_model_can_come_whole_with_the_load(model: Controlled) -> None:
    content = bytes_of(models.scale(9.0))
    shutil.rmtree(model.repository / model.name)
    model.load({"config": json.dumps({"max_batch_size": 4}), "file:3/model.onnx": content})
    assert model.answer() == ("3", 9.0)
    model.write(2.0)
    model.load()
    assert model.answer() == ("1", 2.0)


@pytest.mark.parametrize(
    ("parameters", "code"),
    [
        ({"config": "{"}, INVALID),
        ({"config": '{"max_batch_sise": 1}'}, INVALID),
        ({"config": b"{}"}, INVALID),
        ({"file:1/model.onnx": b"without a config"}, INVALID),
        ({"config": "{}", "file:1/model.onnx": "text"}, INVALID),
        ({"config": "{}", "file:../../escaped": b"x"}, INVALID),
        ({"config": "{}", "file:1/../escaped": b"x"}, INVALID),
        ({"config": "{}", "file:/etc/escaped": b"x"}, INVALID),
        ({"config": "{}", "file:1/model.onnx": NOT_A_MODEL}, FAILED_PRECONDITION),
        ({"colour": "blue"}, INVALID),
    ],
)
def test_a_load_that_asks_wrongly_is_told_so(
    model: Controlled, parameters: dict[str, str | bytes], code: grpc.StatusCode
) -> None:
    model.load()
    assert code_of(lambda: model.load(parameters)) is code
    assert model.answer() == ("1", 2.0)


@pytest.mark.parametrize("name", ["nosuch", "", "..", "../scale", "scale/1", "readiness", "a" * 1000])
def test_a_name_that_the_repository_does_not_have_is_not_found(model: Controlled, name: str) -> None:
    other = Controlled(model.server, model.stub, model.repository, name)
    assert code_of(other.load) is NOT_FOUND
    other.unload()  # nothing is served under it, as was asked for


def test_a_repository_by_name_is_not_offered(model: Controlled) -> None:
    stub, name = model.stub, model.name
    for call, message in (
        (stub.RepositoryIndex, pb.RepositoryIndexRequest(repository_name="other")),
        (stub.RepositoryModelLoad, pb.RepositoryModelLoadRequest(repository_name="other", model_name=name)),
        (stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(repository_name="other", model_name=name)),
    ):
        assert code_of(lambda call=call, message=message: call(message)) is UNIMPLEMENTED


def test_a_load_whose_client_goes_away_comes_to_its_end(model: Controlled) -> None:
    model.put(bytes_of(models.slow_to_load(200_000)))
    call = model.stub.RepositoryModelLoad.future(model.load_request({}))
    wait_until(lambda: model.states().get("1") in (LOADING, READY))
    call.cancel()
    wait_until(lambda: model.states()["1"] == READY)


def test_health_knows_a_model_for_as_long_as_it_is_loaded(model: Controlled) -> None:
    name, health = model.name, model.server.health
    assert health(name) == "NOT_FOUND"
    model.load()
    assert (health(name), health(f"{name}/1")) == ("SERVING", "SERVING")
    model.unload()
    wait_until(lambda: (health(name), health(f"{name}/1")) == ("NOT_FOUND", "NOT_FOUND"))


def test_what_was_queued_is_answered_after_an_unload(explicit: tuple[Server, Path]) -> None:
    server, repository = explicit
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    with server.stub() as stub:
        model = Controlled(server, stub, repository, "slow")
        model.load()
        busy = occupy(server, stub, duration_ms=2000)
        calls = queue_behind(server, stub, 4, duration_ms=20)
        model.unload()
        assert not calls[-1].done()
        assert model.states() == {"1": UNLOADING}
        assert [call.code() for call in (busy, *calls)] == [grpc.StatusCode.OK] * 5
        wait_until(lambda: model.index() == UNLOADED)


# --- servers that are started in another way ---------------------------------------------------------


def states_of(stub: GRPCInferenceServiceStub) -> dict[tuple[str, str], str]:
    answer = stub.RepositoryIndex(pb.RepositoryIndexRequest())
    return {(one.name, one.version): one.state for one in answer.models}


def test_models_named_at_the_start_are_loaded_and_no_others(repository: Path, server: Callable[..., Server]) -> None:
    for name in "abc":
        models.write(repository, name, models.scale())
    with server(repository, EXPLICIT, "--load-model=a", "--load-model=c").stub() as stub:
        assert states_of(stub) == {("a", "1"): READY, ("b", ""): UNAVAILABLE, ("c", "1"): READY}


def test_a_name_at_the_start_that_is_not_there_is_a_start_failure(
    repository: Path, refused: Callable[..., Refusal]
) -> None:
    models.write(repository, "a", models.scale())
    ended = refused(repository, EXPLICIT, "--load-model=a,nosuch")
    assert ended.code == 2
    assert "model 'nosuch'" in ended.lines[-1]


def test_clients_control_nothing_unless_they_are_let(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository)
    with one.stub() as stub:
        model = Controlled(one, stub, repository, "scale")
        assert code_of(model.load) is grpc.StatusCode.PERMISSION_DENIED
        assert code_of(model.unload) is grpc.StatusCode.PERMISSION_DENIED
        assert model.states() == {"1": READY}
        assert "model_repository" not in stub.ServerMetadata(pb.ServerMetadataRequest()).extensions


def test_a_load_that_takes_too_long_has_failed_and_others_go_on(
    repository: Path, server: Callable[..., Server]
) -> None:
    models.write(repository, "scale", models.scale(2.0))
    models.write(repository, "endless", models.slow_to_load(4_000_000))
    one = server(repository, EXPLICIT, "--models-load-timeout-ms=1000")
    with one.stub() as stub:
        with pytest.raises(grpc.RpcError) as error:
            Controlled(one, stub, repository, "endless").load()
        assert error.value.code() is FAILED_PRECONDITION
        assert "within 1.0 s" in error.value.details()
        model = Controlled(one, stub, repository, "scale")
        model.load()
        assert model.answer() == ("1", 2.0)
    one.terminate()
    assert one.wait() == 0  # even while the thread that nobody waits for is still at work


def test_a_trial_refuses_what_does_not_load_and_passes_what_does(
    repository: Path, server: Callable[..., Server]
) -> None:
    one = server(repository, EXPLICIT, "--models-trial=true")
    with one.stub() as stub:
        model = Controlled(one, stub, repository, "scale")
        model.write(2.0)
        model.load()
        model.put(NOT_A_MODEL, version=2)
        assert code_of(model.load) is FAILED_PRECONDITION
        assert model.answer() == ("1", 2.0)


def test_trials_one_after_another_pass_whatever_else_the_server_has_in_its_process(
    repository: Path, server: Callable[..., Server]
) -> None:
    one = server(repository, EXPLICIT, "--models-trial=true")
    with one.stub() as stub:
        model = Controlled(one, stub, repository, "scale")
        model.write(2.0)
        # gRPC's threads, forked with the rest of the process, have crashed one child in six.
        for _ in range(15):
            model.load()
            model.unload()
