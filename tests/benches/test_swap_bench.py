"""`python -m bench swap`: a real server whose versions take over under load, and what is said of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.swap import measure, table
from bench.works import prepare, works


@pytest.mark.parametrize("transport", ["native", "grpcio"])
def test_each_round_has_a_swap_and_no_request_is_lost(tmp_path: Path, transport: str) -> None:
    found = measure(prepare(works()["mlp"], tmp_path), 200.0, rounds=2, seconds=0.5, transport=transport)
    assert len(found["ratios"]) == len(found["load_s"]) == 2
    assert found["failed"] == 0
    assert found["answered"] > 200 * 0.5 * 2
    assert all(seconds > 0 for seconds in found["load_s"])
    shown = table([found])
    assert shown.row_count == 1
