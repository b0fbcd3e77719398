"""docs/reliability.md names tests that there are, and has all groups."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "reliability.md").read_text()
ROWS = {int(number): row for number, row in re.findall(r"^\| (\d+) (\|.*)$", PAGE, flags=re.M)}
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)))


def test_every_group_has_a_row_with_a_test() -> None:
    assert sorted(ROWS) == list(range(1, 22))
    for number, row in ROWS.items():
        assert "::test_" in row, number


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_the_page_names_is_there(file: str, name: str) -> None:
    tree = ast.parse((TESTS / file).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
