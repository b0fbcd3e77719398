"""inferd and a real Triton, asked the same: the same codes, names, shapes, types, bytes, parameters and ids.

What differs, differs by intention and is a row of the table in docs/triton.md.
"""

from __future__ import annotations

from collections.abc import Callable

import grpc
import pytest

from .answers import Answer, ask, compared
from .cases import CASES
from .cases.case import Case


@pytest.fixture(scope="session")
def of_triton(triton: grpc.Channel) -> Callable[[Case], list[Answer]]:
    """What Triton answers to a case; it is asked once."""
    known: dict[int, list[Answer]] = {}

    def answers(case: Case) -> list[Answer]:
        # Messages are no keys, and names are not alone: each table has its own unknown model.
        if id(case) not in known:
            known[id(case)] = ask(triton, case.calls, at_once=case.at_once)
        return known[id(case)]

    return answers


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_inferd_answers_as_triton_does(
    case: Case, of_triton: Callable[[Case], list[Answer]], inferd: grpc.Channel
) -> None:
    theirs, ours = of_triton(case), ask(inferd, case.calls, at_once=case.at_once)
    if case.difference is None:
        assert compared(ours) == compared(theirs)
    else:
        seen = case.difference.seen
        assert (seen(theirs), seen(ours)) == (case.difference.triton, case.difference.inferd)
