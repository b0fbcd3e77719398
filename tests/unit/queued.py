"""Requests for tests of the queue: one FP32 input whose rows are `width` elements wide."""

from __future__ import annotations

from handmade import bound, message, signature_of

from inferd._native.batch import Batch
from inferd._native.queue import BatchQueue
from inferd._native.schedule import Schedule
from inferd._native.signature import Signature
from inferd._native.wire import Request

OPEN: Signature = signature_of({"x": ("FP32", [-1, -1])}, batched=True, max_rows=64)


def request(
    rows: int = 1,
    width: int = 1,
    *,
    deadline_ns: int = 0,
    id: str = "",
    priority: int = 0,
    timeout_us: int = 0,
    signature: Signature = OPEN,
) -> Request:
    made = message(("x", "FP32", [rows, width], bytes(4 * rows * width)))
    made.id = id
    if priority:
        made.parameters["priority"].uint64_param = priority
    if timeout_us:
        made.parameters["timeout"].int64_param = timeout_us
    found = bound(signature, made)
    found.deadline_ns = deadline_ns
    return found


def queue(
    *,
    batch_rows: int = 8,
    max_queue_rows: int = 1000,
    max_queue_bytes: int = 1 << 20,
    max_delay_ns: int = 0,
    preferred_rows: tuple[int, ...] = (),
    signature: Signature = OPEN,
    schedule: Schedule | None = None,
) -> BatchQueue:
    return BatchQueue(
        signature,
        batch_rows=batch_rows,
        max_queue_rows=max_queue_rows,
        max_queue_bytes=max_queue_bytes,
        max_delay_ns=max_delay_ns,
        preferred_rows=preferred_rows,
        schedule=schedule,
    )


def taken(batch: Batch | None) -> Batch:
    assert batch is not None
    return batch
