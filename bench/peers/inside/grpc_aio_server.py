"""A gRPC server that answers every ModelInfer with the bytes of a file: `grpc_aio_server.py PORT FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

import grpc
import uvloop


async def serve(port: int, reply: bytes) -> None:
    """Serve until the process is ended."""

    async def answer(_: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return reply

    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(answer)
    service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", {"ModelInfer": handler})
    server.add_generic_rpc_handlers((service,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


uvloop.run(serve(int(sys.argv[1]), Path(sys.argv[2]).read_bytes()))
