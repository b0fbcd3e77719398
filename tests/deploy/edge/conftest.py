"""Three servers, two of them replicas of each other and one the canary, and each proxy in front of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx_models as models
import pytest
from serve.conftest import UNLEARNT
from serve.process import Server

from .certificates import Certificates
from .edges import EDGES, Edge

LAME_DUCK = "--drain-lame-duck-ms=1000"


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def scale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one model, which doubles what it is given."""
    folder = tmp_path_factory.mktemp("repository")
    models.write(folder, "scale", models.scale())
    return folder


@pytest.fixture(scope="session")
def servers(scale: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    """Two replicas and the canary, ready."""
    started = [
        Server(scale, tmp_path_factory.mktemp("server"), "native", (*UNLEARNT, "--threads-cpus=1"), {})
        for _ in range(3)
    ]
    try:
        for one in started:
            one.wait_until_ready()
        yield started
    finally:
        for one in started:
            one.stop()


@pytest.fixture(scope="session", params=EDGES)
def edge(
    request: pytest.FixtureRequest,
    servers: list[Server],
    certificates: Certificates,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Edge]:
    """A proxy in front of all three, for tests that leave it as they found it."""
    kind: str = request.param
    ports = [one.grpc_port for one in servers]
    started = EDGES[kind](tmp_path_factory.mktemp(kind), certificates, ports[:2], ports[2])
    try:
        started.wait_until_ready()
        yield started
    finally:
        started.stop()
