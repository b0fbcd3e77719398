"""Lifecycle: what is to be served, held against what is.

Versions load beside those they replace and take over between batches; what nothing asks for any more is drained and
gives its memory back. All of it belongs to the loop's thread; loads run on threads of their own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from inferd.config import Settings
from inferd.cpus import split_threads, usable_cpus
from inferd.device import Devices
from inferd.errors import InferdError, ModelFailed, NotReady, StartError, UnknownModel
from inferd.loading import Loaded, load
from inferd.memory import release_memory
from inferd.models import Model, Models, State
from inferd.offloop import OffLoop
from inferd.repository import BrokenModel, ModelDir, Override, Reader, Repository, VersionDir, digest
from inferd.trial import try_load

log = logging.getLogger("inferd.lifecycle")

LOADS_AT_ONCE: Final = 2
"""More would take processors and memory from what is served."""
DRAIN_LOOK_S: Final = 0.02
NO_VERSION: Final = 0
"""Stands in for the versions of a model whose folder or config.pbtxt is at fault."""
STOPPING: Final = "this server is being stopped"


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of the index: a version, or a model without one (`version` 0). No state: not loaded."""

    name: str
    version: int
    state: State | None
    reason: str


class Lifecycle:
    """Loads and unloads models of one repository into a table of models."""

    def __init__(
        self,
        settings: Settings,
        models: Models,
        devices: Devices,
        serve: Callable[[Model, Loaded], None],
        on_change: Callable[[Model], None],
    ) -> None:
        """`serve` has a loaded model answer, from when it returns; `on_change` hears of each change of state."""
        self._settings, self._models, self._devices = settings, models, devices
        self._serve, self._on_change = serve, on_change
        said = settings.models
        assert said.path is not None
        self.reader: Final = Reader(said.path, follow_links=said.follow_links, may_be_empty=said.control_mode != "none")
        self._timeout_s = said.load_timeout_ms / 1000 or None
        self._threads = OffLoop("load", LOADS_AT_ONCE)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._tasks: set[asyncio.Task[None]] = set()
        self._unloaded: set[str] = set()
        self._planned: list[ModelDir] = []
        self._planned_instances = 0
        self._stops = False
        self.loads: Counter[tuple[str, str]] = Counter()
        """Loads that have ended, by the model's name and "ok" or "failed"."""

    # --- the start -----------------------------------------------------------------------------------

    def plan(self) -> None:
        """Make what is to be loaded known, LOADING, before anybody can ask for it.

        Raises StartError for a repository that is none, and for a broken model if `models.strict`.
        """
        wanted = self._chosen(self.reader.scan())
        if wanted.broken and self._settings.models.strict:
            raise _cannot_start([(one.name, one.reason) for one in wanted.broken])
        for broken in wanted.broken:
            self._note(broken)
        for directory in wanted.models:
            self._planned.append(directory)
            self._planned_instances += len(directory.versions) * directory.decl.instance_count
            for version in directory.versions:
                self._add(Model(directory.decl.name, version.version, self._on_change, content=version.content))

    def _chosen(self, found: Repository) -> Repository:
        said = self._settings.models
        if said.control_mode != "explicit" or said.load == "*":
            return found
        names = {name for name in said.load.split(",") if name}
        models = tuple(one for one in found.models if one.decl.name in names)
        broken = [one for one in found.broken if one.name in names]
        missing = names - {one.decl.name for one in models} - {one.name for one in broken}
        broken += [BrokenModel(name, f"{said.path} has no folder of that name") for name in sorted(missing)]
        return Repository(models, tuple(broken))

    async def start(self) -> None:
        """Load what was planned, one after the other. Raises StartError at the first failure if `models.strict`."""
        planned, self._planned = self._planned, []
        for directory in planned:
            if self._stops:
                return
            failures = await self._reconcile(directory.decl.name, directory)
            if failures and self._settings.models.strict and not self._stops:
                raise _cannot_start(failures)

    # --- while it serves -------------------------------------------------------------------------------

    async def load(self, name: str, override: Override | None = None) -> None:
        """Load what the repository, or `override`, has of a model now; what has not changed serves on as it is.

        It goes on to its end even if the caller is cancelled. Raises UnknownModel if the repository has no such
        folder, ModelFailed with the reason if a version does not load; what served before serves on then.
        """
        await asyncio.shield(self._keep(self._load(name, override or Override())))

    async def _load(self, name: str, override: Override) -> None:
        with TemporaryDirectory(prefix="inferd-") as folder:
            found = await asyncio.to_thread(override.find, self.reader, name, Path(folder))
            if found is None:
                raise UnknownModel(f"the repository has no model {name[:128]!r}")
            failures = await self._reconcile(name, found, again=True)
        if failures:
            raise ModelFailed("; ".join(f"model '{what}' does not load: {why}" for what, why in failures))

    async def refresh(self, name: str) -> None:
        """Have served what the repository has of a model now. What fails is logged and listed, not raised."""
        found = await asyncio.to_thread(self.reader.find, name)
        if found is None:
            await self.unload(name)
        else:
            await self._reconcile(name, found)

    async def unload(self, name: str) -> None:
        """Accept no more requests for a model; what was accepted is answered, then its memory is given back.

        A model that is not loaded is no error: it is what was asked for.
        """
        if not self._models.versions(name):
            return
        async with self._turns[name]:
            for model in self._models.versions(name):
                self._retire(model)
            self._unloaded.add(name)

    async def index(self) -> list[Listed]:
        """Every known version, and every model of the repository that is not loaded; by name and version."""
        there = await asyncio.to_thread(self.reader.names)
        listed = [Listed(model.name, model.version, model.state, model.reason) for model in self._models.all()]
        idle = set(there) - {one.name for one in listed}
        listed += [Listed(name, NO_VERSION, None, "unloaded" if name in self._unloaded else "") for name in idle]
        return sorted(listed, key=lambda one: (one.name, one.version))

    def served(self) -> dict[str, str]:
        """What is loaded or failed to be, by name, in the words of Reader.contents()."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for model in self._models.all():
            found[model.name].append(model.content or model.reason)
        return {name: " ".join(contents) for name, contents in found.items()}

    # --- the end ---------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Load nothing more and accept no more requests; what is accepted is answered."""
        self._stops = True
        for model in self._models.all():
            self._retire(model)

    async def ended(self, limit_s: float) -> bool:
        """Wait until nothing runs or loads any more; False, and a line in the log for each, if something does."""
        waiting = [task for task in self._tasks if not task.done()]
        if waiting:
            await asyncio.wait(waiting, timeout=limit_s)
        for model in self._models.all():
            if model.state is State.DRAINING:
                log.error("a runner did not finish in time", extra={"model": model.name, "version": model.version})
        has_ended = self._threads.is_idle and not any(model.state is State.DRAINING for model in self._models.all())
        for task in self._tasks:
            task.cancel()
        return has_ended

    # --- one model ---------------------------------------------------------------------------------------

    async def _reconcile(
        self, name: str, found: ModelDir | BrokenModel, *, again: bool = False
    ) -> list[tuple[str, str]]:
        """Have the versions that were found served and no others; what failed, and why.

        While anything fails, what served before serves on. What has failed is tried once more when it has changed,
        or if `again`.
        """
        async with self._turns[name]:
            if self._stops:
                raise NotReady(STOPPING)
            if isinstance(found, BrokenModel):
                self._note(found)
                return [(name, found.reason)]
            failures = []
            for version in found.versions:
                try:
                    await self._bring(found, version, again=again)
                except ModelFailed as failure:
                    failures.append((f"{name}/{version.version}", str(failure)))
            if not failures:
                wanted = {version.version for version in found.versions}
                for model in self._models.versions(name):
                    if model.version not in wanted:
                        self._retire(model)
                self._unloaded.discard(name)
            return failures

    async def _bring(self, directory: ModelDir, version: VersionDir, *, again: bool) -> None:
        """Have one version served as it is on disk. Raises ModelFailed, once it is known to all who ask."""
        name = directory.decl.name
        old = self._models.get(name, version.version)
        if old is not None and old.content == version.content:
            if old.state is State.READY:
                return
            if old.state is State.FAILED and not again:
                raise ModelFailed(old.reason)
        if old is not None and old.state is State.LOADING:  # planned
            fresh, old = old, None
        else:
            stats = None if old is None else old.stats
            fresh = Model(name, version.version, self._on_change, content=version.content, stats=stats)
        if old is None or old.state is not State.READY:
            self._add(fresh)
            old = None
        started_s = time.monotonic()
        try:
            loaded, sha256 = await self._loaded(directory, version)
        except InferdError as failure:
            self.loads[name, "failed"] += 1
            self._fail(fresh, old, str(failure))
            raise ModelFailed(str(failure)) from failure
        if self._stops:
            raise ModelFailed(STOPPING)
        facts = {"model": name, "version": version.version}
        for warning in loaded.warnings:
            log.warning(warning, extra=facts)
        self.loads[name, "ok"] += 1
        fresh.load_seconds = time.monotonic() - started_s
        # Nothing else runs between these lines: whoever asks finds the one or the other, ready.
        self._models.add(fresh)
        self._serve(fresh, loaded)
        if old is not None:
            self._retire(old)
        log.info("model loaded", extra={**facts, "sha256": sha256, "seconds": round(fresh.load_seconds, 3)})

    async def _loaded(self, directory: ModelDir, version: VersionDir) -> tuple[Loaded, str]:
        """Load one version off the loop. Raises ModelFailed with the reason, also if it takes too long."""
        threads = self._threads_for(directory)

        def work() -> tuple[Loaded, str]:
            loaded = load(directory.decl, version, self._settings, threads, self._devices)
            return loaded, digest(version.model_path)

        try:
            if self._settings.models.trial:
                await try_load(version.model_path, self._timeout_s)
            return await self._threads.run(work, self._timeout_s)
        except TimeoutError:
            raise ModelFailed(f"it was not loaded within {self._timeout_s} s (see --models-load-timeout-ms)") from None
        except OSError as failure:
            raise ModelFailed(f"{failure.filename}: {failure.strerror}") from failure

    def _threads_for(self, directory: ModelDir) -> int:
        """An equal part of the processors for each instance there is, or will be when the start is over."""
        name = directory.decl.name
        others = sum(len(one.loaded.slots) for one in self._models.all() if one.loaded is not None and one.name != name)
        instances = others + len(directory.versions) * directory.decl.instance_count
        cpus = self._settings.threads.cpus or usable_cpus()
        return split_threads(cpus, max(instances, self._planned_instances, 1))

    def _fail(self, fresh: Model, old: Model | None, reason: str) -> None:
        if old is None:
            if fresh.state is State.LOADING:  # else the server stops, and it is gone already
                fresh.fail(reason)
            return
        old.reason = f"what was loaded before still answers; what is there now does not load: {reason}"
        log.error("model failed to load", extra={"model": old.name, "version": old.version, "reason": reason})

    def _note(self, broken: BrokenModel) -> None:
        """A model whose versions cannot even be told: it is listed, with the reason, beside any that serve on."""
        known = self._models.get(broken.name, NO_VERSION)
        if known is None or known.reason != broken.reason:
            self.loads[broken.name, "failed"] += 1
            model = Model(broken.name, NO_VERSION, self._on_change)
            self._models.add(model)
            model.fail(broken.reason)

    def _add(self, model: Model) -> None:
        self._models.add(model)
        self._on_change(model)

    def _retire(self, model: Model) -> None:
        if model.state in (State.READY, State.LOADING, State.FAILED):
            was_serving = model.state is State.READY
            model.retire()
            if was_serving:
                self._keep(self._drain(model))
            else:
                self._forget(model)

    async def _drain(self, model: Model) -> None:
        while not model.has_ended:
            await asyncio.sleep(DRAIN_LOOK_S)
        held = [model.loaded]
        model.release()

        def free() -> None:
            for loaded in held:
                if loaded is not None:
                    loaded.close()
            held.clear()  # weights that are given back keep the interpreter for as long as they are many
            release_memory()

        if not self._stops:
            await self._threads.run(free)
        self._forget(model)
        if not self._stops:
            log.info("model unloaded", extra={"model": model.name, "version": model.version})

    def _forget(self, model: Model) -> None:
        # Who still asks a server that stops is told to try another replica, not that there is no such model.
        if not self._stops:
            self._models.remove(model)
        self._on_change(model)

    def _keep(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it whoever stops waiting for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _cannot_start(failures: list[tuple[str, str]]) -> StartError:
    """One line that names every model at fault."""
    listed = "; ".join(f"model '{what}': {why}" for what, why in failures)
    return StartError(f"{listed} (serve the others with --models-strict false)")
