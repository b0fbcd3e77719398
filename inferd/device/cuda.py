"""A GPU through CuPy: pinned memory on the host, memory on the device, and streams that copy beside what computes.

Each session computes on one stream, which it shares with ONNX Runtime; each lane copies on a stream of its own. Events
put them in order: compute waits for the lane's uploads, the lane's downloads wait for compute, the runner's thread
waits for the lane. So while one lane computes another one copies, and nobody ever waits for the whole device.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, Final

from inferd.device.contract import Bound, Buffer, Provider
from inferd.device.failures import OUT_OF_MEMORY, STICKY, cuda_code
from inferd.device.gate import Gate
from inferd.device.shared import ANY_DIRECTION, SharedMemory
from inferd.errors import DeviceLost, InferdError, OutOfDeviceMemory

TENSORRT_PROVIDER: Final = "TensorrtExecutionProvider"
HOST_TO_DEVICE: Final = 1
DEVICE_TO_HOST: Final = 2


def import_cupy() -> Any:
    """CuPy, which takes most of a second to import and is there only where somebody wanted it."""
    import cupy

    return cupy


class CudaLane:
    """Pinned and device memory of one slot, and a stream for its copies."""

    def __init__(self, cuda: Any, gate: Gate, workspace: CudaWorkspace) -> None:
        self._cuda, self._gate, self._workspace = cuda, gate, workspace
        self._runtime = cuda.runtime
        self._stream = cuda.Stream(non_blocking=True)
        self._stream_ptr: int = self._stream.ptr
        self._uploaded = cuda.Event(block=True, disable_timing=True)
        self._computed = cuda.Event(block=True, disable_timing=True)
        self._finished = cuda.Event(block=True, disable_timing=True)
        self._owned: dict[int, tuple[Any, Any, int]] = {}  # by bound address: pinned and device memory, and bytes
        self._closed = False

    @contextmanager
    def turn(self, *, captures: bool = False) -> Iterator[None]:
        """One run; a thread's current GPU is the last one that it was told, so it is told each time."""
        with self._gate.capture() if captures else self._gate.run():
            self._workspace.use()
            yield

    def allocate(self, nbytes: int) -> Buffer:
        """Pinned memory and as much of the device's; MemoryError if there is not enough of either."""
        self._workspace.use()
        try:
            pinned = self._workspace.pinned.malloc(nbytes)
            memory = self._workspace.pool.malloc(nbytes)
        except Exception as failure:
            if cuda_code(failure) == OUT_OF_MEMORY:
                raise MemoryError(f"no {nbytes} bytes: {failure}") from failure
            raise
        # Neither is zeroed, and padding rows as well as models that read beyond them must not meet others' data.
        ctypes.memset(pinned.ptr, 0, nbytes)
        self._runtime.memsetAsync(memory.ptr, 0, nbytes, self._stream_ptr)
        self._owned[memory.ptr] = (pinned, memory, nbytes)
        # The lane owns the memory, and a view of it keeps the lane: closing frees, whoever still holds a view.
        return Buffer(pinned.ptr, memory.ptr, nbytes, self)

    def free(self, buffer: Buffer) -> None:
        """After all that this lane has begun, so that nothing is under way in it."""
        self.wait()
        self._owned.pop(buffer.bound_address, None)

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Begin to copy."""
        self._runtime.memcpyAsync(buffer.bound_address, buffer.host_address, nbytes, HOST_TO_DEVICE, self._stream_ptr)

    def fetch(self, memory: SharedMemory, at: int, buffer: Buffer, offset: int, nbytes: int) -> None:
        """Begin to copy, on the device or from another one."""
        self._copy(buffer.bound_address + offset, memory.address + at, nbytes)

    @contextmanager
    def computing(self, bound: Bound | None = None) -> Iterator[None]:
        """One lane at a time tells ONNX Runtime to run: its kernels of one run stay together on the stream."""
        self._uploaded.record(self._stream)
        compute = self._workspace.compute
        with self._workspace.turn:
            compute.wait_event(self._uploaded)
            try:
                yield
            finally:
                # Also after a failure: what was begun may still read and write the lane's memory.
                self._computed.record(compute)
                self._stream.wait_event(self._computed)

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Begin to copy back."""
        self._runtime.memcpyAsync(buffer.host_address, buffer.bound_address, nbytes, DEVICE_TO_HOST, self._stream_ptr)

    def hand_over(self, memory: SharedMemory, at: int, host_address: int, nbytes: int) -> None:
        """Begin to copy from the device's own copy of it, or from the host where it has none."""
        origin = host_address
        for address, (pinned, _, size) in self._owned.items():
            if pinned.ptr <= host_address < pinned.ptr + size:
                origin = address + host_address - pinned.ptr
        self._copy(memory.address + at, origin, nbytes)

    def _copy(self, to: int, origin: int, nbytes: int) -> None:
        self._runtime.memcpyAsync(to, origin, nbytes, ANY_DIRECTION, self._stream_ptr)

    def wait(self) -> None:
        """Sleep, without the GIL, until the lane's stream has come to here."""
        self._finished.record(self._stream)
        self._finished.synchronize()

    def settle(self) -> None:
        """As wait, outside of a turn; on a device that is lost nothing is under way any more."""
        with suppress(Exception), self.turn():
            self.wait()

    def close(self) -> None:
        """Free memory, events and the stream."""
        if self._closed:
            return
        self._closed = True
        self.settle()
        self._owned.clear()
        del self._uploaded, self._computed, self._finished, self._stream


class CudaWorkspace:
    """A stream that computes and pools of memory, for one session."""

    def __init__(self, cuda: Any, device_id: int, gate: Gate, limit_nbytes: int) -> None:
        self._cuda, self._device_id, self._gate = cuda, device_id, gate
        self.use()
        self.compute = cuda.Stream(non_blocking=True)
        self.pinned = cuda.PinnedMemoryPool()
        self.pool = cuda.MemoryPool()
        if limit_nbytes:
            self.pool.set_limit(size=limit_nbytes)
        self.turn = threading.Lock()
        self._closed = False

    def use(self) -> None:
        """Make this GPU the current one of the calling thread."""
        self._cuda.runtime.setDevice(self._device_id)

    def providers(self, options: Mapping[str, str], tensorrt: Mapping[str, str] | None = None) -> list[Provider]:
        """TensorRT where it is wanted, CUDA for the rest on the same stream, and the CPU for what neither can run."""
        ours = {"device_id": str(self._device_id), "user_compute_stream": str(self.compute.ptr)}
        found: list[Provider] = [("CUDAExecutionProvider", {**options, **ours}), "CPUExecutionProvider"]
        if tensorrt is not None:
            found.insert(0, (TENSORRT_PROVIDER, {**tensorrt, **ours}))
        return found

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Not beside a recording of a CUDA graph."""
        with self._gate.load():
            self.use()
            yield

    def lane(self) -> CudaLane:
        """A lane with a stream of its own."""
        self.use()
        return CudaLane(self._cuda, self._gate, self)

    def close(self) -> None:
        """Give the pools' memory back to the device and to the host."""
        if self._closed:
            return
        self._closed = True
        self.use()
        with suppress(Exception):
            self.compute.synchronize()
        self.pool.free_all_blocks()
        self.pinned.free_all_blocks()
        del self.compute


class CudaDevice:
    """One GPU. `cuda` is the module cupy.cuda, or what has its shape."""

    ort_name = "cuda"
    runs_inline = False
    pads = True
    asynchronous = True

    def __init__(self, cuda: Any, device_id: int = 0, on_lost: Callable[[str], None] | None = None) -> None:
        """`on_lost` hears, on whatever thread finds it, of an error after which nothing runs there any more."""
        self._cuda = cuda
        self.ort_id = self.number = device_id
        self.gpu_number: int | None = device_id
        self._gate = Gate()
        self.on_lost = on_lost
        self.lost_reason: str | None = None
        """Why models on it answer no more."""
        self.context_lost = False
        """Whether only another process can use the GPU again."""

    def workspace(self, limit_nbytes: int = 0) -> CudaWorkspace:
        """A stream and pools."""
        return CudaWorkspace(self._cuda, self.number, self._gate, limit_nbytes)

    def open_shared(self, handle: bytes, nbytes: int) -> SharedMemory:
        """Memory of this GPU that another process has given a handle to, of at least `nbytes` bytes. Blocks."""
        return SharedMemory(self._cuda, self.number, self._gate, handle, nbytes)

    def arenas(self) -> tuple[str, ...]:
        """The CPU's, for operators that run there, and its own."""
        return ("cpu:0", f"gpu:{self.number}")

    def failure_of(self, failure: BaseException) -> InferdError | None:
        """OutOfDeviceMemory, or DeviceLost after an error from which CUDA does not recover."""
        code = cuda_code(failure)
        if code == OUT_OF_MEMORY:
            return OutOfDeviceMemory(f"GPU {self.number} has too little memory: {' '.join(str(failure).split())}")
        if code not in STICKY:
            return None
        reason = f"GPU {self.number}: {STICKY[code]} (CUDA error {code})"
        if self.lost_reason is None:
            self.lost_reason = reason
            self.context_lost = not self._still_answers()
            if self.on_lost is not None:
                self.on_lost(reason)
        return DeviceLost(reason)

    def _still_answers(self) -> bool:
        try:
            self._cuda.runtime.setDevice(self.number)
            self._cuda.runtime.deviceSynchronize()
        except Exception:
            return False
        return True
