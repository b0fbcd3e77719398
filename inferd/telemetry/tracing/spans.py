"""Spans of traces, from times that were measured while they passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from inferd._native.trace import Execution, Trace
from inferd.errors import Code
from inferd.telemetry.calls import HttpFacts
from inferd.telemetry.tracing import semconv as name
from inferd.telemetry.watching import inference

UNNAMED: Final = "unknown_service"
SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)


class _GivenIds(IdGenerator):
    """Gives a span the ids that its request was told in the log and in its batch's links."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.trace_id: bytes | None = None
        self.span_id: bytes | None = None

    def generate_span_id(self) -> int:
        given, self.span_id = self.span_id, None
        return self._random.generate_span_id() if given is None else int.from_bytes(given, "big")

    def generate_trace_id(self) -> int:
        given, self.trace_id = self.trace_id, None
        return self._random.generate_trace_id() if given is None else int.from_bytes(given, "big")


class _Kept(SpanProcessor):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


class Spans:
    """Makes spans of traces. For one thread."""

    def __init__(self, service: str, version: str) -> None:
        """The resource's name is `service` unless OpenTelemetry's own variables say another."""
        resource = Resource.create({SERVICE_VERSION: version})
        if str(resource.attributes.get(SERVICE_NAME, UNNAMED)).startswith(UNNAMED):
            resource = resource.merge(Resource({SERVICE_NAME: service}))
        self._ids, self._kept = _GivenIds(), _Kept()
        provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
            # Every member of a batch is linked, however many there are.
            span_limits=SpanLimits(max_links=1 << 16),
        )
        provider.add_span_processor(self._kept)
        self._tracer = provider.get_tracer("inferd", version)

    def of(self, traces: Iterable[Trace], offset_ns: int) -> list[ReadableSpan]:
        """The spans of these traces; `offset_ns` is what makes a time of the epoch out of a monotonic one."""
        for trace in traces:
            self._request(trace, offset_ns)
        made, self._kept.spans = self._kept.spans, []
        return made

    def _request(self, trace: Trace, offset_ns: int) -> None:
        run = trace.execution
        title, said, failure = _of_call(trace) if trace.http is None else _of_http(trace.http)
        for key, value in (
            (name.MODEL, trace.model),
            (name.VERSION, trace.version),
            (name.REQUEST_ID, trace.request_id),
        ):
            if value:
                said[key] = value
        if run is not None:
            said |= {name.BATCH_TRACE: run.trace_id.hex(), name.BATCH_SPAN: run.span_id.hex()}
            said |= {name.BATCH_SIZE: run.rows, name.BATCH_REASON: run.close_reason}
        if failure:
            said[name.ERROR_TYPE] = failure
        self._ids.trace_id, self._ids.span_id = trace.trace_id, trace.span_id
        span = self._tracer.start_span(
            title, _parent(trace), SpanKind.SERVER, said, start_time=trace.begun_ns + offset_ns
        )
        if failure:
            span.set_status(Status(StatusCode.ERROR))
        within = set_span_in_context(span, Context())
        if trace.queued_ns:
            self._part(name.QUEUE, within, trace.queued_ns, trace.taken_ns or trace.ended_ns, offset_ns)
        if run is not None:
            self._part(name.GATHER, within, run.started_ns, run.gathered_ns, offset_ns)
            self._part(name.RUN, within, run.gathered_ns, run.computed_ns, offset_ns)
            self._part(name.ENCODE, within, run.computed_ns, run.ended_ns, offset_ns)
        span.end(trace.ended_ns + offset_ns)
        if run is not None and not run.is_told:
            run.is_told = True
            self._batch(run, trace, offset_ns)

    def _part(self, what: str, within: Context, start_ns: int, end_ns: int, offset_ns: int) -> None:
        self._tracer.start_span(what, within, start_time=start_ns + offset_ns).end(end_ns + offset_ns)

    def _batch(self, run: Execution, member: Trace, offset_ns: int) -> None:
        said: Mapping[str, str | int | float] = {
            name.MODEL: member.model or "",
            name.VERSION: member.version or "",
            name.BATCH_SIZE: run.rows,
            name.BATCH_PADDING: run.padded_rows / (run.rows + run.padded_rows) if run.padded_rows else 0.0,
            name.BATCH_REQUESTS: run.requests,
            name.BATCH_REASON: run.close_reason,
        }
        links = [Link(_context(trace_id, span_id, None)) for trace_id, span_id in run.members]
        self._ids.trace_id, self._ids.span_id = run.trace_id, run.span_id
        span = self._tracer.start_span(
            name.BATCH, Context(), attributes=said, links=links, start_time=run.started_ns + offset_ns
        )
        span.end(run.ended_ns + offset_ns)


def _of_call(trace: Trace) -> tuple[str, dict[str, str | int], str]:
    """Name and attributes of a gRPC call's span, and what it failed of, if that is the server's fault."""
    method, code = trace.method or inference(streamed=trace.streamed), Code(trace.code)
    said: dict[str, str | int] = {name.RPC_SYSTEM: name.GRPC, name.RPC_METHOD: method, name.RPC_STATUS: code.name}
    if trace.original:
        said[name.RPC_ORIGINAL] = trace.original
    return method, said, code.name if code in name.SERVER_ERRORS else ""


def _of_http(http: HttpFacts) -> tuple[str, dict[str, str | int], str]:
    """The same of an HTTP request's. The query is left out: it may hold what is nobody's business."""
    is_known = http.method in name.HTTP_METHODS
    said: dict[str, str | int] = {
        name.HTTP_METHOD: http.method if is_known else name.OTHER,
        name.HTTP_STATUS: http.status,
        name.URL_PATH: http.path,
        name.URL_SCHEME: http.scheme,
        name.HTTP_VERSION: http.version,
    }
    if not is_known:
        said[name.HTTP_ORIGINAL] = http.method
    if http.route is not None:
        said[name.HTTP_ROUTE] = http.route
    title = " ".join([http.method if is_known else "HTTP", *([http.route] if http.route else [])])
    return title, said, str(http.status) if http.status >= 500 else ""


def _parent(trace: Trace) -> Context:
    if trace.parent_id is None:
        return Context()
    return set_span_in_context(NonRecordingSpan(_context(trace.trace_id, trace.parent_id, trace.state)), Context())


def _context(trace_id: bytes, span_id: bytes, state: str | None) -> SpanContext:
    return SpanContext(
        int.from_bytes(trace_id, "big"),
        int.from_bytes(span_id, "big"),
        is_remote=True,
        trace_flags=SAMPLED,
        trace_state=TraceState.from_header([state]) if state else None,
    )
