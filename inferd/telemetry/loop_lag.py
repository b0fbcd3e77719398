"""How late an event loop comes to what is planned on it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from inferd._native.stats import Histogram

EVERY_S: Final = 0.1
BOUNDS: Final = (1e-3, 2e-3, 5e-3, 10e-3, 20e-3, 50e-3, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class LoopLag:
    """Looks ten times a second. Belongs to the loop's thread."""

    def __init__(self) -> None:
        """Looks at nothing until start()."""
        self.seconds: Final = Histogram(BOUNDS)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look at the running loop from now on."""
        self._plan(asyncio.get_running_loop())

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = time.monotonic() + EVERY_S
        self._timer = loop.call_later(EVERY_S, self._look, loop, due_s)

    def _look(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        # Timers of the loop may come up to a millisecond early.
        self.seconds.observe(max(time.monotonic() - due_s, 0.0))
        self._plan(loop)
