"""Work that is done again and again on a thread of its own, away from the event loop."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

log = logging.getLogger("inferd.telemetry")


class Periodic:
    """Calls `work` every `every_s` seconds, and a last time when it is stopped."""

    def __init__(self, name: str, every_s: float, work: Callable[[], None]) -> None:
        """Does nothing until start()."""
        self._every_s, self._work = every_s, work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, limit_s: float) -> bool:
        """Have it done a last time, and whether that came to its end in time. Blocks."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(limit_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._once()
        self._once()

    def _once(self) -> None:
        try:
            self._work()
        except Exception:
            log.exception("This is a bug.")
