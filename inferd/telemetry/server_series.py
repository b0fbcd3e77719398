"""The metrics of the server as a whole, declared as those of models are."""

from __future__ import annotations

from typing import Final

from inferd.telemetry.sample import ServerSample
from inferd.telemetry.series import Series

OF_SERVER: Final[tuple[Series[ServerSample], ...]] = (
    Series(
        "inferd_ready",
        "gauge",
        "1 from the end of loading to the start of draining, else 0.",
        (),
        lambda sample: [((), int(sample.ready))],
    ),
    Series(
        "inferd_draining",
        "gauge",
        "1 once the server was told to stop, else 0.",
        (),
        lambda sample: [((), int(sample.draining))],
    ),
    Series(
        "inferd_event_loop_lag_seconds",
        "histogram",
        "How much later than planned the event loop came to a timer.",
        (),
        lambda sample: [((), sample.loop_lag)],
    ),
    Series(
        "inferd_model_loads_total",
        "counter",
        "Loads of model versions that have ended, by result: ok, failed.",
        ("model", "result"),
        lambda sample: list(sample.loads.items()),
    ),
    Series(
        "inferd_call_duration_seconds",
        "histogram",
        "Time of calls, by what carried them (grpc, http), method and gRPC status. Over gRPC of all methods but "
        "inference, over HTTP of all; _OTHER is what is no method here.",
        ("carrier", "method", "code"),
        lambda sample: list(sample.calls.items()),
    ),
    Series(
        "inferd_auth_refusals_total",
        "counter",
        "Calls that were refused for who calls, by reason: credentials (not known here), anonymous (none were sent), "
        "method, model (the caller may not call, or use, it). There only where callers are asked who they are.",
        ("reason",),
        lambda sample: [((reason,), count) for reason, count in sample.refusals.items()],
    ),
    Series(
        "inferd_traces_total",
        "counter",
        "Traces of requests and calls, by what became of them: sent, dropped. There only with tracing.",
        ("result",),
        lambda sample: [((result,), count) for result, count in sample.traces.items()],
    ),
    Series(
        "inferd_access_lines_total",
        "counter",
        "Lines of the access log, by what became of them: written, dropped. There only with one.",
        ("result",),
        lambda sample: [((result,), count) for result, count in sample.access.items()],
    ),
)
