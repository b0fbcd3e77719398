"""Settings of logging and tracing that a client may read and change. Each case leaves them as they were."""

from __future__ import annotations

from typing import Any

from inferd.proto import inference_pb2 as pb

from ..answers import Call
from .case import Case, Difference


def log(**settings: Any) -> Call:
    message = pb.LogSettingsRequest()
    kinds = {bool: "bool_param", int: "uint32_param", str: "string_param"}
    for name, value in settings.items():
        setattr(message.settings[name], kinds[type(value)], value)
    return Call("LogSettings", message)


def trace(model: str = "", **settings: list[str]) -> Call:
    message = pb.TraceSettingRequest(model_name=model)
    for name, values in settings.items():
        message.settings[name].value.extend(values)
    return Call("TraceSetting", message)


NO_SETTING = Difference(
    what="LogSettings with a setting that nobody knows",
    triton="OK",
    inferd="INVALID_ARGUMENT",
    why="A setting that is ignored without a word is worse than none.",
)
NO_TRACES = Difference(
    what="TraceSetting of a server that does not trace",
    triton="OK",
    inferd="UNIMPLEMENTED",
    why="A server that traces (`--tracing-enabled true`) has it.",
)

CASES = (
    Case("how it logs", (log(),)),
    Case("less is logged", (log(log_info=False), log(log_info=True))),
    Case("more is logged", (log(log_verbose_level=1), log(log_verbose_level=0))),
    Case("another format", (log(log_format="ISO8601"), log(log_format="default"))),
    Case("an unknown format", (log(log_format="xml"),)),
    Case("a setting as a wrong type", (log(log_info="no"), log(log_verbose_level=True))),
    Case("another file", (log(log_file="/tmp/log"),)),
    Case("an unknown setting of logging", (log(anything=True),), NO_SETTING),
    Case("how it traces", (trace(),), NO_TRACES),
)
