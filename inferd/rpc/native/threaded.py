"""The context that a servicer sees which is a plain function and so runs in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NoReturn, TypeVar

import grpc

from inferd.rpc.native.context import Context

T = TypeVar("T")


class ThreadedContext(grpc.ServicerContext):
    """grpc's blocking ServicerContext over a Context on the loop's thread."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def wait(self, work: Coroutine[None, None, T]) -> T:
        """Have the loop do something, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._context.call.loop).result()

    def requests(self) -> Iterator[Any]:
        """The messages of a stream as they come."""
        while (message := self.wait(self._context.read())) is not grpc.aio.EOF:
            yield message

    def abort(self, code: Any, details: str, trailing_metadata: Any = ()) -> NoReturn:
        """End the call with this status, by an exception."""
        self._context.set_abort(code, details, trailing_metadata)
        raise grpc.aio.AbortError("the call was ended by its servicer")

    def abort_with_status(self, status: Any) -> NoReturn:
        """The same with a grpc.Status."""
        self.abort(status.code, status.details, status.trailing_metadata or ())

    def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the response's headers."""
        self.wait(self._context.send_initial_metadata(initial_metadata))

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """What goes with the status."""
        self._context.set_trailing_metadata(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """What set_trailing_metadata() set."""
        return self._context.trailing_metadata()

    def set_code(self, code: Any) -> None:
        """The status at the end of the call."""
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """The text at the end of the call."""
        self._context.set_details(details)

    def code(self) -> Any:
        """What set_code() set."""
        return self._context.code()

    def details(self) -> Any:
        """What set_details() set."""
        return self._context.details()

    def set_compression(self, compression: grpc.Compression) -> None:
        """How messages are compressed."""
        self._context.set_compression(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._context.disable_next_message_compression()

    def invocation_metadata(self) -> Any:
        """What the client sent."""
        return self._context.invocation_metadata()

    def time_remaining(self) -> Any:
        """Seconds until the deadline, None without one."""
        return self._context.time_remaining()

    def is_active(self) -> bool:
        """Whether a status can still be given."""
        return not self._context.done()

    def cancel(self) -> bool:
        """End the call with CANCELLED; always True."""
        loop = self._context.call.loop
        loop.call_soon_threadsafe(self._context.call.end, grpc.StatusCode.CANCELLED.value[0], "", [])
        return True

    def add_callback(self, callback: Callable[[], Any]) -> bool:
        """Have it called when the call is over; False if it is."""

        async def add() -> bool:
            if self._context.done():
                return False
            self._context.call.when_over.append(callback)
            return True

        return self.wait(add())

    def peer(self) -> str:
        """The client's address."""
        return self._context.peer()

    def auth_context(self) -> Any:
        """What TLS has proved about the client."""
        return self._context.auth_context()

    def peer_identity_key(self) -> str | None:
        """Which entry of auth_context() says who the client is."""
        return self._context.peer_identity_key()

    def peer_identities(self) -> tuple[bytes, ...] | None:
        """Who the client is."""
        return self._context.peer_identities()
