"""The native transport as the server uses it: services as on the reference transport, inference compiled."""

from __future__ import annotations

from typing import Any, TypedDict

import grpc

from inferd._native.access import AccessLog
from inferd._native.guard import Guard
from inferd._native.h2 import Connection
from inferd._native.infer import Endpoint, InferMethod, settle
from inferd._native.infer_stream import InferStreamMethod
from inferd._native.principal import Principal
from inferd._native.stats import ModelStats
from inferd._native.stream import Stream
from inferd._native.trace import Sampling
from inferd._native.wire import Request
from inferd.auth.judge import Judge, certificate_names
from inferd.config import Grpc, Settings
from inferd.errors import InferdError
from inferd.models import Model, Models
from inferd.rpc.boundary import COMPRESSION, trailing_metadata
from inferd.rpc.inference import MODEL_INFER, MODEL_STREAM_INFER, InferenceService
from inferd.rpc.listening import cannot_listen, cannot_listen_at
from inferd.rpc.native import peer
from inferd.rpc.native.compression import accepts, packed, unpacked
from inferd.rpc.native.limits import Limits
from inferd.rpc.native.metadata import Header, to_send
from inferd.rpc.native.server import NativeServer
from inferd.telemetry.calls import OTHER
from inferd.tls import Certificates


class _Watched(TypedDict):
    names: tuple[str, str]
    sampling: Sampling | None
    access: AccessLog | None


class NativeTransport:
    """A listening gRPC server; services are added before start()."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        service: InferenceService,
        certificates: Certificates | None = None,
        judge: Judge | None = None,
    ) -> None:
        self._certificates = certificates
        self._host, self._asked_port = settings.host, settings.grpc.port
        self._unix_socket = settings.grpc.unix_socket
        self._models = models
        self.port = settings.grpc.port
        self._encoding = None if settings.grpc.compression == "none" else settings.grpc.compression
        self.server = NativeServer(
            _limits(settings.grpc),
            reuse_port=settings.grpc.reuse_port,
            compression=COMPRESSION[settings.grpc.compression],
        )
        if judge is not None:
            self.server.guard = Guard(_Judging(judge, self.server))
        self._regions, self._recent_errors = service.regions, service.recent_errors
        self._watching = service.watching
        self.server.heeds_traces = self._watching.samplings is not None
        self.server.calls = service.calls
        self._infer = InferMethod(
            self._endpoint,
            service.unknown_stats,
            self._told,
            _unpacked,
            self._packed if self._encoding else None,
            settings.inference.timeout_ms * 1_000_000,
            service.admission,
            None if self._watching.samplings is None else self._watching.samplings.of(""),
            self._watching.access,
        )
        self._streams = InferStreamMethod(self._infer, self._encoding_for if self._encoding else None)
        self.server.methods[MODEL_INFER] = self._infer
        self.server.methods[MODEL_STREAM_INFER] = self._streams

    def add(self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Serve the handlers, by method name, under the full name of their service."""
        self.server.add_registered_method_handlers(service, handlers)

    async def start(self) -> None:
        """Listen. Raises StartError if the address cannot be had."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = self._add_port(f"{host}:{self._asked_port}")
        except RuntimeError as failure:
            raise cannot_listen(self._host, self._asked_port, failure.__cause__) from failure
        if self._unix_socket is not None:
            try:
                self.server.add_insecure_port(f"unix:{self._unix_socket}")
            except RuntimeError as failure:
                raise cannot_listen_at(self._unix_socket, failure.__cause__) from failure
        await self.server.start()

    def _add_port(self, address: str) -> int:
        if self._certificates is None:
            return self.server.add_insecure_port(address)
        return self.server.add_tls_port(address, self._certificates.context("h2"))

    async def leave(self, limit_s: float) -> None:
        """Send clients elsewhere, and answer what crosses with that news for as long as they need to hear it."""
        await self.server.leave(limit_s)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish for `grace_s` seconds, then cut them."""
        self._streams.leave()
        await self.server.stop(grace_s)

    def settle(self, requests: list[Request], stats: ModelStats) -> None:
        """Give the callers of a finished batch their answers."""
        settle(requests, stats, self._told, self.server.hub)

    def spare(self, nbytes: int) -> None:
        """Refuse messages of so many bytes and more before they are read; 0 refuses none."""
        if self.server.hub is not None:
            self.server.hub.spare_bytes = nbytes

    @property
    def unread(self) -> int:
        """Messages that were refused so."""
        return self.server.hub.unread if self.server.hub is not None else 0

    def forget(self) -> None:
        """A model has come, gone or changed: look again for the next request."""
        self._infer.forget()

    def _endpoint(self, name: str, version: str) -> Endpoint:
        model = self._models.find(name, version)
        try:
            model.answering()
        except InferdError as refusal:
            return Endpoint(None, model.bell, model.stats, refusal.with_traceback(None), **self._watched(model))
        watched = self._watched(model)
        return Endpoint(model.queue, model.bell, model.stats, regions=self._regions, gone=model.gone, **watched)

    def _watched(self, model: Model) -> _Watched:
        samplings = self._watching.samplings
        return {
            "names": (model.name, str(model.version)),
            "sampling": None if samplings is None else samplings.of(model.name),
            "access": self._watching.access,
        }

    def _told(self, failure: InferdError) -> list[Header]:
        """A client is told of this failure: the metadata that goes with it."""
        self._recent_errors.note(failure)
        return to_send(trailing_metadata(failure))

    def _encoding_for(self, stream: Stream) -> bytes | None:
        assert self._encoding is not None
        return self._encoding.encode() if accepts(stream.metadata(), self._encoding) else None

    def _packed(self, stream: Stream, body: bytes) -> tuple[bytes, bytes] | None:
        assert self._encoding is not None
        smaller = packed(body, self._encoding) if accepts(stream.metadata(), self._encoding) else None
        return None if smaller is None else (smaller, self._encoding.encode())


class _Judging:
    """A judge, asked about connections."""

    def __init__(self, judge: Judge, server: NativeServer) -> None:
        self._judge, self._server = judge, server
        self.refresh, self.permit = judge.refresh, judge.permit

    def identify(self, connection: Connection, authorization: bytes | None, api_key: bytes | None) -> Principal:
        names = certificate_names(peer.auth_context(connection))
        return self._judge.identify(names, authorization, api_key)

    def refused(self, stream: Stream, refusal: InferdError) -> None:
        """A call may not go on."""
        path = dict(stream.metadata()).get(b":path", b"")
        method, original = path.decode("latin-1").removeprefix("/"), ""
        if path not in self._server.methods:
            method, original = OTHER, method
        noted = self._server.note(stream, method, original)
        connection = stream.connection
        address = peer.address(connection) if isinstance(connection, Connection) else ""
        self._judge.refused(refusal, stream.principal, method, address)
        if noted is not None:
            noted.end(refusal.code)


def _limits(asked: Grpc) -> Limits:
    def seconds(setting_ms: int) -> float | None:
        return setting_ms / 1000 if setting_ms else None

    return Limits(
        max_message_bytes=asked.max_message_bytes,
        max_metadata_bytes=asked.max_metadata_bytes,
        max_streams=asked.max_concurrent_streams,
        handshake_timeout_s=asked.handshake_timeout_ms / 1000,
        keepalive_s=seconds(asked.keepalive_time_ms),
        keepalive_timeout_s=asked.keepalive_timeout_ms / 1000,
        max_idle_s=seconds(asked.max_connection_idle_ms),
        max_age_s=seconds(asked.max_connection_age_ms),
        max_age_grace_s=seconds(asked.max_connection_age_grace_ms),
    )


def _unpacked(stream: Stream, body: bytes) -> bytes:
    connection: Any = stream.connection
    return unpacked(body, stream.compression, connection.hub.max_message_bytes)
