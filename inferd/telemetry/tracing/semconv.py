"""Names in spans, each in one place.

Those of calls: open-telemetry/semantic-conventions, docs/rpc, 1.44 (release candidate); of HTTP: docs/http (stable).
"""

from __future__ import annotations

from typing import Final

from inferd.errors import Code

RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.response.status_code"
RPC_ORIGINAL: Final = "rpc.method_original"
ERROR_TYPE: Final = "error.type"
GRPC: Final = "grpc"

HTTP_METHOD: Final = "http.request.method"
HTTP_ORIGINAL: Final = "http.request.method_original"
HTTP_ROUTE: Final = "http.route"
HTTP_STATUS: Final = "http.response.status_code"
HTTP_VERSION: Final = "network.protocol.version"
URL_PATH: Final = "url.path"
URL_SCHEME: Final = "url.scheme"
OTHER: Final = "_OTHER"
HTTP_METHODS: Final = frozenset(
    {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"}
)  # fmt: skip

MODEL: Final = "inferd.model.name"
VERSION: Final = "inferd.model.version"
REQUEST_ID: Final = "inferd.request.id"
BATCH_TRACE: Final = "inferd.batch.trace_id"
BATCH_SPAN: Final = "inferd.batch.span_id"
BATCH_SIZE: Final = "inferd.batch.rows"
BATCH_PADDING: Final = "inferd.batch.padding_ratio"
BATCH_REQUESTS: Final = "inferd.batch.requests"
BATCH_REASON: Final = "inferd.batch.close_reason"

QUEUE: Final = "inferd.queue"
GATHER: Final = "inferd.gather"
RUN: Final = "inferd.run"
ENCODE: Final = "inferd.encode"
BATCH: Final = "inferd.batch"

# Of a server's span; other codes say that the client was wrong.
SERVER_ERRORS: Final = frozenset(
    {Code.UNKNOWN, Code.DEADLINE_EXCEEDED, Code.UNIMPLEMENTED, Code.INTERNAL, Code.UNAVAILABLE, Code.DATA_LOSS}
)
