"""Runs handlers of the four kinds, asynchronous ones on the loop and plain functions in threads."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import aclosing
from functools import partial
from typing import Any, Final

import grpc

from inferd.auth.current import CURRENT
from inferd.errors import Garbled, InferdError
from inferd.rpc.native.call import Call
from inferd.rpc.native.context import Context
from inferd.rpc.native.threaded import ThreadedContext
from inferd.telemetry.calls import take_up

log = logging.getLogger("inferd.rpc")

_END: Final = object()


async def run(call: Call, handler: grpc.RpcMethodHandler[Any, Any], threads: Executor | None) -> None:
    """Answer one call. Whatever the handler does, the call has an end after this."""
    CURRENT.set(call.stream.permission)
    if call.noted is not None:
        take_up(call.noted)
    context = Context(call, _deserializer(handler), handler.response_serializer or _as_it_is)
    try:
        await _answer(context, handler, threads)
    except grpc.aio.AbortError:
        context.end()  # has no effect if abort() could give the status itself
    except InferdError as failure:
        call.refuse(failure)
    except asyncio.CancelledError:
        call.end(grpc.StatusCode.CANCELLED.value[0], "the server cancelled the call", [])
    except Exception:
        if call.is_over:
            return  # what a handler makes of the end of its call interests nobody
        log.exception("an exception left a servicer")
        if context.code() is grpc.StatusCode.OK:
            context.set_code(grpc.StatusCode.UNKNOWN)
            context.set_details("the server failed on this call; its log has the reason")
        context.end()


async def _answer(context: Context, handler: grpc.RpcMethodHandler[Any, Any], threads: Executor | None) -> None:
    behavior = _behavior(handler)
    request: Any = None if handler.request_streaming else await context.read()
    if _is_async(behavior):
        made = behavior(_requests(context) if handler.request_streaming else request, context)
        if not handler.response_streaming:
            await _end(context, await made)
            return
        if inspect.isasyncgen(made):
            async with aclosing(made) as messages:
                async for message in messages:
                    await context.write(message)
        elif isinstance(made, AsyncIterator):
            async for message in made:
                await context.write(message)
        else:
            await made
        context.end()
        return
    blocking = ThreadedContext(context)
    in_thread = partial(asyncio.get_running_loop().run_in_executor, threads)
    made = await in_thread(behavior, blocking.requests() if handler.request_streaming else request, blocking)
    if not handler.response_streaming:
        await _end(context, made)
        return
    messages = iter(made)
    while (message := await in_thread(next, messages, _END)) is not _END:
        await context.write(message)
    context.end()


async def _end(context: Context, message: Any) -> None:
    if context.code() is grpc.StatusCode.OK:
        context.answer(message)
    else:
        context.end()  # the message of a call that failed is not sent


async def _requests(context: Context) -> AsyncIterator[Any]:
    while (message := await context.read()) is not grpc.aio.EOF:
        yield message


def _behavior(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[..., Any]:
    kinds = {
        (False, False): handler.unary_unary,
        (False, True): handler.unary_stream,
        (True, False): handler.stream_unary,
        (True, True): handler.stream_stream,
    }
    found: Callable[..., Any] | None = kinds[handler.request_streaming, handler.response_streaming]
    assert found is not None
    return found


def _is_async(behavior: Callable[..., Any]) -> bool:
    while isinstance(behavior, partial):
        behavior = behavior.func
    call = getattr(behavior, "__call__", behavior)  # noqa: B004
    return any(inspect.iscoroutinefunction(one) or inspect.isasyncgenfunction(one) for one in (behavior, call))


def _deserializer(handler: grpc.RpcMethodHandler[Any, Any]) -> Callable[[bytes], Any]:
    deserialize = handler.request_deserializer
    if deserialize is None:
        return _as_it_is

    def read(body: bytes) -> Any:
        try:
            return deserialize(body)
        except Exception:
            raise Garbled("the bytes of a message are not what this method takes") from None

    return read


def _as_it_is(body: bytes) -> bytes:
    return body
