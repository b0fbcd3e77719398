"""docs/triton.md names what there is, and says of the differences what the tests see."""

from __future__ import annotations

import re

from inferd.config.leaves import leaves
from inferd.config.names import FLAGS_ELSEWHERE

from . import oracle
from .cases import DIFFERENCES
from .page import PAGE, written

FLAG = re.compile(r"--[a-z0-9-]+")


def columns_of_flags() -> tuple[set[str], set[str]]:
    """The flags of Triton and of inferd that stand in the table of flags."""
    section = PAGE.read_text().split("\n## Flags\n")[1].split("\n## ")[0]
    cells = [line.split("|") for line in section.splitlines() if line.startswith("| ")][1:]
    assert cells
    theirs, ours = (set(FLAG.findall(" ".join(row[at] for row in cells))) for at in (1, 2))
    return theirs, ours | set(FLAG.findall(" ".join(row[3] for row in cells)))


def test_the_page_has_the_table_that_the_cases_make() -> None:
    page = PAGE.read_text()
    assert page == written(page), "`make docs` writes it"


def test_what_stands_in_the_table_differs() -> None:
    assert [one.what for one in DIFFERENCES if one.triton == one.inferd] == []


def test_inferd_has_the_flags_that_the_page_names() -> None:
    _, ours = columns_of_flags()
    assert ours - {leaf.flag for leaf in leaves()} - set(FLAGS_ELSEWHERE) == set()


def test_triton_has_the_flags_that_the_page_names() -> None:
    theirs, _ = columns_of_flags()
    assert theirs - oracle.flags() == set()
