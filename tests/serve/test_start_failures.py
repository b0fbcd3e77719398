"""A server that cannot start says why in one line and exits with 2."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import onnx
import onnx_models as models
import pytest

from .calls import arrays, request, rows, trips_for
from .conftest import Refusal
from .process import Server

Refused = Callable[..., Refusal]


def only_line(ended: Refusal) -> str:
    """The one line that a refusal consists of."""
    assert ended.code == 2
    assert ended.stdout == ""
    assert len(ended.lines) == 1, ended.lines
    assert ended.lines[0].startswith("inferd: ")
    return ended.lines[0]


def write_broken(repository: Path, name: str) -> None:
    folder = repository / name / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"this is no model")


def test_a_path_that_does_not_exist_is_named(tmp_path: Path, refused: Refused) -> None:
    assert str(tmp_path / "nothing") in only_line(refused(tmp_path / "nothing"))


def test_a_folder_without_models_says_what_one_looks_like(repository: Path, refused: Refused) -> None:
    assert "<repository>/<model>/<version>/model.onnx" in only_line(refused(repository))


def test_a_file_that_is_no_model_is_named_with_the_reason(repository: Path, refused: Refused) -> None:
    models.write(repository, "good", models.scale())
    write_broken(repository, "broken")
    line = only_line(refused(repository))
    assert "model 'broken/1': " in line
    assert "ONNX Runtime cannot load it" in line
    assert "'good'" not in line


def test_a_model_that_needs_a_gpu_is_named_where_none_is(repository: Path, refused: Refused) -> None:
    models.write(repository, "m", models.scale(), config="instance_group { kind: KIND_GPU }")
    line = only_line(refused(repository, "--device-kind=cpu"))
    assert (
        "model 'm/1': config.pbtxt: instance_group asks for KIND_GPU, and no GPU can be used: device.kind is cpu"
        in line
    )


def test_every_model_with_a_wrong_folder_is_named_at_once(repository: Path, refused: Refused) -> None:
    models.write(repository, "good", models.scale())
    (repository / "no_version").mkdir()
    (repository / "no_file" / "1").mkdir(parents=True)
    line = only_line(refused(repository))
    assert "model 'no_file': " in line
    assert "model 'no_version': " in line


def test_a_model_with_an_operator_that_does_not_exist_is_named(repository: Path, refused: Refused) -> None:
    model = models.scale()
    model.graph.node[0].op_type = "Frobnicate"
    (repository / "odd" / "1").mkdir(parents=True)
    onnx.save(model, repository / "odd" / "1" / "model.onnx")
    line = only_line(refused(repository))
    assert "'odd/1'" in line
    assert "Frobnicate" in line


def test_an_unknown_flag_is_named(repository: Path, refused: Refused) -> None:
    models.write(repository, "scale", models.scale())
    assert "--grpc-prot" in only_line(refused(repository, "--grpc-prot=1"))


def test_a_value_out_of_range_is_named(repository: Path, refused: Refused) -> None:
    models.write(repository, "scale", models.scale())
    assert "grpc.port" in only_line(refused(repository, "--grpc-port=70000"))


def test_an_unknown_setting_in_a_file_is_named(tmp_path: Path, repository: Path, refused: Refused) -> None:
    models.write(repository, "scale", models.scale())
    file = tmp_path / "inferd.yaml"
    file.write_text("grpc:\n  prot: 1\n")
    assert "grpc.prot" in only_line(refused(repository, f"--config={file}"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.mark.parametrize("flag", ["--grpc-port", "--http-port", "--metrics-port"])
def test_a_port_that_is_taken_is_named_with_the_flag_that_moves_it(
    repository: Path, refused: Refused, taken_port: int, flag: str
) -> None:
    models.write(repository, "scale", models.scale())
    line = only_line(refused(repository, f"{flag}={taken_port}"))
    assert f"port {taken_port} on 127.0.0.1" in line
    assert flag in line


def test_a_second_server_does_not_share_the_port_of_the_first(
    repository: Path, server: Callable[..., Server], refused: Refused
) -> None:
    models.write(repository, "scale", models.scale())
    first = server(repository)
    assert f"port {first.grpc_port}" in only_line(refused(repository, f"--grpc-port={first.grpc_port}"))


# --- not strict ----------------------------------------------------------------------------------------


@pytest.fixture
def lenient(repository: Path, server: Callable[..., Server]) -> Server:
    """A server with one good model, one broken file and one broken folder."""
    models.write(repository, "good", models.scale())
    write_broken(repository, "broken")
    (repository / "empty").mkdir()
    return server(repository, "--models-strict=false")


def test_without_strictness_the_other_models_are_served(lenient: Server) -> None:
    with lenient.stub() as stub:
        assert arrays(stub.ModelInfer(request("good", x=rows(1))))["y"].shape == (1, 4)
    assert lenient.health("good") == "SERVING"


def test_without_strictness_a_broken_model_is_shown_with_its_reason(lenient: Server) -> None:
    status, page = lenient.http("/ready")
    assert status == 200
    states = {one["name"]: (one["state"], one["reason"]) for one in page["models"]}
    assert states["good"] == ("READY", "")
    assert states["broken"][0] == "FAILED"
    assert "ONNX Runtime cannot load it" in states["broken"][1]
    assert states["empty"][0] == "FAILED"
    assert lenient.health("broken") == "NOT_SERVING"
    assert lenient.health("broken/1") == "NOT_SERVING"
    errors = [one for one in lenient.log() if one["level"] == "error"]
    assert {one["model"] for one in errors} == {"broken", "empty"}


@pytest.mark.parametrize("name", ["broken", "empty"])
def test_without_strictness_a_broken_model_refuses_inference_without_paths(lenient: Server, name: str) -> None:
    with lenient.stub() as stub, pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(request(name, x=rows(1)))
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert f"'{name}'" in refused.value.details()
    assert "/" not in refused.value.details()


def test_without_strictness_a_server_with_nothing_but_broken_models_does_not_start(
    repository: Path, refused: Refused
) -> None:
    write_broken(repository, "broken")
    assert "no model could be loaded" in only_line(refused(repository, "--models-strict=false"))


# --- stopped while it starts ---------------------------------------------------------------------------


def test_sigterm_while_a_model_loads_ends_the_server_well_and_soon(
    repository: Path, launch: Callable[..., Server]
) -> None:
    models.write(repository, "slow_to_load", models.slow_to_load(trips_for(20_000)), config="max_batch_size: 0")
    one = launch(repository)
    one.wait_until_listening()
    one.terminate()
    assert one.wait(timeout_s=5) == 0
    assert [record["message"] for record in one.log()][-1] == "stopped"


def test_a_single_file_is_served_under_the_name_of_its_folder(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale(), version=7)
    one = server(repository / "scale" / "7" / "model.onnx")
    with one.stub() as stub:
        assert stub.ModelInfer(request("scale", x=rows(1))).model_version == "7"


def test_a_free_port_is_chosen_and_told_when_port_0_is_asked_for(
    repository: Path, launch: Callable[..., Server]
) -> None:
    models.write(repository, "scale", models.scale())
    one = launch(repository, "--grpc-port=0", "--http-port=0", "--metrics-port=0")
    port = one.wait_for_ports()["gRPC"]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=10)


def test_a_model_with_a_name_of_the_health_checks_does_not_speak_for_the_server(
    server: Callable[..., Server], repository: Path
) -> None:
    models.write(repository, "liveness", models.mlp())
    models.write(repository, "mlp", models.mlp())
    assert server(repository, "--models-strict=false").health("liveness") == "SERVING"
