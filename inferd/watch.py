"""Watch: the repository on disk, followed while the server runs.

The system tells that something has changed (inotify); what has, a look at the folders says. A model is loaded once
two looks at it, some time apart, are the same: what is still being written differs from one to the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from watchfiles import awatch

from inferd.config import Models as ModelSettings
from inferd.errors import InferdError
from inferd.lifecycle import Lifecycle

log = logging.getLogger("inferd.watch")


class Watch:
    """Has a lifecycle follow its repository."""

    def __init__(self, lifecycle: Lifecycle, settings: ModelSettings) -> None:
        """Looks at nothing before run()."""
        self._lifecycle, self._reader = lifecycle, lifecycle.reader
        self._settle_s = settings.settle_ms / 1000
        self._rescan_s = settings.rescan_ms / 1000 or None
        self._stirred = asyncio.Event()
        self._stirred.set()  # what changed while the start went on is seen now
        self._followed = lifecycle.served()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Follow the repository until cancelled."""
        listening = asyncio.create_task(self._listen())
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._rescan_s):
                        await self._stirred.wait()
                self._stirred.clear()
                await self._follow()
        finally:
            for task in (listening, *self._tasks):
                task.cancel()
            await asyncio.gather(listening, *self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Set `_stirred` whenever the system tells of a change."""
        path = self._reader.path
        try:
            async for _ in awatch(path, watch_filter=None, debounce=200, ignore_permission_denied=True):
                self._stirred.set()
        except Exception as failure:  # such as no watches left; the binding raises classes of its own
            log.error(
                "the repository is not watched: changes are found when it is looked at again",
                extra={"path": str(path), "reason": str(failure), "rescan_s": self._rescan_s},
            )

    async def _follow(self) -> None:
        """Bring what has changed and keeps still; look again as long as something does not."""
        before = await self._look()
        while pending := {name for name in {*before, *self._followed} if before.get(name) != self._followed.get(name)}:
            await asyncio.sleep(self._settle_s)
            now = await self._look()
            for name in pending:
                if now.get(name) == before.get(name):
                    self._bring(name, now.get(name))
            before = now

    async def _look(self) -> dict[str, str]:
        try:
            return await asyncio.to_thread(self._reader.contents)
        except InferdError as failure:
            log.error("the repository cannot be read; what is loaded serves on", extra={"reason": str(failure)})
            return dict(self._followed)

    def _bring(self, name: str, content: str | None) -> None:
        if content is None:
            self._followed.pop(name, None)
        else:
            self._followed[name] = content
        task = asyncio.create_task(self._refresh(name))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _refresh(self, name: str) -> None:
        try:
            await self._lifecycle.refresh(name)
        except InferdError as failure:
            log.error("model not followed", extra={"model": name, "reason": str(failure)})
