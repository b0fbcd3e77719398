"""Runner: one thread that takes batches from a queue and runs them in a slot. Owns the clock of a model."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, MutableMapping

from inferd._native.batch import Batch
from inferd._native.doorbell import Doorbell
from inferd._native.queue import BatchQueue
from inferd._native.reply import answer
from inferd._native.stats import ModelStats
from inferd._native.wire import Request
from inferd.errors import InferdError, InputRefused, Internal, RunFailed
from inferd.pace import Pace
from inferd.session import Slot

log = logging.getLogger("inferd.runner")

Deliver = Callable[[list[Request]], None]

START_ROWS = 1


class Paces:
    """What has been learnt of one model, by the size class of its rows; tells the queue.

    With `learn`, a kind of row that nobody has run yet starts with batches of START_ROWS, which is what the
    queue must have been made with, and grows as it proves itself.
    """

    def __init__(self, queue: BatchQueue, max_rows: int, *, learn: bool) -> None:
        """Without `learn` every batch may grow to `max_rows`."""
        self._queue, self._max_rows, self._learn = queue, max_rows, learn
        self._by_class: MutableMapping[int, Pace] = {}

    def observe(self, size_class: int, rows: int, run_ns: int) -> None:
        """Learn from one run that succeeded."""
        pace = self._by_class.get(size_class)
        if pace is None:
            pace = self._by_class[size_class] = Pace(self._max_rows)
        before = pace.limit
        pace.observe(rows, run_ns)
        if self._learn and pace.limit != before:
            self._queue.set_batch_rows(size_class, pace.limit)

    @property
    def largest_batch(self) -> int:
        """The largest batch that any kind of row may form now."""
        if not self._learn or not self._by_class:
            return self._max_rows
        return max(pace.limit for pace in self._by_class.values())


class Runner:
    """Takes, runs, delivers, until the queue is closed and empty.

    `deliver` is called on the runner's thread with requests that have an answer or an error; it must not
    raise and must not wait.
    """

    def __init__(
        self,
        name: str,
        queue: BatchQueue,
        bell: Doorbell,
        slot: Slot,
        paces: Paces,
        stats: ModelStats,
        deliver: Deliver,
    ) -> None:
        self._queue, self._bell, self._slot = queue, bell, slot
        self._paces, self._stats, self._deliver = paces, stats, deliver
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._death: str | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end, which it does once the queue is closed and empty; False if it has not."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def death_reason(self) -> str | None:
        """Why this runner will never run anything again; None while it may."""
        if (
            self._death is None
            and self._thread.ident is not None
            and not self._thread.is_alive()
            and not self._queue.is_closed
        ):
            return f"runner {self._thread.name} has ended"
        return self._death

    def _serve(self) -> None:
        try:
            while self._step():
                pass
        except BaseException as failure:
            self._death = f"runner {self._thread.name} died: {type(failure).__name__}"
            log.exception("This is a bug: a runner died, its model answers nothing until the process is restarted.")

    def _step(self) -> bool:
        """One turn of the loop; False when there will be no more work."""
        now_ns = time.monotonic_ns()
        late = self._queue.expire(now_ns)
        if late:
            self._deliver(late)
        batch = self._queue.take(now_ns)
        if batch is None:
            if self._queue.is_closed and self._queue.requests == 0:
                self._bell.ring()  # for the next runner of the same queue, which waits too
                return False
            due_ns = self._queue.due_ns()
            self._bell.wait(-1 if due_ns is None else due_ns)
            return True
        if self._queue.requests:
            self._bell.ring()  # another runner of this queue may be asleep
        try:
            self._run(batch)
        finally:
            self._deliver(batch.members)
        return True

    def _run(self, batch: Batch) -> None:
        failure = self._attempt(batch)
        if failure is None:
            return
        if len(batch.members) == 1:
            self._refuse(batch.members[0], failure)
            return
        # One bad row must hurt only itself: each member gets a run of its own, once.
        for single in batch.split():
            failure = self._attempt(single)
            if failure is not None:
                self._refuse(single.members[0], failure)

    def _attempt(self, batch: Batch) -> Exception | None:
        started_ns = time.monotonic_ns()
        try:
            answer(batch, self._slot.run(batch))
        except Exception as failure:
            return failure
        run_ns = time.monotonic_ns() - started_ns
        for member in batch.members:
            member.run_ns = run_ns
        self._stats.batch(batch.rows)
        if not batch.apart:
            self._paces.observe(batch.size_class, batch.rows, run_ns)
        return None

    def _refuse(self, request: Request, failure: Exception) -> None:
        """Log what the session said and leave the client a text of ours."""
        model = self._queue.signature.model
        log.warning("run failed", extra={"model": model, "request_id": request.id, "reason": str(failure)})
        if isinstance(failure, InputRefused):
            request.error = InputRefused(
                f"model '{model}' refused a value of this request, such as an index out of range; check the inputs"
            )
        elif isinstance(failure, InferdError):
            request.error = RunFailed(f"model '{model}' failed on this request; the server's log has the reason")
        else:
            log.error("This is a bug.", exc_info=failure)
            request.error = Internal(str(failure))
