"""TraceSetting: what is traced, read by anybody and changed by clients where the operator allows it.

Keys and values: triton-inference-server/server, docs/protocol/extension_trace.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from inferd.errors import InvalidRequest, NotAllowed, NotOffered
from inferd.models import Models
from inferd.proto import inference_pb2 as pb
from inferd.rpc.boundary import Context
from inferd.telemetry.sampling import Samplings, TraceChange, TraceSettings

log = logging.getLogger("inferd.rpc")

LEVEL: Final = "trace_level"
RATE: Final = "trace_rate"
COUNT: Final = "trace_count"
_NAMES: Final[Mapping[str, str]] = {LEVEL: "on", RATE: "rate", COUNT: "count"}
# What goes into files of its own in Triton goes to a collector here.
_FIXED: Final = ("trace_mode", "trace_file", "log_frequency")
_MOST: Final = 2**31 - 1


class TraceControl:
    """The handler of TraceSetting over the server's samplings, if it traces at all."""

    def __init__(
        self, samplings: Samplings | None, models: Models, *, allowed: bool, on_change: Callable[[], None]
    ) -> None:
        """Without `allowed` clients only read; `on_change` is called when other requests are traced than before."""
        self._samplings, self._models = samplings, models
        self._allowed, self._on_change = allowed, on_change
        self.extensions = ("trace",) if allowed and samplings is not None else ()

    async def TraceSetting(self, request: Any, context: Context) -> Any:
        """Change the settings that are given, all or none of them, and answer with those that hold then."""
        if self._samplings is None:
            raise NotOffered(
                "TraceSetting is not offered: this server traces nothing; its operator can have it with "
                "--tracing-enabled=true"
            )
        model = request.model_name
        if model:
            self._models.find(model, "")
        if request.settings:
            if not self._allowed:
                raise NotAllowed(
                    "clients may not change what this server traces; its operator can let them with "
                    "--control-trace-settings=true"
                )
            change, cleared = _changed({key: list(said.value) for key, said in request.settings.items()})
            self._samplings.change(change, cleared, model)
            told = _told(self._samplings.settings(model))
            log.warning("a client changes what is traced", extra={"peer": context.peer(), "model": model, **told})
            self._on_change()
        answer = pb.TraceSettingResponse()
        for key, value in _told(self._samplings.settings(model)).items():
            answer.settings[key].value.append(value)
        return answer


def _changed(asked: Mapping[str, Sequence[str]]) -> tuple[TraceChange, frozenset[str]]:
    values: dict[str, Any] = {}
    cleared = set()
    for key, said in asked.items():
        if key in _FIXED:
            raise NotOffered(f"{key} cannot be changed while the server runs; traces go to a collector, by OTLP")
        if key not in _NAMES:
            raise InvalidRequest(f"{key[:64]!r} is no setting of traces; there are {', '.join(_NAMES)}")
        if not said:
            cleared.add(_NAMES[key])
        elif key == LEVEL:
            values["on"] = _level(said)
        elif key == RATE:
            every = _number(key, said, 0)
            values["rate"] = 1 / every if every else 0.0
        else:
            values["count"] = _number(key, said, -1)
    return TraceChange(**values), frozenset(cleared)


def _level(said: Sequence[str]) -> bool:
    if "TENSORS" in said:
        raise NotOffered("trace_level TENSORS is not offered: traces never contain what is in tensors")
    if set(said) == {"OFF"}:
        return False
    if set(said) == {"TIMESTAMPS"}:
        return True
    raise InvalidRequest("trace_level is neither TIMESTAMPS nor OFF")


def _number(key: str, said: Sequence[str], least: int) -> int:
    text = said[0] if len(said) == 1 else ""
    digits = text.removeprefix("-")
    if len(digits) <= 10 and digits.isascii() and digits.isdigit() and least <= int(text) <= _MOST:
        return int(text)
    raise InvalidRequest(f"{key} is not a number from {least} to {_MOST}")


def _told(settings: TraceSettings) -> dict[str, str]:
    return {
        LEVEL: "TIMESTAMPS" if settings.on else "OFF",
        # One request in so many; 0: none but those that their callers trace.
        RATE: str(max(round(1 / settings.rate), 1)) if settings.rate else "0",
        COUNT: str(settings.count),
        "trace_mode": "opentelemetry",
    }
