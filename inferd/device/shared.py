"""Memory of a GPU that another process on this machine has made, opened here by its handle (CUDA IPC)."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any, Final

from inferd.device.gate import Gate

HANDLE_BYTES: Final = 64  # cudaIpcMemHandle_t
ANY_DIRECTION: Final = 4  # cudaMemcpyDefault: CUDA knows by the addresses


def room_at(address: int) -> int:
    """The bytes from an address to the end of its allocation. CuPy does not ask for that, so the driver is asked."""
    driver = ctypes.CDLL("libcuda.so.1")
    base, size = ctypes.c_uint64(), ctypes.c_size_t()
    code = driver.cuMemGetAddressRange_v2(ctypes.byref(base), ctypes.byref(size), ctypes.c_uint64(address))
    if code:
        raise RuntimeError(f"cuMemGetAddressRange: CUDA error {code}")
    return base.value + size.value - address


class SharedMemory:
    """It is open until close(), which is for whoever opened it: what uses it must be over by then."""

    def __init__(
        self, cuda: Any, device_id: int, gate: Gate, handle: bytes, nbytes: int, room: Callable[[int], int] = room_at
    ) -> None:
        """Raises ValueError if there are fewer than `nbytes` bytes, and what CuPy raises if it cannot be opened."""
        self._cuda, self._gate, self.device_id, self.nbytes = cuda, gate, device_id, nbytes
        self._lock = threading.Lock()
        self._closed = False
        # Opening and closing is as allocating is: not beside a recording of a CUDA graph.
        with gate.load():
            cuda.runtime.setDevice(device_id)
            self.address: int = cuda.runtime.ipcOpenMemHandle(handle)
        try:
            found = room(self.address)
            if found < nbytes:
                raise ValueError(f"{nbytes} bytes of an allocation that has {found}")
            with gate.run():
                cuda.runtime.setDevice(device_id)
                self._stream = cuda.Stream(non_blocking=True)
                self._copied = cuda.Event(block=True, disable_timing=True)
        except BaseException:
            self.close()
            raise

    def read(self, at: int, host_address: int, nbytes: int) -> None:
        """Copy to memory of the host, and wait until that is done: for models that do not run on a GPU."""
        self._copy(host_address, self.address + at, nbytes)

    def write(self, at: int, host_address: int, nbytes: int) -> None:
        """The other way round."""
        self._copy(self.address + at, host_address, nbytes)

    def _copy(self, to: int, origin: int, nbytes: int) -> None:
        with self._lock, self._gate.run():
            self._cuda.runtime.setDevice(self.device_id)
            self._cuda.runtime.memcpyAsync(to, origin, nbytes, ANY_DIRECTION, self._stream.ptr)
            self._copied.record(self._stream)
            self._copied.synchronize()

    def close(self) -> None:
        """Close it, once however often this is called. Blocks."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with self._gate.load():
            self._cuda.runtime.setDevice(self.device_id)
            self._cuda.runtime.ipcCloseMemHandle(self.address)
