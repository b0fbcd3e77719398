"""ModelStreamInfer on the reference transport; on the native one ext/infer_stream does the same."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from typing import Any, Final

import grpc

from inferd._native.reply import streamed_failure
from inferd._native.wire import decode
from inferd.errors import DeadlineExceeded, InferdError, Internal, InvalidRequest, NotReady
from inferd.rpc.answering import Answering
from inferd.rpc.boundary import Context

log = logging.getLogger("inferd.rpc")

MAX_BEGUN: Final = 256
"""Requests of one stream that are begun and whose answers have not left; no more are read meanwhile."""
MAX_HELD_BYTES: Final = 8 * 1024 * 1024
"""Bytes of those requests and of their answers, as far as they can be foreseen."""

LATE_S: Final = 0.01
"""Less time than this is none: timers of the loop may come a little early."""


@dataclass(slots=True)
class _Ended:
    """What became of one request."""

    message: bytes
    failure: InferdError | None


class Streaming:
    """The handler of ModelStreamInfer: answers leave in the order of the requests, a failure is told in its place."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._lines: set[_Line] = set()
        self._is_leaving = False

    def leave(self) -> None:
        """Begin nothing more: each stream ends once what was begun is answered, with UNAVAILABLE if that is not all."""
        self._is_leaving = True
        for line in self._lines:
            line.cut_short()

    async def ModelStreamInfer(self, requests: Any, context: Context) -> None:
        """Many inferences: bytes of ModelInferRequests in, bytes of ModelStreamInferResponses out.

        With the metadata `triton_grpc_error: true` the first failure ends the call with its own status.
        """
        line = _Line(self._answering, context)
        self._lines.add(line)
        if self._is_leaving:
            line.cut_short()
        try:
            await line.answer_all()
        finally:
            self._lines.discard(line)
            await line.close()


class _Line:
    """The requests of one stream that are begun, in their order."""

    def __init__(self, answering: Answering, context: Context) -> None:
        self._answering, self._context = answering, context
        metadata = context.invocation_metadata() or ()
        self._ends_at_failure = any((key, value) == ("triton_grpc_error", "true") for key, value in metadata)
        self._begun: deque[tuple[asyncio.Task[_Ended], int]] = deque()
        self._held_bytes = self._largest_answer = 0
        self._changed = asyncio.Event()
        self._is_complete = False
        self._reading = asyncio.create_task(self._read())
        self._reading.add_done_callback(lambda _: self._changed.set())

    def cut_short(self) -> None:
        """Read no more."""
        self._reading.cancel()

    async def close(self) -> None:
        """Let go of everything."""
        left = [self._reading, *(task for task, _ in self._begun)]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def answer_all(self) -> None:
        """Write the answers until there are no more. Raises the failure that ends the call, if one does."""
        while True:
            while not self._begun and not self._reading.done():
                self._changed.clear()
                await self._changed.wait()
            if not self._begun:
                break
            task, nbytes = self._begun[0]
            ended = await task
            if ended.failure is not None and self._ends_at(ended.failure):
                raise ended.failure
            self._largest_answer = max(self._largest_answer, len(ended.message))
            await self._context.write(ended.message)
            self._begun.popleft()
            self._held_bytes -= nbytes
            self._changed.set()
        if not self._is_complete:
            if self._reading.cancelled():
                raise NotReady("the server is stopping; open a stream to another replica")
            await self._reading

    async def _read(self) -> None:
        while True:
            while not self._has_room():
                self._changed.clear()
                await self._changed.wait()
            body: Any = await self._context.read()
            if body is grpc.aio.EOF:
                self._is_complete = True
                return
            self._held_bytes += len(body)
            self._begun.append((asyncio.create_task(self._end_of(body)), len(body)))
            self._changed.set()

    def _ends_at(self, failure: InferdError) -> bool:
        if self._ends_at_failure:
            return True
        # If the stream's own deadline has passed, a request was only the first to notice it.
        remaining_s = self._context.time_remaining()
        return isinstance(failure, DeadlineExceeded) and remaining_s is not None and remaining_s < LATE_S

    def _has_room(self) -> bool:
        foreseen = self._held_bytes + len(self._begun) * self._largest_answer
        return not self._begun or (len(self._begun) < MAX_BEGUN and foreseen < MAX_HELD_BYTES)

    async def _end_of(self, body: bytes) -> _Ended:
        failure: InferdError
        try:
            remaining_s = self._context.time_remaining()
            peer, metadata = self._context.peer(), self._context.invocation_metadata
            answer = self._answering.answer(body, remaining_s, peer, streamed=True, metadata=metadata)
            return _Ended(await answer, None)
        except InferdError as found:
            failure = found
        except Exception:
            log.exception("This is a bug.", extra={"code": Internal.code})
            failure = Internal()
        return _Ended(streamed_failure(failure.public_text.encode(), _id_of(body)), failure)


def _id_of(body: bytes) -> bytes:
    try:
        return decode(body).id.encode()
    except InvalidRequest:
        return b""
