"""The receive path of the native server: two connections of one hub, and clients that may send anything at any time.

All of it is the server's own but the sockets and the clock. An input is steps; whatever they are, no exception
escapes, what is written is HTTP/2, each call ends once, and nothing is left.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import frames
import grpc
from served import HANDLERS, INFER, INFER_STREAM, MESSAGE_BYTES, SERVICE, Model
from steps import Kind, Step, steps_of

from inferd._native import live
from inferd._native.h2 import Connection
from inferd._native.hub import Hub
from inferd.rpc.native.server import NativeServer

# So low that inputs of a few kilobytes meet all of them.
LIMITS = {
    "max_message_bytes": MESSAGE_BYTES, "max_metadata_bytes": 2048, "max_streams": 8, "window_bytes": 16384,
    "max_unpaid_frames": 200,
}  # fmt: skip
HIGH_WATER_BYTES = 4096
FAR_NS = 1 << 62


# --- what is not real ------------------------------------------------------------------------------------


class Socket(asyncio.Transport):
    """What an asyncio transport is to a protocol. It keeps what is written, and stalls as its client does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: Connection) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.loop, self.connection = loop, connection
        self.received, self.written = bytearray(), bytearray()
        self.waiting = 0  # bytes that the client has not read
        self.unheard = b""  # what comes while the connection rests
        self.is_stalled = self.is_paused = self.is_lost = self.is_deaf = self._is_closing = False
        connection.connection_made(self)

    def write(self, data: Any) -> None:
        assert type(data) in (bytes, memoryview)
        assert data, "nothing is written"
        assert not self.is_paused, "written although it was asked to pause"
        assert not self.connection.closing_ns, "written after the end"
        if self._is_closing and not self.waiting:
            return  # asyncio drops it
        self.written += data
        if self.is_stalled:
            self.waiting += len(data)
            if self.waiting > HIGH_WATER_BYTES:
                self.is_paused = True
                self.connection.pause_writing()

    def pause_reading(self) -> None:
        assert not self.is_deaf
        self.is_deaf = True

    def resume_reading(self) -> None:
        self.is_deaf = False
        data, self.unheard = self.unheard, b""
        self._deliver(data)

    def stall(self) -> None:
        self.is_stalled = True

    def read(self) -> None:
        self.is_stalled, self.waiting = False, 0
        if self._is_closing:
            self.loop.call_soon(self.lose, None)
        elif self.is_paused:
            self.is_paused = False
            self.connection.resume_writing()

    def is_closing(self) -> bool:
        return self._is_closing

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            if not self.waiting:
                self.loop.call_soon(self.lose, None)

    def abort(self) -> None:
        self._is_closing = True
        self.loop.call_soon(self.lose, None)

    def lose(self, exc: Exception | None) -> None:
        if not self.is_lost:
            self.is_lost = self._is_closing = True
            self.connection.connection_lost(exc)

    def receive(self, data: bytes, kind: Kind) -> None:
        if self.is_lost:
            return
        if not self._is_closing:
            self.received += data
        # TLS may still have something after close().
        if kind is Kind.RECEIVE_COPY:
            self.connection.data_received(data)
            return
        self._deliver(data)

    def _deliver(self, data: bytes) -> None:
        while data and not self.is_lost:
            if self.is_deaf:
                self.unheard += data
                return
            buffer = self.connection.get_buffer(-1)
            part = data[: len(buffer)]
            buffer[: len(part)] = part
            self.connection.buffer_updated(len(part))
            data = data[len(part) :]


class Loop(asyncio.SelectorEventLoop):
    """Knows when nothing is left to do for it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def call_soon(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
        self.asked += 1
        return super().call_soon(*args, **kwargs)

    async def idle(self) -> None:
        """Turn until nobody but this asks for another turn."""
        while True:
            asked = self.asked
            await asyncio.sleep(0)
            if self.asked == asked + 1:
                return


# --- one run ---------------------------------------------------------------------------------------------


class Run:
    """What one input does."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.model = loop, Model()
        self.server = NativeServer(compression=grpc.Compression.Gzip)
        self.server.add_registered_method_handlers(SERVICE, HANDLERS)
        self.server.methods[INFER] = self.model.method
        self.server.methods[INFER_STREAM] = self.model.streams
        self.ahead_ns = 0  # of the real clock
        self.due_ns = 0
        self.hub = Hub(
            self.server.methods,
            lambda path: None,
            loop.call_soon,
            lambda _, go_on: loop.call_soon(go_on),  # nobody waits for real here
            self._on_deadline,
            lambda: None,
            **LIMITS,
        )
        self.slots: list[Socket | None] = [None, None]
        self.gone: list[Socket] = []

    def _on_deadline(self, due_ns: int) -> None:
        self.due_ns = due_ns

    def now_ns(self) -> int:
        return time.monotonic_ns() + self.ahead_ns

    def expire(self) -> None:
        """What the loop's timer would do by now."""
        now_ns = self.now_ns()
        if self.due_ns and self.due_ns <= now_ns:
            self.due_ns = 0
            self.hub.expire(now_ns)

    async def play(self, data: bytes) -> None:
        for step in steps_of(data):
            self.take(step)
            if not step.at_once:
                await asyncio.sleep(0)
        await self.end()

    def take(self, step: Step) -> None:
        socket = self.slots[step.slot]
        if socket is None:
            socket = self.slots[step.slot] = Socket(self.loop, Connection(self.hub))
        connection = socket.connection
        match step.kind:
            case Kind.RECEIVE | Kind.RECEIVE_COPY:
                socket.receive(step.data, step.kind)
            case Kind.TAKE:
                self.model.take(self.now_ns(), self.hub)
            case Kind.SETTLE:
                self.model.settle(int.from_bytes(step.data, "big"), self.hub)
            case Kind.STALL:
                socket.stall()
            case Kind.READ:
                socket.read()
            case Kind.LATER:
                self.ahead_ns += 1 << (step.data or b"\0")[0] % 60
                self.expire()
            case Kind.LOST:
                socket.lose(ConnectionResetError() if step.data else None)
                self.slots[step.slot] = None
                self.gone.append(socket)
            case Kind.TURN:
                self.model.turn()
            case _ if not socket.is_lost:
                self.command(step, socket, connection)

    def command(self, step: Step, socket: Socket, connection: Connection) -> None:
        """What NativeServer does to its connections."""
        match step.kind:
            case Kind.HOUSEKEEPING:
                if not connection.is_paused:
                    connection.unpaid_frames = 0
                if connection.is_leaving and not connection.closing_ns:
                    connection.take_no_more()
            case Kind.EOF:
                if not connection.eof_received():
                    socket.close()
            case Kind.GO_AWAY:
                connection.go_away()
            case Kind.NO_MORE:
                connection.take_no_more()
            case Kind.CUT:
                connection.cut(step.data)
            case Kind.CLOSE:
                connection.close()
            case Kind.ABORT:
                connection.abort()

    async def end(self) -> None:
        """Let everything come to its end, and see that it did."""
        for socket in filter(None, self.slots):
            socket.read()
        await self.loop.idle()
        # An answer that leaves may have a stream's next request begun.
        while self.model.running or self.model.take(0, self.hub):
            self.model.settle(0, self.hub)
            await self.loop.idle()
        self.ahead_ns = FAR_NS
        self.expire()
        await self.loop.idle()
        still_open = [socket for socket in self.slots if socket is not None and not socket.is_closing()]
        for socket in filter(None, self.slots):
            socket.lose(None)
            self.gone.append(socket)
        await self.loop.idle()
        for socket in self.gone:
            check_ends(socket, is_open=socket in still_open)
            assert not socket.connection.streams
        assert not self.hub.connections
        assert not self.model.queue.requests
        assert not self.model.admission.requests, "a permit was not given back"
        assert asyncio.all_tasks() == {asyncio.current_task()}


def http2(socket: Socket) -> bytes:
    """What was written, without the one answer that is no HTTP/2."""
    written = bytes(socket.written)
    if socket.received.startswith(frames.PREFACE):
        return written
    before, _, answer = written.partition(b"HTTP/1.1 426 ")
    _, _, text = answer.partition(b"\r\n\r\n")
    assert f"content-length: {len(text)}\r\n".encode() in answer or not answer
    return before


def check_ends(socket: Socket, *, is_open: bool) -> None:
    """Each call that is complete has one end, and none only if its client takes no more of it."""
    client, server = frames.asked(bytes(socket.received)), frames.told(http2(socket))
    last = min((last for last, _ in server.goaways), default=1 << 31)
    is_open &= not any(error for _, error in server.goaways)
    assert client.window >= server.sent or not client.is_orderly, "more was sent than the client has room for"
    for number, stream in client.streams.items():
        told = server.streams.get(number, frames.Told())
        is_blocked = client.window <= server.sent or stream.window <= len(told.body)
        ends = told.ends()
        if client.is_orderly and stream.is_whole and stream.is_orderly and not stream.is_reset:
            assert ends <= 1, f"stream {number} has {ends} ends"
            if is_open and number <= last and not is_blocked:
                assert ends == 1, f"stream {number} has no end"


class Failures(logging.Handler):
    """Everything that somebody caught and only told of."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append(logging.Formatter().format(record))

    def on_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.found.append(repr(context))

    def on_unraisable(self, unraisable: Any) -> None:
        self.found.append(f"{unraisable.err_msg}: {unraisable.exc_value!r} in {unraisable.object!r}")


@contextmanager
def nothing_caught(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """AssertionError if anything was only logged in the block."""
    failures = Failures()
    log, hook = logging.getLogger("inferd"), sys.unraisablehook
    log.addHandler(failures)
    propagates, log.propagate = log.propagate, False
    loop.set_exception_handler(failures.on_loop)
    sys.unraisablehook = failures.on_unraisable
    try:
        yield
    finally:
        log.removeHandler(failures)
        log.propagate = propagates
        sys.unraisablehook = hook
    assert not failures.found, "\n".join(failures.found)


class Receive:
    """The target. Its loop serves all runs."""

    def __init__(self) -> None:
        self.loop = Loop()

    def __call__(self, data: bytes) -> None:
        before = live.snapshot() or {}
        with nothing_caught(self.loop):
            self.loop.run_until_complete(Run(self.loop).play(data))
            if (live.snapshot() or {}) != before:
                gc.collect()
        left = live.snapshot() or {}
        # Fewer may be left than there were: what an earlier run left to the collector.
        assert all(left[kind] <= before[kind] for kind in left), f"left behind: {left}"

    def close(self) -> None:
        self.loop.close()
