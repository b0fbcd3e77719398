"""Sends traces to a collector, from a thread of its own: whatever the collector does, requests do not wait for it."""

from __future__ import annotations

import logging
import time
from typing import Final

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from inferd._native.trace import Traces
from inferd.config import Tracing
from inferd.telemetry.periodic import Periodic
from inferd.telemetry.tracing.spans import Spans

log = logging.getLogger("inferd.tracing")

EVERY_S: Final = 0.2
PORTION: Final = 128
"""Traces that are sent at once."""
REMIND_S: Final = 60.0
"""A collector that does not answer is complained of so often."""


class TraceExport:
    """Takes traces, makes spans of them and sends those."""

    def __init__(self, settings: Tracing, traces: Traces, version: str) -> None:
        """Sends nothing until start()."""
        self._traces = traces
        self._spans = Spans("inferd", version)
        self._exporter = _exporter(settings)
        self._thread = Periodic("traces", EVERY_S, self._send)
        self._complained_s = float("-inf")
        self.sent = self.lost = 0

    @property
    def dropped(self) -> int:
        """Traces that were never sent: too many waited, or the collector did not take them."""
        return self._traces.dropped + self.lost

    def start(self) -> None:
        """Send from now on."""
        # They say with each try what is said here once a minute.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.CRITICAL)
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """Send what there is, for at most so long. Blocks."""
        end_s = time.monotonic() + limit_s
        if not self._thread.stop(limit_s):
            log.warning("traces were left unsent", extra={"limit_s": limit_s})
        self._exporter.shutdown()
        self._thread.stop(max(end_s - time.monotonic(), 0.2))

    def _send(self) -> None:
        traces = self._traces.take()
        offset_ns = time.time_ns() - time.monotonic_ns()
        for start in range(0, len(traces), PORTION):
            portion = traces[start : start + PORTION]
            if self._exporter.export(self._spans.of(portion, offset_ns)) is SpanExportResult.SUCCESS:
                self.sent += len(portion)
                continue
            self.lost += len(portion)
            if time.monotonic() - self._complained_s >= REMIND_S:
                self._complained_s = time.monotonic()
                log.warning("the collector does not take traces", extra={"dropped": self.dropped})


def _exporter(settings: Tracing) -> SpanExporter:
    # What is not given is read by the exporters out of OpenTelemetry's own variables.
    endpoint, timeout_s = settings.endpoint or None, settings.timeout_ms / 1000
    if settings.protocol == "http":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as OverHttp

        return OverHttp(endpoint, timeout=timeout_s)
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as OverGrpc

    return OverGrpc(endpoint, timeout=timeout_s)
