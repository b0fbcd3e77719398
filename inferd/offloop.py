"""Work that blocks, on threads of its own: the loop waits for its result, and not for ever if it is told so."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class OffLoop:
    """Runs at most `at_once` pieces of work, each on a thread of its own; the others wait for their turn.

    Not a pool of threads: one of those that hangs in a library could never be left, and would hold up the exit.
    """

    def __init__(self, name: str, at_once: int) -> None:
        """`name` is what the threads are called."""
        self._name = name
        self._turns = asyncio.Semaphore(at_once)
        self._running = 0

    @property
    def is_idle(self) -> bool:
        """No thread is at work, not even one whose result nobody waits for any more."""
        return self._running == 0

    async def run(self, work: Callable[[], T], timeout_s: float | None = None) -> T:
        """What `work` returns or raises. TimeoutError after `timeout_s`; its thread is then left to itself."""
        async with self._turns:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[T] = loop.create_future()
            self._running += 1

            def finish(result: Callable[[], None]) -> None:
                self._running -= 1
                if not done.done():
                    result()

            def thread() -> None:
                try:
                    value = work()
                except BaseException as failure:
                    outcome = partial(done.set_exception, failure)
                else:
                    outcome = partial(done.set_result, value)
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(finish, outcome)

            threading.Thread(target=thread, name=self._name, daemon=True).start()
            async with asyncio.timeout(timeout_s):
                return await done
