"""Which transport carries gRPC, and what the server needs of either."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import grpc

from inferd.auth.judge import Judge
from inferd.config import Settings
from inferd.errors import StartError
from inferd.models import Models, Settle
from inferd.rpc.grpcio import GrpcioServer
from inferd.rpc.inference import InferenceService
from inferd.tls import Certificates

log = logging.getLogger("inferd.rpc")


class Transport(Protocol):
    """A gRPC server. Services are added before start()."""

    @property
    def port(self) -> int:
        """The port listened on; before start() the one asked for, which may be 0 for any."""

    @property
    def server(self) -> grpc.aio.Server:
        """What stock servicers are added to."""

    @property
    def settle(self) -> Settle:
        """How the callers of a finished batch are told."""

    def add(self, service: str, handlers: dict[str, grpc.RpcMethodHandler[Any, Any]]) -> None:
        """Serve the handlers, by method name, under the full name of their service."""

    async def start(self) -> None:
        """Listen. Raises StartError if the address cannot be had."""

    async def leave(self, limit_s: float) -> None:
        """Send clients elsewhere and answer what crosses with that news, if the transport can; takes no longer."""

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls, let those under way finish for `grace_s` seconds, then cut them."""

    def spare(self, nbytes: int) -> None:
        """Refuse messages of so many bytes and more before they are read, if the transport can; 0 refuses none."""

    @property
    def unread(self) -> int:
        """How many were refused so."""

    def forget(self) -> None:
        """A model has come, gone or changed."""


def open_transport(
    settings: Settings,
    models: Models,
    service: InferenceService,
    certificates: Certificates | None = None,
    judge: Judge | None = None,
) -> Transport:
    """The transport that was asked for, or the best there is. Raises StartError if the one asked for was not built."""
    if settings.transport == "native":
        try:
            from inferd.rpc.native.transport import NativeTransport
        except ImportError as missing:
            if "transport" in settings.model_fields_set:
                raise StartError(
                    f"the native transport was not built ({missing}); install libnghttp2-dev and build inferd again, "
                    "or choose --transport grpcio"
                ) from missing
            log.warning("the native transport was not built, so grpcio carries gRPC", extra={"reason": str(missing)})
        else:
            return NativeTransport(settings, models, service, certificates, judge)
    return GrpcioServer(settings, service.calls, certificates, judge)
