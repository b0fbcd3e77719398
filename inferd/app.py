"""The composition root: builds everything that lives long, and reads from start to stop in the order of events."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import platform
import signal
import ssl
import sys
import time
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import uvloop

from inferd._native.access import AccessLog
from inferd._native.trace import Traces
from inferd.admission import MemoryGuard, open_admission
from inferd.auth.judge import Judge
from inferd.banner import print_ready
from inferd.cgroup import memory_limit
from inferd.config import Settings
from inferd.device import CudaDevice, open_devices
from inferd.errors import StartError
from inferd.health import RESERVED_NAMES, HealthBoard, Status
from inferd.http.health import ModelState
from inferd.http.metrics import metrics_app
from inferd.http.noting import noted
from inferd.http.server import HttpServer
from inferd.http.site import site
from inferd.http.status import Shown, StatusPage
from inferd.inline import InlineRuns
from inferd.lifecycle import Lifecycle
from inferd.loading import Loaded
from inferd.memory import share_heaps
from inferd.models import SECONDS_BOUNDS, Model, Models, State
from inferd.rpc import reflection
from inferd.rpc.health import HealthServicer
from inferd.rpc.inference import SERVICE, InferenceService
from inferd.rpc.probes import HealthPort
from inferd.rpc.repository import RepositoryControl
from inferd.rpc.trace_settings import TraceControl
from inferd.rpc.transport import Transport, open_transport
from inferd.samples import histogram_of, sample_of
from inferd.session import RUNTIME_VERSION, runtime_build
from inferd.telemetry import access, logs
from inferd.telemetry.calls import Calls
from inferd.telemetry.gpus import GpuCollector, open_gpu_collector
from inferd.telemetry.loop_lag import LoopLag
from inferd.telemetry.metrics import serving_registry
from inferd.telemetry.sample import BuildInfo, ModelSample, ServerSample
from inferd.telemetry.sampling import Samplings
from inferd.telemetry.watching import Watching
from inferd.tls import Certificates
from inferd.version import version
from inferd.watch import Watch

if TYPE_CHECKING:
    from inferd.telemetry.tracing.exporting import TraceExport

log = logging.getLogger("inferd")

LEAVE_S: Final = 1.0
"""What clients are given to hear that the server goes, before it refuses what they send."""
SWITCH_S: Final = 0.0002
"""How long a thread in Python may keep the loop waiting. A model that loads is warmed up by one for tens of
milliseconds, and a turn of the loop takes the interpreter back several times: CPython's 5 ms made 40 of that."""
RUNNER_END_S: Final = 1.0
"""What an idle runner is given to notice that its queue is closed, however little of the grace is left."""


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT and return the exit code. Raises StartError if that is not possible."""
    logs.configure(settings.log.level, settings.log.format)
    share_heaps()
    sys.setswitchinterval(SWITCH_S)
    app = App(settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        code = runner.run(app.run())
        if app.left_behind:
            # Closing the loop would wait for the thread, and an interpreter that ends around native code may crash.
            logging.shutdown()
            os._exit(code)
    return code


TELLING_END_S: Final = 3.0
"""What the last traces, and the last lines of the access log, are given to be sent and written."""


@dataclass(slots=True)
class Listeners:
    """The open ports."""

    grpc: Transport
    http: list[HttpServer] = field(default_factory=list)
    health: HealthPort | None = None


class App:
    """One server: its models, its ports, its health."""

    def __init__(self, settings: Settings) -> None:
        """Builds; opens nothing yet."""
        self.settings = settings
        self.board = HealthBoard()
        self.judge = Judge(settings.auth) if settings.auth.is_on else None
        self.certificates = Certificates(settings.tls) if settings.tls.certificate is not None else None
        self.models = Models(tells_names=self.judge is None)
        self.devices = open_devices(settings.device.kind, runtime_build())
        if self.devices.notice:
            log.warning(self.devices.notice)
        self.lifecycle = Lifecycle(settings, self.models, self.devices, self._serve, self._changed)
        control = RepositoryControl(self.lifecycle, settings.models.control_mode)
        self.admission = open_admission(settings)
        self.watch = _watching(settings)
        traces = TraceControl(
            self.watch.samplings, self.models, allowed=settings.control.trace_settings, on_change=self._forget
        )
        self.calls = Calls(self.watch, SECONDS_BOUNDS, logs_probes=settings.log.access_probes)
        self.service = InferenceService(
            self.models,
            settings,
            version(),
            control,
            traces,
            admission=self.admission,
            watching=self.watch,
            calls=self.calls,
            devices=self.devices,
        )
        self._access = None if self.watch.access is None else access.AccessWriter(self.watch.access)
        self._tracing = None if self.watch.samplings is None else _open_tracing(settings, self.watch.samplings)
        # A thread is still inside ONNX Runtime, which cannot be told to stop.
        self.left_behind = False
        self._build = BuildInfo(version(), platform.python_version(), RUNTIME_VERSION)
        self._stop = asyncio.Event()
        self._transport: Transport | None = None
        self._inline: InlineRuns | None = None
        self._loop_lag = LoopLag()
        self._gpu_metrics: GpuCollector | None = None

    async def run(self) -> int:
        """Start, serve, drain, stop."""
        loop = asyncio.get_running_loop()
        if self.settings.batching.inline_us:
            self._inline = InlineRuns(loop, self.settings.batching.inline_us * 1000)
        for number in (signal.SIGTERM, signal.SIGINT):
            # A second signal changes nothing: the drain is under way and has its own limit.
            loop.add_signal_handler(number, self._stop.set)
        self.board.add_liveness_probe(self._dead_runner)
        self.board.add_liveness_probe(self.devices.context_lost)
        for gpu in self.devices.gpus:
            gpu.on_lost = partial(self._tell_loop, loop, gpu)
        # Before anybody can ask: a model that is still to be loaded is not an unknown one.
        self.lifecycle.plan()
        listeners = await self._listen()
        liveness = asyncio.create_task(self.board.run())
        self._loop_lag.start()
        guarding = asyncio.create_task(self._guard_memory(listeners.grpc))
        for writer in (self._tracing, self._access):
            if writer is not None:
                writer.start()
        try:
            if await self._unless_stopped(self.lifecycle.start()):
                self._ready(listeners)
                await self._unless_stopped(self._while_serving())
                log.info("stopping", extra={"lame_duck_ms": self.settings.drain.lame_duck_ms})
            else:
                log.info("stopping while models load")
        finally:
            await self._drain(listeners)
            await liveness
            guarding.cancel()
            self._loop_lag.stop()
            if self._gpu_metrics is not None:
                self._gpu_metrics.stop()
            for writer in (self._tracing, self._access):
                if writer is not None:
                    await asyncio.to_thread(writer.stop, TELLING_END_S)
        log.info("stopped")
        return 0

    async def _guard_memory(self, transport: Transport) -> None:
        said, limit = self.settings.admission, memory_limit()
        if said.memory_share and limit is not None:
            await MemoryGuard(limit, said.memory_share, said.large_bytes, self.admission, transport.spare).run()

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> bool:
        """Whether the work came to its end before somebody asked for that of the server. Raises what it raises."""
        task, stopping = asyncio.create_task(work), asyncio.create_task(self._stop.wait())
        await asyncio.wait((task, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))
            return False
        task.result()
        return True

    async def _while_serving(self) -> None:
        if self.settings.models.control_mode == "poll":
            await Watch(self.lifecycle, self.settings.models).run()
        else:
            await self._stop.wait()

    # --- start -----------------------------------------------------------------------------------------

    async def _listen(self) -> Listeners:
        """Open the ports before the models are loaded, so that probes can tell loading from dead."""
        settings = self.settings
        self._transport = open_transport(settings, self.models, self.service, self.certificates, self.judge)
        listeners = Listeners(self._transport)
        listeners.grpc.add(SERVICE.full_name, self.service.handlers())
        HealthServicer(self.board).add_to(listeners.grpc.server)
        if settings.grpc.reflection:
            reflection.enable(listeners.grpc.server)
        await listeners.grpc.start()
        if settings.http.port:
            app = site(settings.http, self.board, self._model_states, self.service, self._status_page(), self.judge)
            tls = self._tls(settings.tls.http)
            listeners.http.append(
                HttpServer(
                    noted(app, self.calls), settings.host, settings.http.port, "HTTP", flag="--http-port", tls=tls
                )
            )
        if settings.metrics.enabled and settings.metrics.port:
            as_triton = settings.metrics.dialect == "triton"
            registry = serving_registry(self._samples, self._server_sample, self._build, as_triton=as_triton)
            if self.devices.gpus and (gpus := open_gpu_collector(as_triton=as_triton)) is not None:
                registry.register(gpus)
                gpus.start()
                self._gpu_metrics = gpus
            app = metrics_app(registry, self.judge)
            tls = self._tls(settings.tls.metrics)
            listeners.http.append(
                HttpServer(app, settings.host, settings.metrics.port, "metrics", flag="--metrics-port", tls=tls)
            )
        try:
            if settings.grpc.health_port:
                listeners.health = HealthPort(settings, HealthServicer(self.board))
                await listeners.health.start()
            for server in listeners.http:
                await server.start()
        except StartError:
            await asyncio.gather(listeners.grpc.stop(0), *(server.stop(0) for server in listeners.http))
            if listeners.health is not None:
                await listeners.health.stop()
            raise
        return listeners

    def _tls(self, wanted: bool) -> ssl.SSLContext | None:
        return self.certificates.context("http/1.1") if wanted and self.certificates is not None else None

    def _serve(self, model: Model, loaded: Loaded) -> None:
        """Have a model answer."""
        assert self._transport is not None
        model.serve(loaded, self.settings, asyncio.get_running_loop(), self._transport.settle, self._inline)

    def _ready(self, listeners: Listeners) -> None:
        """Say so, to health checks first and then to whoever looks at the output."""
        is_fixed = self.settings.models.control_mode == "none"
        if is_fixed and not any(model.state is State.READY for model in self.models.all()):
            raise StartError("no model could be loaded; the log has the reason for each")
        # What lives as long as the server is not looked through again by each garbage collection.
        gc.collect()
        gc.freeze()
        is_whole = not any(gpu.lost_reason for gpu in self.devices.gpus)
        self.service.set_ready(is_whole)
        self.board.set_ready(is_whole)
        ports = {"gRPC": listeners.grpc.port}
        if listeners.health is not None:
            ports["health"] = listeners.health.port
        for server, name in zip(listeners.http, self._http_names(), strict=True):
            ports[name] = server.port
        print_ready(self.models.all(), self.settings, ports, sys.stdout)

    def _http_names(self) -> list[str]:
        names = ["HTTP"] if self.settings.http.port else []
        return names + (["metrics"] if self.settings.metrics.enabled and self.settings.metrics.port else [])

    # --- while it serves ------------------------------------------------------------------------------

    def _forget(self) -> None:
        """What is known of models and their requests is not so any more."""
        if self._transport is not None:
            self._transport.forget()

    def _changed(self, model: Model) -> None:
        """A model version has a new state: tell health, under its own name and as the model's answer."""
        self._forget()
        if model.state is State.FAILED:
            log.error(
                "model failed to load" if model.loaded is None else "model answers no more",
                extra={"model": model.name, "version": model.version, "reason": model.reason},
            )
        if model.name in RESERVED_NAMES:
            return  # refused for its very name
        current = self.models.get(model.name, model.version)
        versions = self.models.versions(model.name)
        if current is None:
            self.board.remove(f"{model.name}/{model.version}")
        else:
            status = Status.SERVING if current.state is State.READY else Status.NOT_SERVING
            self.board.set(f"{model.name}/{model.version}", status)
        if not versions:
            self.board.remove(model.name)
        else:
            any_ready = any(one.state is State.READY for one in versions)
            self.board.set(model.name, Status.SERVING if any_ready else Status.NOT_SERVING)

    def _tell_loop(self, loop: asyncio.AbstractEventLoop, gpu: CudaDevice, reason: str) -> None:
        loop.call_soon_threadsafe(self._gpu_lost, gpu, reason)

    def _gpu_lost(self, gpu: CudaDevice, reason: str) -> None:
        """A GPU has failed for good: whoever balances shall go elsewhere at once."""
        log.error("a GPU has failed, this server is not ready any more", extra={"reason": reason})
        self.service.set_ready(False)
        self.board.set_ready(False)
        for model in self.models.all():
            if model.state is State.READY and model.loaded is not None and model.loaded.runs_on(gpu):
                model.lose(reason)

    def _dead_runner(self) -> str | None:
        """Why a model will never answer anything again; None if all may."""
        now_ns, limit_ns = time.monotonic_ns(), self.settings.inference.hang_ms * 1_000_000
        for model in self.models.all():
            for runner in model.runners:
                reason = runner.death_reason()
                if reason is None and limit_ns:
                    reason = runner.hang_reason(now_ns, limit_ns)
                if reason is not None:
                    return reason
        return None

    def _model_states(self) -> Iterable[ModelState]:
        return [ModelState(one.name, str(one.version), one.state.name, one.reason) for one in self.models.all()]

    def _status_page(self) -> StatusPage | None:
        if not self.settings.http.status_page:
            return None
        shown = Shown(self._build, self.settings.transport, time.monotonic(), self.settings.http.inference)
        return StatusPage(shown, self.models, self.service.recent_errors, lambda: self.service.is_ready)

    def _samples(self) -> Iterable[ModelSample]:
        yield from (sample_of(model) for model in self.models.all())
        unread = self._transport.unread if self._transport is not None else 0
        yield ModelSample(
            model="",
            requests_by_code=self.service.unknown_stats.requests_by_code,
            shed_by_reason={"memory": unread} if unread else {},
        )

    def _server_sample(self) -> ServerSample:
        return ServerSample(
            ready=self.board.status("readiness") is Status.SERVING,
            draining=self._stop.is_set(),
            loop_lag=histogram_of(self._loop_lag.seconds),
            loads=dict(self.lifecycle.loads),
            traces={} if self._tracing is None else {"sent": self._tracing.sent, "dropped": self._tracing.dropped},
            calls={key: histogram_of(seconds) for key, seconds in self.calls.seconds.items()},
            refusals={} if self.judge is None else dict(self.judge.refusals),
            access={} if self._access is None else {"written": self._access.written, "dropped": self._access.dropped},
        )

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
        # From now on requests are refused, and queued ones leave without waiting for company.
        self.lifecycle.stop()
        self.board.close()
        self.service.leave()
        await listeners.grpc.stop(max(end_s - time.monotonic(), 0.0))
        self.left_behind = not await self.lifecycle.ended(max(end_s - time.monotonic(), RUNNER_END_S))
        if not self.left_behind:
            await self.service.close()
        await asyncio.gather(*(server.stop(1.0) for server in listeners.http))
        if listeners.health is not None:
            await listeners.health.stop()


def _watching(settings: Settings) -> Watching:
    """What looks at single requests."""
    tracing = settings.tracing
    return Watching(
        Samplings(Traces(tracing.max_pending), tracing.sample_rate) if tracing.enabled else None,
        AccessLog(access.ROOM) if settings.log.access else None,
    )


def _open_tracing(settings: Settings, samplings: Samplings) -> TraceExport:
    """Where traces go. Raises StartError if what sends them is not installed."""
    try:
        from inferd.telemetry.tracing.exporting import TraceExport
    except ImportError as missing:
        raise StartError(
            f"tracing.enabled needs what is not installed ({missing.name}): pip install 'inferd[tracing]'"
        ) from missing
    return TraceExport(settings.tracing, samplings.traces, version())
