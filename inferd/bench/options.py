"""What `inferd bench` was told, and the small languages of its flags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal

from inferd.errors import StartError

_ADDRESS: Final = re.compile(r"unix:.+|(\[[0-9a-fA-F:.%]+\]|[^:/\s]+):\d+")
_HEADER: Final = re.compile(r"[0-9a-z_.-]+")


@dataclass(frozen=True, slots=True)
class Options:
    """One field per argument and flag, as typed where it is text."""

    address: str
    model: str
    model_version: str
    batch: int
    shape: tuple[str, ...]
    data: str
    seed: int
    int_range: tuple[str, ...]
    string_length: int
    string: str | None
    requests_distinct: int
    parameter: tuple[str, ...]
    header: tuple[str, ...]
    timeout_ms: int
    concurrency: str | None
    rate: str | None
    arrivals: Literal["constant", "poisson"]
    max_in_flight: int
    connections: int | None
    threads: int
    warmup: float
    window: float
    max_windows: int
    stability: float
    duration: float | None
    requests: int
    latency_limit: float | None
    expect: Path | None
    check: bool
    rtol: float
    atol: float
    server_pid: tuple[int, ...]
    json: str | None
    html: Path | None


def check(options: Options) -> None:
    """Raise StartError for flags that contradict each other."""
    if not is_address(options.address):
        raise StartError(f"{options.address} is not HOST:PORT, [IPV6]:PORT or unix:PATH")
    for one, other in (
        ("concurrency", "rate"),
        ("duration", "requests"),
        ("expect", "check"),
    ):
        if getattr(options, one) and getattr(options, other):
            raise StartError(f"--{one} and --{other} exclude each other; give one of them")
    if options.html is not None and find_spec("matplotlib") is None:
        # Now, and not when everything has been measured.
        raise StartError("--html needs matplotlib: pip install 'inferd[bench]'")


def is_address(text: str) -> bool:
    """Whether this can be the address of a gRPC server, in the forms that all parts of the load runner understand."""
    return _ADDRESS.fullmatch(text) is not None


def shapes(given: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """NAME:d1,d2 as name and dimensions. Raises StartError."""
    found: dict[str, tuple[int, ...]] = {}
    for text in given:
        # Names may hold colons, shapes cannot.
        name, _, dimensions = text.rpartition(":")
        if not name or not re.fullmatch(r"\d+(,\d+)*", dimensions):
            raise StartError(f"--shape {text}: expected NAME:LENGTH,LENGTH,... such as x:224,224")
        found[name] = tuple(int(one) for one in dimensions.split(","))
    return found


def integers(given: Iterable[str]) -> dict[str, tuple[int, int]]:
    """[NAME:]LOW:HIGH by name; the range without a name is the one of the name "". Raises StartError."""
    found: dict[str, tuple[int, int]] = {}
    for text in given:
        parts = re.fullmatch(r"(?:(.+):)?(-?\d+):(-?\d+)", text)
        if not parts or int(parts[2]) >= int(parts[3]):
            raise StartError(f"--int-range {text}: expected [NAME:]LOW:HIGH with LOW below HIGH, which is never sent")
        found[parts[1] or ""] = (int(parts[2]), int(parts[3]))
    return found


def parameters(given: Iterable[str]) -> dict[str, bool | int | float | str]:
    """NAME=VALUE in the type that the value looks like. Raises StartError."""
    found: dict[str, bool | int | float | str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise StartError(f"--parameter {text}: expected NAME=VALUE")
        found[name] = _value(value)
    return found


def _value(text: str) -> bool | int | float | str:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def headers(given: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """NAME:VALUE as gRPC metadata. Raises StartError."""
    found: list[tuple[str, str]] = []
    for text in given:
        name, colon, value = text.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not _HEADER.fullmatch(name):
            raise StartError(f"--header {text}: expected NAME:VALUE")
        if name.startswith("grpc-") or name.endswith("-bin") or name in ("content-type", "te", "user-agent"):
            raise StartError(f"--header {text}: '{name}' is gRPC's own, or binary; only plain metadata can be set")
        if not (value.isascii() and value.isprintable()):
            raise StartError(f"--header {text}: the value must be printable ASCII")
        found.append((name, value))
    return tuple(found)
