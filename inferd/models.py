"""Models by name and version, and the table of states that each goes through."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import TypeAlias

from inferd._native.admission import let_go
from inferd._native.doorbell import Bell, Doorbell
from inferd._native.queue import BatchQueue
from inferd._native.stats import ModelStats
from inferd._native.wire import Request
from inferd.config import Settings
from inferd.errors import DeadlineExceeded, DeviceLost, Internal, ModelFailed, NotReady, UnknownModel
from inferd.inline import InlineRunner, InlineRuns
from inferd.instance import Instance, Paces
from inferd.loading import Loaded
from inferd.near import hint
from inferd.queueing import InOrder, Overdue, open_queue
from inferd.repository.scan import VERSION
from inferd.runner import Runner

log = logging.getLogger("inferd.models")

SECONDS_BOUNDS = (
    50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 25e-3, 50e-3, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip
ROWS_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class State(Enum):
    """Where a model version is in its life."""

    LOADING = "LOADING"
    READY = "READY"
    DRAINING = "DRAINING"
    GONE = "GONE"
    FAILED = "FAILED"


class Event(Enum):
    """What moves a model version on."""

    LOADED = "LOADED"
    BROKEN = "BROKEN"
    LOST = "LOST"
    RETIRED = "RETIRED"
    EMPTIED = "EMPTIED"


NEXT: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.LOADING, Event.LOADED): State.READY,
        (State.LOADING, Event.BROKEN): State.FAILED,
        (State.LOADING, Event.RETIRED): State.GONE,
        (State.READY, Event.LOST): State.FAILED,
        (State.READY, Event.RETIRED): State.DRAINING,
        (State.DRAINING, Event.EMPTIED): State.GONE,
        (State.FAILED, Event.RETIRED): State.GONE,
    }
)


def settle(requests: list[Request], stats: ModelStats) -> None:
    """Wake the callers of a finished batch, one by one: a cancelled neighbour changes nothing."""
    for request in requests:
        let_go(request)
        waiter = request.completion if request.completion is not None and not request.completion.done() else None
        if request.run_ns:
            stats.ran(request, waiter is not None)
        elif isinstance(request.error, DeadlineExceeded):
            stats.expire()
        if waiter is not None:
            waiter.set_result(None)


def _dropped(queue: BatchQueue, request: Request) -> bool:
    """Take a request out of the queue, if it is in it, and its permit from it."""
    if not queue.drop(request):
        return False
    let_go(request)
    return True


Settle: TypeAlias = Callable[[list[Request], ModelStats], None]


class Model:
    """One version of one model: its state, and once loaded its queue and runners.

    Everything here belongs to the loop thread, except that runners take from the queue on theirs.
    """

    def __init__(
        self,
        name: str,
        version: int,
        on_change: Callable[[Model], None],
        *,
        content: str = "",
        stats: ModelStats | None = None,
    ) -> None:
        """A model that is being loaded; `on_change` is called after each change of state.

        `content` is what its folder held (see VersionDir); `stats` are those of the one whose place it takes.
        """
        self.name, self.version, self.content = name, version, content
        self.state = State.LOADING
        self.reason = ""
        self.loaded: Loaded | None = None
        self.load_seconds = 0.0
        self.stats = stats if stats is not None else ModelStats(SECONDS_BOUNDS, ROWS_BOUNDS)
        self.queue: BatchQueue | None = None
        self.paces: Paces | None = None
        self.runners: tuple[Runner, ...] = ()
        self.doorbell = Doorbell()
        self.bell: Bell = self.doorbell  # what is rung for each request
        self._instances: list[Instance] = []
        self._inline: InlineRunner | None = None
        self._overdue: Overdue | None = None
        self._on_change = on_change

    def advance(self, event: Event) -> None:
        """Follow the table of states; Internal if it has no such step."""
        following = NEXT.get((self.state, event))
        if following is None:
            raise Internal(f"model '{self.name}' version {self.version}: {event.name} while {self.state.name}")
        self.state = following
        self._on_change(self)

    def fail(self, reason: str) -> None:
        """The load did not work out; `reason` is for operators and for clients that ask for this model."""
        self.reason = reason
        self.advance(Event.BROKEN)

    def lose(self, reason: str) -> None:
        """The device has failed under it: it accepts nothing more, and what is queued fails as it is run."""
        self.reason = reason
        if self.queue is not None:
            self.queue.close()
            self.doorbell.ring()
        self.advance(Event.LOST)

    def serve(
        self,
        loaded: Loaded,
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
        settle: Settle = settle,
        inline: InlineRuns | None = None,
    ) -> None:
        """Open the queue and start the runners; the model is READY when this returns.

        `settle` is called on the loop with each finished batch, and with what counts requests that ran. `inline`
        is where short batches run; without it all of them run on threads.
        """
        batching = settings.batching
        self.loaded = loaded
        self.queue = open_queue(loaded, settings)
        if loaded.decl.batching.preserve_ordering:
            settle = InOrder(settle)
        learn = batching.learn and loaded.learns
        inline = inline if loaded.runs_inline else None  # the loop waits for no device
        short_ns = batching.inline_us * 1000 if inline is not None else 0
        self.paces = Paces(self.queue, loaded.signature.max_rows, learn=learn, short_ns=short_ns)
        for size_class, rows, run_ns in loaded.samples:
            self.paces.observe(size_class, rows, run_ns, run_ns)

        def deliver(requests: list[Request]) -> None:
            loop.call_soon_threadsafe(settle, requests, self.stats)

        instances = self._instances = [Instance(self.queue, slot, self.paces, self.stats) for slot in loaded.slots]
        self.runners = tuple(
            Runner(f"{self.name}/{self.version}#{index}", self.queue, self.doorbell, instance, deliver)
            for index, instance in enumerate(instances)
        )
        if inline is not None:
            own = Instance(self.queue, loaded.spare_slot, self.paces, self.stats)
            self._inline = inline.add(self.queue, self.doorbell, own, lambda requests: settle(requests, self.stats))
            self.bell = self._inline.bell
        if self.queue.schedule is not None and self.queue.schedule.refuses:
            self._overdue = Overdue(loop, self.queue, self.bell, lambda requests: settle(requests, self.stats))
            self.bell = self._overdue.bell
        for runner in self.runners:
            runner.start()
        self.advance(Event.LOADED)

    def answering(self) -> Loaded:
        """What was loaded, if the model can answer now.

        Raises ModelFailed for one that did not load, DeviceLost for one whose GPU has failed, NotReady for one that
        is loading or draining.
        """
        if self.state is State.FAILED and self.loaded is not None:
            raise DeviceLost(f"the GPU that model '{self.name}' ran on has failed; try another replica")
        if self.state is State.FAILED:
            raise ModelFailed(
                f"model '{self.name}' version {self.version} did not load; the server's log has the reason"
            )
        if self.state is not State.READY or self.loaded is None:
            raise NotReady(
                f"model '{self.name}' version {self.version} is {self.state.name.lower()}; "
                "try again or try another replica"
            )
        return self.loaded

    async def infer(self, request: Request) -> bytes:
        """Queue a bound request and wait for its answer. Cancelling this call takes the request out of the queue."""
        queue, bell = self.queue, self.bell  # when the answer is here they may be gone
        assert queue is not None
        loop = asyncio.get_running_loop()
        request.completion = loop.create_future()
        now_ns = time.monotonic_ns()
        queue.put(request, now_ns)
        self.stats.accept()
        bell.ring()
        timeout_s = (request.deadline_ns - now_ns) * 1e-9 if request.deadline_ns else None
        try:
            async with asyncio.timeout(timeout_s):
                await request.completion
        except TimeoutError:
            if _dropped(queue, request):
                self.stats.expire()
            raise DeadlineExceeded(
                f"the deadline passed while model '{self.name}' was working on the request"
            ) from None
        finally:
            _dropped(queue, request)  # only if it is still there: the caller has gone
            request.completion = None  # it refers to this frame's task
            if request.answer is None and request.error is None:
                self.gone()
        if request.error is not None:
            raise request.error
        assert request.answer is not None  # settled without an error
        return request.answer

    def gone(self) -> None:
        """Nobody waits any more for a request that has left the queue: a run that is for nobody is stopped.

        Those on the loop cannot be, and are short.
        """
        for instance in self._instances:
            instance.gone()

    def retire(self) -> None:
        """Accept nothing more; what is queued is still answered."""
        self.advance(Event.RETIRED)
        if self.queue is not None:
            self.queue.close()
            self.doorbell.ring()

    @property
    def has_ended(self) -> bool:
        """Nothing runs any more, and nothing will: what was queued when it was retired is answered."""
        return all(runner.has_ended for runner in self.runners)

    def release(self) -> None:
        """Give back the session's memory once it has ended, even while somebody still holds this object."""
        self.advance(Event.EMPTIED)
        if self._inline is not None:
            self._inline.close()
        if self._overdue is not None:
            self._overdue.close()
        self.loaded = self.queue = self.paces = self._inline = self._overdue = None
        self.bell, self.runners, self._instances = self.doorbell, (), []


class Models:
    """What a client may ask for: name and version -> Model."""

    def __init__(self, *, tells_names: bool = False) -> None:
        """Empty; `add` fills it. With `tells_names` whoever asks for a model may learn the names of others."""
        self._tells_names = tells_names
        self._by_name: dict[str, dict[int, Model]] = {}

    def add(self, model: Model) -> None:
        """Make a model version known, in whatever state it is. It takes the place of one that is known already."""
        self._by_name.setdefault(model.name, {})[model.version] = model

    def remove(self, model: Model) -> None:
        """Forget a model version, unless another has taken its place."""
        if self.get(model.name, model.version) is model:
            del self._by_name[model.name][model.version]
            if not self._by_name[model.name]:
                del self._by_name[model.name]

    def get(self, name: str, version: int) -> Model | None:
        """The model version of that name and number, if it is known."""
        return self._by_name.get(name, {}).get(version)

    def all(self) -> list[Model]:
        """Every known version, by name and then by version."""
        return [model for name in sorted(self._by_name) for _, model in sorted(self._by_name[name].items())]

    def versions(self, name: str) -> list[Model]:
        """The known versions of one model, rising; empty if there is no such model."""
        return [model for _, model in sorted(self._by_name.get(name, {}).items())]

    def find(self, name: str, version: str) -> Model:
        """The version asked for, or the highest that is ready if none is named, whatever its state.

        Raises UnknownModel.
        """
        versions = self._by_name.get(name)
        if not versions:
            near = hint(name, self._by_name) if self._tells_names else ""
            raise UnknownModel(f"there is no model {shown(name)} here{near}")
        if not version:
            ready = [number for number, model in versions.items() if model.state is State.READY]
            return versions[max(ready or versions)]
        model = versions.get(int(version)) if VERSION.fullmatch(version) else None
        if model is None:
            known = ", ".join(str(number) for number in sorted(versions))
            raise UnknownModel(f"model '{name}' has no version {shown(version)}; it has {known}")
        return model


def shown(text: str) -> str:
    """A name from a client, safe to put into a message: quoted, escaped, short."""
    return repr(text if len(text) <= 64 else text[:64] + "...")
