"""Instance: a slot in which batches of one model version run, and what is learnt from each run."""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping

from inferd._native.batch import Batch
from inferd._native.queue import BatchQueue
from inferd._native.reply import answer
from inferd._native.stats import ModelStats
from inferd._native.wire import Request
from inferd.errors import (
    DeviceLost,
    InferdError,
    InputRefused,
    Internal,
    OutOfDeviceMemory,
    RegionShrank,
    RunFailed,
    RunStopped,
)
from inferd.pace import Pace, Shortness
from inferd.session import Slot
from inferd.telemetry.watching import named

log = logging.getLogger("inferd.runner")

START_ROWS = 1


class Paces:
    """What has been learnt of one model, by the size class of its rows; tells the queue.

    With `learn`, a kind of row that nobody has run yet starts with batches of START_ROWS, which is what the
    queue must have been made with, and grows as it proves itself. Batches whose run is expected to take at most
    `short_ns` are short, once enough of them were; 0 calls none short.
    """

    def __init__(self, queue: BatchQueue, max_rows: int, *, learn: bool, short_ns: int = 0) -> None:
        """Without `learn` every batch may grow to `max_rows`."""
        self._queue, self._max_rows, self._learn, self._short_ns = queue, max_rows, learn, short_ns
        self.forecast = queue.forecast
        self._by_class: MutableMapping[int, tuple[Pace, Shortness]] = {}

    def observe(self, size_class: int, rows: int, run_ns: int, cpu_ns: int) -> None:
        """Learn from one run that succeeded; `cpu_ns` is what it took of the thread it ran on."""
        known = self._by_class.get(size_class)
        if known is None:
            known = self._by_class[size_class] = Pace(self._max_rows), Shortness(self._short_ns)
        pace, shortness = known
        before = pace.limit
        judged = pace.observe(rows, run_ns)
        if self._learn and pace.limit != before:
            self._queue.set_batch_rows(size_class, pace.limit)
        if self._short_ns:
            most = shortness.rows
            shortness.observe(cpu_ns, pace, judged=judged)
            if shortness.rows != most:
                self._queue.set_short_rows(size_class, shortness.rows)

    @property
    def largest_batch(self) -> int:
        """The largest batch that any kind of row may form now."""
        if not self._learn or not self._by_class:
            return self._max_rows
        return max(pace.limit for pace, _ in self._by_class.values())


class Instance:
    """Runs one batch at a time; whoever calls run() sees to that."""

    def __init__(self, queue: BatchQueue, slot: Slot, paces: Paces, stats: ModelStats) -> None:
        """`slot` is its own; `queue`, where its batches come from, and the rest are shared with other instances."""
        self._model, self._slot, self._paces, self._stats = queue.signature.model, slot, paces, stats
        self._running: Batch | None = None

    def run(self, batch: Batch) -> None:
        """Give every member of a batch its answer or its error, also if what ends the thread comes between."""
        try:
            self._run(batch)
        except BaseException:
            for request in batch.members:
                if request.answer is None and request.error is None:
                    request.error = Internal("the run was ended from outside")
            raise

    def _run(self, batch: Batch) -> None:
        failure = self._attempt(batch)
        if failure is None:
            return
        if isinstance(failure, RunStopped):
            self._after_stop(batch, failure)
            return
        if len(batch.members) == 1:
            self._refuse(batch.members[0], failure)
            return
        if isinstance(failure, OutOfDeviceMemory):
            for half in batch.halve():  # and theirs, until they fit or are single
                self._run(half)
            return
        if isinstance(failure, DeviceLost):
            for request in batch.members:  # nothing will run there any more
                self._refuse(request, failure)
            return
        # One bad row must hurt only itself: each member gets a run of its own, once.
        for single in batch.split():
            failure = self._attempt(single)
            if failure is not None:
                self._refuse(single.members[0], failure)

    def gone(self) -> None:
        """Somebody waits no more: if nobody waits for what runs now, stop it. Called on the loop's thread."""
        batch = self._running
        if batch is not None and not batch.is_wanted:
            self._slot.stop(batch)

    def _after_stop(self, batch: Batch, failure: RunStopped) -> None:
        """Nobody waits, and nobody is run for; should somebody wait all the same, he gets a run of his own."""
        self._stats.stopped(batch)
        for single in batch.split():
            again = self._attempt(single) if single.is_wanted else failure
            if again is not None:
                single.members[0].error = again if again is failure else RunFailed("the run failed; try again")

    def _attempt(self, batch: Batch) -> Exception | None:
        started_ns, started_cpu_ns = time.monotonic_ns(), time.thread_time_ns()
        self._running = batch
        try:
            to_gpu = answer(batch, self._slot.run(batch))
            if to_gpu:
                self._slot.hand_over(to_gpu)
        except Exception as failure:
            self._stats.run_failed(started_ns, time.monotonic_ns())
            return failure
        finally:
            self._running = None
        ended_ns, cpu_ns = time.monotonic_ns(), time.thread_time_ns() - started_cpu_ns
        slot = self._slot
        self._stats.batch(batch, started_ns, slot.gathered_ns, slot.computed_ns, ended_ns, slot.padded_rows)
        if not batch.apart:
            self._paces.observe(batch.size_class, batch.rows, ended_ns - started_ns, cpu_ns)
            if self._paces.forecast is not None:
                self._paces.forecast.observe(batch.size_class, batch.rows, ended_ns - started_ns, ended_ns)
        return None

    def _refuse(self, request: Request, failure: Exception) -> None:
        """Log what the session said and leave the client a text of ours."""
        error = self._told(failure)
        about = {"model": self._model, "code": error.code, **named(request)}
        log.warning("run failed", extra={**about, "reason": str(failure)})
        if isinstance(error, Internal):
            log.error("This is a bug.", exc_info=failure, extra=about)
        request.error = error

    def _told(self, failure: Exception) -> InferdError:
        if isinstance(failure, RegionShrank):
            return failure.with_traceback(None)
        if isinstance(failure, InputRefused):
            return InputRefused(
                f"model '{self._model}' refused a value of this request, such as an index out of range; "
                "check the inputs"
            )
        if isinstance(failure, DeviceLost):
            return DeviceLost(f"the GPU that model '{self._model}' ran on has failed; try another replica")
        if isinstance(failure, InferdError):
            return RunFailed(f"model '{self._model}' failed on this request; the server's log has the reason")
        return Internal(str(failure))
