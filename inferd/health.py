"""Health as one board of names: whoever asks, over gRPC or HTTP, reads it here.

The board knows no transport. It belongs to the loop thread: every method is called there and nowhere
else, so that nothing is locked and a watcher never sees half of a change.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from enum import Enum
from typing import Final

from inferd.errors import Internal

OVERALL: Final = ""
READINESS: Final = "readiness"
LIVENESS: Final = "liveness"
INFERENCE_SERVICE: Final = "inference.GRPCInferenceService"

READY_NAMES: Final = (OVERALL, READINESS, INFERENCE_SERVICE)
RESERVED_NAMES: Final = frozenset((*READY_NAMES, LIVENESS))
"""Names no model may have: a model so named would speak for the whole server."""

LivenessProbe = Callable[[], str | None]


class Status(Enum):
    """Whether a name may be sent requests. A name the board does not hold has no status at all."""

    SERVING = "SERVING"
    NOT_SERVING = "NOT_SERVING"


class HealthBoard:
    """Names and their status, and who waits for them to change.

    A new board is alive, not ready, and holds no model. ``liveness`` is never stored by anyone: it is
    asked of the probes, so draining cannot flip it and a dead part cannot forget to.
    """

    def __init__(self) -> None:
        self._stored = dict.fromkeys(READY_NAMES, Status.NOT_SERVING)
        self._probes: list[LivenessProbe] = []
        # What watchers are told of liveness; status() asks the probes themselves.
        self._polled_liveness = Status.SERVING
        self._watchers: dict[str, set[asyncio.Event]] = {}
        self._closed = asyncio.Event()

    # --- reading ---------------------------------------------------------------------------------

    def status(self, name: str) -> Status | None:
        """The status of ``name`` now, None when the board does not hold it."""
        if name == LIVENESS:
            return Status.NOT_SERVING if self.death_reason() else Status.SERVING
        return self._stored.get(name)

    def names(self) -> tuple[str, ...]:
        """Every name that has a status, the server's own before the models'."""
        own = (OVERALL, READINESS, LIVENESS, INFERENCE_SERVICE)
        return own + tuple(name for name in self._stored if name not in RESERVED_NAMES)

    def death_reason(self) -> str | None:
        """Why the process should be restarted, in words for its operator; None while it is alive."""
        for probe in self._probes:
            try:
                reason = probe()
            except Exception as exc:
                # A probe that cannot answer has not shown that its part is alive.
                reason = f"a liveness probe failed: {type(exc).__name__}: {exc}"
            if reason is not None:
                return reason or "a liveness probe gave no reason"
        return None

    async def watch(self, name: str) -> AsyncGenerator[Status | None, None]:
        """Yield the status of ``name`` now and then whenever it has changed, until the board is closed.

        A reader slower than the changes misses the ones between, never the last: nothing is queued,
        the board is read anew each time. Leave it with ``contextlib.aclosing`` to be forgotten at once.
        """
        woken = asyncio.Event()
        self._watchers.setdefault(name, set()).add(woken)
        try:
            if name == LIVENESS:
                self.poll_liveness()
            told = self._watched(name)
            yield told
            while True:
                # Cleared before the board is read: a change made after the reading wakes again.
                woken.clear()
                status = self._watched(name)
                if status is not told:
                    told = status
                    yield told
                elif self._closed.is_set():
                    return
                else:
                    await woken.wait()
        finally:
            waiting = self._watchers[name]
            waiting.discard(woken)
            if not waiting:
                del self._watchers[name]

    @property
    def watcher_count(self) -> int:
        """How many watches are open, over all names."""
        return sum(map(len, self._watchers.values()))

    # --- changing --------------------------------------------------------------------------------

    def set(self, name: str, status: Status) -> None:
        """Give a model, as ``NAME`` or ``NAME/VERSION``, its status. Reserved names raise Internal."""
        _refuse_reserved(name)
        self._store(name, status)

    def set_ready(self, ready: bool) -> None:
        """Say whether this server as a whole takes requests: all names that mean so change together."""
        status = Status.SERVING if ready else Status.NOT_SERVING
        for name in READY_NAMES:
            self._store(name, status)

    def remove(self, name: str) -> None:
        """Forget a model, known or not; its watchers are told None. Reserved names raise Internal."""
        _refuse_reserved(name)
        if self._stored.pop(name, None) is not None:
            self._wake(name)

    def close(self) -> None:
        """End every watch, now and later, once it has been told the last status. Reading stays possible.

        Called before a server is stopped, whose grace period an open watch would otherwise use up.
        """
        self._closed.set()
        for name in self._watchers:
            self._wake(name)

    # --- liveness --------------------------------------------------------------------------------

    def add_liveness_probe(self, probe: LivenessProbe) -> None:
        """Ask ``probe`` whenever liveness is asked for: None means alive, a text says why not.

        Probes run on the loop and answer at once.
        """
        self._probes.append(probe)

    def poll_liveness(self) -> str | None:
        """Ask the probes, tell watchers of liveness if the answer changed, and return the reason if dead."""
        reason = self.death_reason()
        status = Status.SERVING if reason is None else Status.NOT_SERVING
        if status is not self._polled_liveness:
            self._polled_liveness = status
            self._wake(LIVENESS)
        return reason

    async def run(self, interval_s: float = 1.0) -> None:
        """Poll liveness every ``interval_s`` seconds until the board is closed, for those who watch it."""
        while not self._closed.is_set():
            self.poll_liveness()
            try:
                async with asyncio.timeout(interval_s):
                    await self._closed.wait()
            except TimeoutError:
                continue

    # --- inside ----------------------------------------------------------------------------------

    def _watched(self, name: str) -> Status | None:
        return self._polled_liveness if name == LIVENESS else self._stored.get(name)

    def _store(self, name: str, status: Status) -> None:
        if self._stored.get(name) is not status:
            self._stored[name] = status
            self._wake(name)

    def _wake(self, name: str) -> None:
        for woken in self._watchers.get(name, ()):
            woken.set()


def _refuse_reserved(name: str) -> None:
    if name in RESERVED_NAMES:
        raise Internal(f"health: {name!r} is the server's own name, not a model's")
