"""What the tests of every folder share, and which of them stay together when several run at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.register_assert_rewrite("parity")  # what it compares is shown, as in a test; before any folder imports it

HERE = Path(__file__).resolve().parent
# Their tests share servers that take seconds to start.
TOGETHER = {"serve", "triton", "interop"}


# First, because pytest-xdist reads the marks in the same hook.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the group that one worker runs whole: those that share a server, else those of a file."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))


def _group(item: pytest.Item) -> str:
    folder, *_, file = item.path.relative_to(HERE).parts
    transport = (
        item.callspec.params.get("transport")
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
        else None
    )
    if folder in TOGETHER:
        return f"{folder} {transport}" if transport else folder
    return f"{folder}/{file}"
