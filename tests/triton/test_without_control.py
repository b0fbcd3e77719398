"""inferd and a real Triton, neither of which lets clients load or unload, asked the same."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import grpc
import pytest
from serve.process import Server

from . import repository
from .answers import ask, compared
from .cases import UNCONTROLLED
from .cases.case import Case
from .oracle import oracle


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[grpc.Channel, grpc.Channel]]:
    """Triton and inferd; what they share of this goes the same way on both transports."""
    models = repository.build_one(tmp_path_factory.mktemp("models"))
    with ExitStack() as ends:
        real = ends.enter_context(oracle(models, tmp_path_factory.mktemp("triton"), "--model-control-mode=none"))
        ours = Server(models, tmp_path_factory.mktemp("inferd"), "native", ("--warmup-budget-ms=0",), {})
        ends.enter_context(ours.while_ready())
        yield ends.enter_context(real.channel()), ends.enter_context(ours.channel())


@pytest.mark.parametrize("case", UNCONTROLLED.values(), ids=UNCONTROLLED)
def test_what_is_served_is_not_for_clients_to_decide(case: Case, both: tuple[grpc.Channel, grpc.Channel]) -> None:
    theirs, ours = (ask(one, case.calls) for one in both)
    if case.difference is None:
        assert compared(ours) == compared(theirs)
    else:
        seen = case.difference.seen
        assert (seen(theirs), seen(ours)) == (case.difference.triton, case.difference.inferd)
