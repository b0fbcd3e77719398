"""Calls as a whole, whatever they ask for: how long they took, a line of the access log, a span if they are traced.

Inference over gRPC has all that from compiled code and is not here; over HTTP it is, with its JSON.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from inferd._native.stats import Histogram
from inferd._native.trace import Trace
from inferd._native.wire import Request
from inferd.errors import Code
from inferd.telemetry.logs import ABOUT
from inferd.telemetry.watching import ID_LETTERS, NAME_LETTERS, Metadata, Watching, ids_of, measured

OTHER: Final = "_OTHER"
"""Stands for all methods that are not known, as OpenTelemetry has it."""
_V2: Final = "inference.GRPCInferenceService"
INFERENCE: Final = frozenset({f"{_V2}/ModelInfer", f"{_V2}/ModelStreamInfer"})
PROBES: Final = frozenset(
    {
        "grpc.health.v1.Health/Check", "grpc.health.v1.Health/List", "grpc.health.v1.Health/Watch",
        f"{_V2}/ServerLive", f"{_V2}/ServerReady", f"{_V2}/ModelReady",
        "inferd.Http/Health", "inferd.Http/Ready", "inferd.Http/StatusPage",
    }
)  # fmt: skip
"""What machines, and the status page, ask again and again."""

CALL: Final[ContextVar[Call | None]] = ContextVar("call", default=None)
"""The call that is being answered; each has a task, and so its own. None for inference over gRPC."""

Carrier: TypeAlias = Literal["grpc", "http"]


@dataclass(slots=True)
class HttpFacts:
    """What HTTP says of a request: its route as the server has it, which is none for paths that lead nowhere."""

    method: str
    path: str
    scheme: str
    version: str
    route: str | None = None
    status: int = 0


@dataclass(slots=True)
class Call:
    """One call while it is answered. Whoever learns more of it says so here."""

    owner: Calls
    carrier: Carrier
    method: str
    original: str
    begun_ns: int
    model: str = ""
    version: str = ""
    http: HttpFacts | None = None
    request_id: str = ""
    code: int | None = None
    """How it ends, where whoever carries it could not tell."""
    measured: Mapping[str, object] = field(default_factory=dict)
    """Of an inference, for the log."""
    trace: Trace | None = field(default=None, repr=False)
    is_over: bool = False

    def asks_for(self, model: str, version: str = "") -> None:
        """Which model it is about, in the caller's words."""
        self.model, self.version = model[:NAME_LETTERS], version[:NAME_LETTERS]

    def facts(self) -> dict[str, Any]:
        """What a line of the log about this call says of it."""
        said: dict[str, Any] = {"method": self.method}
        said |= {name: text for name, text in (("model", self.model), ("request_id", self.request_id)) if text}
        return said | ids_of(self.trace)

    def infers(self, request: Request) -> None:
        """It asks for this inference."""
        self.request_id, request.trace = request.id[:ID_LETTERS], self.trace

    def inferred(self, request: Request, code: int) -> None:
        """The inference has its end, and is let go; what carries it may take its time."""
        self.code, self.measured = code, measured(request)
        request.trace = None
        if self.trace is not None:
            self.trace.waited(request.arrived_ns, request.taken_ns)

    def end(self, code: int) -> None:
        """It has its end. Only the first one counts."""
        if not self.is_over:
            self.is_over = True
            self.owner.note(self, code, time.monotonic_ns())


class Calls:
    """Where calls have their ends noted. Belongs to the loop's thread."""

    def __init__(self, watching: Watching, bounds: tuple[float, ...], *, logs_probes: bool) -> None:
        """`bounds` are those of the histograms, in seconds. Health checks are logged only if `logs_probes`."""
        self._watching, self._bounds, self._logs_probes = watching, bounds, logs_probes
        self.seconds: MutableMapping[tuple[Carrier, str, str], Histogram] = {}
        """By what carried them, method and the name of the code."""

    def begin(
        self,
        method: str,
        begun_ns: int,
        metadata: Callable[[], Metadata],
        *,
        carrier: Carrier = "grpc",
        original: str = "",
        http: HttpFacts | None = None,
        model: str = "",
    ) -> Call:
        """A call of a method, by the server's own name for it or OTHER; then `original` is what was asked for.

        A health check is traced only if its caller traces it.
        """
        call = Call(self, carrier, method, original[:NAME_LETTERS], begun_ns, http=http)
        call.model = model[:NAME_LETTERS]
        if self._watching.samplings is not None:
            call.trace = self._watching.trace(model, begun_ns, metadata() or (), only_callers=method in PROBES)
        return call

    def note(self, call: Call, code: int, now_ns: int) -> None:
        """What end() of a call does, once."""
        seconds = (now_ns - call.begun_ns) * 1e-9
        if call.carrier == "http" or call.method not in INFERENCE:
            key = (call.carrier, call.method, Code(code).name)
            if key not in self.seconds:
                self.seconds[key] = Histogram(self._bounds)
            self.seconds[key].observe(seconds)
        access, trace = self._watching.access, call.trace
        if access is not None and (self._logs_probes or call.method not in PROBES):
            names = (call.model, call.version, _said(call))
            access.note(names, None, code, call.begun_ns, now_ns, trace)
        if trace is not None:
            trace.method, trace.original, trace.http = call.method, call.original or None, call.http
            trace.model, trace.version = call.model or None, call.version or None
            trace.request_id = call.request_id or None
            trace.end(code, now_ns)


def take_up(call: Call) -> None:
    """This task answers the call: its log names it from now on."""
    CALL.set(call)
    ABOUT.set(call.facts)


def _said(call: Call) -> Mapping[str, object]:
    said: dict[str, object] = {"method": call.method}
    if call.original:
        said["method_original"] = call.original
    if call.http is not None:
        said |= {"http_method": call.http.method, "http_status": call.http.status}
        if call.http.route is not None:
            said["route"] = call.http.route
    return said | dict(call.measured) | ({"request_id": call.request_id} if call.request_id else {})
