"""TLS on both transports: who is let in, what a rotation changes, and what a bad pair says at the start."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc
import onnx_models as models
import pytest
from authority import Authority, Pair
from grpc_health.v1 import health_pb2, health_pb2_grpc

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .calls import request, rows
from .conftest import Refusal
from .process import CHANNEL_OPTIONS, Server, eventually, free_ports

HOSTS = ("localhost", "127.0.0.1")


@dataclass
class Secured:
    """A server with TLS that asks for certificates, and what its clients need."""

    server: Server
    ours: Authority
    pair: Pair
    client: Pair
    health_port: int

    def channel(self, ca: Path | None = None, client: Pair | None = None) -> grpc.Channel:
        """A connection of its own, with a new handshake."""
        chain = client and client.certificate.read_bytes()
        key = client and client.key.read_bytes()
        credentials = grpc.ssl_channel_credentials((ca or self.ours.certificate).read_bytes(), key, chain)
        return grpc.secure_channel(self.server.address, credentials, options=CHANNEL_OPTIONS)

    def answers(self, ca: Path | None = None, client: Pair | None = None) -> bool:
        """Whether a new connection gets an inference."""
        with self.channel(ca, client) as channel:
            try:
                infer(channel)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                return False
        return True

    def handshake(self, client: Pair | None = None, **versions: ssl.TLSVersion) -> ssl.SSLSocket:
        """A handshake by Python, open."""
        context = ssl.create_default_context(cafile=self.ours.certificate)
        context.set_alpn_protocols(["h2"])
        for name, version in versions.items():
            setattr(context, name, version)
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        plain = socket.create_connection(("127.0.0.1", self.server.grpc_port), timeout=10)
        return context.wrap_socket(plain, server_hostname="localhost")


def infer(channel: grpc.Channel) -> None:
    GRPCInferenceServiceStub(channel).ModelInfer(request("scale", x=rows(1)), timeout=10)


@pytest.fixture
def launched(transport: str, repository: Path, tmp_path: Path, launch: Callable[..., Server]) -> Callable[..., Secured]:
    """Starts servers with TLS; `launched(client_auth)`, with more flags if need be."""
    models.write(repository, "scale", models.scale())
    authority = Authority(tmp_path)
    pair, client = authority.sign("server", hosts=HOSTS), authority.sign("alice", hosts=("alice.test",))

    def start(client_auth: str = "none", *flags: str) -> Secured:
        [health_port] = free_ports(1)
        given = [f"--tls-certificate={pair.certificate}", f"--tls-key={pair.key}", f"--tls-client-auth={client_auth}"]
        if client_auth != "none":
            given.append(f"--tls-client-ca={authority.certificate}")
        server = launch(repository, *given, f"--grpc-health-port={health_port}", *flags)
        wait_until_ready(health_port, server)
        return Secured(server, authority, pair, client, health_port)

    return start


def wait_until_ready(port: int, server: Server) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        stub = health_pb2_grpc.HealthStub(channel)

        def is_ready() -> bool:
            assert server.process.poll() is None, server.stderr
            try:
                asked = health_pb2.HealthCheckRequest(service="readiness")
                return stub.Check(asked, timeout=5).status == health_pb2.HealthCheckResponse.SERVING
            except grpc.RpcError:
                return False

        eventually(is_ready)


@pytest.fixture
def mutual(launched: Callable[..., Secured]) -> Secured:
    return launched("required")


def test_only_clients_with_a_certificate_of_the_authority_are_let_in(mutual: Secured, tmp_path: Path) -> None:
    assert mutual.answers(client=mutual.client)
    assert not mutual.answers()
    stranger = Authority(tmp_path, "stranger")
    assert not mutual.answers(client=stranger.sign("alice"))
    assert not mutual.answers(client=mutual.ours.sign("late", lifetime=timedelta(hours=-1)))
    assert not mutual.answers(ca=stranger.certificate, client=mutual.client)
    with mutual.server.channel() as plain, pytest.raises(grpc.RpcError) as refusal:
        infer(plain)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE
    assert mutual.answers(client=mutual.client)


def test_tls_1_2_is_the_oldest_that_is_spoken_and_h2_what_is_agreed_on(launched: Callable[..., Secured]) -> None:
    one = launched()
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        with one.handshake(minimum_version=version, maximum_version=version) as made:
            assert made.selected_alpn_protocol() == "h2"
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    plain = socket.create_connection(("127.0.0.1", one.server.grpc_port), timeout=10)
    with plain, pytest.raises((ssl.SSLError, ConnectionError)):
        old.wrap_socket(plain)
    assert one.answers()


def test_a_rotated_certificate_is_served_to_new_connections_and_no_call_is_lost(
    launched: Callable[..., Secured], tmp_path: Path
) -> None:
    one = launched()
    with one.channel() as before:
        infer(before)
        first = one.handshake()
        served = first.getpeercert(binary_form=True)
        renewed = one.ours.sign("renewed", hosts=HOSTS)
        one.pair.overwrite(renewed)
        with one.handshake() as second:
            assert second.getpeercert(binary_form=True) != served
        infer(before)
        first.close()
        # Half of a new pair is not served, and neither is nonsense.
        stranger = Authority(tmp_path, "stranger").sign("server", hosts=HOSTS)
        one.pair.key.write_bytes(stranger.key.read_bytes())
        assert one.answers()
        one.pair.certificate.write_text("nonsense")
        assert one.answers()
        infer(before)
        one.pair.overwrite(renewed)
        assert one.answers()
    assert any("not served" in record["message"] for record in one.server.log())


def test_the_authority_of_clients_is_read_again_as_well(launched: Callable[..., Secured], tmp_path: Path) -> None:
    one = launched("required")
    assert one.answers(client=one.client)
    successor = Authority(tmp_path, "successor")
    one.ours.certificate.write_bytes(successor.certificate.read_bytes())
    # The server's own certificate is still of the first, which is what clients trust.
    trusted = tmp_path / "first.pem"
    trusted.write_bytes(one.pair.certificate.read_bytes())
    renewed = successor.sign("server", hosts=HOSTS)
    one.pair.overwrite(renewed)
    assert one.answers(client=successor.sign("alice"))
    assert not one.answers(client=one.client)


def test_a_handshake_that_does_not_go_on_is_given_up(launched: Callable[..., Secured]) -> None:
    one = launched("none", "--grpc-handshake-timeout-ms=300")
    half_open = [socket.create_connection(("127.0.0.1", one.server.grpc_port), timeout=30) for _ in range(20)]
    try:
        half_open[0].sendall(b"\x16\x03\x01\x02\x00\x01")  # the beginning of a ClientHello
        for each in half_open:
            try:
                while each.recv(4096):
                    pass
            except ConnectionError:
                pass
        assert one.answers()
    finally:
        for each in half_open:
            each.close()


def test_probes_without_a_certificate_have_a_port_that_answers_nothing_else(mutual: Secured) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{mutual.health_port}", options=CHANNEL_OPTIONS) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            infer(channel)
        assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
        asked = health_pb2.HealthCheckRequest(service="liveness")
        answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_inferd_health_speaks_tls(mutual: Secured) -> None:
    def ask(*flags: str) -> tuple[int, str]:
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "inferd",
                "health",
                "--address",
                mutual.server.address,
                "--timeout-ms=20000",
                *flags,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    trust = (f"--tls-ca={mutual.ours.certificate}", "--tls-name=localhost")
    own = (f"--tls-certificate={mutual.client.certificate}", f"--tls-key={mutual.client.key}")
    assert ask(*trust, *own) == (0, "readiness SERVING\n")
    assert ask(*trust)[0] == 2
    assert ask()[0] == 2


def test_the_http_ports_have_tls_where_it_is_asked_for(launched: Callable[..., Secured]) -> None:
    one = launched("none", "--tls-http=true", "--tls-metrics=true")
    context = ssl.create_default_context(cafile=one.ours.certificate)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    for port, path in ((one.server.http_port, "/ready"), (one.server.metrics_port, "/metrics")):
        with opener.open(f"https://localhost:{port}{path}", timeout=10) as answer:
            assert answer.status == 200


@pytest.mark.parametrize(
    ("certificate", "key", "said"),
    [
        ("server", "other", "the key is another certificate's"),
        ("server", "nowhere", "cannot be read"),
        ("server", "garbage", "not PEM"),
        ("garbage", "server", "not PEM"),
    ],
)
def test_a_pair_that_cannot_serve_is_refused_at_the_start(
    repository: Path, tmp_path: Path, refused: Callable[..., Refusal], certificate: str, key: str, said: str
) -> None:
    models.write(repository, "scale", models.scale())
    authority = Authority(tmp_path)
    (tmp_path / "garbage").write_text("this is no PEM")
    pairs = {name: authority.sign(name) for name in ("server", "other")}
    certificates = {name: pair.certificate for name, pair in pairs.items()} | {"garbage": tmp_path / "garbage"}
    keys = {name: pair.key for name, pair in pairs.items()} | {
        "garbage": tmp_path / "garbage",
        "nowhere": tmp_path / "nowhere",
    }
    ended = refused(repository, f"--tls-certificate={certificates[certificate]}", f"--tls-key={keys[key]}")
    assert ended.code == 2
    [line] = ended.lines
    assert said in line
