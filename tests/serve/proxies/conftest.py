"""Each proxy before each transport: `front` stands before one server, `fronting` starts more of its kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import onnx_models as models
import pytest

from inferd.proto.inference_pb2_grpc import GRPCInferenceServiceStub

from ..conftest import SLOW_ALONE, UNLEARNT
from ..process import Server
from .front import FRONTS, Front

MAX_MESSAGE_BYTES = 8 * 1024 * 1024
SLOW_BOUNDED = "max_batch_size: 1 dynamic_batching { default_queue_policy { max_queue_size: 2 } }"


@pytest.fixture(scope="session", params=FRONTS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which proxy stands in front."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def origin(transport: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server behind `front`."""
    folder = tmp_path_factory.mktemp("origin")
    models.write(folder / "repository", "scale", models.scale())
    models.write(folder / "repository", "alone", models.scale(), config="max_batch_size: 0")
    models.write(folder / "repository", "slow", models.slow(), config=SLOW_ALONE)
    models.write(folder / "repository", "slow_bounded", models.slow(), config=SLOW_BOUNDED)
    flags = (*UNLEARNT, f"--grpc-max-message-bytes={MAX_MESSAGE_BYTES}")
    started = Server(folder / "repository", folder, transport, flags, {})
    with started.while_ready():
        yield started


@pytest.fixture(scope="session")
def front(kind: str, origin: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    """A proxy in front of `origin`, for tests that leave both as they found them."""
    started = FRONTS[kind]([origin.grpc_port], tmp_path_factory.mktemp(kind), {})
    try:
        started.wait_until_listening()
        yield started
    finally:
        started.stop()


@pytest.fixture
def channel(front: Front) -> Iterator[grpc.Channel]:
    """A connection to the proxy."""
    with front.channel() as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> GRPCInferenceServiceStub:
    """The generated stub, connected to the proxy."""
    return GRPCInferenceServiceStub(channel)


@pytest.fixture
def fronting(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Front]]:
    """Starts proxies of one kind in front of some ports: ``fronting([1234, 5678], {"a line": "as it is now"})``."""
    started: list[Front] = []

    def start(replicas: list[int], changes: dict[str, str] | None = None) -> Front:
        started.append(FRONTS[kind](replicas, tmp_path_factory.mktemp(kind), changes or {}))
        started[-1].wait_until_listening()
        return started[-1]

    yield start
    for one in started:
        one.stop()


@pytest.fixture
def scale(repository: Path) -> Path:
    """A repository with one model, which doubles what it is given."""
    models.write(repository, "scale", models.scale())
    return repository
