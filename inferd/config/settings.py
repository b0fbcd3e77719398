"""Every setting of inferd, declared once: type, range, default, unit and meaning.

The names here are the only names: a leaf ``grpc.port`` is YAML ``grpc: {port: }``, the variable
``INFERD_GRPC_PORT`` and the flag ``--grpc-port``. Nothing in this module reads a file or a variable.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from inferd.config.admission import Admission
from inferd.config.auth import Auth, auth_contradictions
from inferd.config.device import DeviceSettings
from inferd.config.http import Http
from inferd.config.kinds import (
    HOUR_MS,
    KIB,
    MIB,
    SECOND_MS,
    SECOND_US,
    Host,
    ModelNames,
    ModelPath,
    Port,
    Section,
    SocketPath,
)
from inferd.config.log import Log
from inferd.config.metrics import Metrics
from inferd.config.tls import Tls, tls_contradictions
from inferd.config.tracing import Tracing


class Grpc(Section):
    """The gRPC server."""

    port: Port = Field(default=8001, description="Port of the gRPC server; 0 lets the system choose a free one.")
    max_message_bytes: int = Field(
        default=64 * MIB,
        ge=KIB,
        le=2**31 - 1,
        description="Largest request message that is read; a larger one is refused with RESOURCE_EXHAUSTED.",
    )
    max_metadata_bytes: int = Field(
        default=16 * KIB,
        ge=KIB,
        le=MIB,
        description="Largest sum of a call's headers, each with 32 bytes on top; more is refused with "
        "RESOURCE_EXHAUSTED.",
    )
    max_concurrent_streams: int = Field(
        default=256, ge=1, le=2**31 - 1, description="Calls that one connection may have under way."
    )
    keepalive_time_ms: int = Field(
        default=300 * SECOND_MS,
        ge=0,
        le=24 * HOUR_MS,
        description="After so long a silence a client is asked whether it is there; 0 never asks.",
    )
    keepalive_timeout_ms: int = Field(
        default=20 * SECOND_MS,
        ge=1,
        le=HOUR_MS,
        description="How long it may take to answer that before its connection is closed.",
    )
    max_connection_idle_ms: int = Field(
        default=0,
        ge=0,
        le=24 * HOUR_MS,
        description="A connection that has had no call for so long is closed, without losing one; 0 never closes it.",
    )
    max_connection_age_ms: int = Field(
        default=0,
        ge=0,
        le=24 * HOUR_MS,
        description="Clients are asked to reconnect after so long, give or take a tenth, which spreads them over new "
        "replicas; 0 never asks.",
    )
    max_connection_age_grace_ms: int = Field(
        default=60 * SECOND_MS,
        ge=0,
        le=24 * HOUR_MS,
        description="How long calls under way may go on after that before they are cut; 0 lets them end by themselves.",
    )
    compression: Literal["none", "gzip", "deflate"] = Field(
        default="none",
        description="How answers are compressed for clients that read it; requests may be compressed in any case.",
    )
    handshake_timeout_ms: int = Field(
        default=10 * SECOND_MS,
        ge=1,
        le=HOUR_MS,
        description="How long a client may take over TLS, over HTTP/2's settings, and on the native transport over the "
        "headers of each call.",
    )
    health_port: Port = Field(
        default=0,
        description="Another port, without TLS and for everybody, that answers grpc.health.v1 and nothing else: for "
        "probes that have no certificate, such as a kubelet's; 0 opens none.",
    )
    unix_socket: SocketPath | None = Field(
        default=None, description="Path of a Unix socket to listen on as well, for clients on the same machine."
    )
    reuse_port: bool = Field(
        default=False,
        description="Let several servers share the port (SO_REUSEPORT); the system spreads connections over them.",
    )
    reflection: bool = Field(default=True, description="Offer gRPC server reflection, which grpcurl and its like need.")


class Control(Section):
    """What clients may change while the server runs."""

    log_settings: bool = Field(
        default=False, description="Let clients change what is logged, by LogSettings; they may read it in any case."
    )
    trace_settings: bool = Field(
        default=False,
        description="Let clients change what is traced, by TraceSetting, where tracing.enabled is true; they may read "
        "it in any case.",
    )


class Models(Section):
    """Where the models are."""

    path: ModelPath | None = Field(
        default=None,
        description="A model repository folder or one .onnx file; relative to the current directory.",
    )
    strict: bool = Field(
        default=True,
        description="Refuse to start when a model fails to load; false serves the others without it.",
    )
    control_mode: Literal["none", "poll", "explicit"] = Field(
        default="none",
        description="Who decides what is served while the server runs: nobody; poll, the repository, which is watched; "
        "or explicit, clients with RepositoryModelLoad and RepositoryModelUnload.",
    )
    load: ModelNames = Field(
        default="",
        description="What to load at the start with control_mode explicit: names with commas between, or * for all.",
    )
    settle_ms: int = Field(
        default=SECOND_MS,
        ge=0,
        le=HOUR_MS,
        description="With control_mode poll: a model is loaded once its files have not changed for so long.",
    )
    rescan_ms: int = Field(
        default=60 * SECOND_MS,
        ge=0,
        le=24 * HOUR_MS,
        description="With control_mode poll: how often to look without being told of a change, which network file "
        "systems do not tell; 0 never looks.",
    )
    load_timeout_ms: int = Field(
        default=600 * SECOND_MS,
        ge=0,
        le=24 * HOUR_MS,
        description="How long one version may take to load and warm up before it counts as failed; 0 waits for ever.",
    )
    trial: bool = Field(
        default=False,
        description="Have another process load each version first, so that a file which crashes ONNX Runtime crashes "
        "that one; costs the time and memory of a second load.",
    )
    follow_links: bool = Field(
        default=False,
        description="Follow links in the repository, to places inside of it; false refuses models with links.",
    )


class Batching(Section):
    """How requests wait and share runs, for each model by itself."""

    max_batch_size: int = Field(
        default=64,
        ge=1,
        le=65536,
        description="Most rows in one run, for models whose config.pbtxt does not say.",
    )
    max_queue_delay_us: int = Field(
        default=0,
        ge=0,
        le=10 * SECOND_US,
        description="How long the oldest request may wait for others while the model is free; 0 never waits.",
    )
    max_queue_rows: int = Field(
        default=16384,
        ge=1,
        description="Rows that may wait for one model; more are refused with RESOURCE_EXHAUSTED.",
    )
    max_queue_bytes: int = Field(
        default=256 * MIB,
        ge=KIB,
        description="Input bytes that may wait for one model; more are refused with RESOURCE_EXHAUSTED.",
    )
    priority_patience_ms: int = Field(
        default=SECOND_MS,
        ge=0,
        le=HOUR_MS,
        description="How long the oldest request of a lower priority waits behind higher ones before every ninth batch "
        "begins with its priority's; 0 lets it wait for ever.",
    )
    inline_us: int = Field(
        default=200,
        ge=0,
        le=100_000,
        description="Longest expected run of a batch that the event loop runs itself, which saves waking a thread but "
        "lets everything else wait so long; 0 runs all on threads.",
    )
    learn: bool = Field(
        default=True, description="Cap batches at the size where measured rows per second stop growing."
    )


class Inference(Section):
    """One inference request."""

    timeout_ms: int = Field(
        default=30 * SECOND_MS,
        ge=0,
        le=24 * HOUR_MS,
        description="Deadline for requests that bring none; 0 gives them none.",
    )
    hang_ms: int = Field(
        default=60 * SECOND_MS,
        ge=0,
        le=24 * HOUR_MS,
        description="A run that has taken so long counts as hung: liveness fails until it ends, so that whoever "
        "watches may restart the process; 0 lets runs take for ever.",
    )
    refuse_hopeless: bool = Field(
        default=True,
        description="Refuse requests at once that cannot be answered by their deadline, as fast as the model's last "
        "runs were; false queues them all the same.",
    )


class SharedMemory(Section):
    """Tensors that clients on the same machine leave in memory of theirs."""

    enabled: bool = Field(
        default=False,
        description="Let clients register system shared memory (/dev/shm) and have tensors read from it and written to "
        "it. Whoever may call the server may then name any object in there that the server can open, and learn from "
        "SystemSharedMemoryStatus what others have named, keys and all, as the protocol has it. The strings of a "
        "request may be as large as a message (`grpc.max_message_bytes`). Where the server has a GPU, so may its "
        "memory be registered, by handles of CUDA's.",
    )
    max_regions: int = Field(
        default=1024,
        ge=1,
        le=65536,
        description="Regions that may be registered at a time; each keeps a file open.",
    )


class Threads(Section):
    """CPU threads for running models."""

    cpus: float | None = Field(
        default=None,
        gt=0,
        le=4096,
        allow_inf_nan=False,
        description="CPUs to share among the models; not set means what cgroup quota and affinity allow.",
    )


class Warmup(Section):
    """What happens between loading a model and serving it."""

    budget_ms: int = Field(
        default=3 * SECOND_MS,
        ge=0,
        le=HOUR_MS,
        description="Upper bound, for each model, on the time spent measuring its run times at load.",
    )


class Drain(Section):
    """What happens between SIGTERM and the end."""

    lame_duck_ms: int = Field(
        default=0,
        ge=0,
        le=HOUR_MS,
        description="How long to go on serving after readiness is withdrawn, so that balancers notice.",
    )
    grace_ms: int = Field(
        default=30 * SECOND_MS,
        ge=0,
        le=HOUR_MS,
        description="How long accepted requests may take to finish after that.",
    )


class Settings(Section):
    """All settings of one server, consistent with each other once they exist."""

    host: Host = Field(default="0.0.0.0", description="Address that every port listens on.")
    transport: Literal["native", "grpcio"] = Field(
        default="native",
        description="What carries gRPC: native is inferd's own, grpcio is grpc.aio's server and the default where the "
        "native one was not built.",
    )
    grpc: Grpc = Grpc()
    tls: Tls = Tls()
    auth: Auth = Auth()
    http: Http = Http()
    metrics: Metrics = Metrics()
    tracing: Tracing = Tracing()
    log: Log = Log()
    control: Control = Control()
    models: Models = Models()
    batching: Batching = Batching()
    inference: Inference = Inference()
    admission: Admission = Admission()
    shared_memory: SharedMemory = SharedMemory()
    device: DeviceSettings = DeviceSettings()
    threads: Threads = Threads()
    warmup: Warmup = Warmup()
    drain: Drain = Drain()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for paths, text in _contradictions(self):
            # The paths let whoever knows the origins say where each side of the contradiction came from.
            raise PydanticCustomError("contradiction", "{text}", {"text": text, "paths": paths})
        return self


def _contradictions(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    ports = [
        ("grpc.port", settings.grpc.port),
        ("grpc.health_port", settings.grpc.health_port),
        ("http.port", settings.http.port),
    ]
    if settings.metrics.enabled:
        ports.append(("metrics.port", settings.metrics.port))
    owner: dict[int, str] = {}
    for path, port in ports:
        if port and port in owner:
            yield (owner[port], path), f"{owner[port]} and {path} are both {port}"
        owner[port] = path

    yield from tls_contradictions(settings.tls)
    yield from auth_contradictions(settings.auth)
    if settings.models.load and settings.models.control_mode != "explicit":
        yield (
            ("models.load", "models.control_mode"),
            f"models.load names what to load, which only models.control_mode explicit asks for, "
            f"not {settings.models.control_mode}",
        )
    batching, inference = settings.batching, settings.inference
    if batching.max_queue_rows < batching.max_batch_size:
        yield (
            ("batching.max_queue_rows", "batching.max_batch_size"),
            f"batching.max_queue_rows {batching.max_queue_rows} is less than "
            f"batching.max_batch_size {batching.max_batch_size}, so no batch could ever fill",
        )
    if batching.max_queue_bytes < settings.grpc.max_message_bytes:
        yield (
            ("batching.max_queue_bytes", "grpc.max_message_bytes"),
            f"batching.max_queue_bytes {batching.max_queue_bytes} is less than "
            f"grpc.max_message_bytes {settings.grpc.max_message_bytes}, "
            "so the largest message could never be queued",
        )
    if 0 < inference.timeout_ms * 1000 <= batching.max_queue_delay_us:
        yield (
            ("batching.max_queue_delay_us", "inference.timeout_ms"),
            f"batching.max_queue_delay_us {batching.max_queue_delay_us} is not shorter than "
            f"inference.timeout_ms {inference.timeout_ms}, so requests would expire while they wait",
        )
