"""A collector of traces: the protocol's own gRPC service and its HTTP twin, keeping what they are sent."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
trace_grpc = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc")

TIMEOUT_S = 30.0
POLL_S = 0.02


@dataclass(frozen=True)
class Received:
    """A span as it came over the wire."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    status: int
    attributes: dict[str, Any]
    links: tuple[tuple[str, str], ...]
    state: str
    resource: dict[str, Any]


@dataclass
class Collected:
    """What has come, and where more may be sent."""

    endpoint: str
    spans: list[Received] = field(default_factory=list)
    block: threading.Event = field(default_factory=threading.Event)

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            of_resource = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_received(span, of_resource) for span in scope.spans]

    def named(self, name: str) -> list[Received]:
        return [span for span in list(self.spans) if span.name == name]

    def of_trace(self, trace_id: str) -> list[Received]:
        return [span for span in list(self.spans) if span.trace_id == trace_id]

    def wait_for(self, condition: Callable[[Collected], bool]) -> None:
        end = time.monotonic() + TIMEOUT_S
        while not condition(self):
            assert time.monotonic() < end, [(span.name, span.attributes) for span in self.spans]
            time.sleep(POLL_S)


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


def _received(span: Any, resource: dict[str, Any]) -> Received:
    return Received(
        span.name,
        span.kind,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        span.status.code,
        _attributes(span.attributes),
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        span.trace_state,
        resource,
    )


@contextmanager
def over_grpc() -> Iterator[Collected]:
    """A collector on a free port, by gRPC. While `block` is set it answers nobody."""

    class Service(trace_grpc.TraceServiceServicer):  # type: ignore[name-defined, misc]
        def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
            while collected.block.is_set() and context.is_active():
                time.sleep(POLL_S)
            collected.take(request)
            return trace_service.ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(4))
    trace_grpc.add_TraceServiceServicer_to_server(Service(), server)
    collected = Collected(f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    try:
        yield collected
    finally:
        collected.block.clear()
        server.stop(None).wait()


@contextmanager
def over_http() -> Iterator[Collected]:
    """The same by HTTP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            collected.take(trace_service.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collected = Collected(f"http://127.0.0.1:{server.server_address[1]}/v1/traces")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield collected
        finally:
            server.shutdown()
            thread.join()
