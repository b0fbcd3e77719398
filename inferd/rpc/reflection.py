"""Server reflection over inferd's own descriptor pool, so that grpcurl and its like need no .proto files."""

from __future__ import annotations

from typing import Any, Final

from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inferd.proto import inference_pb2, model_config_pb2
from inferd.rpc.health import SERVICE_NAME as HEALTH
from inferd.rpc.inference import SERVICE

FILES: Final = (model_config_pb2, inference_pb2, health_pb2, reflection_pb2)


class _Symbols:
    """A pool that finds methods as well: tools ask for them by full name, and protobuf looks no deeper than services.

    Not a subclass: the pool's own constructor would make no instance of it.
    """

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def enable(server: Any) -> None:
    """Add the reflection service to a server that offers what grpc.aio.Server does."""
    pool = DescriptorPool()
    for module in FILES:
        file = descriptor_pb2.FileDescriptorProto()
        module.DESCRIPTOR.CopyToProto(file)
        pool.Add(file)
    symbols: Any = _Symbols(pool)
    names = (SERVICE.full_name, HEALTH, reflection.SERVICE_NAME)
    reflection.enable_server_reflection(names, server, pool=symbols)
