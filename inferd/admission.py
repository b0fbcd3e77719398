"""What the server takes on: permits as the settings want them, and fewer of them while memory is short."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from inferd._native.admission import Admission
from inferd.cgroup import MemoryLimit, MemoryUse
from inferd.config import Settings

log = logging.getLogger("inferd.admission")

LOOK_S: Final = 0.05
"""Memory is looked at so often: a gigabit a second brings 6 MB meanwhile."""


def open_admission(settings: Settings) -> Admission:
    """Permits as the settings say."""
    said = settings.admission
    return Admission(
        max_requests=said.max_requests,
        max_bytes=said.max_bytes,
        max_caller_requests=said.max_caller_requests,
        message_ns=said.message_timeout_ms * 1_000_000,
    )


class MemoryGuard:
    """Refuses large requests while memory is short, and all once next to none is left. For the loop's thread only."""

    def __init__(
        self, limit: MemoryLimit, share: float, large_bytes: int, admission: Admission, bound: Callable[[int], None]
    ) -> None:
        """`share` of the limit may be in use; `bound` is told the largest message worth reading now, 0 for any."""
        self._limit, self._use, self._large_bytes = limit, MemoryUse(limit), large_bytes
        self._admission, self._bound = admission, bound
        self._short_at = int(limit.limit_bytes * share)
        self._empty_at = (self._short_at + limit.limit_bytes) // 2

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        try:
            while True:
                self.look()
                await asyncio.sleep(LOOK_S)
        finally:
            self._use.close()

    def look(self) -> None:
        """Look once."""
        used = self._use.used_bytes(exact_from=self._short_at)
        spare = 1 if used >= self._empty_at else self._large_bytes if used >= self._short_at else 0
        before = self._admission.spare_bytes
        if spare == before:
            return
        self._admission.spare_bytes = spare
        self._bound(spare)
        if not before or not spare:
            facts = {"used_bytes": used, "limit_bytes": self._limit.limit_bytes}
            log.warning(
                "memory is short: large requests are refused" if spare else "memory is there again", extra=facts
            )
