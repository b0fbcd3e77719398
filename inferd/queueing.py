"""A model's queue as config.pbtxt and the settings want it, and what the loop does for one that has a schedule."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, MutableMapping
from typing import Final

from inferd._native.doorbell import Bell, LoopBell
from inferd._native.forecast import Forecast
from inferd._native.queue import BatchQueue
from inferd._native.schedule import Schedule
from inferd._native.stats import ModelStats
from inferd._native.wire import Request
from inferd.config import Settings
from inferd.instance import START_ROWS
from inferd.loading import Loaded
from inferd.repository import BatchingDecl, QueuePolicy

NO_BOUND: Final = 1 << 62


def open_queue(loaded: Loaded, settings: Settings) -> BatchQueue:
    """An empty queue for a model's requests. What config.pbtxt does not say is as the settings have it."""
    batching, said = settings.batching, loaded.decl.batching
    batched, max_rows = loaded.signature.batched, loaded.signature.max_rows
    delay_ns = said.max_queue_delay_ns if said.max_queue_delay_ns is not None else batching.max_queue_delay_us * 1000
    forecast = None
    if settings.inference.refuse_hopeless:
        forecast = Forecast(instances=len(loaded.slots), max_rows=max_rows)
    return BatchQueue(
        loaded.signature,
        batch_rows=START_ROWS if batching.learn and loaded.learns else max_rows,
        # Where every level has a bound of its own, that one counts.
        max_queue_rows=NO_BOUND if all(one.max_queue_size for one in _policies(said)) else batching.max_queue_rows,
        max_queue_bytes=batching.max_queue_bytes,
        max_delay_ns=delay_ns if batched else 0,
        preferred_rows=said.preferred_sizes,
        schedule=_schedule(said, batching.priority_patience_ms * 1_000_000),
        forecast=forecast,
    )


def _policies(said: BatchingDecl) -> list[QueuePolicy]:
    """By level, the highest first; one where there are no levels."""
    levels = range(1, max(said.priority_levels, 1) + 1)
    return [said.priority_policies.get(level, said.default_policy) for level in levels]


def _schedule(said: BatchingDecl, patience_ns: int) -> Schedule | None:
    """None where nothing is said that needs one: then no request pays for it."""
    policies = _policies(said)
    if policies == [QueuePolicy()] and not said.preserve_ordering:
        return None
    return Schedule(
        policies,
        default_level=max(said.default_priority_level, 1),
        patience_ns=patience_ns,
        in_order=said.preserve_ordering,
    )


class InOrder:
    """Gives batches their ends in the order in which they left the queue; stands in front of a settle function.

    A batch that is over before an earlier one waits for it. Each batch comes, whatever became of it, so none waits for
    ever; and requests that never were in one, because their time was over, are told at once. Belongs to the loop's
    thread.
    """

    def __init__(self, settle: Callable[[list[Request], ModelStats], None]) -> None:
        """`settle` is called with each batch in turn."""
        self._settle = settle
        self._next = 1
        self._early: MutableMapping[int, list[Request]] = {}

    def __call__(self, requests: list[Request], stats: ModelStats) -> None:
        """Settle these requests, of one batch or of none, once it is their turn."""
        turn = requests[0].turn
        if turn == 0:
            self._settle(requests, stats)
            return
        self._early[turn] = requests
        while (due := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._settle(due, stats)


class Overdue:
    """Refuses requests when their time in the queue is over, however long the model is busy with others.

    Its bell stands in front of the queue's. Belongs to the loop's thread.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, queue: BatchQueue, bell: Bell, settle: Callable[[list[Request]], None]
    ) -> None:
        """`bell` is rung for each request, `settle` is called with those that waited too long."""
        self.bell: Final = LoopBell(self._rung)
        self._loop, self._queue, self._inner, self._settle = loop, queue, bell, settle
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0

    def close(self) -> None:
        """Let go of the queue, which is closed and empty."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _rung(self) -> None:
        self.bell.heard()
        self._inner.ring()
        self._plan()

    def _plan(self) -> None:
        due_ns = self._queue.overdue_ns()
        if due_ns is None or (self._timer is not None and self._timer_ns <= due_ns):
            return
        if self._timer is not None:
            self._timer.cancel()
        # A little later, because the loop's clock is coarser than the queue's.
        self._timer, self._timer_ns = self._loop.call_at(due_ns * 1e-9 + 0.001, self._expire), due_ns

    def _expire(self) -> None:
        self._timer = None
        late = self._queue.expire(time.monotonic_ns())
        if late:
            self._settle(late)
        self._plan()
