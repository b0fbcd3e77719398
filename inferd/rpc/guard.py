"""What stands before every method on the reference transport; on the native one ext/guard and the server do that."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from inferd.auth.current import CURRENT, WHO
from inferd.auth.judge import Judge, certificate_names
from inferd.errors import Code, InferdError
from inferd.rpc.boundary import STATUS, Context
from inferd.telemetry.calls import INFERENCE, OTHER, Call, Calls, take_up

Behavior = Callable[[Any, Context], Any]


class Entrance(grpc.aio.ServerInterceptor):
    """Takes note of each call, and asks the judge, if there is one, before its handler and whether or not it has one.

    Inference is noted by whoever answers it, unless it is refused here.
    """

    def __init__(self, calls: Calls, judge: Judge | None) -> None:
        """Of one server."""
        self._calls, self._judge = calls, judge

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler behind this door, of the same kind."""
        handler: Any = await continuation(handler_call_details)
        path: Any = handler_call_details.method
        if isinstance(path, bytes):
            path = path.decode("latin-1")
        name = path.removeprefix("/")
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(self._around(path, OTHER, name, _unknown))
        if name in INFERENCE and self._judge is None:
            return handler  # type: ignore[no-any-return]
        made = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }
        make, behavior = made[handler.request_streaming, handler.response_streaming]
        around = self._around(path, name, "", behavior)
        return make(around, handler.request_deserializer, handler.response_serializer)

    def _around(
        self, path: str, method: str, original: str, behavior: Behavior
    ) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            if method in INFERENCE:
                return await self._admitted(path, method, behavior, request, context)
            noted = self._begin(method, context, original)
            take_up(noted)
            return await _noted(noted, context, self._admitted(path, method, behavior, request, context))

        return call

    def _begin(self, method: str, context: Context, original: str = "") -> Call:
        metadata = partial(_metadata, context)
        return self._calls.begin(method, time.monotonic_ns(), metadata, original=original)

    async def _admitted(self, path: str, method: str, behavior: Behavior, request: Any, context: Context) -> Any:
        if self._judge is not None:
            headers = {key: value for key, value in context.invocation_metadata() or ()}
            names = certificate_names(context.auth_context())
            try:
                principal, permission = self._judge.admit(names, headers, path, method, context.peer())
            except InferdError as failure:
                code, text = failure.code, failure.public_text
            else:
                CURRENT.set(permission)
                WHO.set(principal)
                return await _made(behavior, request, context)
            if method in INFERENCE:
                self._begin(method, context).end(code)
            return await context.abort(STATUS[code], text)
        return await _made(behavior, request, context)


def _metadata(context: Context) -> Any:
    return context.invocation_metadata() or ()


async def _made(behavior: Behavior, request: Any, context: Context) -> Any:
    made = behavior(request, context)
    if not hasattr(made, "__aiter__"):
        return await made
    async for message in made:
        await context.write(message)
    return None


async def _noted(noted: Call, context: Context, answering: Awaitable[Any]) -> Any:
    """What the call comes to, with its end noted whatever that is."""
    code = Code.CANCELLED
    try:
        answer = await answering
        code = _code(context)
    except asyncio.CancelledError:
        remaining_s = context.time_remaining()
        code = Code.CANCELLED if remaining_s is None or remaining_s > 0 else Code.DEADLINE_EXCEEDED
        raise
    except BaseException:
        # Of abort(), or what the transport makes UNKNOWN of.
        code = _code(context) or Code.UNKNOWN
        raise
    finally:
        noted.end(code)
    return answer


def _code(context: Context) -> Code:
    told: Any = context.code()
    try:
        return Code(told.value[0] if isinstance(told, grpc.StatusCode) else told or 0)
    except ValueError:
        return Code.UNKNOWN


async def _unknown(requests: Any, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server has no such method")
