"""What a comparison found, as data: written by `compare`, read by `goals` and by whoever wants to check a figure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from inferd.bench.result import Failure, Load, Machine

SCHEMA: Final = "inferd-compare/1"

Figure = Literal[
    "requests_per_second",
    "cpu_us_per_request",
    "p50_ns",
    "p99_ns",
    "alone_p50_ns",
    "request_bytes_per_cpu_second",
    "rss_bytes",
]
Kind = Literal["inferd", "peer", "floor", "limit"]
Status = Literal["measured", "absent", "wrong", "failed"]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Turn(_Record):
    """One entrant's figures of one round. None where nothing was answered."""

    round: int = Field(ge=1)
    seconds: float = Field(description="Of the figures under load; warm-up is not in it.")
    ok: int
    failures: tuple[Failure, ...] = ()
    requests_per_second: float | None = None
    cpu_us_per_request: float | None = Field(default=None, description="User and system time of all processes.")
    cpu_us_by_program: Mapping[str, float] = Field(default_factory=dict, description="The same, apart.")
    p50_ns: int | None = None
    p99_ns: int | None = None
    alone_p50_ns: int | None = Field(default=None, description="With one request in flight.")
    request_bytes_per_cpu_second: float | None = None
    rss_bytes: int | None = None


class Entrant(_Record):
    """What became of one server, floor or limit in one work."""

    name: str
    kind: Kind
    status: Status
    reason: str | None = Field(default=None, description="Why there are no figures, or not all of them.")
    note: str | None = None
    turns: tuple[Turn, ...] = ()


class Ratio(_Record):
    """A figure of inferd's divided by another's, formed within each round, so that both saw the same machine."""

    figure: Figure
    subject: str
    against: str
    rounds: tuple[float, ...]
    median: float
    low: float
    high: float


class WorkFound(_Record):
    """One work, measured."""

    name: str
    title: str
    model: str
    model_sha256: str
    request_bytes: int
    answer_bytes: int
    loaded: Load
    threads: int = Field(description="ONNX Runtime threads given to servers that must be told.")
    tolerance: float = Field(description="Of the check of answers against ONNX Runtime, absolute and relative.")
    entrants: tuple[Entrant, ...]
    ratios: tuple[Ratio, ...]


class Comparison(_Record):
    """One run of `python -m bench compare`."""

    schema_: Literal["inferd-compare/1"] = Field(default=SCHEMA, alias="schema")
    started: str = Field(description="UTC, ISO 8601.")
    command: str
    machine: Machine
    rounds: int
    seconds: float
    versions: Mapping[str, Mapping[str, str]]
    works: tuple[WorkFound, ...]

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
