"""What `python -m bench gpu` measures: on whatever devices it is given, so that tests can give it some."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np

from bench.gpu.timeline import SLOTS, Span, clock_of, overlap, timeline
from inferd import batchable, synthetic
from inferd._native.batch import alone
from inferd.batchable import signature_of
from inferd.device import Buffer, Device
from inferd.session import Session, SessionOptions, Slot

ROWS: Final = (1, 8, 64)
COPY_NBYTES: Final = (64 << 10, 1 << 20, 64 << 20)
COPIES: Final = 20
BATCHES: Final = 40
GRAPHS: Final = SessionOptions(cuda={"enable_cuda_graph": "1"})


class Throughput(TypedDict):
    """Rows answered in a second by one model on one device."""

    model: str
    device: str
    graphs: bool
    rows: int
    rows_per_s: float
    batch_ms: float


class Copies(TypedDict):
    """Bytes that one kind of the host's memory sends to the device in a second."""

    memory: str
    nbytes: int
    gb_per_s: float


class Overlap(TypedDict):
    """How much of the copies went on beside runs, and when everything happened."""

    model: str
    rows: int
    share: float
    timeline: list[Span]


class Measured(TypedDict):
    """All of it."""

    overlap: list[Overlap]
    throughput: list[Throughput]
    copies: list[Copies]


def throughput(name: str, path: Path, device: Device, rows: int, seconds: float, options: SessionOptions) -> Throughput:
    """Keep every slot busy for a while. A model that does not batch runs a row at a time."""
    with closing(Session(path, options, device)) as session:
        found = batchable.probe(session, name)
        rows = rows if found.batched else 1
        signature = signature_of(session, name, "1", batched=found.batched, max_rows=rows)
        length = found.length or 4
        slots = [Slot(session) for _ in range(SLOTS if device.asynchronous else 1)]
        batches = [
            alone(signature, synthetic.request(signature, session.inputs, rows, length, number))
            for number in range(len(slots))
        ]
        for slot, batch in zip(slots, batches, strict=True):
            for _ in range(session.first_runs + 1):
                slot.run(batch)
        done = [0] * len(slots)
        end_ns = time.monotonic_ns() + int(seconds * 1e9)

        def work(number: int) -> None:
            while time.monotonic_ns() < end_ns or not done[number]:
                slots[number].run(batches[number])
                done[number] += 1

        started_ns = time.monotonic_ns()
        with ThreadPoolExecutor(len(slots)) as threads:
            list(threads.map(work, range(len(slots))))
        took_s = (time.monotonic_ns() - started_ns) / 1e9
    return Throughput(
        model=name,
        device="cpu" if device.gpu_number is None else f"gpu {device.gpu_number}",
        graphs=options.cuda_graphs,
        rows=rows,
        rows_per_s=sum(done) * rows / took_s,
        batch_ms=took_s * 1e3 * len(slots) / sum(done),
    )


def pageable(nbytes: int) -> tuple[int, Any]:
    """Memory of the host as any program has it: its address and what keeps it."""
    owner = np.zeros(nbytes, np.uint8)
    return owner.ctypes.data, owner


def copies(
    device: Device, nbytes: int, repeats: int = COPIES, host: Callable[[int], tuple[int, Any]] = pageable
) -> list[Copies]:
    """Uploads from pinned memory, which is what slots have, and from pageable memory."""
    found = []
    workspace = device.workspace()
    with closing(workspace), closing(workspace.lane()) as lane:
        with lane.turn():
            pinned = lane.allocate(nbytes)
            lane.wait()
        address, owner = host(nbytes)
        clock = clock_of(device)
        for name, buffer in (
            ("pinned", pinned),
            ("pageable", Buffer(address, pinned.bound_address, nbytes, owner)),
        ):
            with lane.turn():
                took_ms = 0.0
                for _ in range(repeats):
                    start = clock.mark(lane, computes=False)
                    lane.upload(buffer, nbytes)
                    end = clock.mark(lane, computes=False)
                    lane.wait()
                    took_ms += clock.ms(start, end)
            rate = nbytes * repeats / took_ms / 1e6 if took_ms > 0 else float("nan")
            found.append(Copies(memory=name, nbytes=nbytes, gb_per_s=rate))
    return found


def measure(
    gpu: Device,
    cpu: Device,
    models: Sequence[tuple[str, Path]],
    seconds: float,
    said: Callable[[str], None] = lambda text: None,
    host: Callable[[int], tuple[int, Any]] = pageable,
) -> Measured:
    """Everything, for models by name. A CUDA graph is not tried where a model cannot have one."""
    found = Measured(overlap=[], throughput=[], copies=[])
    for nbytes in COPY_NBYTES:
        said(f"copies of {nbytes} bytes")
        found["copies"] += copies(gpu, nbytes, host=host)
    for name, path in models:
        for rows in ROWS:
            said(f"{name}: {rows} rows")
            for device, options in ((cpu, SessionOptions()), (gpu, SessionOptions()), (gpu, GRAPHS)):
                try:
                    found["throughput"].append(throughput(name, path, device, rows, seconds, options))
                except Exception as failure:
                    if not options.cuda_graphs:
                        raise
                    said(f"{name}: no CUDA graph of {rows} rows: {' '.join(str(failure).split())}")
        with closing(Session(path, SessionOptions(), gpu)) as session:
            batched = batchable.probe(session, name).batched
        if batched:
            spans = timeline(path, gpu, ROWS[-1], BATCHES, SessionOptions())
            found["overlap"].append(Overlap(model=name, rows=ROWS[-1], share=overlap(spans), timeline=spans))
    return found
