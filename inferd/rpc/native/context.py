"""What a servicer knows of its call and does to it: grpc.aio's ServicerContext, here over a Call."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import grpc

from inferd.rpc.native import peer
from inferd.rpc.native.call import Call
from inferd.rpc.native.compression import NAMES
from inferd.rpc.native.metadata import Header, Metadatum, Pairs, to_send

CODES = {code.value[0]: code for code in grpc.StatusCode}


class Context(grpc.aio.ServicerContext[Any, Any]):
    """One call's context. Belongs to the loop's thread."""

    def __init__(self, call: Call, deserialize: Callable[[bytes], Any], serialize: Callable[[Any], bytes]) -> None:
        self.call = call
        self._deserialize, self._serialize = deserialize, serialize
        self._code = grpc.StatusCode.OK
        self._details = ""
        self._trailing: Pairs = ()
        self._trailers: list[Header] = []
        self._next_is_plain = False

    # --- the end --------------------------------------------------------------------------------------

    async def abort(self, code: grpc.StatusCode | int, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        """End the call with this status now, by an exception."""
        self.set_abort(code, details, trailing_metadata)
        self.end()
        raise grpc.aio.AbortError("the call was ended by its servicer")

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """The same with a grpc.Status."""
        await self.abort(status.code, status.details, status.trailing_metadata or ())

    def set_abort(self, code: grpc.StatusCode | int, details: str, trailing_metadata: Any) -> None:
        """Remember the status of an abort. Raises UsageError for OK."""
        if _status(code) is grpc.StatusCode.OK:
            raise grpc.aio.UsageError("abort() cannot end a call with OK")
        self.set_code(code)
        self.set_details(details)
        if trailing_metadata:
            self.set_trailing_metadata(trailing_metadata)

    def end(self) -> None:
        """Give the status that was set."""
        self.call.end(self._code.value[0], self._details, self._trailers)

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """The status at the end of the call."""
        self._code = _status(code)

    def set_details(self, details: str) -> None:
        """The text at the end of the call."""
        self._details = details

    def code(self) -> grpc.StatusCode:
        """What set_code() set."""
        return self._code

    def details(self) -> str:
        """What set_details() set."""
        return self._details

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        """What goes with the status. Raises ValueError for what cannot be metadata."""
        self._trailing, self._trailers = trailing_metadata, to_send(trailing_metadata)

    def trailing_metadata(self) -> Any:
        """What set_trailing_metadata() set."""
        return self._trailing

    # --- messages -------------------------------------------------------------------------------------

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        """Send the response's headers, before any message. Raises UsageError if they have been sent."""
        self.call.start(to_send(initial_metadata))

    async def read(self) -> Any:
        """The next message, or grpc.aio.EOF."""
        body = await self.call.read()
        return grpc.aio.EOF if body is None else self._deserialize(body)

    async def write(self, message: Any) -> None:
        """Send a message; waits while the client does not take what was sent."""
        plain, self._next_is_plain = self._next_is_plain, False
        await self.call.write(self._serialize(message), plain=plain)

    def answer(self, message: Any) -> None:
        """Send the one message of a unary response, and OK."""
        self.call.send(self._serialize(message), plain=self._next_is_plain)
        self.end()

    def set_compression(self, compression: grpc.Compression) -> None:
        """How messages are compressed, if the client reads it. Raises UsageError once the headers have been sent."""
        if self.call.stream.is_started:
            raise grpc.aio.UsageError("initial metadata has been sent, and with it how messages are compressed")
        self.call.encoding = NAMES.get(compression)

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._next_is_plain = True

    # --- the call -------------------------------------------------------------------------------------

    def invocation_metadata(self) -> Any:
        """What the client sent: pairs of name and value."""
        found: tuple[Metadatum, ...] = self.call.metadata()
        return found

    def time_remaining(self) -> Any:
        """Seconds until the deadline, None without one."""
        deadline_ns = self.call.stream.deadline_ns
        return max(deadline_ns - time.monotonic_ns(), 0) * 1e-9 if deadline_ns else None

    def cancelled(self) -> bool:
        """Whether it was over before the servicer ended it."""
        return self.call.is_cancelled

    def done(self) -> bool:
        """Whether a status was given or can no longer be."""
        return self.call.is_over or not self.call.stream.is_open

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Have it called with this context when the call is over; soon, if it is."""
        if self.call.is_over:
            self.call.loop.call_soon(callback, self)
        else:
            self.call.when_over.append(lambda: callback(self))

    # --- the client -----------------------------------------------------------------------------------

    def peer(self) -> str:
        """The client's address."""
        return peer.address(self.call.connection)

    def auth_context(self) -> Mapping[str, tuple[bytes, ...]]:
        """What TLS has proved about the client."""
        return peer.auth_context(self.call.connection)

    def peer_identity_key(self) -> str | None:
        """Which entry of auth_context() says who the client is."""
        return peer.identity_key(self.auth_context())

    def peer_identities(self) -> tuple[bytes, ...] | None:
        """Who the client is."""
        context = self.auth_context()
        key = peer.identity_key(context)
        return context[key] if key is not None else None


def _status(code: grpc.StatusCode | int) -> grpc.StatusCode:
    if isinstance(code, grpc.StatusCode):
        return code
    if code not in CODES:
        raise grpc.aio.UsageError(f"{code!r} is no status of gRPC")
    return CODES[code]
