"""Where `make tools` puts Triton and perf_analyzer, and what a test does where they are not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import pytest

HERE = Path(__file__).resolve().parent
SITE = HERE.parents[1] / "build" / "tools" / "triton"


def absent(reason: str) -> NoReturn:
    """Skip the test; but CI has installed everything, so there it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
