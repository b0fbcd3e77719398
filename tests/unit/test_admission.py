"""Permits: what is taken, what is refused, and that each is given back once."""

from __future__ import annotations

import gc

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from queued import request

from inferd._native.admission import Admission, Caller, let_go
from inferd._native.wire import Request
from inferd.errors import CallerBusy, Code, MemoryShort, Overloaded, ServerBusy, ServerFull

NBYTES = len(request().body)


def holding(admission: Admission, count: int, caller: Caller | None = None) -> list[Request]:
    made = [request() for _ in range(count)]
    for one in made:
        admission.admit(one, caller)
    return made


@pytest.mark.parametrize("refusal", [ServerBusy, ServerFull, CallerBusy, MemoryShort])
def test_every_refusal_says_resource_exhausted_and_why(refusal: type[Overloaded]) -> None:
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    assert refusal.retryable
    assert refusal.shed_for not in ("", "queue")
    assert "admission" in refusal().public_text


def test_no_bound_takes_everything() -> None:
    admission = Admission()
    held = holding(admission, 1000, admission.connection())
    assert (admission.requests, admission.bytes) == (1000, 1000 * NBYTES)
    for one in held:
        let_go(one)
    assert (admission.requests, admission.bytes) == (0, 0)


def test_requests_beyond_the_bound_are_refused_until_one_has_its_end() -> None:
    admission = Admission(max_requests=3)
    first, *_ = holding(admission, 3)
    with pytest.raises(ServerBusy):
        admission.admit(request())
    let_go(first)
    admission.admit(request())


def test_bytes_beyond_the_bound_are_refused_but_an_idle_server_takes_any_request() -> None:
    admission = Admission(max_bytes=NBYTES - 1)
    [first] = holding(admission, 1)
    with pytest.raises(ServerFull):
        admission.admit(request())
    let_go(first)
    admission.admit(request())


def test_a_permit_is_given_back_once_however_often_it_is_let_go() -> None:
    admission = Admission(max_requests=2)
    first, _ = holding(admission, 2)
    let_go(first)
    let_go(first)
    assert admission.requests == 1


def test_a_request_has_one_permit_at_a_time() -> None:
    admission = Admission()
    [first] = holding(admission, 1)
    with pytest.raises(ValueError, match="admitted twice"):
        admission.admit(first)


def test_a_caller_may_hold_as_much_as_it_leaves_free() -> None:
    admission = Admission(max_requests=12)
    greedy, second, polite = (admission.connection() for _ in range(3))
    holding(admission, 6, greedy)
    with pytest.raises(CallerBusy):
        admission.admit(request(), greedy)
    holding(admission, 3, second)
    with pytest.raises(CallerBusy):
        admission.admit(request(), second)
    # However greedy the others are, who holds nothing is let in.
    admission.admit(request(), polite)


def test_the_same_holds_of_bytes() -> None:
    admission = Admission(max_bytes=10 * NBYTES)
    greedy = admission.connection()
    holding(admission, 5, greedy)
    with pytest.raises(CallerBusy):
        admission.admit(request(), greedy)
    admission.admit(request(), admission.connection())


def test_a_caller_may_have_a_bound_of_its_own() -> None:
    admission = Admission(max_caller_requests=2)
    one, other = admission.connection(), admission.connection()
    held = holding(admission, 2, one)
    with pytest.raises(CallerBusy):
        admission.admit(request(), one)
    admission.admit(request(), other)
    let_go(held[0])
    admission.admit(request(), one)


def test_callers_of_one_name_are_one_caller_while_anybody_holds_it() -> None:
    admission = Admission()
    first = admission.caller("alice")
    assert admission.caller("alice") is first
    assert admission.caller("bob") is not first
    assert admission.connection().number != first.number
    [held] = holding(admission, 1, first)
    del first
    gc.collect()
    assert admission.caller("alice").requests == 1
    let_go(held)


def test_while_memory_is_short_only_small_requests_are_taken() -> None:
    admission = Admission()
    admission.spare_bytes = NBYTES
    with pytest.raises(MemoryShort):
        admission.admit(request())
    admission.spare_bytes = NBYTES + 1
    admission.admit(request())
    admission.spare_bytes = 0
    admission.admit(request())


class Permits(RuleBasedStateMachine):
    """Callers that come and go against sums made anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(max_requests=8, max_bytes=40 * NBYTES, max_caller_requests=5)
        self.callers = [self.admission.caller(name) for name in "abc"]
        self.held: list[tuple[Request, Caller]] = []

    @rule(who=st.integers(0, 2), width=st.sampled_from([1, 1, 500]))
    def come(self, who: int, width: int) -> None:
        made, caller = request(1, width), self.callers[who]
        own = [one for one, owner in self.held if owner is caller]
        nbytes, all_bytes = len(made.body), sum(len(one.body) for one, _ in self.held)
        own_bytes = sum(len(one.body) for one in own)
        free = 8 - len(self.held)
        expected: type[Overloaded] | None = None
        if not free:
            expected = ServerBusy
        elif self.held and all_bytes + nbytes > 40 * NBYTES:
            expected = ServerFull
        elif own and (len(own) >= 5 or len(own) >= free or own_bytes + nbytes > 40 * NBYTES - all_bytes):
            expected = CallerBusy
        if expected is None:
            self.admission.admit(made, caller)
            self.held.append((made, caller))
            return
        with pytest.raises(expected):
            self.admission.admit(made, caller)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        let_go(self.held.pop(at)[0])

    @invariant()
    def sums_agree(self) -> None:
        assert self.admission.requests == len(self.held)
        assert self.admission.bytes == sum(len(one.body) for one, _ in self.held)
        for caller in self.callers:
            assert caller.requests == sum(owner is caller for _, owner in self.held)


TestPermits = Permits.TestCase
