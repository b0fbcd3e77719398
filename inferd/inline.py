"""Inline runs: batches that are over sooner than a thread could be woken for them, run by the loop itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from inferd._native.doorbell import Doorbell, LoopBell
from inferd._native.queue import BatchQueue
from inferd._native.wire import Request
from inferd.instance import Instance


class InlineRuns:
    """All models' short batches on one loop: in each of its turns for about `budget_ns` at most.

    A turn comes after everything that the loop had to read was read, so requests of all connections meet in it.
    Belongs to the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, budget_ns: int) -> None:
        """Nothing is run until a bell of add() is rung."""
        self._loop: Final = loop
        self._budget_ns: Final = budget_ns
        self._due: list[InlineRunner] = []

    def add(
        self, queue: BatchQueue, doorbell: Doorbell, instance: Instance, settle: Callable[[list[Request]], None]
    ) -> InlineRunner:
        """Have the queue's batches run here, when its bell is rung, if they are short; else `doorbell` is rung."""
        runner = InlineRunner(queue, doorbell, instance, settle)
        runner.bell = LoopBell(lambda: self._plan(runner))
        return runner

    def _plan(self, runner: InlineRunner) -> None:
        if not self._due:
            self._loop.call_soon(self._turn)
        self._due.append(runner)

    def _turn(self) -> None:
        due, self._due = self._due, []
        now_ns = time.monotonic_ns()
        end_ns = now_ns + self._budget_ns
        for runner in due:
            runner.bell.heard()
            if now_ns < end_ns:
                now_ns = runner.step(now_ns, end_ns)
            else:
                runner.doorbell.ring()


class InlineRunner:
    """One model's part of it."""

    bell: LoopBell

    def __init__(
        self, queue: BatchQueue, doorbell: Doorbell, instance: Instance, settle: Callable[[list[Request]], None]
    ) -> None:
        self.doorbell = doorbell
        self._queue, self._settle = queue, settle
        self._instance: Instance | None = instance

    def close(self) -> None:
        """Let go of the session. The bell may still be rung and changes nothing, as the queue is closed and empty."""
        self._instance = None  # and nothing is taken any more

    def step(self, now_ns: int, end_ns: int) -> int:
        """Run short batches as long as they come next, until `end_ns`; the time after them.

        What is not short is left to the threads, and what is not run in this turn to the next one.
        """
        late = self._queue.expire(now_ns)
        if late:
            self._settle(late)
        while now_ns < end_ns:
            batch = self._queue.take_short(now_ns)
            if batch is None:
                if self._queue.requests:
                    self.doorbell.ring()
                return now_ns
            try:
                assert self._instance is not None
                self._instance.run(batch)
            finally:
                self._settle(batch.members)
            now_ns = time.monotonic_ns()
        if self._queue.requests:
            self.bell.ring()
        return now_ns
