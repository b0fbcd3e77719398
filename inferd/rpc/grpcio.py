"""The reference transport: grpc.aio's server. Used where the native one is missing, and as the oracle beside it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import grpc

from inferd.auth.judge import Judge
from inferd.config import Grpc, Settings
from inferd.errors import StartError
from inferd.models import settle
from inferd.rpc.boundary import COMPRESSION
from inferd.rpc.guard import Entrance
from inferd.rpc.listening import cannot_listen, cannot_listen_at
from inferd.telemetry.calls import Calls
from inferd.tls import Certificates


class GrpcioServer:
    """A listening gRPC server; services are added before start()."""

    def __init__(
        self,
        settings: Settings,
        calls: Calls,
        certificates: Certificates | None = None,
        judge: Judge | None = None,
    ) -> None:
        if certificates is not None and (settings.tls.client_auth == "optional" or settings.tls.min_version != "1.2"):
            raise StartError("tls.client_auth optional and tls.min_version 1.3 need the native transport")
        self._certificates = certificates
        self._client_auth = settings.tls.client_auth == "required"
        self._host, self._asked_port = settings.host, settings.grpc.port
        self._unix_socket, self._reuse_port = settings.grpc.unix_socket, settings.grpc.reuse_port
        self.port = settings.grpc.port
        self.settle = settle
        self.server: grpc.aio.Server = grpc.aio.server(
            compression=COMPRESSION[settings.grpc.compression],
            interceptors=(Entrance(calls, judge),),
            options=[
                ("grpc.max_send_message_length", -1),
                ("grpc.server_handshake_timeout_ms", settings.grpc.handshake_timeout_ms),
                *_limits(settings.grpc),
            ],
        )

    def add(self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Serve the handlers, by method name, under the full name of their service."""
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))

    async def start(self) -> None:
        """Listen. Raises StartError if the address cannot be had."""
        if not self._reuse_port:
            _check_free(self._host, self._asked_port)
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = self._add_port(f"{host}:{self._asked_port}")
        except RuntimeError as failure:
            raise cannot_listen(self._host, self._asked_port, None) from failure
        if self._unix_socket is not None:
            try:
                self.server.add_insecure_port(f"unix:{self._unix_socket}")
            except RuntimeError as failure:
                raise cannot_listen_at(self._unix_socket, None) from failure
        await self.server.start()

    def _add_port(self, address: str) -> int:
        if self._certificates is None:
            return self.server.add_insecure_port(address)
        return self.server.add_secure_port(address, _credentials(self._certificates, self._client_auth))

    async def leave(self, limit_s: float) -> None:
        """Nothing: grpc.aio sends clients away in stop(), and refuses calls from then on."""

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish for `grace_s` seconds, then cut them."""
        await self.server.stop(grace_s)

    def spare(self, nbytes: int) -> None:
        """Nothing: grpc.aio reads every message that is not too large; they are refused once they are here."""

    @property
    def unread(self) -> int:
        """None were refused so."""
        return 0

    def forget(self) -> None:
        """Nothing is remembered here."""


def _credentials(certificates: Certificates, client_auth: bool) -> grpc.ServerCredentials:
    """Credentials that look at the certificates with each handshake. gRPC speaks TLS 1.2 and 1.3."""

    def now() -> grpc.ServerCertificateConfiguration:
        pems = certificates.pems
        return grpc.ssl_server_certificate_configuration([(pems.key, pems.certificate)], pems.client_ca)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        return now() if certificates.refresh() else None

    # None says that nothing has changed; the stubs do not know.
    return grpc.dynamic_ssl_server_credentials(now(), changed, client_auth)  # type: ignore[arg-type]


def _limits(asked: Grpc) -> list[tuple[str, int]]:
    options = [
        ("grpc.max_receive_message_length", asked.max_message_bytes),
        ("grpc.max_metadata_size", asked.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", asked.max_metadata_bytes),
        ("grpc.max_concurrent_streams", asked.max_concurrent_streams),
        # Off unless asked for, or a second server would silently share the port.
        ("grpc.so_reuseport", int(asked.reuse_port)),
        ("grpc.keepalive_timeout_ms", asked.keepalive_timeout_ms),
        # Silent clients are asked as well, however often.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    times = {
        "grpc.keepalive_time_ms": asked.keepalive_time_ms,
        "grpc.max_connection_idle_ms": asked.max_connection_idle_ms,
        "grpc.max_connection_age_ms": asked.max_connection_age_ms,
        "grpc.max_connection_age_grace_ms": asked.max_connection_age_grace_ms,
    }
    return options + [(name, after_ms) for name, after_ms in times.items() if after_ms]


def _check_free(host: str, port: int) -> None:
    """Try the address first: gRPC's own words for a taken port are three lines that name no cause."""
    if port == 0:
        return
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        _bind(found)
    except OSError as failure:
        raise cannot_listen(host, port, failure) from failure


def _bind(found: Iterable[tuple[Any, ...]]) -> None:
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
