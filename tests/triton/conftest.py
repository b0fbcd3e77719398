"""The two servers, with the same models."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import grpc
import pytest
from serve.process import Server

from . import repository
from .cases.regions import SEGMENT_BYTES, SEGMENTS
from .oracle import Oracle, oracle

TRANSPORTS = ("native", "grpcio")
# As in the other folders: batch sizes are not measured at load and not limited by it.
UNLEARNT = ("--warmup-budget-ms=0", "--batching-learn=false")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that all serve."""
    return repository.build(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def real(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """A real Triton."""
    with oracle(models, tmp_path_factory.mktemp("triton"), *repository.TRITON_FLAGS) as running:
        yield running


@pytest.fixture(scope="session")
def started(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """inferd on a transport, started when it is first asked for."""
    running: dict[str, Server] = {}
    with ExitStack() as ends:

        def get(transport: str) -> Server:
            if transport not in running:
                flags = (*UNLEARNT, *repository.INFERD_FLAGS)
                one = Server(models, tmp_path_factory.mktemp(transport), transport, flags, {})
                ends.enter_context(one.while_ready())
                running[transport] = one
            return running[transport]

        yield get


@pytest.fixture(scope="session", params=TRANSPORTS)
def server(request: pytest.FixtureRequest, started: Callable[[str], Server]) -> Server:
    """inferd on each of its transports."""
    return started(request.param)


@pytest.fixture(scope="session")
def inferd(server: Server) -> Iterator[grpc.Channel]:
    """A connection to inferd."""
    with server.channel() as channel:
        yield channel


@pytest.fixture(scope="session", autouse=True)
def segments() -> Iterator[None]:
    """The shared memory that cases/regions.py is about."""
    made = [SharedMemory(name, create=True, size=SEGMENT_BYTES) for name in SEGMENTS]
    yield
    for one in made:
        one.close()
        one.unlink()


@pytest.fixture(scope="session")
def triton(real: Oracle) -> Iterator[grpc.Channel]:
    """A connection to the real Triton."""
    with real.channel() as channel:
        yield channel


@pytest.fixture(params=(*TRANSPORTS, "triton"))
def address(request: pytest.FixtureRequest) -> str:
    """Where a client goes: to inferd on each of its transports, and to the real Triton, which judges the test."""
    if request.param == "triton":
        return str(request.getfixturevalue("real").address)
    return str(request.getfixturevalue("started")(request.param).address)
