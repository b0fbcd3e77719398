"""LogSettings: what is logged, read by anybody and changed by clients where the operator allows it.

Keys and types: triton-inference-server/server, docs/protocol/extension_logging.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from inferd.errors import Internal, InvalidRequest, NotAllowed, NotOffered
from inferd.proto import inference_pb2 as pb
from inferd.rpc.boundary import Context
from inferd.telemetry import logs

log = logging.getLogger("inferd.rpc")

# The protocol's keys, the field that carries each, and what it is called here.
_KEYS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "log_info": ("bool_param", "info"),
        "log_warning": ("bool_param", "warning"),
        "log_error": ("bool_param", "error"),
        "log_verbose_level": ("uint32_param", "verbose_level"),
        "log_format": ("string_param", "dated"),
    }
)
_TYPES: Final[Mapping[str, str]] = MappingProxyType(
    {"bool_param": "a bool", "uint32_param": "a uint32", "string_param": "a string"}
)
_DATED: Final[Mapping[str, bool]] = MappingProxyType({"default": False, "ISO8601": True})


class LogControl:
    """The handler of LogSettings over the log that ``telemetry.logs`` has installed."""

    def __init__(self, *, allowed: bool) -> None:
        """Without `allowed` clients only read."""
        self._allowed = allowed
        self.extensions = ("logging",) if allowed else ()

    async def LogSettings(self, request: Any, context: Context) -> Any:
        """Change the settings that are given, all or none of them, and answer with those that hold then."""
        handler = logs.installed()
        if handler is None:
            raise Internal("LogSettings: the log was not configured")
        if request.settings:
            if not self._allowed:
                raise NotAllowed(
                    "clients may not change what this server logs; its operator can let them with "
                    "--control-log-settings=true"
                )
            changed = _changed(handler.switches, request.settings)
            if handler.is_json and not changed.dated:
                raise InvalidRequest(
                    "log_format 'default' is for logs that people read; this one is JSON, with times as in ISO 8601"
                )
            # Before it holds: what is switched off here must not go without a word.
            log.warning("a client changes what is logged", extra={"peer": context.peer(), "settings": _told(changed)})
            handler.switch(changed)
        answer = pb.LogSettingsResponse()
        for key, value in _told(handler.switches).items():
            setattr(answer.settings[key], _KEYS[key][0] if key in _KEYS else "string_param", value)
        return answer


def _changed(switches: logs.Switches, asked: Mapping[str, Any]) -> logs.Switches:
    """With what was asked for. Raises InvalidRequest, or NotOffered for the one thing that cannot be changed."""
    values: dict[str, Any] = {}
    for key, value in asked.items():
        if key == "log_file":
            raise NotOffered("log_file cannot be changed while the server runs; it logs to standard error")
        if key not in _KEYS:
            raise InvalidRequest(f"{key[:64]!r} is no setting of the log; there are {', '.join(_KEYS)}")
        kind, name = _KEYS[key]
        if value.WhichOneof("parameter_choice") != kind:
            raise InvalidRequest(f"{key} is not {_TYPES[kind]}")
        values[name] = getattr(value, kind)
    if "dated" in values:
        if values["dated"] not in _DATED:
            raise InvalidRequest(f"log_format {values['dated'][:64]!r} is none of {', '.join(_DATED)}")
        values["dated"] = _DATED[values["dated"]]
    return replace(switches, **values)


def _told(switches: logs.Switches) -> dict[str, Any]:
    return {
        "log_file": "",  # standard error
        "log_info": switches.info,
        "log_warning": switches.warning,
        "log_error": switches.error,
        "log_verbose_level": switches.verbose_level,
        "log_format": "ISO8601" if switches.dated else "default",
    }
