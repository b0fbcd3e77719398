"""A GPU that there is not: it has the shape of cupy.cuda, does nothing before it must, and notices disorder.

Copies and kernels wait in their streams until the host waits for them, so that nothing is right by luck. Each is held
against all that is still under way: two that touch the same bytes, one of them writing, must be in order by their
stream or by an event. Memory is the host's, in places of its own, so ONNX Runtime's CPU provider can compute in it.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import numpy as np

from inferd.device.contract import Bound, Provider
from inferd.device.cuda import CudaDevice, CudaLane, CudaWorkspace
from inferd.device.shared import SharedMemory

ALIGNMENT = 256  # as CUDA's
UPLOAD, DOWNLOAD, ANYWHERE = 1, 2, 4
INVALID_VALUE = 1
Span = tuple[int, int]  # from an address to before another


class Fault(AssertionError):
    """Something was done out of order, or to memory that is not there."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises when a pool has no more."""


class CUDARuntimeError(RuntimeError):
    """What CuPy raises for an error of CUDA."""

    def __init__(self, status: int) -> None:
        super().__init__(f"cudaError {status}")
        self.status = status


@dataclass(eq=False)
class Work:
    """Something that a stream does."""

    what: str
    reads: tuple[Span, ...] = ()
    writes: tuple[Span, ...] = ()
    act: Callable[[], object] = lambda: None
    after: list[Work] = field(default_factory=list)
    done: bool = False
    when: int = 0
    """Its place among all that was done."""

    def follows(self, other: Work) -> bool:
        """Whether it is certain to come after the other."""
        return any(one is other or one.follows(other) for one in self.after)

    def clashes(self, other: Work) -> bool:
        """Whether the two touch the same bytes and one of them writes there."""
        return touch(self.writes, other.writes) or touch(self.writes, other.reads) or touch(self.reads, other.writes)


def ends(spans: Sequence[tuple[int, int]]) -> tuple[Span, ...]:
    return tuple((address, address + nbytes) for address, nbytes in spans)


def touch(some: tuple[Span, ...], others: tuple[Span, ...]) -> bool:
    return any(a < d and c < b for a, b in some for c, d in others)


class Stream:
    def __init__(self, cuda: RecordingCuda, non_blocking: bool) -> None:
        self._cuda, self.ptr = cuda, next(cuda.numbers)
        if not non_blocking:
            cuda.fault(f"stream {self.ptr} waits for the null stream: not non_blocking")
        self.last: Work | None = None
        self.waits: list[Work] = []
        cuda.streams[self.ptr] = self

    def wait_event(self, event: Event) -> None:
        if event.work is None:
            self._cuda.fault("a wait for an event that was never recorded, which waits for nothing")
        else:
            self.waits.append(event.work)

    def synchronize(self) -> None:
        with self._cuda.lock:
            self._cuda.finish(self._cuda.add(Work("a wait"), self))


class Event:
    def __init__(self, cuda: RecordingCuda, block: bool, disable_timing: bool) -> None:
        self._cuda = cuda
        self.work: Work | None = None
        self.disable_timing = disable_timing
        if not block:
            cuda.fault("a thread that waits for this event would spin")

    def record(self, stream: Stream) -> None:
        with self._cuda.lock:
            self.work = self._cuda.add(Work("an event"), stream)

    def synchronize(self) -> None:
        with self._cuda.lock:
            if self.work is None:
                self._cuda.fault("a wait for an event that was never recorded, which waits for nothing")
            self._cuda.finish(self.work)


class Memory:
    """A block: MemoryPointer and PinnedMemoryPointer in one."""

    def __init__(self, pool: Pool, nbytes: int) -> None:
        self._pool, self.nbytes = pool, nbytes
        self._bytes = np.full(nbytes + ALIGNMENT, 0xA5, np.uint8)  # as found, not zeroed
        self.ptr = -(-self._bytes.ctypes.data // ALIGNMENT) * ALIGNMENT
        pool.cuda.live[self.ptr] = self.ptr + nbytes

    def __del__(self) -> None:
        self._pool.give_back(self)


class Pool:
    def __init__(self, cuda: RecordingCuda, what: str) -> None:
        self.cuda, self.what = cuda, what
        self.used = self.free = self.limit = 0

    def set_limit(self, size: int) -> None:
        self.limit = size

    def malloc(self, nbytes: int) -> Memory:
        if self.what == "device":
            self.cuda.check_current()
        with self.cuda.lock:
            size = -(-nbytes // 512) * 512
            if self.cuda.taken(self.what) + size > self.cuda.room:
                self.free = 0  # CuPy's pool too gives back what it keeps before it gives up
            if (self.limit and self.used + size > self.limit) or self.cuda.taken(self.what) + size > self.cuda.room:
                raise OutOfMemoryError(f"Out of memory allocating {nbytes} bytes")
            self.used += size
            self.cuda.pools.setdefault(id(self), self)
            return Memory(self, nbytes)

    def give_back(self, memory: Memory) -> None:
        with self.cuda.lock:
            span = (memory.ptr, memory.ptr + memory.nbytes)
            for work in self.cuda.under_way:
                if touch((span,), work.reads + work.writes):
                    self.cuda.faults.append(f"memory freed while {work.what} is under way")  # nobody hears a __del__
            self.cuda.live.pop(memory.ptr, None)
            size = -(-memory.nbytes // 512) * 512
            self.used -= size
            self.free += size

    def free_all_blocks(self) -> None:
        self.free = 0


class Runtime:
    def __init__(self, cuda: RecordingCuda) -> None:
        self._cuda = cuda

    def setDevice(self, device_id: int) -> None:
        self._cuda.check_error()
        self._cuda.current.device_id = device_id

    def deviceSynchronize(self) -> None:
        self._cuda.check_error()

    def memcpyAsync(self, to: int, origin: int, nbytes: int, kind: int, stream: int) -> None:
        cuda = self._cuda
        cuda.check_error()
        cuda.check_current()
        with cuda.lock:
            reads, writes = (origin, origin + nbytes), (to, to + nbytes)
            if kind == UPLOAD and any(touch((reads,), one.reads + one.writes) for one in cuda.under_way):
                cuda.fault("a slot was filled again while its last batch was under way")
            what = {UPLOAD: "an upload", DOWNLOAD: "a download", ANYWHERE: "a copy"}[kind]
            spans = [(reads,), (writes,)]
            if kind == ANYWHERE:  # pageable memory of the host may be one side of it, and is nobody's here
                spans = [one if cuda.is_live(one[0]) else () for one in spans]
                if not any(spans):
                    cuda.fault("a copy in memory that was freed")
            found = ctypes.string_at(origin, nbytes) if kind == UPLOAD else None

            def copy() -> None:
                if found is not None and ctypes.string_at(origin, nbytes) != found:
                    cuda.fault("the host wrote what an upload still reads")
                ctypes.memmove(to, origin, nbytes)

            work = Work(what, spans[0], spans[1], copy)
            cuda.add(work, cuda.stream(stream))
            cuda.timeline.append((what, stream))

    def ipcOpenMemHandle(self, handle: bytes, flags: int = 1) -> int:
        cuda = self._cuda
        cuda.check_error()
        cuda.check_current()
        with cuda.lock:
            memory = cuda.exported.get(handle)
            if memory is None:
                raise CUDARuntimeError(INVALID_VALUE)
            address = memory.ctypes.data
            cuda.opened[address] = cuda.opened.get(address, 0) + 1
            cuda.live[address] = address + memory.nbytes
            cuda.timeline.append(("opened", address))
            return address

    def ipcCloseMemHandle(self, address: int) -> None:
        cuda = self._cuda
        cuda.check_error()
        cuda.check_current()
        with cuda.lock:
            if not cuda.opened.get(address):
                cuda.fault("memory of another process closed that is not open")
            for work in cuda.under_way:
                if touch(((address, cuda.live[address]),), work.reads + work.writes):
                    cuda.fault(f"memory of another process closed while {work.what} is under way")
            cuda.opened[address] -= 1
            if not cuda.opened[address]:
                del cuda.live[address]
            cuda.timeline.append(("closed", address))

    def memsetAsync(self, to: int, value: int, nbytes: int, stream: int) -> None:
        cuda = self._cuda
        with cuda.lock:
            work = Work("a memset", (), ((to, to + nbytes),), lambda: ctypes.memset(to, value, nbytes))
            cuda.add(work, cuda.stream(stream))


class RecordingCuda:
    """The module. `room` is how many bytes the device has."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.lock = threading.RLock()
        self.room = room
        self.numbers = count(1000)
        self.moments = count(1)
        self.streams: dict[int, Stream] = {}
        self.under_way: list[Work] = []
        self.live: dict[int, int] = {}
        self.pools: dict[int, Pool] = {}
        self.faults: list[str] = []
        self.timeline: list[tuple[str, int]] = []
        self.current = threading.local()
        self.exported: dict[bytes, np.ndarray] = {}
        self.opened: dict[int, int] = {}
        self.error = 0
        """An error of CUDA that every call fails with from now on."""
        self.runtime = Runtime(self)

    def Stream(self, null: bool = False, non_blocking: bool = False) -> Stream:
        return Stream(self, non_blocking)

    def Event(self, block: bool = False, disable_timing: bool = False) -> Event:
        return Event(self, block, disable_timing)

    def get_elapsed_time(self, first: Event, second: Event) -> float:
        """In order, if not in time."""
        with self.lock:
            for event in (first, second):
                if event.disable_timing or event.work is None or not event.work.done:
                    self.fault("the time of an event that has none, or has not come")
            assert first.work is not None
            assert second.work is not None
            return float(second.work.when - first.work.when)

    def MemoryPool(self) -> Pool:
        return Pool(self, "device")

    def PinnedMemoryPool(self) -> Pool:
        return Pool(self, "pinned")

    # --- what is watched ---------------------------------------------------------------------------------

    def fault(self, text: str) -> None:
        """Note it, for those who swallow exceptions, and raise it."""
        self.faults.append(text)
        raise Fault(text)

    def export(self, memory: np.ndarray) -> bytes:
        """A handle to memory of another process, as that one has it from CUDA."""
        handle = next(self.numbers).to_bytes(64, "little")
        self.exported[handle] = memory
        return handle

    def is_live(self, span: Span) -> bool:
        """Whether all of it is memory that there is."""
        return any(start <= span[0] and span[1] <= end for start, end in self.live.items())

    def taken(self, what: str) -> int:
        """Bytes that pools have of the device or of pinned memory, in use or not."""
        return sum(pool.used + pool.free for pool in self.pools.values() if pool.what == what)

    def check_error(self) -> None:
        if self.error:
            raise CUDARuntimeError(self.error)

    def check_current(self) -> None:
        if getattr(self.current, "device_id", None) is None:
            self.fault("this thread was not told which GPU to use")

    def stream(self, pointer: int) -> Stream:
        found = self.streams.get(pointer)
        if found is None:
            self.fault(f"work on the wrong stream: {pointer} is none of ours")
        return found

    def add(self, work: Work, stream: Stream) -> Work:
        """Put work at the end of a stream."""
        work.after = [*([stream.last] if stream.last else []), *stream.waits]
        stream.waits = []
        for span in work.reads + work.writes:
            if not self.is_live(span):
                self.fault(f"{work.what} in memory that was freed")
        for other in self.under_way:
            if work.clashes(other) and not work.follows(other):
                self.fault(f"{work.what} that does not wait for {other.what} of the same bytes")
        stream.last = work
        self.under_way.append(work)
        return work

    def finish(self, work: Work) -> None:
        """Do it, and what comes before it; the host has waited for all of that."""
        self.do(work)
        over = [one for one in self.under_way if one is work or work.follows(one)]
        self.under_way = [one for one in self.under_way if one not in over]
        for one in over:  # what they came after is over too, and a long chain would only be walked again and again
            one.after = []

    def do(self, work: Work) -> None:
        """Do what is not done yet of all that it waits for, and it."""
        for one in work.after:
            self.do(one)
        if not work.done:
            work.done, work.when = True, next(self.moments)
            work.act()

    def host_reads(self, address: int, nbytes: int) -> None:
        """Call before the host reads pinned memory."""
        span = (address, address + nbytes)
        for work in self.under_way:
            if touch((span,), work.writes):
                self.fault(f"the host reads what {work.what} still writes")


class RecordingLane(CudaLane):
    """The real lane; what it computes is noted as a kernel, on the stream that ONNX Runtime was told."""

    @contextmanager
    def computing(self, bound: Bound | None = None) -> Iterator[None]:
        with super().computing(bound):
            workspace = self._workspace
            assert isinstance(workspace, RecordingWorkspace)
            cuda, stream = self._cuda, workspace.told_stream()
            if bound is None:
                owned = tuple((memory.ptr, nbytes) for _, memory, nbytes in self._owned.values())
                bound = Bound(owned, owned)
            with cuda.lock:
                kernel = cuda.add(Work("a run", ends(bound.reads), ends(bound.writes)), stream)
                cuda.timeline.append(("a run", stream.ptr))
                cuda.do(kernel)
            yield


class RecordingWorkspace(CudaWorkspace):
    lane_type = RecordingLane
    asked: Sequence[Provider] = ()

    def told_stream(self) -> Stream:
        """The stream that ONNX Runtime was told to compute on; ours where there is no session."""
        told = [one[1]["user_compute_stream"] for one in self.asked if isinstance(one, tuple)]
        found: Stream = self._cuda.stream(int(told[-1])) if told else self.compute
        return found

    def providers(self, options: Mapping[str, str], tensorrt: Mapping[str, str] | None = None) -> list[Provider]:
        """What computes in the end."""
        self.asked = super().providers(options, tensorrt)
        return ["CPUExecutionProvider"]

    def lane(self) -> CudaLane:
        self.use()
        return self.lane_type(self._cuda, self._gate, self)


class RecordingDevice(CudaDevice):
    """The real device over the recording module."""

    ort_name = "cpu"

    def __init__(
        self, cuda: RecordingCuda | None = None, lane_type: type[CudaLane] = RecordingLane, **more: Any
    ) -> None:
        self.cuda = cuda or RecordingCuda()
        super().__init__(self.cuda, **more)
        self.ort_id = 0  # what ONNX Runtime is told
        self._lane_type = lane_type

    def open_shared(self, handle: bytes, nbytes: int) -> SharedMemory:
        return SharedMemory(self._cuda, self.number, self._gate, handle, nbytes, self._room)

    def _room(self, address: int) -> int:
        return self.cuda.live[address] - address

    def workspace(self, limit_nbytes: int = 0) -> CudaWorkspace:
        made = RecordingWorkspace(self._cuda, self.number, self._gate, limit_nbytes)
        made.lane_type = self._lane_type
        return made
