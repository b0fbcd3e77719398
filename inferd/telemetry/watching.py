"""What looks at single requests, where their counts are not enough: traces and the access log."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, TypeAlias

from inferd._native.access import AccessLog
from inferd._native.trace import Trace
from inferd._native.wire import Request
from inferd.telemetry.sampling import Samplings

Metadata: TypeAlias = Iterable[tuple[str, str | bytes]]

ID_LETTERS: Final = 64
"""More of a request's id is not logged."""
NAME_LETTERS: Final = 128
"""Of names that clients choose no more is kept."""

_PARENT: Final = "traceparent"
_STATE: Final = "tracestate"


@dataclass(frozen=True, slots=True)
class Watching:
    """Either may be None. On the native transport compiled code does what the methods here do for the other one."""

    samplings: Samplings | None = None
    access: AccessLog | None = None

    def begin(self, names: tuple[str, str], request: Request, begun_ns: int, metadata: Metadata) -> None:
        """Have a request for the version `names` of a model traced if it is one of those that are."""
        trace = request.trace = self.trace(names[0], begun_ns, metadata)
        if trace is not None:
            trace.model, trace.version = names
            trace.request_id, trace.streamed = request.id, request.streamed

    def trace(self, model: str, begun_ns: int, metadata: Metadata, *, only_callers: bool = False) -> Trace | None:
        """The trace of a call that came with this metadata, if it is one of those that are traced.

        `only_callers` begins none here.
        """
        if self.samplings is None:
            return None
        said = list(metadata)
        parents = [value for key, value in said if key == _PARENT]
        # With several of them nobody knows whose request it is.
        parent = _bytes(parents[0]) if len(parents) == 1 else None
        if parent is None and only_callers:
            return None
        trace = self.samplings.of(model).begin_at(begun_ns, parent)
        if trace is not None and trace.parent_id is not None:
            trace.state = ",".join(_bytes(value).decode("latin-1") for key, value in said if key == _STATE)
        return trace

    def found_none(
        self, request: Request | None, code: int, begun_ns: int, now_ns: int, metadata: Metadata, *, streamed: bool
    ) -> None:
        """A request found no model, or is none, and has its end."""
        if self.access is None and self.samplings is None:
            return
        model, version = ("", "") if request is None else (request.model_name, request.model_version)
        names = (model[:NAME_LETTERS], version[:NAME_LETTERS])
        trace = self.trace("", begun_ns, metadata)
        if self.access is not None:
            said = {"method": inference(streamed=streamed)}
            self.access.note((*names, said), request, code, begun_ns, now_ns, trace)
        if trace is not None:
            trace.model, trace.version = names
            trace.streamed, trace.request_id = streamed, request.id if request is not None else None
            trace.end(code, now_ns)

    def tell(self, names: tuple[str, str], request: Request, code: int, begun_ns: int, now_ns: int) -> Trace | None:
        """A request has its end; its trace, if it has one."""
        if self.access is not None:
            self.access.note(names, request, code, begun_ns, now_ns, request.trace)
        trace, request.trace = request.trace, None
        if trace is not None:
            trace.waited(request.arrived_ns, request.taken_ns)
            trace.end(code, now_ns)
        return trace


def inference(*, streamed: bool) -> str:
    """The method of inference, in full."""
    return f"inference.GRPCInferenceService/{'ModelStreamInfer' if streamed else 'ModelInfer'}"


def measured(request: Request) -> dict[str, object]:
    """What the log tells of an inference beside its end: its rows, how long it waited, and how long its batch took."""
    said: dict[str, object] = {"rows": request.rows} if request.rows else {}
    if request.arrived_ns and request.taken_ns:
        said["queue_ms"] = milliseconds(request.taken_ns - request.arrived_ns)
    if request.run_ns:
        said["compute_ms"] = milliseconds(request.run_ns)
    return said


def milliseconds(ns: int) -> float:
    """As the log has times."""
    return round(ns * 1e-6, 3)


def named(request: Request) -> dict[str, str]:
    """How a line of the log names a request: by its own id, and by those of its trace if it is traced."""
    # Once: the loop takes it away when the request has its end, and whoever runs it may be elsewhere.
    trace: Trace | None = request.trace
    return ({"request_id": request.id[:ID_LETTERS]} if request.id else {}) | ids_of(trace)


def ids_of(trace: Trace | None) -> dict[str, str]:
    """The ids of a trace as the log writes them, after OpenTelemetry; none of what is not traced."""
    if trace is None:
        return {}
    return {"trace_id": trace.trace_id.hex(), "span_id": trace.span_id.hex(), "trace_flags": "01"}


def _bytes(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("latin-1", "replace")
