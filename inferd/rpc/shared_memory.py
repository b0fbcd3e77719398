"""The methods with which clients tell of shared memory that they own.

Facts of the protocol: triton-inference-server/server, docs/protocol/extension_shared_memory.md.
"""

from __future__ import annotations

from typing import Any

from inferd._native.region import Regions
from inferd.errors import NotOffered, UnknownRegion
from inferd.proto import inference_pb2 as pb
from inferd.rpc.boundary import Context


class SharedMemoryMethods:
    """The methods over the regions that are registered; without regions they are refused.

    A region's key is told to nobody but whoever asks for its status, as the protocol has it: neither errors nor logs
    have it, because it is all that one needs to read a neighbour's tensors.
    """

    def __init__(self, regions: Regions | None) -> None:
        self._regions = regions
        self.extensions = () if regions is None else ("system_shared_memory",)

    def _offered(self, request: Any) -> Regions:
        if self._regions is None:
            method = request.DESCRIPTOR.name.removesuffix("Request")
            raise NotOffered(f"this server does not offer {method}; --shared-memory-enabled true turns it on")
        return self._regions

    async def SystemSharedMemoryStatus(self, request: Any, context: Context) -> Any:
        """One region, or all if none is named."""
        regions = self._offered(request)
        answer = pb.SystemSharedMemoryStatusResponse()
        for one in regions.all():
            if request.name not in ("", one.name):
                continue
            found = answer.regions[one.name]
            found.name, found.key, found.offset, found.byte_size = one.name, one.key, one.offset, one.byte_size
        if request.name and not answer.regions:
            raise UnknownRegion(f"there is no region {request.name[:256]!r}; register it first")
        return answer

    async def SystemSharedMemoryRegister(self, request: Any, context: Context) -> Any:
        """Open memory under a name, which tensors may then give as theirs."""
        self._offered(request).register(request.name, request.key, request.offset, request.byte_size)
        return pb.SystemSharedMemoryRegisterResponse()

    async def SystemSharedMemoryUnregister(self, request: Any, context: Context) -> Any:
        """Forget a region, or all if none is named. As elsewhere, one that is not there is no error."""
        regions = self._offered(request)
        if request.name:
            regions.unregister(request.name)
        else:
            regions.clear()
        return pb.SystemSharedMemoryUnregisterResponse()
