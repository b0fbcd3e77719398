"""What all unit tests share: how hard Hypothesis tries, and that nothing native outlives a test."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest
from hypothesis import settings

from inferd._native import live

settings.register_profile("inferd", deadline=None, print_blob=True)
settings.register_profile("sanitizers", deadline=None, print_blob=True, max_examples=25, stateful_step_count=30)


def pytest_configure(config: pytest.Config) -> None:
    """Deadlines of single examples would only measure the machine."""
    profile = config.getoption("--hypothesis-profile")
    if not profile:
        settings.load_profile("inferd")
    if profile == "sanitizers" and live.snapshot() is None:
        raise pytest.UsageError(f"{live.__file__} is a release build: the sanitizers would see nothing")


@pytest.fixture(autouse=True)
def no_live_objects() -> Iterator[None]:
    """In a debug build, fail a test that leaves a request, a batch or a queued entry behind."""
    before = live.snapshot()
    yield
    if before is not None:
        gc.collect()
        assert live.snapshot() == before, "native objects are left"
