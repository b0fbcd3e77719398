"""What settings are made of: units, checked kinds of values, and the section that groups them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

KIB = 1024
MIB = 1024 * KIB

SECOND_US = 1_000_000
SECOND_MS = 1_000
HOUR_MS = 3600 * SECOND_MS


@dataclass(frozen=True, slots=True)
class Expects:
    """What a leaf wants, in words, where its type alone does not say."""

    text: str


def _lowered(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _as_path(value: object) -> object:
    # Strict validation, which YAML values get, takes no text for a path, and a YAML file has nothing else.
    if value == "":
        raise ValueError("as a path, the empty text would silently mean the current directory")
    return Path(value) if isinstance(value, str) else value


def _short_path(value: Path) -> Path:
    if len(bytes(value)) > 107:
        raise ValueError("longer than the system takes for a Unix socket")
    return value


def _bare_host(value: str) -> str:
    # One colon is host:port; an IPv6 address has at least two.
    if value.count(":") == 1 or any(letter.isspace() or letter in "/[]" for letter in value):
        raise ValueError("not a bare host")
    return value


def _as_names(value: str) -> str:
    names = [name.strip() for name in value.split(",")]
    if value and (not all(names) or ("*" in names and len(names) > 1)):
        raise ValueError("not a list of names")
    return ",".join(names)


Port = Annotated[int, Field(ge=0, le=65535)]
ModelPath = Annotated[Path, BeforeValidator(_as_path), Expects("path")]
FilePath = Annotated[Path, BeforeValidator(_as_path), Expects("path")]
SocketPath = Annotated[
    Path, BeforeValidator(_as_path), AfterValidator(_short_path), Expects("path of at most 107 bytes")
]
ModelNames = Annotated[str, AfterValidator(_as_names), Expects("names with commas between them, or *")]
Host = Annotated[
    str, Field(min_length=1), AfterValidator(_bare_host), Expects("IP address or host name, without a port")
]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lowered)]


class Section(BaseModel):
    """A group of settings that share the first part of their name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
