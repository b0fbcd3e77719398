"""Fair turns: however much one caller sends, others are served as if it had sent little."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from queued import queue, request, taken

from inferd._native.admission import Admission
from inferd._native.queue import BatchQueue
from inferd._native.schedule import Schedule
from inferd._native.wire import Request
from inferd.repository import QueuePolicy


class Callers:
    """Requests of callers that are told apart by name."""

    def __init__(self) -> None:
        self._admission = Admission()
        self._callers = {name: self._admission.connection() for name in "abcd"}

    def weigh(self, **weights: int) -> None:
        for name, weight in weights.items():
            self._callers[name] = self._admission.caller(name, weight)

    def put(self, line: BatchQueue, name: str, count: int = 1, *, rows: int = 1, priority: int = 0) -> list[Request]:
        made = [request(rows, id=name, priority=priority) for _ in range(count)]
        for one in made:
            self.admit(one, name)
            line.put(one, 0)
        return made

    def admit(self, one: Request, name: str) -> None:
        self._admission.admit(one, self._callers[name])


@pytest.fixture
def callers() -> Iterator[Callers]:
    made = Callers()
    yield made
    # pytest holds what it gave to a test longer than a debug build counts.
    vars(made).clear()


def served(line: BatchQueue, batches: int) -> list[str]:
    """Whose requests the next batches are, in order."""
    return ["".join(one.id for one in taken(line.take(0)).members) for _ in range(batches)]


def test_one_caller_alone_fills_every_batch_in_order(callers: Callers) -> None:
    line = queue(batch_rows=4)
    sent = callers.put(line, "a", 12)
    assert [one for _ in range(3) for one in taken(line.take(0)).members] == sent


def test_a_polite_caller_waits_for_one_batch_of_the_greedy_one_and_not_for_all(callers: Callers) -> None:
    line = queue(batch_rows=1)
    callers.put(line, "a", 900)
    callers.put(line, "b")
    assert served(line, 3) == ["a", "b", "a"]


def test_greedy_callers_share_rows_in_turns(callers: Callers) -> None:
    line = queue(batch_rows=2)
    for name in "abc":
        callers.put(line, name, 20)
    assert served(line, 6) == ["aa", "bb", "cc", "aa", "bb", "cc"]


def test_rows_count_and_not_requests(callers: Callers) -> None:
    line = queue(batch_rows=4)
    callers.put(line, "a", 10, rows=4)
    callers.put(line, "b", 40)
    assert served(line, 4) == ["a", "bbbb", "a", "bbbb"]


def test_a_caller_of_weight_3_gets_three_batches_for_each_of_the_others(callers: Callers) -> None:
    callers.weigh(a=3)
    line = queue(batch_rows=2)
    for name in "abc":
        callers.put(line, name, 60)
    turn = ["aa", "aa", "aa", "bb", "cc"]
    assert served(line, 15) == turn * 3


def test_a_weight_is_the_one_of_the_callers_last_request(callers: Callers) -> None:
    line = queue(batch_rows=1)
    callers.put(line, "a", 10)
    callers.put(line, "b", 10)
    callers.weigh(a=1)
    again = queue(batch_rows=1)
    callers.put(again, "a", 10)
    callers.put(again, "b", 10)
    callers.weigh(a=2)
    callers.put(again, "a", 1)
    assert "".join(served(line, 8)) == "abababab"
    # What may stand in line now follows as soon as one of its own leaves.
    assert "".join(served(again, 8)) == "abaabaab"


@pytest.mark.parametrize("seed", range(8))
def test_shares_of_rows_tend_to_the_weights_and_nobody_starves(callers: Callers, seed: int) -> None:
    chance = random.Random(seed)
    batch_rows = chance.choice([1, 4, 8])
    weights = {name: chance.choice([1, 1, 2, 3, 5, 10]) for name in "abcd"}
    callers.weigh(**weights)
    line = queue(batch_rows=batch_rows, max_queue_rows=1 << 20)
    waiting = dict.fromkeys(weights, 0)
    rows = dict.fromkeys(weights, 0)
    in_a_row, longest = dict.fromkeys(weights, 0), dict.fromkeys(weights, 0)
    for _ in range(60 * sum(weights.values())):
        # Everybody always has more waiting than may stand in line.
        for name in chance.sample("abcd", 4):
            while waiting[name] < 2 * batch_rows * weights[name]:
                size = chance.randint(1, batch_rows)
                waiting[name] += size
                callers.put(line, name, rows=size)
        members = taken(line.take(0)).members
        for one in members:
            waiting[one.id] -= one.rows
            rows[one.id] += one.rows
        for name in weights:
            in_a_row[name] = 0 if name in {one.id for one in members} else in_a_row[name] + 1
            longest[name] = max(longest[name], in_a_row[name])
    shares = {name: rows[name] / sum(rows.values()) for name in weights}
    for name, weight in weights.items():
        # Requests that do not fill their room to the last row cost a caller part of a batch per turn at most.
        assert shares[name] == pytest.approx(weight / sum(weights.values()), rel=0.35), (seed, weights, shares)
        # All others' turns, whose batches may be cut in two where a request does not fit.
        assert longest[name] <= 2 * (sum(weights.values()) - weight) + 2, (seed, weights, longest)


def test_the_requests_of_one_caller_stay_in_order(callers: Callers) -> None:
    line = queue(batch_rows=2)
    first = callers.put(line, "a", 9)
    callers.put(line, "b", 9)
    found = [one for _ in range(9) for one in taken(line.take(0)).members if one.id == "a"]
    assert found == first


def test_turns_are_within_a_level(callers: Callers) -> None:
    line = queue(batch_rows=1, schedule=Schedule([QueuePolicy(), QueuePolicy()], default_level=2))
    callers.put(line, "a", 5, priority=1)
    callers.put(line, "b", 2, priority=2)
    assert served(line, 7) == ["a"] * 5 + ["b"] * 2


def test_a_parked_request_can_be_dropped_and_expires(callers: Callers) -> None:
    line = queue(batch_rows=1)
    mine = callers.put(line, "a", 3)
    other = callers.put(line, "b")
    assert line.drop(mine[2])
    assert line.requests == 3
    late = request(deadline_ns=5, id="a")
    callers.admit(late, "a")
    line.put(late, 0)
    assert line.expire(5) == [late]
    assert [taken(line.take(5)).members for _ in range(3)] == [[mine[0]], other, [mine[1]]]
    assert line.take(5) is None


def test_what_is_left_parked_is_given_back_with_the_queue(callers: Callers) -> None:
    line = queue(batch_rows=1)
    sent = callers.put(line, "a", 3) + callers.put(line, "b", 3)
    del line
    again = queue()
    for one in sent:
        again.put(one, 0)
    assert again.requests == 6
