"""One HTTP listener on the running loop. Signals, logging and the process belong to others."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from inferd.errors import Internal, StartError

BACKLOG: Final = 256
_SLACK_S: Final = 1.0
_ABSENT: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class HttpServer:
    """An application on a port: ``start`` listens or raises, ``stop`` lets answers under way finish.

    ``name`` and ``flag`` are for messages only: what the listener is called and which flag moves it.
    """

    def __init__(
        self, app: ASGIApp, host: str, port: int, name: str, *, flag: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self._app, self._host, self._port, self._name, self._flag = app, host, port, name, flag
        self._tls = tls
        self._sockets: list[socket.socket] = []
        self._uvicorn: _Uvicorn | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """The port listened on; before ``start`` the one asked for, which may be 0 for any."""
        return self._port

    async def start(self) -> None:
        """Listen and serve. Raises StartError, with nothing left open, when the address cannot be had."""
        if self._serving is not None:
            raise Internal(f"{self._name}: started twice")
        self._sockets = await self._listen()
        self._port = self._sockets[0].getsockname()[1]
        self._uvicorn = _Uvicorn(_config(self._app, self._tls))
        self._serving = asyncio.create_task(self._uvicorn.serve(sockets=self._sockets), name=f"{self._name} listener")
        up = asyncio.create_task(self._uvicorn.up.wait())
        try:
            await asyncio.wait((up, self._serving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            up.cancel()
        if self._serving.done():
            for sock in self._sockets:
                sock.close()
            raise Internal(f"{self._name}: the listener ended as it started") from self._serving.exception()

    async def stop(self, grace_s: float) -> None:
        """Refuse new connections, give answers under way ``grace_s`` seconds, cut the rest. Repeatable."""
        server, serving = self._uvicorn, self._serving
        if server is None or serving is None:
            return
        server.grace(grace_s)
        server.should_exit = True
        done, _ = await asyncio.wait((serving,), timeout=grace_s + _SLACK_S)
        if not done:
            serving.cancel()
            with suppress(asyncio.CancelledError):
                await serving
        server.cut()
        for sock in self._sockets:
            sock.close()
        self._uvicorn = self._serving = None
        if done:
            serving.result()

    async def _listen(self) -> list[socket.socket]:
        try:
            found = await asyncio.get_running_loop().getaddrinfo(
                self._host or None, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except OSError as exc:
            raise StartError(f"{self._name} host {self._host} is unknown: {exc.strerror}") from exc
        sockets: list[socket.socket] = []
        port, absent = self._port, None
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                sockets.append(_listening(family, (address[0], port, *address[2:])))
            except OSError as exc:
                if exc.errno in _ABSENT:
                    # localhost may name an address of a kind this machine has switched off.
                    absent = exc
                    continue
                for sock in sockets:
                    sock.close()
                raise StartError(self._refusal(exc, port)) from exc
            # A name with several addresses gets the same free port on each when any port will do.
            port = sockets[0].getsockname()[1]
        if not sockets and absent is not None:
            raise StartError(self._refusal(absent, port)) from absent
        return sockets

    def _refusal(self, exc: OSError, port: int) -> str:
        where = f"{self._name} port {port} on {self._host}"
        match exc.errno:
            case errno.EADDRINUSE:
                return f"{where} is taken; choose another with {self._flag}"
            case errno.EACCES | errno.EPERM:
                return f"{where} needs a right this process lacks; choose one above 1023 with {self._flag}"
            case number if number in _ABSENT:
                return f"{where} cannot be had: the host is no address of this machine"
            case _:
                return f"{where} cannot be had: {exc.strerror}"


def _listening(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # Lets a restart take the port while old connections linger; two listeners still exclude each other.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" means every address, of both kinds; any other host only itself.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.setblocking(False)
        sock.bind(address)
        # Not left to uvicorn: of two that bind at the same time both succeed, and the later listen fails.
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _config(app: ASGIApp, tls: ssl.SSLContext | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        # Given although unused, for otherwise uvicorn looks for them in the environment.
        workers=1,
        proxy_headers=False,
        forwarded_allow_ips="",
    )
    config.load()
    config.ssl = tls  # of its own it would make one from files, which it reads once
    return config


class _Uvicorn(uvicorn.Server):
    """uvicorn as a guest: it says when it is up, and leaves signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.up.set()

    def grace(self, grace_s: float) -> None:
        # uvicorn only hands it to wait_for, so a fraction does; at 0 it would report cutting nothing.
        self.config.timeout_graceful_shutdown = max(grace_s, 0.1)  # type: ignore[assignment]

    def cut(self) -> None:
        """Drop what outlived the grace: half-sent requests and answers nobody reads."""
        for connection in tuple(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
