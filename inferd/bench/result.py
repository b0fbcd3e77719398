"""What a measurement found, as data: written by the runner, read by every report, stored as JSON."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Final = "inferd-bench/1"

Count = Annotated[int, Field(ge=0)]
Nanoseconds = Annotated[int, Field(ge=0)]
Bytes = Annotated[int, Field(ge=0)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Load(_Record):
    """How requests are offered.

    Closed loop (`rate` is None): every stream sends its next request when its last one was answered.
    Open loop: requests are due at `rate` per second whatever the server does, and their latency counts from
    the moment they were due; `streams` only bounds how many may be under way per connection.
    """

    connections: int = Field(ge=1)
    streams: int = Field(ge=1, description="Requests in flight per connection.")
    rate: float | None = Field(default=None, gt=0, description="Requests per second, all connections together.")
    arrivals: Literal["constant", "poisson"] = "constant"


class Latency(_Record):
    """Latencies of the requests that were answered well."""

    count: Count
    mean_ns: float = 0.0
    min_ns: Nanoseconds = 0
    p50_ns: Nanoseconds = 0
    p90_ns: Nanoseconds = 0
    p99_ns: Nanoseconds = 0
    p999_ns: Nanoseconds = 0
    max_ns: Nanoseconds = 0
    buckets: tuple[tuple[int, int], ...] = Field(
        default=(),
        description="The HDR histogram: (highest latency in ns that counts as the same, count), non-empty ones only.",
    )


class Moment(_Record):
    """One step of the timeline, warm-up included."""

    start_s: float
    seconds: float
    measured: bool = Field(description="False while warming up, or for windows left out of the figures.")
    ok: Count
    errors: Count
    p50_ns: Nanoseconds
    p99_ns: Nanoseconds


class Failure(_Record):
    """Requests that ended with the same gRPC code."""

    code: str
    count: Count
    message: str = Field(description="The text of the first one.")


class Answers(_Record):
    """What became of comparing answers with expected outputs."""

    right: Count
    wrong: Count
    unjudged: Count = Field(description="Differed in their bytes, and were too many to look into.")
    first_wrong: str | None = None


class ServerCost(_Record):
    """What the server's processes on this machine used during the figures."""

    processes: Count
    cpu_seconds: float
    cpu_us_per_request: float | None
    rss_start: Bytes
    rss_end: Bytes


class Statistics(_Record):
    """How the server's own ModelStatistics moved during the figures."""

    inferences: int
    executions: int
    queue_ns: int
    compute_input_ns: int
    compute_infer_ns: int
    compute_output_ns: int


class Point(_Record):
    """One load, measured."""

    load: Load
    rows: int = Field(ge=1, description="Rows of each request.")
    stable: bool = Field(description="Whether p50 and p99 of the last windows agreed.")
    windows: Count
    seconds: float
    ok: Count
    requests_per_second: float
    rows_per_second: float
    sent_bytes_per_second: float
    received_bytes_per_second: float
    latency: Latency
    failures: tuple[Failure, ...] = ()
    stalled: bool = Field(
        default=False, description="Whether the server had stopped answering; the figures are of all."
    )
    unanswered: Count = Field(
        default=0,
        description="Under way, or due and unsent, when the figures ended; 0 if no longer than any that was answered.",
    )
    oldest_unanswered_ns: Nanoseconds = 0
    reconnects: Count = 0
    timeline: tuple[Moment, ...] = ()
    answers: Answers | None = None
    server: ServerCost | None = None
    statistics: Statistics | None = None


class Tensor(_Record):
    """An input or output as it was sent or came back."""

    name: str
    datatype: str
    shape: tuple[int, ...]


class Subject(_Record):
    """What was measured."""

    address: str
    server: str
    server_version: str
    model: str
    model_version: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    data: str = Field(description="Where the inputs came from, in words.")
    request_bytes: Bytes
    answer_bytes: Bytes


class Machine(_Record):
    """Where it was measured."""

    processor: str
    cpus: int
    memory_bytes: Bytes
    system: str
    python: str


class Report(_Record):
    """One run of the load runner: a point, or a sweep of several."""

    schema_: Literal["inferd-bench/1"] = Field(default=SCHEMA, alias="schema")
    started: str = Field(description="UTC, ISO 8601.")
    inferd: str = Field(description="Version of the load runner.")
    command: str
    machine: Machine
    local: bool = Field(description="Whether the server ran on the same machine.")
    subject: Subject
    sweep: Literal["none", "concurrency", "rate"]
    points: tuple[Point, ...]
    knee: int | None = Field(
        default=None, description="Index of the point past which more load buys little but latency."
    )

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)
