"""One call as Python code handles it: messages to take, messages to send, one end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final

import grpc

from inferd._native.h2 import Connection
from inferd._native.stream import Stream
from inferd.errors import Code, InferdError
from inferd.rpc.native.compression import ACCEPTED, accepts, packed, unpacked
from inferd.rpc.native.metadata import Header, Metadatum, received
from inferd.telemetry.calls import Call as NotedCall

UNSENT_BYTES: Final = 64 * 1024
"""Beyond this a write waits until the client has taken what was written."""


class Call:
    """What the stream tells goes in through message(), half_close(), sent() and closed(); the rest is for handlers.

    Belongs to the loop's thread. `run` makes the coroutine that answers; it is started when there is something for
    it to do, and cancelled when nobody waits for it any more. `noted` is told how it ended.
    """

    def __init__(
        self,
        stream: Stream,
        run: Callable[[Call], Coroutine[None, None, None]],
        keep: Callable[[asyncio.Task[None]], None],
        *,
        is_unary: bool,
        encoding: str | None,
        noted: NotedCall | None = None,
    ) -> None:
        connection = stream.connection
        assert isinstance(connection, Connection)
        self.stream, self.connection, self.noted = stream, connection, noted
        self.loop = asyncio.get_running_loop()
        self.encoding = encoding  # of what is sent
        self.is_over = False
        self.is_cancelled = False
        self.when_over: list[Callable[[], object]] = []
        self._run, self._keep, self._is_unary = run, keep, is_unary
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._inbox: deque[tuple[bytes, bool]] = deque()
        self._waiting: asyncio.Future[None] | None = None
        self._drained = asyncio.Event()
        if not is_unary:
            self._begin()

    def _begin(self) -> None:
        self._task = self.loop.create_task(self._run(self))
        self._keep(self._task)

    # --- what the stream tells ------------------------------------------------------------------------

    def message(self, body: bytes, compressed: bool) -> None:
        """A message has come."""
        if self._is_unary and self._inbox:
            self.stream.finish(Code.INTERNAL, b"a unary call has one message, and this is another", [])
            return
        self._inbox.append((body, compressed))
        self._wake()

    def half_close(self) -> None:
        """No more messages will come."""
        self._wake()
        if self._is_unary:
            if self._inbox:
                self._begin()
            else:
                self.stream.finish(Code.INTERNAL, b"a unary call has one message, and this one has none", [])

    def sent(self) -> None:
        """A message has left."""
        self._drained.set()

    def closed(self) -> None:
        """The call is over, whoever ended it. May come twice."""
        if self.is_over:
            return
        self.is_over = True
        self.is_cancelled = not self._ended
        if self.noted is not None:
            self.noted.end(self.stream.code if self.stream.code >= 0 else Code.CANCELLED)
        if self._task is not None and not self._task.done():
            self._task.cancel()
        if self._waiting is not None:
            self._waiting.cancel()  # of a handler in a thread, which no task of ours waits for
        self._drained.set()
        self._inbox.clear()
        for callback in self.when_over:
            self.loop.call_soon(callback)
        self.when_over.clear()

    # --- what handlers do -----------------------------------------------------------------------------

    def metadata(self) -> tuple[Metadatum, ...]:
        """What the client sent with the call."""
        return received(self.stream.metadata())

    async def read(self) -> bytes | None:
        """The next message; None after the last. Raises UsageError once the call is over, InferdError if it is bad."""
        while not self._inbox:
            if self.is_over:
                raise grpc.aio.UsageError("the call is over")
            if self.stream.half_closed:
                return None
            self._waiting = self.loop.create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        body, compressed = self._inbox.popleft()
        self.stream.taken(len(body))
        return self.unpacked(body) if compressed else body

    def unpacked(self, body: bytes) -> bytes:
        """A compressed message as it was."""
        return unpacked(body, self.stream.compression, self.connection.hub.max_message_bytes)

    def start(self, metadata: list[Header]) -> None:
        """Send the response's headers. Raises UsageError if they have been sent."""
        if self.stream.is_started:
            raise grpc.aio.UsageError("initial metadata has been sent")
        headers = [*metadata, (b"grpc-accept-encoding", ACCEPTED)]
        if self.encoding is not None and not accepts(self.stream.metadata(), self.encoding):
            self.encoding = None
        if self.encoding is not None:
            headers.append((b"grpc-encoding", self.encoding.encode()))
        self.stream.start(headers)

    def send(self, body: bytes, *, plain: bool = False) -> None:
        """Queue a message. Raises UsageError once the call has ended."""
        if not self.stream.is_open:
            raise grpc.aio.UsageError("the call has ended")
        if not self.stream.is_started:
            self.start([])
        small = packed(body, self.encoding) if self.encoding and not plain else None
        if small is None:
            self.stream.send(body)
        else:
            self.stream.send(small, True)

    async def write(self, body: bytes, *, plain: bool = False) -> None:
        """Send a message, waiting while the client does not take what was sent before."""
        self.send(body, plain=plain)
        while self.stream.is_open and self.stream.unsent_bytes > UNSENT_BYTES:
            self._drained.clear()
            await self._drained.wait()

    def end(self, code: int, text: str, trailers: list[Header]) -> None:
        """Give the status. Only the first one counts."""
        self._ended = True
        self.stream.finish(code, text.encode("utf-8", "replace"), trailers)

    def refuse(self, failure: InferdError) -> None:
        """End with the status of a failure."""
        self.end(failure.code, failure.public_text, [])

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)
