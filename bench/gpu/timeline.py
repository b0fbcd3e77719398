"""When copies and runs of several slots begin and end, by the device's own clock: do they overlap?"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol, TypedDict

from inferd import synthetic
from inferd._native.batch import alone
from inferd.batchable import signature_of
from inferd.device import Bound, Buffer, CudaDevice, Device, Lane, SharedMemory
from inferd.device.cuda import CudaLane
from inferd.session import Session, SessionOptions, Slot

SLOTS: Final = 2
COPIES: Final = frozenset({"upload", "download"})


class Clock(Protocol):
    """Marks moments, and tells afterwards how far apart they were."""

    def mark(self, lane: Lane, *, computes: bool) -> Any:
        """The moment at which the lane's stream, or the one that computes, comes to here."""

    def ms(self, first: Any, second: Any) -> float:
        """The milliseconds from one to the other; both have come."""


class HostClock:
    """For a device whose calls return when all has happened."""

    def mark(self, lane: Lane, *, computes: bool) -> int:
        """Now."""
        return time.monotonic_ns()

    def ms(self, first: int, second: int) -> float:
        """By the system's clock."""
        return (second - first) / 1e6


class EventClock:
    """CUDA's events; `cuda` is the module cupy.cuda."""

    def __init__(self, cuda: Any) -> None:
        self._cuda = cuda

    def mark(self, lane: Lane, *, computes: bool) -> Any:
        """An event that the stream records when it comes to here."""
        assert isinstance(lane, CudaLane)
        event = self._cuda.Event(block=True, disable_timing=False)
        event.record(lane._workspace.compute if computes else lane._stream)
        return event

    def ms(self, first: Any, second: Any) -> float:
        """By the device's clock."""
        return float(self._cuda.get_elapsed_time(first, second))


def clock_of(device: Device) -> Clock:
    """The one that the device's work can be timed with."""
    return EventClock(device._cuda) if isinstance(device, CudaDevice) else HostClock()


class Span(TypedDict):
    """One copy or run: what, in which slot, and from when to when since the first one began."""

    what: str
    slot: int
    start_ms: float
    end_ms: float


@dataclass
class TimedLane:
    """A lane that notes when each of its copies and runs begins and ends on the device."""

    lane: Lane
    clock: Clock
    slot: int
    marks: list[tuple[str, int, Any, Any]] = field(default_factory=list)

    def turn(self, *, captures: bool = False) -> AbstractContextManager[None]:
        """As it is."""
        return self.lane.turn(captures=captures)

    def allocate(self, nbytes: int) -> Buffer:
        """As it is."""
        return self.lane.allocate(nbytes)

    def free(self, buffer: Buffer) -> None:
        """As it is."""
        self.lane.free(buffer)

    def upload(self, buffer: Buffer, nbytes: int) -> None:
        """Timed."""
        with self._timed("upload", computes=False):
            self.lane.upload(buffer, nbytes)

    def fetch(self, memory: SharedMemory, at: int, buffer: Buffer, offset: int, nbytes: int) -> None:
        """As it is."""
        self.lane.fetch(memory, at, buffer, offset, nbytes)

    @contextmanager
    def computing(self, bound: Bound | None = None) -> Iterator[None]:
        """Timed."""
        with self.lane.computing(bound), self._timed("run", computes=True):
            yield

    def download(self, buffer: Buffer, nbytes: int) -> None:
        """Timed."""
        with self._timed("download", computes=False):
            self.lane.download(buffer, nbytes)

    def hand_over(self, memory: SharedMemory, at: int, host_address: int, nbytes: int) -> None:
        """As it is."""
        self.lane.hand_over(memory, at, host_address, nbytes)

    def wait(self) -> None:
        """As it is."""
        self.lane.wait()

    def settle(self) -> None:
        """As it is."""
        self.lane.settle()

    def close(self) -> None:
        """As it is."""
        self.lane.close()

    @contextmanager
    def _timed(self, what: str, *, computes: bool) -> Iterator[None]:
        start = self.clock.mark(self.lane, computes=computes)
        yield
        self.marks.append((what, self.slot, start, self.clock.mark(self.lane, computes=computes)))


def timeline(path: Path, device: Device, rows: int, batches: int, options: SessionOptions) -> list[Span]:
    """Run batches in two slots at once, and tell what happened when. The model must batch."""
    session = Session(path, options, device)
    try:
        signature = signature_of(session, "m", "1", batched=True, max_rows=rows)
        slots = [Slot(session) for _ in range(SLOTS)]
        clock, lanes = clock_of(device), []
        for number, slot in enumerate(slots):
            request = synthetic.request(signature, session.inputs, rows, 4, number)
            slot.run(alone(signature, request))  # allocates
            slot._lane = TimedLane(slot._lane, clock, number)
            lanes.append(slot._lane)

        def work(slot: Slot, number: int) -> None:
            for _ in range(batches):
                slot.run(alone(signature, synthetic.request(signature, session.inputs, rows, 4, number)))

        with ThreadPoolExecutor(SLOTS) as threads:
            list(threads.map(work, slots, range(SLOTS)))
        marks = [mark for lane in lanes for mark in lane.marks]
        with lanes[0].turn():  # events are asked about on a thread that has the device
            first = marks[0][2]
            spans = [
                Span(what=what, slot=slot, start_ms=clock.ms(first, start), end_ms=clock.ms(first, end))
                for what, slot, start, end in marks
            ]
        return sorted(spans, key=lambda span: span["start_ms"])
    finally:
        session.close()


def overlap(spans: Sequence[Span]) -> float:
    """The share of the time of copies during which a run of another slot was under way; 0 without copies."""
    copies = [span for span in spans if span["what"] in COPIES]
    runs = [span for span in spans if span["what"] == "run"]
    total = sum(span["end_ms"] - span["start_ms"] for span in copies)
    if total <= 0:
        return 0.0
    # One stream computes, so runs do not overlap each other and nothing counts twice.
    shared = sum(
        max(0.0, min(copy["end_ms"], run["end_ms"]) - max(copy["start_ms"], run["start_ms"]))
        for copy in copies
        for run in runs
        if run["slot"] != copy["slot"]
    )
    return shared / total
