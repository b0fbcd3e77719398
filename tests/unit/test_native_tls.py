"""TLS on the native server: what a client with a certificate is known by."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from native_server import OPTIONS, SERVICE, path, run

from inferd.rpc.native.server import NativeServer

OPENSSL = shutil.which("openssl")
pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs the openssl command to make certificates")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    assert OPENSSL is not None
    subprocess.run(
        [
            OPENSSL, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-days", "2", "-subj", "/CN=tester", "-addext", "subjectAltName=DNS:localhost",
            "-keyout", folder / "key.pem", "-out", folder / "certificate.pem",
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return folder / "certificate.pem", folder / "key.pem"


@pytest.mark.parametrize("mutual", [False, True], ids=["tls", "mtls"])
def test_a_call_over_tls_is_answered_and_knows_its_client(certificate: tuple[Path, Path], mutual: bool) -> None:
    seen: list[Any] = []

    async def handler(request: bytes, context: Any) -> bytes:
        seen.append((context.peer_identity_key(), context.peer_identities(), context.auth_context()))
        return request

    async def main() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        if mutual:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(certificate[0])
        server = NativeServer()
        server.add_registered_method_handlers(SERVICE, {"S": grpc.unary_unary_rpc_method_handler(handler)})
        port = server.add_tls_port("localhost:0", context)
        await server.start()
        chain, key = certificate[0].read_bytes(), certificate[1].read_bytes()
        credentials = grpc.ssl_channel_credentials(chain, *((key, chain) if mutual else (None, None)))
        async with grpc.aio.secure_channel(f"localhost:{port}", credentials, options=OPTIONS) as channel:
            body = bytes(1_000_000)
            assert await channel.unary_unary(path("S"))(body) == body
        await server.stop(None)
        key_name, identities, auth = seen[0]
        assert auth["transport_security_type"] == (b"ssl",)
        if mutual:
            assert (key_name, identities) == ("x509_subject_alternative_name", (b"localhost",))
            assert auth["x509_common_name"] == (b"tester",)
            assert auth["x509_pem_cert"][0].startswith(b"-----BEGIN CERTIFICATE-----")
        else:
            assert (key_name, identities) == (None, None)

    run(main)
