"""The composition root: builds everything that lives long, and reads from start to stop in the order of events."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import uvloop

from inferd import repository
from inferd.banner import print_ready
from inferd.config import Settings
from inferd.cpus import split_threads, usable_cpus
from inferd.device import CpuDevice
from inferd.errors import InferdError, StartError
from inferd.health import RESERVED_NAMES, HealthBoard, Status
from inferd.http.health import ModelState, health_app
from inferd.http.metrics import metrics_app
from inferd.http.server import HttpServer
from inferd.inline import InlineRuns
from inferd.loading import load
from inferd.models import Event, Model, Models, State
from inferd.repository import ModelDir
from inferd.rpc import reflection
from inferd.rpc.health import HealthServicer
from inferd.rpc.inference import SERVICE, InferenceService
from inferd.rpc.transport import Transport, open_transport
from inferd.samples import sample_of
from inferd.session import RUNTIME_VERSION
from inferd.telemetry import logs
from inferd.telemetry.metrics import BuildInfo, ModelSample, serving_registry
from inferd.version import version

log = logging.getLogger("inferd")

LEAVE_S: Final = 1.0
"""What clients are given to hear that the server goes, before it refuses what they send."""
RUNNER_END_S: Final = 1.0
"""What an idle runner is given to notice that its queue is closed, however little of the grace is left."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Raises StartError if that is not possible."""
    logs.configure(settings.log.level, settings.log.format)
    app = App(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(app.run())
        if app.left_behind:
            # Closing the loop would wait for the thread, and an interpreter that ends around native code may crash.
            logging.shutdown()
            os._exit(code)
    return code


@dataclass(slots=True)
class Listeners:
    """The open ports."""

    grpc: Transport
    http: list[HttpServer] = field(default_factory=list)


class App:
    """One server: its models, its ports, its health."""

    def __init__(self, settings: Settings) -> None:
        """Builds; opens nothing yet."""
        self.settings = settings
        self.board = HealthBoard()
        self.models = Models()
        self.service = InferenceService(self.models, settings, version())
        self.device = CpuDevice()
        # A thread is still inside ONNX Runtime, which cannot be told to stop.
        self.left_behind = False
        self._stop = asyncio.Event()
        self._transport: Transport | None = None
        self._inline: InlineRuns | None = None

    async def run(self) -> int:
        """Start, serve, drain, stop."""
        assert self.settings.models.path is not None
        found = repository.scan(self.settings.models.path)
        if found.broken and self.settings.models.strict:
            raise StartError(_broken([(one.name, one.reason) for one in found.broken]))
        loop = asyncio.get_running_loop()
        if self.settings.batching.inline_us:
            self._inline = InlineRuns(loop, self.settings.batching.inline_us * 1000)
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second signal changes nothing: the drain is under way and has its own limit.
            loop.add_signal_handler(number, self._stop.set)
        # Before anybody can ask: a model that is still to be loaded is not an unknown one.
        planned = self._plan(found)
        listeners = await self._listen()
        liveness = asyncio.create_task(self.board.run())
        try:
            await self._load(planned)
            if not self._stop.is_set():
                self._ready(listeners)
                await self._stop.wait()
                log.info("stopping", extra={"lame_duck_ms": self.settings.drain.lame_duck_ms})
        finally:
            await self._drain(listeners)
            await liveness
        log.info("stopped")
        return 0

    # --- start -----------------------------------------------------------------------------------------

    async def _listen(self) -> Listeners:
        """Open the ports before the models are loaded, so that probes can tell loading from dead."""
        settings = self.settings
        self._transport = open_transport(settings, self.models, self.service)
        listeners = Listeners(self._transport)
        listeners.grpc.add(SERVICE.full_name, self.service.handlers())
        HealthServicer(self.board).add_to(listeners.grpc.server)
        if settings.grpc.reflection:
            reflection.enable(listeners.grpc.server)
        await listeners.grpc.start()
        if settings.http.port:
            app = health_app(self.board, self._model_states)
            listeners.http.append(HttpServer(app, settings.host, settings.http.port, "HTTP", flag="--http-port"))
        if settings.metrics.enabled and settings.metrics.port:
            build = BuildInfo(version(), platform.python_version(), RUNTIME_VERSION)
            app = metrics_app(serving_registry(self._samples, build))
            listeners.http.append(
                HttpServer(app, settings.host, settings.metrics.port, "metrics", flag="--metrics-port")
            )
        try:
            for server in listeners.http:
                await server.start()
        except StartError:
            await asyncio.gather(listeners.grpc.stop(0), *(server.stop(0) for server in listeners.http))
            raise
        return listeners

    def _plan(self, found: repository.Repository) -> list[tuple[ModelDir, list[Model]]]:
        """What is to be loaded, known from now on and LOADING; what cannot be is FAILED."""
        for broken in found.broken:
            failed = Model(broken.name, 0, self._changed)
            self.models.add(failed)
            failed.fail(broken.reason)
        return [(directory, self._versions(directory)) for directory in found.models]

    def _versions(self, directory: ModelDir) -> list[Model]:
        versions = [Model(directory.decl.name, one.version, self._changed) for one in directory.versions]
        for model in versions:
            self.models.add(model)
            self._changed(model)
        return versions

    async def _load(self, planned: list[tuple[ModelDir, list[Model]]]) -> None:
        """Load every model, one after the other and off the loop. Raises StartError on the first failure if strict."""
        instances = sum(len(versions) * directory.decl.instance_count for directory, versions in planned)
        cpus = self.settings.threads.cpus or usable_cpus()
        threads = split_threads(cpus, max(instances, 1))
        for directory, versions in planned:
            for version_dir, model in zip(directory.versions, versions, strict=True):
                if self._stop.is_set():
                    return
                await self._load_one(directory, version_dir, model, threads)

    async def _load_one(
        self, directory: ModelDir, version_dir: repository.VersionDir, model: Model, threads: int
    ) -> None:
        loading = asyncio.create_task(
            asyncio.to_thread(load, directory.decl, version_dir, self.settings, threads, self.device)
        )
        stopping = asyncio.create_task(self._stop.wait())
        await asyncio.wait((loading, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not loading.done():
            log.info("stopping while a model loads", extra={"model": model.name, "version": model.version})
            self.left_behind = True
            return
        try:
            loaded = loading.result()
        except InferdError as failure:
            if self.settings.models.strict:
                raise StartError(_broken([(f"{model.name}/{model.version}", str(failure))])) from failure
            model.fail(str(failure))
            return
        for warning in loaded.warnings:
            log.warning(warning, extra={"model": model.name, "version": model.version})
        assert self._transport is not None
        model.serve(loaded, self.settings, asyncio.get_running_loop(), self._transport.settle, self._inline)
        for runner in model.runners:
            self.board.add_liveness_probe(runner.death_reason)

    def _ready(self, listeners: Listeners) -> None:
        """Say so, to health checks first and then to whoever looks at the output."""
        if not any(model.state is State.READY for model in self.models.all()):
            raise StartError("no model could be loaded; the log has the reason for each")
        # What lives as long as the server is not looked through again by each garbage collection.
        gc.collect()
        gc.freeze()
        self.service.set_ready(True)
        self.board.set_ready(True)
        ports = {"gRPC": listeners.grpc.port}
        for server, name in zip(listeners.http, self._http_names(), strict=True):
            ports[name] = server.port
        print_ready(self.models.all(), self.settings, ports, sys.stdout)

    def _http_names(self) -> list[str]:
        names = ["HTTP"] if self.settings.http.port else []
        return names + (["metrics"] if self.settings.metrics.enabled and self.settings.metrics.port else [])

    # --- while it serves ------------------------------------------------------------------------------

    def _changed(self, model: Model) -> None:
        """A model version has a new state: tell health, under its own name and as the model's answer."""
        if self._transport is not None:
            self._transport.forget()
        if model.state is State.FAILED:
            log.error(
                "model failed to load", extra={"model": model.name, "version": model.version, "reason": model.reason}
            )
        if model.name in RESERVED_NAMES:
            return  # refused for its very name
        status = Status.SERVING if model.state is State.READY else Status.NOT_SERVING
        self.board.set(f"{model.name}/{model.version}", status)
        any_ready = any(one.state is State.READY for one in self.models.versions(model.name))
        self.board.set(model.name, Status.SERVING if any_ready else Status.NOT_SERVING)

    def _model_states(self) -> Iterable[ModelState]:
        return [ModelState(one.name, str(one.version), one.state.name, one.reason) for one in self.models.all()]

    def _samples(self) -> Iterable[ModelSample]:
        yield from (sample_of(model) for model in self.models.all())
        yield ModelSample(model="", requests_by_code=self.service.unknown_stats.requests_by_code)

    # --- stop ------------------------------------------------------------------------------------------

    async def _drain(self, listeners: Listeners) -> None:
        """Withdraw readiness, serve on for the lame-duck time, send clients away, finish what was accepted, close."""
        was_ready = self.board.status("readiness") is Status.SERVING
        self.service.set_ready(False)
        self.board.set_ready(False)
        if was_ready:
            await asyncio.sleep(self.settings.drain.lame_duck_ms / 1000)
        end_s = time.monotonic() + self.settings.drain.grace_ms / 1000
        # What crosses with the news is still answered: clients that heed it see no call refused.
        await listeners.grpc.leave(min(self.settings.drain.grace_ms / 1000, LEAVE_S))
        for model in self.models.all():
            # From now on requests are refused, and queued ones leave without waiting for company.
            if model.state in (State.READY, State.LOADING, State.FAILED):
                model.retire()
        self.board.close()
        await listeners.grpc.stop(max(end_s - time.monotonic(), 0.0))
        for model in self.models.all():
            if not await asyncio.to_thread(model.join, max(end_s - time.monotonic(), RUNNER_END_S)):
                log.error("a runner did not finish in time", extra={"model": model.name, "version": model.version})
                self.left_behind = True
            elif model.state is State.DRAINING:
                model.advance(Event.EMPTIED)
        await asyncio.gather(*(server.stop(1.0) for server in listeners.http))


def _broken(reasons: list[tuple[str, str]]) -> str:
    """One line that names every model at fault."""
    listed = "; ".join(f"model '{name}': {reason}" for name, reason in reasons)
    return f"{listed} (serve the others with --models-strict false)"
