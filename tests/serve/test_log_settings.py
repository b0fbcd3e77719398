"""LogSettings: read by everybody, changed only where the operator allows it, and then it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import onnx_models as models
import pytest
import tritonclient.grpc as triton

from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .conftest import UNLEARNT
from .process import CHANNEL_OPTIONS, Server

AS_STARTED = {
    "log_file": "", "log_info": True, "log_warning": True, "log_error": True, "log_verbose_level": 0,
    "log_format": "ISO8601",
}  # fmt: skip


def setting(value: Any) -> Any:
    field = {bool: "bool_param", int: "uint32_param", str: "string_param"}[type(value)]
    return pb.LogSettingsRequest.SettingValue(**{field: value})


def asked(stub: GRPCInferenceServiceStub, **settings: Any) -> dict[str, Any]:
    answer = stub.LogSettings(pb.LogSettingsRequest(settings={key: setting(value) for key, value in settings.items()}))
    return {key: getattr(one, one.WhichOneof("parameter_choice")) for key, one in answer.settings.items()}


def refusal(stub: GRPCInferenceServiceStub, **settings: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as refused:
        asked(stub, **settings)
    return refused.value.code(), refused.value.details()


@pytest.fixture(scope="module")
def allowing(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose clients may change what it logs."""
    folder = tmp_path_factory.mktemp("allowing")
    models.write(folder / "repository", "scale", models.scale())
    started = Server(folder / "repository", folder, transport, (*UNLEARNT, "--control-log-settings=true"), {})
    with started.while_ready():
        yield started


@pytest.fixture
def client(allowing: Server) -> Iterator[GRPCInferenceServiceStub]:
    """Connected to it, and it is left as it was."""
    with allowing.stub() as stub:
        yield stub
        changed = {key: value for key, value in AS_STARTED.items() if key != "log_file"}
        assert asked(stub, **changed) == AS_STARTED


def test_what_is_logged_can_be_read_and_by_default_not_changed(zoo: Server, stub: GRPCInferenceServiceStub) -> None:
    assert asked(stub) == AS_STARTED
    code, words = refusal(stub, log_info=False)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "--control-log-settings" in words
    assert asked(stub) == AS_STARTED
    assert "logging" not in stub.ServerMetadata(pb.ServerMetadataRequest()).extensions


def test_a_server_that_allows_it_says_so(client: GRPCInferenceServiceStub) -> None:
    assert "logging" in client.ServerMetadata(pb.ServerMetadataRequest()).extensions


def test_only_what_is_given_changes_and_the_answer_has_everything(client: GRPCInferenceServiceStub) -> None:
    assert asked(client, log_info=False) == AS_STARTED | {"log_info": False}
    assert asked(client, log_verbose_level=2, log_error=False) == AS_STARTED | {
        "log_info": False, "log_verbose_level": 2, "log_error": False,
    }  # fmt: skip
    assert asked(client)["log_verbose_level"] == 2


def test_a_change_holds_and_the_log_says_who_made_it(allowing: Server, client: GRPCInferenceServiceStub) -> None:
    def said() -> list[dict[str, Any]]:
        return [one for one in allowing.log() if one["message"] == "a client changes what is logged"]

    before = len(said())
    asked(client, log_info=True)
    # Logged while it still holds; from here on warnings, and with them these changes, are not.
    asked(client, log_warning=False)
    asked(client, log_verbose_level=3)
    assert len(said()) == before + 2
    assert said()[-1]["settings"]["log_warning"] is False
    assert "127.0.0.1" in said()[-1]["peer"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"log_colour": True}, "'log_colour' is no setting of the log; there are log_info"),
        ({"log_info": "true"}, "log_info is not a bool"),
        ({"log_error": 1}, "log_error is not a bool"),
        ({"log_verbose_level": True}, "log_verbose_level is not a uint32"),
        ({"log_format": "RFC3339"}, "log_format 'RFC3339' is none of default, ISO8601"),
        ({"log_format": 1}, "log_format is not a string"),
        ({"log_format": "default"}, "this one is JSON"),
    ],
)
def test_a_wrong_setting_is_refused_and_changes_nothing(
    client: GRPCInferenceServiceStub, settings: dict[str, Any], words: str
) -> None:
    code, told = refusal(client, log_warning=False, **settings)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert words in told
    assert asked(client) == AS_STARTED


def test_a_setting_without_a_value_is_refused(client: GRPCInferenceServiceStub) -> None:
    message = pb.LogSettingsRequest()
    message.settings["log_info"].SetInParent()
    with pytest.raises(grpc.RpcError) as refused:
        client.LogSettings(message)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_where_it_is_logged_to_cannot_be_changed(client: GRPCInferenceServiceStub) -> None:
    assert refusal(client, log_file="/tmp/log")[0] is grpc.StatusCode.UNIMPLEMENTED


def test_a_log_for_people_can_have_dates(repository: Path, server: Callable[..., Server]) -> None:
    models.write(repository, "scale", models.scale())
    one = server(repository, "--control-log-settings=true", "--log-format=human")
    with one.stub() as stub:
        assert asked(stub)["log_format"] == "default"
        assert asked(stub, log_format="ISO8601")["log_format"] == "ISO8601"
        asked(stub, log_format="default")
    changes = [line for line in one.stderr.splitlines() if "a client changes what is logged" in line]
    assert [line[2] == ":" for line in changes] == [True, False]
    assert changes[1][10] == "T"


def test_tritonclient_changes_them(allowing: Server, client: GRPCInferenceServiceStub) -> None:
    with triton.InferenceServerClient(allowing.address, channel_args=list(CHANNEL_OPTIONS)) as other:
        other.update_log_settings({"log_verbose_level": 1, "log_info": False})
        found = other.get_log_settings(as_json=True)["settings"]
        assert found["log_verbose_level"] == {"uint32_param": 1}
    assert asked(client)["log_info"] is False
