"""A gRPC server over nghttp2 on the running loop, for everything that takes a grpc.aio.Server."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import grpc

from inferd._native.guard import Guard
from inferd._native.h2 import Connection
from inferd._native.handler import PythonMethod
from inferd._native.hub import Hub
from inferd._native.stream import Method, Stream
from inferd.errors import Code
from inferd.rpc.native.call import Call
from inferd.rpc.native.compression import NAMES
from inferd.rpc.native.housekeeping import Housekeeping
from inferd.rpc.native.limits import Limits
from inferd.rpc.native.listener import BACKLOG, listen
from inferd.rpc.native.metadata import Metadatum, received
from inferd.rpc.native.running import run
from inferd.telemetry.calls import OTHER, Calls
from inferd.telemetry.calls import Call as NotedCall


@dataclass(slots=True)
class CallDetails:
    """What a GenericRpcHandler is asked by."""

    method: str
    invocation_metadata: tuple[tuple[str, str | bytes], ...]


class NativeServer(grpc.aio.Server):
    """Listens from add_*_port() on, and answers from start() on.

    Handlers that are plain functions run in `threads`, the loop's own ones if None. `compression` is how answers
    are compressed where a servicer does not say. With `reuse_port` several servers may listen on one port.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        threads: Executor | None = None,
        compression: grpc.Compression = grpc.Compression.NoCompression,
        reuse_port: bool = False,
    ) -> None:
        self.limits = limits or Limits()
        self._reuse_port = reuse_port
        self.methods: dict[bytes, Method] = {}
        self._threads, self._encoding = threads, NAMES.get(compression)
        self._generic: list[grpc.GenericRpcHandler] = []
        self._ports: list[tuple[Any, ssl.SSLContext | None]] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.guard: Guard | None = None
        self.heeds_traces = False
        self.calls: Calls | None = None  # where calls have their ends noted that compiled code does not answer
        self.hub: Hub | None = None
        self._house: Housekeeping | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._housekeeping: asyncio.TimerHandle | None = None
        self._cutting: asyncio.TimerHandle | None = None
        self._is_leaving = False
        self._left, self._gone = asyncio.Event(), asyncio.Event()  # some connection, all of them
        self._terminated = asyncio.Event()

    # --- before start ---------------------------------------------------------------------------------

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ask these for methods that are not registered by name, the first ones first."""
        self._generic.extend(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Answer a service's methods; one that has been added already stays."""
        for name, handler in method_handlers.items():
            begin = partial(self._begin, handler=handler, method=f"{service_name}/{name}")
            self.methods.setdefault(f"/{service_name}/{name}".encode(), PythonMethod(begin))

    def add_insecure_port(self, address: str) -> int:
        """Listen on HOST:PORT, [IPv6]:PORT or unix:PATH and return the port. Raises RuntimeError if that fails."""
        return self._add_port(address, None)

    def add_tls_port(self, address: str, context: ssl.SSLContext) -> int:
        """The same with TLS; the context is told to speak HTTP/2, and with it any that it hands connections to."""
        context.set_alpn_protocols(["h2"])
        return self._add_port(address, context)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        """Not offered: what grpc's credentials hold can be read by grpc only."""
        raise NotImplementedError("give add_tls_port() an ssl.SSLContext; grpc's credentials cannot be read")

    def _add_port(self, address: str, context: ssl.SSLContext | None) -> int:
        if self.hub is not None:
            raise RuntimeError("ports are added before start()")
        try:
            sockets, port = listen(address, reuse_port=self._reuse_port)
        except OSError as failure:
            raise RuntimeError(f"{address} cannot be listened on: {failure.strerror or failure}") from failure
        self._ports += [(one, context) for one in sockets]
        return port

    # --- its life -------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Answer calls."""
        if self.hub is not None:
            raise RuntimeError("a server is started once")
        loop = asyncio.get_running_loop()
        limits = self.limits
        generic = PythonMethod(self._begin_generic) if self._generic else None
        hub = self.hub = Hub(
            self.methods,
            lambda path: generic,
            loop.call_soon,
            loop.call_later,
            self._on_deadline,
            self._on_left,
            max_message_bytes=limits.max_message_bytes,
            max_metadata_bytes=limits.max_metadata_bytes,
            max_streams=limits.max_streams,
            window_bytes=limits.window_bytes,
            max_unpaid_frames=limits.max_unpaid_frames,
        )
        hub.guard, hub.heeds_traces = self.guard, self.heeds_traces
        for one, context in self._ports:
            timeout_s = limits.handshake_timeout_s if context else None
            self._servers.append(
                await loop.create_server(
                    lambda: Connection(hub),
                    sock=one,
                    ssl=context,
                    ssl_handshake_timeout=timeout_s,
                    backlog=BACKLOG,  # it listens once more, and would have room for a hundred
                )
            )
        self._house = Housekeeping(hub, limits)
        self._keep_house()

    async def leave(self, limit_s: float) -> None:
        """Accept no more connections and send clients elsewhere, answering what crosses with that news.

        Returns when every client has heard and no call can come any more, at the latest after `limit_s` seconds.
        """
        if self.hub is None:
            return
        self._send_away()
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                while not all(connection.has_left for connection in self.hub.connections):
                    self._left.clear()
                    await self._left.wait()

    async def stop(self, grace: float | None) -> None:
        """Take no more calls, let those under way finish for `grace` seconds, then end them with UNAVAILABLE.

        May be called again, and the shortest grace counts.
        """
        if self.hub is None:
            self._close_listeners()
            self._terminated.set()
            return
        self._send_away()
        self._cut_in(grace or 0.0)
        self._on_left()
        await self._gone.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)
        for timer in (self._deadline, self._housekeeping, self._cutting):
            if timer is not None:
                timer.cancel()
        self._terminated.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait for stop() to end; False if it has not after `timeout` seconds."""
        try:
            await asyncio.wait_for(self._terminated.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def _send_away(self) -> None:
        assert self.hub is not None
        self._is_leaving = self.hub.is_leaving = True
        self._close_listeners()
        for connection in tuple(self.hub.connections):
            if connection.closing_ns:
                connection.close()  # now, not once it has lingered
            else:
                connection.go_away()

    def _close_listeners(self) -> None:
        for server in self._servers:
            server.close()
        for one, _ in self._ports:
            one.close()

    def _cut_in(self, grace_s: float) -> None:
        loop = asyncio.get_running_loop()
        if self._cutting is None or loop.time() + grace_s < self._cutting.when():
            if self._cutting is not None:
                self._cutting.cancel()
            self._cutting = loop.call_later(grace_s, self._cut)

    def _cut(self) -> None:
        assert self.hub is not None
        for connection in tuple(self.hub.connections):
            connection.cut(b"the server is stopping")

    def _on_left(self) -> None:
        self._left.set()
        if self._is_leaving and self.hub is not None and not self.hub.connections:
            self._gone.set()

    # --- while it serves ------------------------------------------------------------------------------

    def _begin(self, stream: Stream, handler: grpc.RpcMethodHandler[Any, Any], method: str) -> Call:
        return Call(
            stream,
            partial(run, handler=handler, threads=self._threads),
            self._keep,
            is_unary=not handler.request_streaming,
            encoding=self._encoding,
            noted=self.note(stream, method),
        )

    def note(self, stream: Stream, method: str, original: str = "") -> NotedCall | None:
        """A call has begun, of a method or of none that is here; None where nobody takes note."""
        if self.calls is None:
            return None
        metadata = partial(_metadata, stream)
        return self.calls.begin(method, stream.arrived_ns, metadata, original=original)

    def _begin_generic(self, stream: Stream) -> Call | None:
        headers = stream.metadata()
        details = CallDetails(dict(headers)[b":path"].decode("latin-1"), received(headers))
        name = details.method.removeprefix("/")
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return self._begin(stream, handler, name)
        unknown = self.note(stream, OTHER, name)
        if unknown is not None:
            unknown.end(Code.UNIMPLEMENTED)
        stream.finish(Code.UNIMPLEMENTED, f"this server has no method {details.method}".encode(), [])
        return None

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _on_deadline(self, due_ns: int) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        # Timers of the loop may come a little early, and would then come again at once.
        self._deadline = asyncio.get_running_loop().call_at(due_ns * 1e-9 + 0.001, self._expire)

    def _expire(self) -> None:
        assert self.hub is not None
        self.hub.expire(time.monotonic_ns())

    def _keep_house(self) -> None:
        assert self._house is not None
        self._house.turn(time.monotonic_ns())
        self._housekeeping = asyncio.get_running_loop().call_later(self._house.every_s, self._keep_house)


def _metadata(stream: Stream) -> tuple[Metadatum, ...]:
    return received(stream.metadata())
