"""A process that serves TestService: `python server.py native STUBS [CERTIFICATE KEY]`.

It writes the port on a line of its own, serves until SIGTERM, and ends with 0. `grpcio` in place of `native` is
grpc.aio's own server: what fails on both is the client's fault or the test's.
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import grpc
import uvloop

from inferd.rpc.native.server import NativeServer

GRACE_S = 5.0


async def serve(transport: str, files: list[str]) -> None:
    import orca_pb2_grpc
    import service
    import testing_pb2_grpc

    native = NativeServer()
    server: Any = native if transport == "native" else grpc.aio.server()
    loads = service.Loads()
    testing_pb2_grpc.add_TestServiceServicer_to_server(service.TestService(transport, loads), server)
    orca_pb2_grpc.add_OpenRcaServiceServicer_to_server(loads, server)
    if not files:
        port = server.add_insecure_port("127.0.0.1:0")
    elif server is native:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
        port = native.add_tls_port("127.0.0.1:0", context)
    else:
        chain, key = (Path(name).read_bytes() for name in files)
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, chain)]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    print(port, flush=True)
    await stop.wait()
    await server.stop(GRACE_S)


if __name__ == "__main__":
    transport, stubs, *files = sys.argv[1:]
    sys.path.insert(0, stubs)
    uvloop.run(serve(transport, files))
