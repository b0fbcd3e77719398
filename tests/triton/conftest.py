"""The two servers, with the same models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from serve.process import Server

from . import repository
from .oracle import oracle

# As in the other folders: batch sizes are not measured at load and not limited by it.
UNLEARNT = ("--warmup-budget-ms=0", "--batching-learn=false")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository that both serve."""
    return repository.build(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="session")
def triton(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    """A connection to a real Triton."""
    with (
        oracle(models, tmp_path_factory.mktemp("triton"), *repository.TRITON_FLAGS) as running,
        running.channel() as channel,
    ):
        yield channel


@pytest.fixture(scope="session", params=["native", "grpcio"])
def server(request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """inferd on each of its transports."""
    folder = tmp_path_factory.mktemp("inferd")
    running = Server(models, folder, request.param, (*UNLEARNT, *repository.INFERD_FLAGS), {})
    with running.while_ready():
        yield running


@pytest.fixture(scope="session")
def inferd(server: Server) -> Iterator[grpc.Channel]:
    """A connection to inferd."""
    with server.channel() as channel:
        yield channel
