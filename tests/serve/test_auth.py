"""One policy around every method of every service, on both transports and over HTTP."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import onnx_models as models
import pytest
from authority import Authority
from google.protobuf import descriptor_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from inferd.auth import keys
from inferd.proto import inference_pb2 as pb
from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import request, rows
from .process import CHANNEL_OPTIONS, Server, eventually

DENIED, UNKNOWN = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
OK = grpc.StatusCode.OK

POLICY = """
rules:
- {who: ["key:admin"], may: ["*"]}
- {who: ["key:limited"], may: [infer, about, statistics], models: ["scale*"]}
- {who: ["key:nobody"], may: ["no.such.Service/Method"]}
- {who: [anyone], may: ["grpc.health.v1.Health/Check"]}
"""


@dataclass
class Guarded:
    """A server with a policy, and the keys of its clients."""

    server: Server
    folder: Path
    keys: dict[str, str]

    def metadata(self, name: str | None) -> tuple[tuple[str, str], ...]:
        return () if name is None else (("authorization", f"Bearer {self.keys.get(name, name)}"),)

    def http(self, path: str, name: str | None, port: int = 0, body: bytes | None = None) -> int:
        asked = urllib.request.Request(f"http://127.0.0.1:{port or self.server.http_port}{path}", data=body)
        for key, value in self.metadata(name):
            asked.add_header(key, value)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(asked, timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code


@pytest.fixture(scope="module")
def guarded(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    repository = folder / "repository"
    for name in ("scale", "scale_by_2", "other"):
        models.write(repository, name, models.scale())
    made = {}
    for name in ("admin", "limited", "nobody"):
        made[name], entry = keys.make(name)
        keys.add(folder / "keys", entry)
    (folder / "policy.yaml").write_text(POLICY)
    flags = (
        f"--auth-keys={folder / 'keys'}", f"--auth-policy={folder / 'policy.yaml'}", "--warmup-budget-ms=0",
        "--control-log-settings=true", "--model-control-mode=explicit", "--load-model=*",
        "--shared-memory-enabled=true", "--log-access=true",
    )  # fmt: skip
    server = Server(repository, folder, transport, flags, {})
    with server.while_ready():
        yield Guarded(server, folder, made)


def methods(guarded: Guarded) -> list[str]:
    """Every method of every service, as the server itself tells."""
    with guarded.server.channel() as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)

        def ask(**question: str) -> reflection_pb2.ServerReflectionResponse:
            asked = iter([reflection_pb2.ServerReflectionRequest(**question)])
            [answer] = stub.ServerReflectionInfo(asked, metadata=guarded.metadata("admin"), timeout=10)
            return answer

        found = []
        for service in ask(list_services="").list_services_response.service:
            for raw in ask(file_containing_symbol=service.name).file_descriptor_response.file_descriptor_proto:
                file = descriptor_pb2.FileDescriptorProto.FromString(raw)
                for one in file.service:
                    if f"{file.package}.{one.name}" == service.name:
                        found += [f"/{service.name}/{method.name}" for method in one.method]
    return found


def call(channel: grpc.Channel, path: str, metadata: tuple[tuple[str, str], ...]) -> tuple[grpc.StatusCode, str]:
    """The end of a call with an empty message; an answer that comes is an answer, whatever its end."""
    made = channel.stream_stream(path)(iter([b""]), metadata=metadata, timeout=10)
    try:
        for _ in made:
            made.cancel()
            return OK, ""
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    return OK, ""


def test_nothing_in_the_service_table_answers_without_permission(guarded: Guarded) -> None:
    found = methods(guarded)
    services = {path.split("/")[1] for path in found}
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} < services
    assert any(service.startswith("grpc.reflection.") for service in services)
    assert len(found) >= 23
    with guarded.server.channel() as channel:
        for path in [
            *found,
            "/grpc.health.v1.Health/List",
            "/inference.GRPCInferenceService/Unknown",
            "/no.Such/Method",
        ]:
            is_open = path == "/grpc.health.v1.Health/Check"
            texts = set()
            for name, expected in ((None, UNKNOWN), ("wrong.key", UNKNOWN), ("nobody", DENIED)):
                code, text = call(channel, path, guarded.metadata(name))
                if not (is_open and name != "wrong.key"):
                    assert code is expected, (path, name)
                    texts.add((code, text))
                else:
                    assert code not in (UNKNOWN, DENIED), (path, name)
            # Which part was wrong is told nobody.
            assert {text for code, text in texts if code is UNKNOWN} == {
                "this call needs credentials that this server knows"
            }
            code, _ = call(channel, path, guarded.metadata("admin"))
            assert code not in (UNKNOWN, DENIED), path


def test_models_that_are_not_a_callers_are_as_if_they_were_not_there(guarded: Guarded) -> None:
    with guarded.server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)
        metadata = guarded.metadata("limited")

        def code(method: Callable[..., object], message: object) -> grpc.StatusCode:
            try:
                method(message, metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                return error.code()
            return OK

        for _ in range(2):  # decided, and then remembered
            assert code(stub.ModelInfer, request("scale", x=rows(1))) is OK
            assert code(stub.ModelInfer, request("scale_by_2", x=rows(1))) is OK
            for name in ("other", "unknown", ""):
                assert code(stub.ModelInfer, request(name, x=rows(1))) is DENIED
                assert code(stub.ModelMetadata, pb.ModelMetadataRequest(name=name)) is DENIED
                assert code(stub.ModelConfig, pb.ModelConfigRequest(name=name)) is DENIED
                assert code(stub.ModelStatistics, pb.ModelStatisticsRequest(name=name)) is DENIED
            assert code(stub.ModelMetadata, pb.ModelMetadataRequest(name="scale")) is OK
            assert code(stub.ModelStatistics, pb.ModelStatisticsRequest(name="scale")) is OK
        assert code(stub.RepositoryIndex, pb.RepositoryIndexRequest()) is DENIED
        assert code(stub.RepositoryModelUnload, pb.RepositoryModelUnloadRequest(model_name="scale")) is DENIED
        # In a stream the others go on.
        asked = [request(name, x=rows(1)) for name in ("scale", "other", "scale")]
        answers = list(stub.ModelStreamInfer(iter(asked), metadata=metadata, timeout=10))
        assert [bool(one.error_message) for one in answers] == [False, True, False]


def test_http_has_the_same_policy(guarded: Guarded) -> None:
    for path in (
        "/",
        "/status.json",
        "/health",
        "/ready",
        "/v2",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/models/scale/config",
        "/v2/models/scale",
        "/v2/models/scale/ready",
    ):
        assert guarded.http(path, None) == 401, path
        assert guarded.http(path, "wrong.key") == 401, path
        assert guarded.http(path, "nobody") == 403, path
        assert guarded.http(path, "admin") == 200, path
    body = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}).encode()
    inferences = [
        guarded.http(f"/v2/models/{model}/infer", "limited", body=body) for model in ("scale", "other", "none")
    ]
    assert inferences[1:] == [403, 403]
    assert inferences[0] != 403
    assert guarded.http("/v2/models/scale/infer", None, body=body) == 401
    told = [guarded.http(f"/v2/models/{model}", "limited") for model in ("stats", "scale/stats", "other/stats")]
    assert told == [403, 200, 403]
    port = guarded.server.metrics_port
    assert [guarded.http("/metrics", name, port) for name in (None, "nobody", "admin")] == [401, 403, 200]


def test_an_operator_sees_who_is_turned_away_and_why(guarded: Guarded) -> None:
    server = guarded.server

    def refusals() -> dict[str, float]:
        asked = urllib.request.Request(f"http://127.0.0.1:{server.metrics_port}/metrics")
        asked.add_header(*guarded.metadata("admin")[0])
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=10) as answer:
            text = answer.read().decode()
        return {
            one[1]: float(one[2])
            for one in re.finditer(r'^inferd_auth_refusals_total\{reason="(\w+)"\} (\S+)$', text, re.M)
        }

    before, logged = refusals(), len(server.log())
    wrong = "wrong.key"
    with server.stub() as stub:
        for name, model in ((None, "scale"), (wrong, "scale"), ("nobody", "scale"), ("limited", "other")):
            with pytest.raises(grpc.RpcError):
                stub.ModelInfer(request(model, x=rows(1)), metadata=guarded.metadata(name))
    for name, path in ((None, "scale"), (wrong, "scale"), ("nobody", "scale"), ("limited", "other")):
        assert guarded.http(f"/v2/models/{path}", name) in (401, 403)
    assert {reason: count - before[reason] for reason, count in refusals().items()} == {
        "credentials": 2, "anonymous": 2, "method": 2, "model": 2,
    }  # fmt: skip
    told = [one for one in server.log()[logged:] if one["logger"] == "inferd.auth"]
    assert [(one["reason"], one.get("principal"), one["method"].split("/")[1]) for one in told] == [
        (reason, principal, method)
        for method in ("ModelInfer", "ModelMetadata")
        for reason, principal in (
            ("anonymous", None), ("credentials", None), ("method", "key:nobody"), ("model", "key:limited"),
        )
    ]  # fmt: skip
    assert {one["refused_model"] for one in told if one["reason"] == "model"} == {"other"}
    assert all("127.0.0.1" in one["peer"] for one in told if one["reason"] != "model")
    # Also those that never came to their method are in the access log.
    eventually(lambda: {"UNAUTHENTICATED", "PERMISSION_DENIED"} <= {
        one["code"] for one in server.log()[logged:]
        if one["logger"] == "inferd.access" and one["method"].endswith("/ModelInfer")
    })  # fmt: skip
    for secret in (*guarded.keys.values(), wrong):
        assert secret not in server.stderr


def test_a_key_that_is_taken_out_stops_working_without_a_restart(guarded: Guarded) -> None:
    secret, entry = keys.make("admin")
    path = guarded.folder / "keys"
    before = path.read_text()
    with guarded.server.channel() as channel:
        stub = GRPCInferenceServiceStub(channel)

        def works() -> bool:
            metadata = (("x-api-key", secret),)
            try:
                stub.ModelInfer(request("scale", x=rows(1)), metadata=metadata, timeout=10)
            except grpc.RpcError as error:
                if error.code() is not UNKNOWN:
                    raise
                return False
            return True

        assert not works()
        keys.add(path, entry)
        eventually(works)
        path.write_text(before)
        eventually(lambda: not works())


def test_a_certificate_is_a_principal(repository: Path, tmp_path: Path, transport: str) -> None:
    models.write(repository, "scale", models.scale())
    authority = Authority(tmp_path)
    pair = authority.sign("server", hosts=("127.0.0.1",))
    (tmp_path / "policy.yaml").write_text(
        "rules: [{who: ['cert:alice'], may: [infer]}, {who: [anyone], may: [health]}]"
    )
    flags = (
        f"--tls-certificate={pair.certificate}", f"--tls-key={pair.key}", "--tls-client-auth=required",
        f"--tls-client-ca={authority.certificate}", f"--auth-policy={tmp_path / 'policy.yaml'}", "--warmup-budget-ms=0",
    )  # fmt: skip
    server = Server(repository, tmp_path, transport, flags, {})

    def ended(name: str) -> grpc.StatusCode:
        client = authority.sign(name, hosts=())
        credentials = grpc.ssl_channel_credentials(
            authority.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        )
        with grpc.secure_channel(server.address, credentials, options=CHANNEL_OPTIONS) as channel:
            try:
                GRPCInferenceServiceStub(channel).ModelInfer(request("scale", x=rows(1)), timeout=10)
            except grpc.RpcError as error:
                return error.code()
        return OK

    try:
        server.wait_for_ports()
        assert [ended("alice"), ended("bob")] == [OK, DENIED]
    finally:
        server.stop()
