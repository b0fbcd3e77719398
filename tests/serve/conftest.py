"""Servers to talk to: `zoo` has every model and is shared, `server` starts one for a single test."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_models as models
import pytest
from grpc import Channel

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from .process import BUG, Server, command

# Every test below runs on each of them.
TRANSPORTS = ("grpcio", "native")

# Tests are after behaviour, not speed: batch sizes are not measured at load and not limited by it.
UNLEARNT = ("--warmup-budget-ms=0", "--batching-learn=false")

BATCH_OF_4 = "max_batch_size: 4 dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 200000 }"
SLOW_ALONE = "max_batch_size: 1"
SLOW_BOUNDED = "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 2 } }"


@pytest.fixture(scope="session", params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """What carries gRPC in this run of the suite."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def zoo(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A ready server with one model of every kind, for tests that leave it as they found it."""
    folder = tmp_path_factory.mktemp("zoo")
    started = Server(build_zoo(folder / "repository"), folder, transport, UNLEARNT, {})
    with started.while_ready():
        yield started


@pytest.fixture
def channel(zoo: Server) -> Iterator[Channel]:
    """A connection to the zoo."""
    with zoo.channel() as opened:
        yield opened


@pytest.fixture
def stub(channel: Channel) -> GRPCInferenceServiceStub:
    """The generated stub, connected to the zoo."""
    return GRPCInferenceServiceStub(channel)


@pytest.fixture(scope="module")
def lazy(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with slow models only: its metrics page is short enough to be read many times a second."""
    folder = tmp_path_factory.mktemp("lazy")
    models.write(folder / "repository", "slow", models.slow(), config=SLOW_ALONE)
    models.write(folder / "repository", "slow_bounded", models.slow(), config=SLOW_BOUNDED)
    started = Server(folder / "repository", folder, transport, ("--warmup-budget-ms=0",), {})
    with started.while_ready():
        yield started


@pytest.fixture
def lazy_stub(lazy: Server) -> Iterator[GRPCInferenceServiceStub]:
    """The generated stub, connected to it."""
    with lazy.stub() as connected:
        yield connected


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository, empty."""
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


@pytest.fixture
def launch(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers without waiting for them: ``launch(path, "--flag=value", env={})``.

    All are stopped at the end of the test, and must end well.
    """
    started: list[Server] = []

    def start(path: Path, *flags: str, env: dict[str, str] | None = None, grpc_port: int | None = None) -> Server:
        folder = tmp_path_factory.mktemp("server")
        started.append(Server(path, folder, transport, (*UNLEARNT, *flags), env or {}, grpc_port))
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def server(launch: Callable[..., Server]) -> Callable[..., Server]:
    """Like `launch`, but the servers are ready."""

    def start(path: Path, *flags: str, env: dict[str, str] | None = None, grpc_port: int | None = None) -> Server:
        one = launch(path, *flags, env=env, grpc_port=grpc_port)
        one.wait_until_ready()
        return one

    return start


@dataclass(frozen=True)
class Refusal:
    """How a server that did not start ended."""

    code: int
    stdout: str
    lines: list[str]


@pytest.fixture
def refused(transport: str) -> Callable[..., Refusal]:
    """Runs servers that cannot start, to their end: ``refused(path, "--flag=value")``. Log lines are left out."""

    def run(path: Path, *flags: str) -> Refusal:
        ports = ("--grpc-port=0", "--http-port=0", "--metrics-port=0")
        done = subprocess.run(
            [*command(path, transport), *ports, *UNLEARNT, *flags],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert BUG not in done.stderr, done.stderr
        said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
        return Refusal(done.returncode, done.stdout, said)

    return run


def build_zoo(repository: Path) -> Path:
    """One model of every kind that models.py makes."""
    for datatype in models.ELEMENT_TYPES:
        models.write(repository, f"identity_{datatype}", models.identity(datatype, ["rows", 3]))
        models.write(repository, f"fixed_{datatype}", models.identity(datatype, [2, 3]))
    models.write(repository, "mlp", models.mlp())
    models.write(repository, "scale", models.scale())
    models.write(repository, "scale_by_4", models.scale(), config=BATCH_OF_4)
    models.write(repository, "scalar", models.scale(dims=[]))
    models.write(repository, "no_batch", models.scale(dims=[4]))
    models.write(repository, "two_by_two", models.two_by_two())
    models.write(repository, "broadcast", models.two_by_two(b_rows="other"))
    models.write(repository, "nonzero", models.nonzero())
    models.write(repository, "sequence", models.sequence())
    models.write(repository, "embedding", models.embedding())
    models.write(repository, "embedding_by_4", models.embedding(), config=BATCH_OF_4)
    models.write(repository, "coupled", models.coupled())
    models.write(repository, "many_outputs", models.many_outputs())
    models.write(repository, "slow", models.slow(), config=SLOW_ALONE)
    for version, factor in ((1, 10.0), (3, 30.0)):
        config = "" if version == 1 else "version_policy { all { } }"
        models.write(repository, "versioned", models.scale(factor), version=version, config=config)
    return repository
