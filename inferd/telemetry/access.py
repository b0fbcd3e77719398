"""The access log: a line for each request and call that has ended, written by a thread of its own."""

from __future__ import annotations

import logging
import time
from typing import Any, Final, TypeAlias

from inferd._native.access import AccessLog
from inferd.errors import Code
from inferd.telemetry.periodic import Periodic
from inferd.telemetry.watching import inference, milliseconds

log = logging.getLogger("inferd.access")

ROOM: Final = 16384
"""Requests that may wait to be written down; more are dropped and counted."""
EVERY_S: Final = 0.1
_UNARY: Final = inference(streamed=False)
_STREAMED: Final = inference(streamed=True)


Entry: TypeAlias = tuple[tuple[Any, ...], int, int, int, int, int, int, bool, bytes, bytes, bytes]
"""What AccessLog.take() gives of each request."""


class AccessWriter:
    """Takes what is noted and logs it. Never more than names, ids, codes, numbers and times."""

    def __init__(self, noted: AccessLog) -> None:
        """Writes nothing until start()."""
        self._noted = noted
        self._thread = Periodic("access", EVERY_S, self._write)
        self.written = 0

    @property
    def dropped(self) -> int:
        """Requests that were not written down, because too many waited to be."""
        return self._noted.dropped

    def start(self) -> None:
        """Write from now on."""
        self._thread.start()

    def stop(self, limit_s: float) -> None:
        """Write what there is, for at most so long. Blocks."""
        self._thread.stop(limit_s)

    def _write(self) -> None:
        entries = self._noted.take()
        offset_s = time.time() - time.monotonic()
        for entry in entries:
            self.written += 1
            if not log.isEnabledFor(logging.INFO):
                continue
            record = log.makeRecord(log.name, logging.INFO, "", 0, "request", (), None, extra=_fields(entry))
            record.created = entry[2] * 1e-9 + offset_s  # when it ended, not when it is written
            log.handle(record)


def _fields(entry: Entry) -> dict[str, Any]:
    (model, version, *more), code, _, took_ns, waited_ns, run_ns, rows, is_streamed, request_id, trace_id, span_id = (
        entry
    )
    fields: dict[str, Any] = {"method": _STREAMED if is_streamed else _UNARY}
    for said in more:
        fields |= said
    if model:
        fields["model"] = model
    if version:
        fields["version"] = version
    fields["code"], fields["duration_ms"] = Code(code).name, milliseconds(took_ns)
    if rows:
        fields["rows"] = rows
    if waited_ns >= 0:
        fields["queue_ms"] = milliseconds(waited_ns)
    if run_ns:
        fields["compute_ms"] = milliseconds(run_ns)
    if is_streamed:
        fields["streamed"] = True
    if request_id:
        fields["request_id"] = request_id.decode("utf-8", "replace")
    if trace_id:
        fields |= {"trace_id": trace_id.hex(), "span_id": span_id.hex(), "trace_flags": "01"}
    return fields
