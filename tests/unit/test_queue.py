"""The queue, call by call; time is whatever the test says."""

from __future__ import annotations

import pytest
from handmade import bound, message, signature_of
from queued import OPEN, queue, request, taken

from inferd._native.batch import alone
from inferd._native.queue import BatchQueue
from inferd._native.wire import Request
from inferd.errors import DeadlineExceeded, NotReady, Overloaded


def filled(found: BatchQueue, *requests: Request, now_ns: int = 0) -> list[Request]:
    for one in requests:
        found.put(one, now_ns)
    return list(requests)


def drained(found: BatchQueue, now_ns: int = 0) -> list[list[Request]]:
    batches = []
    while (batch := found.take(now_ns)) is not None:
        batches.append(batch.members)
    return batches


# --- which requests leave together ------------------------------------------------------------------


def test_an_empty_queue_has_nothing_to_take_and_nothing_due() -> None:
    found = queue()
    assert found.take(0) is None
    assert found.expire(0) == []
    assert found.due_ns() is None


def test_without_a_delay_a_batch_is_whatever_waits_when_it_is_taken() -> None:
    found = queue()
    members = filled(found, request(), request(2), request())
    batch = taken(found.take(7))
    assert batch.members == members
    assert (batch.rows, batch.close_reason) == (4, "ready")
    assert [member.taken_ns for member in members] == [7, 7, 7]
    assert (found.requests, found.rows, found.bytes) == (0, 0, 0)


def test_a_batch_never_passes_batch_rows() -> None:
    found = queue(batch_rows=4)
    filled(found, *(request(rows) for rows in (1, 2, 2, 1, 3, 1)))
    assert [sum(member.rows for member in members) for members in drained(found)] == [3, 3, 4]


def test_a_request_larger_than_batch_rows_runs_alone() -> None:
    found = queue(batch_rows=4)
    first, large, last = filled(found, request(), request(9), request())
    assert drained(found) == [[first], [large], [last]]


def test_a_batch_never_mixes_shapes_and_the_oldest_request_goes_first() -> None:
    found = queue()
    a, b, c, d = filled(found, request(width=1), request(width=2), request(width=1), request(width=3))
    assert drained(found) == [[a, c], [b], [d]]


def test_more_shapes_than_there_are_buckets_stay_apart() -> None:
    found = queue(max_queue_rows=1200, max_queue_bytes=1 << 24)
    members = filled(found, *(request(width=width) for width in [*range(600), *range(600)]))
    assert drained(found) == [[members[width], members[width + 600]] for width in range(600)]


def test_shapes_with_the_same_hash_stay_apart() -> None:
    # The hash is FNV-1a over whole dimensions, so a second one can be solved for; a zero dimension lets it be huge.
    start, prime, mask = 14695981039346656037, 1099511628211, (1 << 64) - 1
    twins = {first: 5 ^ (start ^ 1) * prime & mask ^ (start ^ first) * prime & mask for first in range(2, 100)}
    first, twin = next((first, twin) for first, twin in twins.items() if twin < 1 << 63)
    signature = signature_of({"x": ("INT8", [-1, -1, -1, -1])}, batched=True)
    made = [
        bound(signature, message(("x", "INT8", [1, *shape, 0], b"")))
        for shape in ([1, 5], [first, twin], [1, 5], [first, twin])
    ]
    found = queue(signature=signature)
    filled(found, *made)
    assert drained(found) == [[made[0], made[2]], [made[1], made[3]]]


def test_requests_of_a_model_whose_only_open_dimension_is_the_batch_always_share() -> None:
    signature = signature_of({"x": ("FP32", [-1, 3])}, batched=True, max_rows=64)
    assert signature.uniform
    found = queue(signature=signature)
    members = filled(found, request(1, 3, signature=signature), request(2, 3, signature=signature))
    assert drained(found) == [members]


def test_a_shape_differs_also_if_only_its_second_input_does() -> None:
    signature = signature_of({"a": ("INT8", [-1]), "b": ("INT8", [-1, -1])}, batched=True)
    made = [
        bound(signature, message(("a", "INT8", [1], b"1"), ("b", "INT8", [1, width], bytes(width))))
        for width in (1, 2, 1)
    ]
    found = queue(signature=signature)
    filled(found, *made)
    assert drained(found) == [[made[0], made[2]], [made[1]]]


def test_requests_of_a_model_without_a_batch_axis_run_alone_whatever_the_batch_size() -> None:
    signature = signature_of({"x": ("FP32", [2])})
    found = queue(signature=signature, batch_rows=8)
    found.set_batch_rows(4, 8)
    members = filled(found, *(bound(signature, message(("x", "FP32", [2], bytes(8)))) for _ in range(3)))
    assert drained(found) == [[member] for member in members]


def test_requests_without_inputs_can_be_queued() -> None:
    signature = signature_of({})
    found = queue(signature=signature)
    (one,) = filled(found, bound(signature, message()))
    batch = taken(found.take(0))
    assert (batch.members, batch.size_class, batch.shape_key) == ([one], 0, b"")


# --- how large a batch may be -------------------------------------------------------------------------


def test_batch_rows_are_set_by_the_size_of_a_row() -> None:
    found = queue(batch_rows=4)
    found.set_batch_rows(3, 1)  # rows of 4 to 7 bytes
    small = filled(found, request(width=1), request(width=1))
    wide = filled(found, request(width=2), request(width=2))
    assert drained(found) == [[small[0]], [small[1]], wide]


@pytest.mark.parametrize(("width", "size_class"), [(0, 0), (1, 3), (2, 4), (3, 4), (4, 5), (1000, 12)])
def test_the_size_class_is_the_number_of_bits_in_the_bytes_of_a_row(width: int, size_class: int) -> None:
    for rows in (1, 3):
        assert alone(OPEN, request(rows, width)).size_class == size_class


@pytest.mark.parametrize("size_class", [-1, 64])
def test_a_size_class_that_there_is_not_is_refused(size_class: int) -> None:
    with pytest.raises(IndexError):
        queue().set_batch_rows(size_class, 1)


@pytest.mark.parametrize("rows", [0, -5])
def test_a_batch_has_at_least_one_row_whatever_it_is_told(rows: int) -> None:
    found = queue(batch_rows=rows)
    found.set_batch_rows(3, rows)
    members = filled(found, request(), request())
    assert drained(found) == [[member] for member in members]


@pytest.mark.parametrize(
    ("waiting", "sizes"), [(3, [3]), (4, [4]), (7, [4, 3]), (8, [8]), (13, [8, 4, 1]), (40, [8] * 5)]
)
def test_a_batch_is_cut_at_the_largest_preferred_size_that_is_reached(waiting: int, sizes: list[int]) -> None:
    found = queue(batch_rows=16, preferred_rows=(8, 4))
    assert found.preferred_rows == (4, 8)
    filled(found, *(request() for _ in range(waiting)))
    assert [len(members) for members in drained(found)] == sizes


def test_a_preferred_size_beyond_batch_rows_is_not_used() -> None:
    found = queue(batch_rows=4, preferred_rows=(8,))
    filled(found, *(request() for _ in range(9)))
    assert [len(members) for members in drained(found)] == [4, 4, 1]


# --- waiting for a batch to fill ------------------------------------------------------------------------


def test_a_partial_batch_leaves_when_its_oldest_request_has_waited_long_enough() -> None:
    found = queue(max_delay_ns=100)
    found.put(request(), 1000)
    found.put(request(), 1090)
    assert found.due_ns() == 1100
    assert found.take(1099) is None
    batch = taken(found.take(1100))
    assert (batch.rows, batch.close_reason) == (2, "delay")
    assert [member.taken_ns - member.arrived_ns for member in batch.members] == [100, 10]


def test_a_full_group_leaves_at_once_even_if_others_are_older() -> None:
    found = queue(batch_rows=2, max_delay_ns=100)
    old, first, second = filled(found, request(width=2), request(), request())
    assert found.due_ns() == 0
    batch = taken(found.take(1))
    assert (batch.members, batch.close_reason) == ([first, second], "full")
    assert found.take(1) is None
    assert found.due_ns() == 100
    assert taken(found.take(100)).members == [old]


def test_full_groups_leave_in_the_order_in_which_they_filled() -> None:
    found = queue(batch_rows=2, max_delay_ns=100)
    filled(found, *(request(width=width) for width in (1, 2, 3, 3, 1, 2)))
    widths = [taken(found.take(0)).input_shape(0)[1] for _ in range(3)]
    assert widths == [3, 1, 2]


def test_the_oldest_request_that_has_waited_long_enough_goes_before_a_full_group() -> None:
    found = queue(batch_rows=2, max_delay_ns=100)
    old, *_ = filled(found, request(width=2), request(), request())
    assert taken(found.take(100)).members == [old]


def test_a_group_that_is_no_longer_full_waits_again() -> None:
    found = queue(batch_rows=2, max_delay_ns=100)
    _, second = filled(found, request(), request())
    assert found.drop(second)
    assert found.take(1) is None
    assert found.due_ns() == 100


def test_a_group_reaches_a_preferred_size_and_leaves_at_once() -> None:
    found = queue(batch_rows=16, max_delay_ns=100, preferred_rows=(2,))
    found.put(request(), 0)
    assert found.take(0) is None
    found.put(request(), 0)
    assert taken(found.take(0)).close_reason == "full"


def test_what_is_left_of_a_full_group_waits_from_its_own_oldest() -> None:
    found = queue(batch_rows=2, max_delay_ns=100)
    for now_ns in (0, 10, 20):
        found.put(request(), now_ns)
    assert taken(found.take(20)).rows == 2
    assert found.take(119) is None
    assert taken(found.take(120)).rows == 1


def test_a_smaller_batch_size_makes_waiting_groups_full_and_a_larger_one_undoes_it() -> None:
    found = queue(batch_rows=8, max_delay_ns=100)
    filled(found, request(), request())
    found.set_batch_rows(3, 2)
    assert found.due_ns() == 0
    found.set_batch_rows(3, 8)
    assert found.due_ns() == 100
    assert found.take(0) is None


# --- bounds -------------------------------------------------------------------------------------------


def test_a_request_beyond_the_bound_in_rows_is_refused_and_changes_nothing() -> None:
    found = queue(max_queue_rows=3)
    filled(found, request(2))
    with pytest.raises(Overloaded, match=r"queue of model 'm' is full \(2 rows, 8 bytes waiting\)"):
        found.put(request(2), 0)
    assert (found.rows, found.requests) == (2, 1)
    found.put(request(1), 0)


def test_a_request_beyond_the_bound_in_bytes_is_refused() -> None:
    found = queue(max_queue_bytes=100)
    filled(found, request(1, 20))
    with pytest.raises(Overloaded):
        found.put(request(1, 6), 0)
    found.put(request(1, 5), 0)
    assert found.bytes == 100


def test_an_empty_queue_takes_any_request() -> None:
    found = queue(max_queue_rows=1, max_queue_bytes=1)
    found.put(request(9, 9), 0)
    with pytest.raises(Overloaded):
        found.put(request(), 0)


def test_a_refused_request_can_be_put_again_once_there_is_room() -> None:
    found = queue(max_queue_rows=1)
    filled(found, request())
    late = request()
    with pytest.raises(Overloaded):
        found.put(late, 0)
    drained(found)
    found.put(late, 1)
    assert late.arrived_ns == 1


# --- leaving early --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(4))
def test_a_dropped_request_leaves_its_neighbours_in_order_and_its_place_to_newcomers(place: int) -> None:
    found = queue()
    members = filled(found, *(request() for _ in range(4)))
    assert found.drop(members.pop(place))
    assert (found.requests, found.rows, found.bytes) == (3, 3, 12)
    members += filled(found, request())
    assert drained(found) == [members]


@pytest.mark.parametrize("place", range(4))
def test_a_dropped_request_leaves_the_order_of_shapes_as_it_was(place: int) -> None:
    found = queue(batch_rows=1)
    members = filled(found, *(request(width=width) for width in (1, 2, 1, 2)))
    assert found.drop(members.pop(place))
    assert drained(found) == [[member] for member in members]


def test_the_last_request_of_a_shape_can_be_dropped_and_the_shape_can_come_again() -> None:
    found = queue()
    filled(found, request(width=1))
    (gone,) = filled(found, request(width=2))
    assert found.drop(gone)
    (again,) = filled(found, request(width=2))
    assert [again] in drained(found)


def test_the_only_request_can_be_dropped() -> None:
    found = queue(max_delay_ns=100)
    (gone,) = filled(found, request())
    assert found.drop(gone)
    assert found.due_ns() is None
    assert found.take(1000) is None


def test_a_request_is_dropped_once_and_not_while_it_runs() -> None:
    found = queue()
    first, second = filled(found, request(), request(width=2))
    assert found.drop(second)
    assert not found.drop(second)
    assert taken(found.take(0)).members == [first]
    assert not found.drop(first)


def test_a_request_is_not_dropped_from_a_queue_that_it_is_not_in() -> None:
    found, other = queue(), queue()
    (member,) = filled(found, request())
    assert not other.drop(member)
    assert not other.drop(request())
    assert found.drop(member)


def test_a_dropped_request_can_be_put_again() -> None:
    found = queue()
    (member,) = filled(found, request())
    found.drop(member)
    found.put(member, 5)
    assert taken(found.take(5)).members == [member]


# --- deadlines ------------------------------------------------------------------------------------------


def test_requests_whose_deadline_has_passed_leave_with_an_error() -> None:
    found = queue()
    made = filled(found, *(request(deadline_ns=ns) for ns in (3_000_000, 0, 1_000_000, 2_000_000)))
    assert found.expire(999_999) == []
    late = found.expire(2_000_000)
    assert late == [made[2], made[3]]
    assert [type(one.error) for one in late] == [DeadlineExceeded] * 2
    assert "after 2 ms in the queue of model 'm'; nothing ran" in str(late[0].error)
    assert [one.taken_ns for one in late] == [2_000_000] * 2
    assert taken(found.take(0)).members == [made[0], made[1]]


def test_an_expired_request_is_neither_dropped_nor_put_again() -> None:
    found = queue()
    (member,) = filled(found, request(deadline_ns=1))
    assert found.expire(1) == [member]
    assert not found.drop(member)
    with pytest.raises(ValueError, match="put twice"):
        found.put(member, 2)


def test_a_deadline_before_the_delay_is_due_first() -> None:
    found = queue(max_delay_ns=100)
    filled(found, request(), request(deadline_ns=40), request(deadline_ns=60))
    assert found.due_ns() == 40
    found.expire(40)
    assert found.due_ns() == 60
    found.expire(60)
    assert found.due_ns() == 100


# --- closing --------------------------------------------------------------------------------------------


def test_a_closed_queue_refuses_new_requests_and_hands_out_the_rest_without_delay() -> None:
    found = queue(max_delay_ns=100)
    members = filled(found, request())
    assert not found.is_closed
    found.close()
    assert found.is_closed
    with pytest.raises(NotReady, match="'m' is being stopped"):
        found.put(request(), 0)
    assert found.due_ns() == 0
    batch = taken(found.take(0))
    assert (batch.members, batch.close_reason) == (members, "ready")
