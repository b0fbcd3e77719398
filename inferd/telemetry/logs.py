"""Logging: one line per event, for people or for collectors.

Loggers are named ``inferd.<room>``. What an event carries besides its message goes into ``extra`` and comes
out as fields of its own. Tensor data never does: a value that is not plain is written as its type.
"""

from __future__ import annotations

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from numbers import Integral, Real
from pathlib import PurePath
from typing import Final, Literal, TextIO

from inferd.config import masked
from inferd.telemetry.brake import Brake

ABOUT: Final[ContextVar[Callable[[], Mapping[str, object]] | None]] = ContextVar("about", default=None)
"""What a warning or an error is about, in fields, where a task has one call to answer; None where it has not."""

LEVELS: Final = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

_LONGEST_TEXT = 4096
_LONGEST_LIST = 32
_DEEPEST = 4

# What every record has. uvicorn adds color_message, the message again for terminals.
_NOT_EXTRA: Final = frozenset(
    {*vars(logging.LogRecord("", 0, "", 0, "", (), None)), "message", "asctime", "taskName", "color_message"}
)

# They bring handlers and levels of their own, which would print every line twice or in another form.
_ROUTED: Final = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "grpc", "grpc._cython.cygrpc")

# Made once: dumps() would make one for each line.
_AS_JSON: Final = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode

_COLOURS: Final = {
    logging.DEBUG: "\x1b[2m",
    logging.WARNING: "\x1b[33m",
    logging.ERROR: "\x1b[31m",
    logging.CRITICAL: "\x1b[31m",
}
_PLAIN: Final = "\x1b[0m"


@dataclass(frozen=True, slots=True)
class Switches:
    """What is logged, severity by severity, and how: `dated` writes the date with each time."""

    info: bool = True
    warning: bool = True
    error: bool = True
    verbose_level: int = 0  # above 0, what is below info
    dated: bool = False

    @property
    def least(self) -> int:
        """The least severe level of which anything may be logged."""
        on = {
            logging.DEBUG: self.verbose_level > 0, logging.INFO: self.info,
            logging.WARNING: self.warning, logging.ERROR: self.error,
        }  # fmt: skip
        return min((level for level, is_on in on.items() if is_on), default=logging.CRITICAL + 1)

    def admit(self, level: int) -> bool:
        """Whether a record of this level is logged."""
        if level >= logging.ERROR:
            return self.error
        if level >= logging.WARNING:
            return self.warning
        return self.info if level >= logging.INFO else self.verbose_level > 0


class LogHandler(logging.StreamHandler[TextIO]):
    """The one handler that ``configure`` installs, by whose type it finds it again."""

    def __init__(self, stream: TextIO, *, is_json: bool) -> None:
        """Nothing is set yet: ``switch`` is called before it is used."""
        super().__init__(stream)
        self.is_json = is_json
        self.switches = Switches()
        self._brake = Brake()

    def switch(self, to: Switches) -> None:
        """Log so from now on."""
        self.switches = to
        if self.is_json:
            self.setFormatter(JsonFormatter())
        else:
            self.setFormatter(HumanFormatter(colour=self.stream.isatty(), dated=to.dated))
        logging.getLogger().setLevel(logging.INFO if to.least == logging.DEBUG else max(to.least, logging.WARNING))
        logging.getLogger("inferd").setLevel(to.least)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record if what it tells is switched on. Trouble with a call says which call it is."""
        about = ABOUT.get() if record.levelno >= logging.WARNING else None
        if about is not None:
            vars(record).update({name: value for name, value in about().items() if name not in vars(record)})
        if self.switches.admit(record.levelno) and self._brake.lets(record):
            super().emit(record)


def configure(
    level: Literal["debug", "info", "warning", "error"],
    format: Literal["human", "json"],
    stream: TextIO | None = None,
) -> None:
    """Send all logs to one stream in one form; ``stream`` None means standard error. Calling again replaces.

    ``level`` is that of ``inferd.*``. Libraries speak from WARNING up, and from INFO up while it is debug.
    """
    handler = LogHandler(sys.stderr if stream is None else stream, is_json=format == "json")
    root = logging.getLogger()
    for old in [known for known in root.handlers if isinstance(known, LogHandler)]:
        root.removeHandler(old)
    root.addHandler(handler)

    least = LEVELS[level]
    handler.switch(
        Switches(
            info=least <= logging.INFO,
            warning=least <= logging.WARNING,
            verbose_level=int(least <= logging.DEBUG),
            dated=handler.is_json,
        )
    )
    for name in _ROUTED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)


def installed() -> LogHandler | None:
    """What ``configure`` has installed, if it was called."""
    return next((known for known in logging.getLogger().handlers if isinstance(known, LogHandler)), None)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: ts, level, logger, message, the extra fields, exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; its own keys win over extra fields of the same name."""
        line: dict[str, object] = {
            **dict(_extra(record)),
            "ts": _rfc3339(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _cut(masked(record.getMessage())),
        }
        if trace := _exception(self, record):
            line["exception"] = trace
        return _AS_JSON(line)


class HumanFormatter(logging.Formatter):
    """One short line per event; UTC time, level, room, message, fields. A traceback follows below."""

    def __init__(self, *, colour: bool = False, dated: bool = False) -> None:
        """Colour by severity if the reader is a terminal. The time is that of the day, or has its date."""
        super().__init__()
        self._colour, self._dated = colour, dated

    def format(self, record: logging.LogRecord) -> str:
        """Write a record; what could move a terminal's cursor is escaped."""
        room = record.name.removeprefix("inferd.")
        fields = "".join(f" {name}={_as_field(value)}" for name, value in _extra(record))
        moment = _rfc3339(record.created)
        head = f"{moment if self._dated else moment[11:]} {record.levelname.lower():<7} {room}: "
        line = head + _printable(_cut(masked(record.getMessage())) + fields)
        if self._colour and record.levelno in _COLOURS:
            line = f"{_COLOURS[record.levelno]}{line}{_PLAIN}"
        if trace := _exception(self, record):
            line += "\n" + "\n".join(map(_printable, trace.splitlines()))
        return line


def _extra(record: logging.LogRecord) -> Iterator[tuple[str, object]]:
    return ((name, _plain(value)) for name, value in vars(record).items() if name not in _NOT_EXTRA)


def _plain(value: object, depth: int = 0) -> object:
    """Turn a value into what JSON has, never larger than a person would read."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, str | PurePath):
        return _cut(masked(str(value)))
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return number if math.isfinite(number) else str(number)
    if isinstance(value, BaseException):
        return _cut(masked(f"{type(value).__name__}: {value}"))
    if depth < _DEEPEST and isinstance(value, list | tuple | set | frozenset) and len(value) <= _LONGEST_LIST:
        return [_plain(item, depth + 1) for item in value]
    if depth < _DEEPEST and isinstance(value, Mapping) and len(value) <= _LONGEST_LIST:
        return {_cut(masked(str(key))): _plain(item, depth + 1) for key, item in value.items()}
    return f"<{type(value).__name__}>"


def _as_field(value: object) -> str:
    if isinstance(value, str) and value and not any(letter.isspace() or letter in "\"='" for letter in value):
        return value
    return json.dumps(value, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}... ({len(text)} characters)"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = []
    if record.exc_info and record.exc_info[0] is not None:
        parts.append(formatter.formatException(record.exc_info))
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return masked("\n".join(parts))


def _rfc3339(created_s: float) -> str:
    moment = datetime.fromtimestamp(created_s, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
