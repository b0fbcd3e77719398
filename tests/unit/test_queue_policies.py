"""How long requests may wait and how many: queue policies, and the parameter `timeout`."""

from __future__ import annotations

import pytest
from queued import queue, request, taken

from inferd._native.queue import BatchQueue
from inferd._native.schedule import Schedule
from inferd._native.wire import Request
from inferd.errors import DeadlineExceeded, Overloaded
from inferd.repository import QueuePolicy

ANY = QueuePolicy()
REJECT = QueuePolicy("reject", 5000)
REJECT_OR_SHORTER = QueuePolicy("reject", 5000, True)
REJECT_IF_ASKED = QueuePolicy("reject", 0, True)
DELAY = QueuePolicy("delay", 5000)
DELAY_OR_SHORTER = QueuePolicy("delay", 5000, True)
NEVER = QueuePolicy("delay", 0)


def put(found: BatchQueue, made: Request, now_ns: int = 0) -> Request:
    found.put(made, now_ns)
    return made


def drained(found: BatchQueue, now_ns: int = 0) -> list[list[Request]]:
    batches = []
    while (batch := found.take(now_ns)) is not None:
        batches.append(batch.members)
    return batches


def refused_at(schedule: Schedule | None, made: Request) -> int | None:
    """When a request that comes at 1000 is refused for having waited too long; None if it never is."""
    found = queue(schedule=schedule)
    found.put(made, 1000)
    at = found.overdue_ns()
    if at is None:
        assert found.expire(1 << 62) == []
        return None
    assert found.expire(at - 1) == []
    late = found.expire(at)
    assert late == [made]
    assert isinstance(made.error, DeadlineExceeded)
    assert found.requests == 0
    return at


# --- the parameter and the policies --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "timeout_us", "deadline_ns", "refused_ns"),
    [
        # No word of a timeout: the parameter is a deadline, and the sooner of the two counts.
        (None, 0, 0, None),
        (None, 2, 0, 3000),
        (None, 2, 2500, 2500),
        (None, 2, 9000, 3000),
        (ANY, 2, 9000, 3000),
        (QueuePolicy(max_queue_size=3), 2, 0, 3000),
        # A time of the operator's, which the client cannot change.
        (REJECT, 0, 0, 6000),
        (REJECT, 2, 0, 6000),
        (REJECT, 0, 1500, 1500),
        # Which it can shorten.
        (REJECT_OR_SHORTER, 0, 0, 6000),
        (REJECT_OR_SHORTER, 2, 0, 3000),
        (REJECT_OR_SHORTER, 9, 0, 6000),
        # Where there is none, any is shorter.
        (REJECT_IF_ASKED, 0, 0, None),
        (REJECT_IF_ASKED, 9, 0, 10000),
        # Delayed, and so never refused but by a deadline.
        (DELAY, 0, 0, None),
        (NEVER, 2, 0, None),
    ],
)
def test_the_time_that_a_request_may_wait(
    policy: QueuePolicy | None, timeout_us: int, deadline_ns: int, refused_ns: int | None
) -> None:
    schedule = None if policy is None else Schedule([policy])
    made = request(timeout_us=timeout_us, deadline_ns=deadline_ns)
    if policy in (DELAY, NEVER):
        found = queue(schedule=schedule)
        put(found, made, 1000)
        assert found.expire(1 << 62) == []
        assert drained(found) == [[made]]
        return
    assert refused_at(schedule, made) == refused_ns


@pytest.mark.parametrize("schedule", [None, Schedule([ANY]), Schedule([REJECT_IF_ASKED])])
@pytest.mark.parametrize("timeout_us", [1 << 53, (1 << 63) - 1])
def test_a_timeout_beyond_all_clocks_is_none(schedule: Schedule | None, timeout_us: int) -> None:
    assert refused_at(schedule, request(timeout_us=timeout_us)) is None


def test_a_timeout_that_is_a_deadline_is_seen_as_one() -> None:
    for schedule in (None, Schedule([ANY])):
        found = queue(schedule=schedule)
        assert put(found, request(timeout_us=2), 1000).deadline_ns == 3000
        assert put(found, request(timeout_us=2, deadline_ns=2000), 1000).deadline_ns == 2000
    found = queue(schedule=Schedule([REJECT_OR_SHORTER]))
    assert put(found, request(timeout_us=2), 1000).deadline_ns == 0


def test_a_request_says_what_it_ran_out_of() -> None:
    found = queue(schedule=Schedule([QueuePolicy("reject", 3_000_000)]))
    put(found, request(deadline_ns=1))
    put(found, request())
    deadline, waiting = found.expire(3_000_000)
    assert str(deadline.error) == "the deadline passed after 3 ms in the queue of model 'm'; nothing ran"
    assert str(waiting.error) == "its time to wait was over after 3 ms in the queue of model 'm'; nothing ran"


def test_a_request_that_is_taken_in_time_is_not_refused() -> None:
    found = queue(schedule=Schedule([REJECT]))
    made = put(found, request())
    assert taken(found.take(4999)).members == [made]
    assert (found.expire(6000), made.error) == ([], None)


def test_a_refused_request_waits_anew_when_it_is_put_again() -> None:
    found = queue(schedule=Schedule([REJECT]))
    made = put(found, request())
    assert found.drop(made)
    put(found, made, 4000)
    assert found.expire(5000) == []
    assert found.overdue_ns() == 9000


def test_nothing_is_overdue_in_an_empty_queue() -> None:
    found = queue(schedule=Schedule([REJECT]))
    assert found.overdue_ns() is None
    put(found, request())
    assert found.overdue_ns() == 5000
    found.take(0)
    assert found.overdue_ns() is None


def test_a_time_to_wait_is_due_before_the_delay() -> None:
    found = queue(max_delay_ns=9000, schedule=Schedule([REJECT]))
    put(found, request())
    assert found.due_ns() == 5000


# --- delay ---------------------------------------------------------------------------------------------


def test_a_delayed_request_goes_behind_all_others_even_those_that_come_later() -> None:
    found = queue(batch_rows=1, schedule=Schedule([DELAY_OR_SHORTER, ANY], default_level=1))
    late = put(found, request(timeout_us=1))
    in_time = put(found, request())
    low = put(found, request(priority=2))
    assert found.expire(1000) == []
    last = put(found, request(priority=2), 1000)
    assert drained(found, 1000) == [[in_time], [low], [last], [late]]


def test_delayed_requests_leave_in_the_order_in_which_they_came_to_be_late() -> None:
    found = queue(batch_rows=1, schedule=Schedule([DELAY_OR_SHORTER]))
    a, b, c = (put(found, request(timeout_us=us)) for us in (3, 1, 2))
    for now_ns in (1000, 2000, 3000):
        assert found.expire(now_ns) == []
    assert drained(found) == [[b], [c], [a]]


def test_a_delayed_request_may_use_room_that_is_left_in_a_batch() -> None:
    found = queue(batch_rows=3, schedule=Schedule([DELAY_OR_SHORTER]))
    late = put(found, request(timeout_us=1))
    other = put(found, request(width=2))
    in_time = put(found, request())
    found.expire(1000)
    assert drained(found) == [[other], [in_time, late]]


def test_a_delayed_request_is_still_refused_at_its_deadline() -> None:
    found = queue(schedule=Schedule([DELAY]))
    late = put(found, request(deadline_ns=7000))
    assert (found.overdue_ns(), found.expire(5000)) == (5000, [])
    assert (found.overdue_ns(), found.expire(7000)) == (7000, [late])


def test_a_delayed_request_can_be_dropped() -> None:
    found = queue(batch_rows=1, schedule=Schedule([DELAY, ANY]))
    made = [put(found, request(priority=1)) for _ in range(3)]
    found.expire(5000)
    assert found.drop(made[1])
    [in_time] = [put(found, request(priority=2), 5000)]
    assert drained(found) == [[in_time], [made[0]], [made[2]]]


def test_delayed_requests_do_not_go_for_being_full_while_others_wait() -> None:
    found = queue(batch_rows=2, max_delay_ns=6000, schedule=Schedule([DELAY]))
    late = [put(found, request()) for _ in range(2)]
    found.expire(5000)
    in_time = put(found, request(width=2), 5000)
    assert (found.take(5000), found.due_ns()) == (None, 10000)
    assert found.take(10999) is None
    assert found.drop(in_time)
    assert taken(found.take(5000)).members == late


def test_a_delayed_request_counts_in_its_level() -> None:
    found = queue(schedule=Schedule([QueuePolicy("delay", 1000, max_queue_size=1)]))
    late = put(found, request())
    found.expire(1000)
    with pytest.raises(Overloaded):
        found.put(request(), 1000)
    assert taken(found.take(1000)).members == [late]
    put(found, request(), 1000)


# --- how many ------------------------------------------------------------------------------------------


def test_each_level_is_full_by_itself_and_counts_requests() -> None:
    two, one = QueuePolicy(max_queue_size=2), QueuePolicy(max_queue_size=1)
    found = queue(schedule=Schedule([two, one, ANY], default_level=3))
    for priority in (1, 1, 2, 3, 3, 3):
        found.put(request(5, priority=priority), 0)
    with pytest.raises(Overloaded, match=r"'m' is full \(2 requests of priority 1 waiting\)"):
        found.put(request(priority=1), 0)
    with pytest.raises(Overloaded, match=r"1 requests of priority 2"):
        found.put(request(priority=2), 0)
    assert found.requests == 6


def test_a_request_that_leaves_makes_room_in_its_level() -> None:
    found = queue(batch_rows=1, schedule=Schedule([QueuePolicy("reject", 5000, False, 1)]))
    first = put(found, request())
    refused = request()
    with pytest.raises(Overloaded, match=r"is full \(1 requests waiting\)"):
        found.put(refused, 0)
    assert found.drop(first)
    put(found, refused, 1)
    found.take(1)
    put(found, request(), 1)
    assert len(found.expire(5001)) == 1
    put(found, request(), 5001)
