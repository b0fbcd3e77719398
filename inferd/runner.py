"""Runner: one thread that takes batches from a queue and has an instance run them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from inferd._native.doorbell import Doorbell
from inferd._native.queue import BatchQueue
from inferd._native.wire import Request
from inferd.instance import Instance

log = logging.getLogger("inferd.runner")

Deliver = Callable[[list[Request]], None]


class Runner:
    """Takes, runs, delivers, until the queue is closed and empty.

    `deliver` is called on the runner's thread with requests that have an answer or an error; it must not
    raise and must not wait.
    """

    def __init__(self, name: str, queue: BatchQueue, bell: Doorbell, instance: Instance, deliver: Deliver) -> None:
        self._queue, self._bell, self._instance, self._deliver = queue, bell, instance, deliver
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._death: str | None = None
        self._run_since_ns = 0  # 0 = nothing runs

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    @property
    def has_ended(self) -> bool:
        """The thread has ended, as it does once the queue is closed and empty."""
        return self._thread.ident is not None and not self._thread.is_alive()

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

    def hang_reason(self, now_ns: int, limit_ns: int) -> str | None:
        """Why this runner may never come back from what it runs: it has taken longer than that. None else."""
        since_ns = self._run_since_ns
        if since_ns and now_ns - since_ns > limit_ns:
            return f"runner {self._thread.name} has been in one run for {(now_ns - since_ns) // 1_000_000_000} s"
        return None

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
        self._run_since_ns = now_ns
        try:
            self._instance.run(batch)
        finally:
            self._run_since_ns = 0
            self._deliver(batch.members)
        return True
