"""What a kind of memory must offer: the one seam between the batching code and a device.

A run goes through a lane in this order, and in no other::

    with lane.turn():
        gather writes at host_address;  lane.upload(buffer, nbytes)     for each input
        lane.fetch(memory, at, buffer, offset, nbytes)                  of it that is in a client's memory of a GPU
        with lane.computing():  the session is told to run
        lane.download(buffer, nbytes)                                   for each output
        lane.wait()
    answers are read at host_address

Between `upload` and `wait` the host touches none of the buffers. Whatever goes wrong on the way, `wait` or `settle`
is called before the next turn. All of it happens on a runner's thread; nothing here is for the loop's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from inferd.device.shared import SharedMemory
from inferd.errors import InferdError

ALIGNMENT_BYTES = 64  # a cache line, and the widest vector register ONNX Runtime's kernels load

Provider: TypeAlias = str | tuple[str, dict[str, str]]
"""One of ONNX Runtime's execution providers, with or without options for it."""


@dataclass(slots=True)
class Buffer:
    """Memory for one tensor of a batch.

    ``host_address`` is where gather writes inputs and where answers are read from;
    ``bound_address`` is what the session is given. On the CPU they are the same.
    """

    host_address: int
    bound_address: int
    nbytes: int
    owner: object = field(repr=False)


@dataclass(frozen=True, slots=True)
class Bound:
    """Memory that a run uses, as addresses and bytes: the slot's, or a client's."""

    reads: tuple[tuple[int, int], ...] = ()
    writes: tuple[tuple[int, int], ...] = ()


class Lane(Protocol):
    """The memory of one slot, and the order in which things happen to it. One thread at a time uses it."""

    def turn(self, *, captures: bool = False) -> AbstractContextManager[None]:
        """One run from its first upload to its end. With `captures` no other work on the device is under way."""

    def allocate(self, nbytes: int) -> Buffer:
        """Memory for `nbytes` bytes, zeroed, aligned to ALIGNMENT_BYTES; MemoryError if there is none."""

    def free(self, buffer: Buffer) -> None:
        """Give memory back that no run uses and no binding names any more."""

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Bring the first `nbytes` at host_address to bound_address, before what computes next."""

    def fetch(self, memory: SharedMemory, at: int, buffer: Buffer, offset: int, nbytes: int) -> None:
        """Bring bytes at `at` of memory that a client has lent to `offset` in the buffer, after the buffer's upload."""

    def computing(self, bound: Bound | None = None) -> AbstractContextManager[None]:
        """Around the call that runs the session: after all uploads, before all downloads.

        `bound` is the memory that the run is bound to; where nothing is said, all of the lane's.
        """

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Bring the first `nbytes` at bound_address to host_address, after what computed last."""

    def hand_over(self, memory: SharedMemory, at: int, host_address: int, nbytes: int) -> None:
        """Bring bytes of an output, at `host_address` since the last wait, to `at` of memory that a client has lent.

        In a turn, and over with the next wait.
        """

    def wait(self) -> None:
        """Return when all of it has happened: the host may read and write the buffers again."""

    def settle(self) -> None:
        """The same after a failure, outside of a turn: never raises."""

    def close(self) -> None:
        """Free what is left. Nothing is called after it but close itself."""


class Workspace(Protocol):
    """What one session has of a device."""

    def providers(self, options: Mapping[str, str], tensorrt: Mapping[str, str] | None = None) -> list[Provider]:
        """ONNX Runtime's execution providers, best first; `options` are the device's own provider's.

        With options for TensorRT it comes before that one.
        """

    def loading(self) -> AbstractContextManager[None]:
        """Around making and destroying the session."""

    def lane(self) -> Lane:
        """A lane for one more slot."""

    def close(self) -> None:
        """Give everything back, once lanes and session are gone."""


class Device(Protocol):
    """A place where sessions run."""

    ort_name: str
    ort_id: int
    gpu_number: int | None
    """CUDA's number of a GPU; None for what is none."""
    runs_inline: bool
    """Whether the loop may run a short batch itself: never where a run waits for a device."""
    pads: bool
    """Whether batches are padded up to prepared sizes."""
    asynchronous: bool
    """Whether the session's call may return before the device has computed."""

    def workspace(self, limit_nbytes: int = 0) -> Workspace:
        """Room for one session; buffers of its slots take `limit_nbytes` at most, 0 for no limit."""

    def arenas(self) -> tuple[str, ...]:
        """The arenas that ONNX Runtime keeps for it, by the names that its run options have for them."""

    def failure_of(self, failure: BaseException) -> InferdError | None:
        """What an exception says about the device itself; None if it is about something else."""
