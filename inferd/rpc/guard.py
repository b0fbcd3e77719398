"""What stands before every method on the reference transport; on the native one ext/guard does the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from inferd.auth.current import CURRENT, WHO
from inferd.auth.judge import Judge, certificate_names
from inferd.errors import InferdError
from inferd.rpc.boundary import STATUS, Context


class Guard(grpc.aio.ServerInterceptor):
    """Asks a judge about each call, before its handler and whether or not there is one."""

    def __init__(self, judge: Judge) -> None:
        """Of one server."""
        self._judge = judge

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler behind the judge, of the same kind."""
        handler: Any = await continuation(handler_call_details)
        path: Any = handler_call_details.method
        if isinstance(path, bytes):
            path = path.decode("latin-1")
        if handler is None:
            return grpc.stream_stream_rpc_method_handler(self._asking(path, _unknown))
        made = {
            (False, False): (grpc.unary_unary_rpc_method_handler, handler.unary_unary),
            (False, True): (grpc.unary_stream_rpc_method_handler, handler.unary_stream),
            (True, False): (grpc.stream_unary_rpc_method_handler, handler.stream_unary),
            (True, True): (grpc.stream_stream_rpc_method_handler, handler.stream_stream),
        }
        make, behavior = made[handler.request_streaming, handler.response_streaming]
        return make(self._asking(path, behavior), handler.request_deserializer, handler.response_serializer)

    def _asking(self, path: str, behavior: Callable[[Any, Context], Any]) -> Callable[[Any, Context], Awaitable[Any]]:
        async def call(request: Any, context: Context) -> Any:
            headers = {key: value for key, value in context.invocation_metadata() or ()}
            try:
                principal, permission = self._judge.admit(certificate_names(context.auth_context()), headers, path)
            except InferdError as failure:
                code, text = failure.code, failure.public_text
            else:
                CURRENT.set(permission)
                WHO.set(principal)
                made = behavior(request, context)
                if not hasattr(made, "__aiter__"):
                    return await made
                async for message in made:
                    await context.write(message)
                return None
            return await context.abort(STATUS[code], text)

        return call


async def _unknown(requests: Any, context: Context) -> None:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server has no such method")
