"""Which transport carries gRPC."""

from __future__ import annotations

import asyncio
import logging
import sys

import pytest

from inferd.config import Settings
from inferd.errors import StartError
from inferd.models import Models
from inferd.rpc.grpcio import GrpcioServer
from inferd.rpc.inference import InferenceService
from inferd.rpc.transport import Transport, open_transport


def opened(settings: Settings) -> Transport:
    async def main() -> Transport:
        models = Models()
        return open_transport(settings, models, InferenceService(models, settings, "0"))

    return asyncio.run(main())


@pytest.fixture
def not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that had no nghttp2 headers."""
    for name in [name for name in sys.modules if name.startswith("inferd.rpc.native")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "inferd._native.infer", None)
    monkeypatch.setitem(sys.modules, "inferd._native.h2", None)


def test_it_is_the_native_one_unless_told_otherwise() -> None:
    from inferd.rpc.native.transport import NativeTransport

    assert isinstance(opened(Settings()), NativeTransport)
    assert isinstance(opened(Settings(transport="grpcio")), GrpcioServer)


@pytest.mark.usefixtures("not_built")
def test_where_the_native_one_was_not_built_grpcio_takes_its_place_and_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        assert isinstance(opened(Settings()), GrpcioServer)
    assert "the native transport was not built" in caplog.text


@pytest.mark.usefixtures("not_built")
def test_where_the_native_one_was_not_built_asking_for_it_says_what_to_install() -> None:
    with pytest.raises(StartError, match="libnghttp2-dev"):
        opened(Settings(transport="native"))
