"""Who is served first: priority levels, the turn of a level that waited too long, and order."""

from __future__ import annotations

import pytest
from handmade import signature_of
from queued import queue, request, taken

from inferd._native.queue import BatchQueue
from inferd._native.schedule import Schedule
from inferd._native.wire import Request
from inferd.errors import Overloaded
from inferd.repository import QueuePolicy

ANY = QueuePolicy()
PATIENCE_NS = 1000
PASSED_OVER = 8


def levels(count: int = 3, *, default_level: int = 2, patience_ns: int = PATIENCE_NS) -> Schedule:
    return Schedule([ANY] * count, default_level=default_level, patience_ns=patience_ns)


def filled(found: BatchQueue, *priorities: int, now_ns: int = 0, width: int = 1) -> list[Request]:
    made = [request(priority=priority, width=width) for priority in priorities]
    for one in made:
        found.put(one, now_ns)
    return made


def drained(found: BatchQueue, now_ns: int = 0) -> list[list[Request]]:
    batches = []
    while (batch := found.take(now_ns)) is not None:
        batches.append(batch.members)
    return batches


# --- levels ------------------------------------------------------------------------------------------


def test_higher_levels_leave_first_and_each_level_in_order_of_arrival() -> None:
    found = queue(batch_rows=1, schedule=levels())
    a, b, c, d, e, f = filled(found, 3, 1, 2, 3, 1, 2)
    assert drained(found) == [[b], [e], [c], [f], [a], [d]]


@pytest.mark.parametrize("priority", [0, 2, 4, 1 << 32, (1 << 64) - 1])
def test_no_priority_and_one_that_there_is_not_are_the_default(priority: int) -> None:
    found = queue(batch_rows=1, schedule=levels(3, default_level=2))
    low, asked, high = filled(found, 3, priority, 1)
    assert drained(found) == [[high], [asked], [low]]


def test_a_priority_given_as_an_int64_counts_as_well() -> None:
    from handmade import bound, message
    from queued import OPEN

    made = message(("x", "FP32", [1, 1], bytes(4)))
    made.parameters["priority"].int64_param = 1
    found = queue(batch_rows=1, schedule=levels())
    filled(found, 2)
    high = bound(OPEN, made)
    found.put(high, 0)
    assert taken(found.take(0)).members == [high]


def test_without_levels_a_priority_means_nothing() -> None:
    for schedule in (None, Schedule([ANY])):
        found = queue(batch_rows=1, schedule=schedule)
        first, second = filled(found, 3, 1)
        assert drained(found) == [[first], [second]]


def test_the_room_that_is_left_in_a_batch_goes_to_lower_levels_of_the_same_shape() -> None:
    found = queue(batch_rows=4, schedule=levels())
    low = filled(found, 3, 3, 3)
    other = filled(found, 2, width=2)
    middle, high = filled(found, 2, 1)
    assert drained(found) == [[high, middle, *low[:2]], other, low[2:]]


def test_a_member_that_does_not_fit_ends_the_batch_whatever_comes_behind_it() -> None:
    found = queue(batch_rows=3, schedule=levels())
    made = [request(1, priority=3), request(3, priority=2), request(1, priority=1)]
    for one in made:
        found.put(one, 0)
    assert drained(found) == [[made[2]], [made[1]], [made[0]]]


@pytest.mark.parametrize("place", range(6))
def test_a_request_dropped_out_of_any_level_leaves_the_others_in_order(place: int) -> None:
    for batch_rows in (1, 8):
        found = queue(batch_rows=batch_rows, schedule=levels())
        made = filled(found, 3, 1, 2, 3, 1, 2)
        assert found.drop(made[place])
        late = filled(found, 1, 2, 3)
        order = [made[1], made[4], late[0], made[2], made[5], late[1], made[0], made[3], late[2]]
        order.remove(made[place])
        assert [member for members in drained(found) for member in members] == order


def test_more_shapes_and_levels_than_one_would_think_of_stay_apart() -> None:
    found = queue(schedule=levels(256, default_level=256))
    made = {
        (priority, width): filled(found, priority, width=width)[0] for priority in (256, 100, 1) for width in (1, 2)
    }
    assert drained(found) == [[made[priority, width] for priority in (1, 100, 256)] for width in (1, 2)]


@pytest.mark.parametrize(("count", "default_level"), [(0, 1), (257, 1), (2, 0), (2, 3)])
def test_levels_that_there_cannot_be_are_refused(count: int, default_level: int) -> None:
    with pytest.raises(ValueError, match="level"):
        levels(count, default_level=default_level)


# --- levels that wait too long ---------------------------------------------------------------------------


def busy_above(found: BatchQueue, rounds: int, now_ns: int) -> list[int]:
    """Levels of the heads of the next batches, while level 1 never runs dry."""
    seen = []
    for _ in range(rounds):
        filled(found, 1, now_ns=now_ns)
        seen.append(taken(found.take(now_ns)).members[0].priority)
    return seen


def test_a_level_that_waited_too_long_gets_one_batch_in_nine() -> None:
    found = queue(batch_rows=1, schedule=levels())
    filled(found, 1, *[3] * 5)
    assert busy_above(found, 20, PATIENCE_NS - 1) == [1] * 20
    assert busy_above(found, 19, PATIENCE_NS) == [3, *[1] * PASSED_OVER, 3, *[1] * PASSED_OVER, 3]


def test_a_level_is_not_owed_a_turn_before_others_went_often_enough() -> None:
    found = queue(batch_rows=1, schedule=levels())
    filled(found, 3, 3)
    assert busy_above(found, PASSED_OVER + 1, 10 * PATIENCE_NS) == [*[1] * PASSED_OVER, 3]


def test_all_levels_that_waited_too_long_get_their_turns() -> None:
    found = queue(batch_rows=1, schedule=levels())
    filled(found, *[2] * 3, *[3] * 3)
    assert busy_above(found, 20, PATIENCE_NS) == [*[1] * PASSED_OVER, 2, 3, *[1] * PASSED_OVER, 2, 3]


def test_a_turn_says_so_and_takes_the_oldest_of_its_level_and_what_would_have_come_first() -> None:
    found = queue(batch_rows=3, schedule=levels())
    low = filled(found, 3, 3)
    other = [filled(found, 1, width=2)[0] for _ in range(PASSED_OVER)]
    found.set_batch_rows(4, 1)  # rows of 8 bytes
    assert [taken(found.take(0)).members for _ in other] == [[one] for one in other]
    high = filled(found, 1, 1, 1)
    batch = taken(found.take(PATIENCE_NS))
    assert (batch.close_reason, batch.members) == ("turn", [low[0], *high[:2]])
    assert drained(found) == [[high[2], low[1]]]


def test_without_patience_priority_is_strict() -> None:
    found = queue(batch_rows=1, schedule=levels(patience_ns=0))
    filled(found, 3)
    assert busy_above(found, 50, 1 << 60) == [1] * 50


def test_a_batch_that_is_only_looked_at_counts_as_no_turn() -> None:
    found = queue(batch_rows=1, schedule=levels())
    filled(found, 1, 3)
    for _ in range(2 * PASSED_OVER):
        assert found.take_short(PATIENCE_NS) is None
    assert taken(found.take(PATIENCE_NS)).members[0].priority == 1


def test_a_short_batch_leaves_by_priority_as_well() -> None:
    found = queue(batch_rows=2, schedule=levels())
    found.set_short_rows(3, 2)
    low, high, middle = filled(found, 3, 1, 2)
    assert taken(found.take_short(0)).members == [high, middle]
    assert taken(found.take_short(0)).members == [low]


# --- waiting for a batch to fill -----------------------------------------------------------------------


def test_a_batch_fills_with_requests_of_all_levels() -> None:
    found = queue(batch_rows=3, max_delay_ns=100, schedule=levels())
    low, high = filled(found, 3, 1)
    assert (found.take(0), found.due_ns()) == (None, 100)
    [middle] = filled(found, 2)
    assert found.due_ns() == 0
    batch = taken(found.take(0))
    assert (batch.close_reason, batch.members) == ("full", [high, middle, low])


def test_the_full_group_of_the_highest_level_leaves_first() -> None:
    found = queue(batch_rows=2, max_delay_ns=100, schedule=levels())
    filled(found, 3, 3, width=1)
    filled(found, 3, 1, width=2)
    filled(found, 1, 1, width=3)
    assert [taken(found.take(0)).input_shape(0)[1] for _ in range(3)] == [2, 3, 1]


def test_a_lower_level_that_waited_for_the_delay_does_not_wait_for_a_higher_one_that_came_later() -> None:
    found = queue(max_delay_ns=100, schedule=levels())
    filled(found, 3, width=1)
    filled(found, 1, now_ns=50, width=2)
    assert (found.take(99), found.due_ns()) == (None, 100)
    assert taken(found.take(100)).input_shape(0) == [1, 1]
    assert found.due_ns() == 150


def test_a_closed_queue_hands_out_the_rest_by_priority() -> None:
    found = queue(batch_rows=1, max_delay_ns=100, schedule=levels())
    low, high = filled(found, 3, 1)
    found.close()
    assert found.due_ns() == 0
    assert drained(found) == [[high], [low]]


# --- in order ------------------------------------------------------------------------------------------

IN_ORDER = Schedule([ANY], in_order=True)


def test_in_order_a_batch_is_of_neighbours_and_nobody_overtakes() -> None:
    found = queue(schedule=IN_ORDER)
    widths = [1, 1, 2, 1, 2, 2, 1]
    made = [filled(found, 0, width=width)[0] for width in widths]
    assert drained(found) == [made[:2], [made[2]], [made[3]], made[4:6], made[6:]]
    assert [one.turn for one in made] == [1, 1, 2, 3, 4, 4, 5]


def test_in_order_a_full_group_waits_for_the_one_before_it() -> None:
    found = queue(batch_rows=2, max_delay_ns=100, schedule=IN_ORDER)
    [first] = filled(found, 0, width=1)
    second = filled(found, 0, 0, width=2)
    assert (found.take(0), found.due_ns()) == (None, 100)
    assert found.drop(first)
    assert found.due_ns() == 0
    assert taken(found.take(0)).members == second


def test_in_order_a_dropped_request_does_not_let_its_neighbours_share() -> None:
    found = queue(schedule=IN_ORDER)
    a, b, c = (filled(found, 0, width=width)[0] for width in (1, 2, 1))
    assert found.drop(b)
    [d] = filled(found, 0, width=1)
    assert drained(found) == [[a], [c, d]]


def test_without_order_a_batch_has_no_number() -> None:
    found = queue(schedule=levels())
    [one] = filled(found, 1)
    drained(found)
    assert one.turn == 0


def test_order_goes_with_one_level_only() -> None:
    with pytest.raises(ValueError, match="one level"):
        Schedule([ANY, ANY], in_order=True)
    with pytest.raises(ValueError, match="not delayed"):
        Schedule([QueuePolicy("delay", 1)], in_order=True)


def test_bounds_in_rows_hold_over_all_levels() -> None:
    found = queue(max_queue_rows=2, schedule=levels())
    filled(found, 1, 3)
    with pytest.raises(Overloaded, match="2 rows"):
        filled(found, 1)


def test_a_queue_of_levels_goes_with_requests_in_it() -> None:
    found = queue(schedule=Schedule([ANY, QueuePolicy("delay", 5)]))
    made = filled(found, 1, 2, 2)
    found.expire(5)
    del found
    again = queue()
    for one in made:
        again.put(one, 0)
    assert drained(again) == [made]


def test_requests_that_run_alone_go_by_priority_as_well() -> None:
    signature = signature_of({"x": ("FP32", [-1, -1])}, batched=True, max_rows=2, lenient=True)
    found = queue(signature=signature, schedule=levels())
    made = [request(3, priority=priority, signature=signature) for priority in (3, 1, 2)]
    for one in made:
        found.put(one, 0)
    assert drained(found) == [[made[1]], [made[2]], [made[0]]]
