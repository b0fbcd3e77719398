"""The methods with which clients lend memory of a GPU that they own, by a handle of CUDA's for other processes.

Facts of the protocol: triton-inference-server/server, docs/protocol/extension_shared_memory.md.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from contextlib import suppress
from typing import Any

from inferd._native.region import Region, Regions
from inferd.device import HANDLE_BYTES, CudaDevice, Devices, SharedMemory
from inferd.errors import DeviceLost, InvalidRequest, NotOffered, UnknownRegion
from inferd.proto import inference_pb2 as pb
from inferd.rpc.boundary import Context

log = logging.getLogger("inferd.rpc")


class GpuMemoryMethods:
    """The methods over regions of GPUs' memory; refused without regions, and without a GPU nothing can be registered.

    A client may free its memory once it is unregistered, so that is answered when no request uses it any more and it is
    closed here. Opening and closing may wait for a device, so neither happens on the loop's thread.
    """

    def __init__(self, regions: Regions | None, devices: Devices) -> None:
        self._regions, self._devices = regions, devices
        self._closing: set[asyncio.Task[None]] = set()
        self.extensions = ("cuda_shared_memory",) if regions is not None and devices.gpus else ()

    def _offered(self, request: Any) -> Regions:
        if self._regions is None:
            method = request.DESCRIPTOR.name.removesuffix("Request")
            raise NotOffered(f"this server does not offer {method}; --shared-memory-enabled true turns it on")
        return self._regions

    async def CudaSharedMemoryStatus(self, request: Any, context: Context) -> Any:
        """One region, or all if none is named."""
        regions = self._offered(request)
        answer = pb.CudaSharedMemoryStatusResponse()
        for one in regions.all(of_gpu=True):
            if request.name in ("", one.name):
                found = answer.regions[one.name]
                found.name, found.device_id, found.byte_size = one.name, one.device_id, one.byte_size
        if request.name and not answer.regions:
            raise UnknownRegion(f"there is no region {request.name[:256]!r} of a GPU's memory; register it first")
        return answer

    async def CudaSharedMemoryRegister(self, request: Any, context: Context) -> Any:
        """Open memory under a name, which tensors may then give as theirs."""
        regions = self._offered(request)
        if not self._devices.gpus:
            raise NotOffered("this server cannot open memory of a GPU; register system shared memory")
        regions.check_free(request.name, request.byte_size)
        gpu = self._devices.gpu(request.device_id)
        if gpu is None:
            there = ", ".join(str(one.number) for one in self._devices.gpus)
            raise InvalidRequest(f"region '{request.name}' is on GPU {request.device_id}; there are {there} here")
        if len(request.raw_handle) != HANDLE_BYTES:
            raise InvalidRequest(
                f"the raw_handle of region '{request.name}' is {len(request.raw_handle)} bytes; a CUDA IPC handle is "
                f"{HANDLE_BYTES}, not encoded in any way"
            )
        memory = await asyncio.to_thread(_opened, gpu, request.name, request.raw_handle, request.byte_size)
        try:
            regions.register_gpu(request.name, memory, gpu.number, request.byte_size)
        except BaseException:
            await asyncio.shield(self._closed(memory, None))
            raise
        return pb.CudaSharedMemoryRegisterResponse()

    async def CudaSharedMemoryUnregister(self, request: Any, context: Context) -> Any:
        """Forget a region, or all if none is named, and answer when it is closed. One that is not there is no error."""
        regions = self._offered(request)
        names = [request.name] if request.name else [one.name for one in regions.all(of_gpu=True)]
        ends = [self._end(regions.take(name)) for name in names]
        # Whether or not this caller waits for it, what is forgotten is closed.
        await asyncio.shield(asyncio.gather(*ends))
        return pb.CudaSharedMemoryUnregisterResponse()

    async def close(self) -> None:
        """Close all, once nothing runs any more."""
        if self._regions is not None:
            for one in self._regions.all(of_gpu=True):
                self._end(self._regions.take(one.name))
                del one
        while self._closing:
            await asyncio.wait(self._closing)

    def _end(self, region: Region | None) -> asyncio.Future[None]:
        """Closes memory when the last request that uses the region has let go of it, as the caller has to."""
        loop = asyncio.get_running_loop()
        if region is None:
            done = loop.create_future()
            done.set_result(None)
            return done
        unused = asyncio.Event()
        # Requests end on any thread.
        watch = weakref.ref(region, lambda _: _tell(loop, unused))
        task = loop.create_task(self._closed(region.memory, unused, watch))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        return task

    async def _closed(self, memory: SharedMemory, unused: asyncio.Event | None, watch: object = None) -> None:
        if unused is not None:
            await unused.wait()
        try:
            await asyncio.to_thread(memory.close)
        except Exception as failure:  # the handle is gone with the device's context
            log.warning("memory of a GPU could not be closed", extra={"reason": " ".join(str(failure).split())})


def _tell(loop: asyncio.AbstractEventLoop, unused: asyncio.Event) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(unused.set)


def _opened(gpu: CudaDevice, name: str, handle: bytes, byte_size: int) -> SharedMemory:
    try:
        return gpu.open_shared(handle, byte_size)
    except ValueError:
        raise InvalidRequest(f"region '{name}' is not there: byte_size reaches past the end of its memory") from None
    except Exception as failure:
        lost = gpu.failure_of(failure)
        if isinstance(lost, DeviceLost):
            raise lost from failure
        log.warning("memory of a GPU could not be opened", extra={"reason": " ".join(str(failure).split())})
        raise InvalidRequest(
            f"the raw_handle of region '{name}' names no memory of GPU {gpu.number} that this server can open"
        ) from None
