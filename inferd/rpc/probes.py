"""A port for probes: grpc.health.v1 and nothing else, without TLS and for everybody.

A kubelet that probes over gRPC shows no certificate, and most have no TLS to speak.
"""

from __future__ import annotations

import logging

import grpc

from inferd.config import Settings
from inferd.rpc.health import HealthServicer
from inferd.rpc.listening import cannot_listen

log = logging.getLogger("inferd.rpc")

MAX_MESSAGE_BYTES = 4096
MAX_STREAMS = 16


class HealthPort:
    """A listener of its own, on whichever transport carries the rest."""

    def __init__(self, settings: Settings, servicer: HealthServicer) -> None:
        """Listens from start() on."""
        self._host, self.port = settings.host, settings.grpc.health_port
        self._server = _server(settings)
        servicer.add_to(self._server)

    async def start(self) -> None:
        """Listen. Raises StartError if the address cannot be had."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = self._server.add_insecure_port(f"{host}:{self.port}")
        except RuntimeError as failure:
            raise cannot_listen(self._host, self.port, failure.__cause__, "--grpc-health-port") from failure
        await self._server.start()

    async def stop(self) -> None:
        """Answer until now, and no longer."""
        await self._server.stop(0)


def _server(settings: Settings) -> grpc.aio.Server:
    if settings.transport == "native":
        try:
            from inferd.rpc.native.limits import Limits
            from inferd.rpc.native.server import NativeServer
        except ImportError as missing:
            log.debug("grpcio carries the probes", extra={"reason": str(missing)})
        else:
            return NativeServer(Limits(max_message_bytes=MAX_MESSAGE_BYTES, max_streams=MAX_STREAMS))
    return grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_concurrent_streams", MAX_STREAMS),
            ("grpc.so_reuseport", 0),
        ]
    )
