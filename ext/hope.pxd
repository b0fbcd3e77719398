"""Whether a request that comes now can be answered in time: what a queue holds, put to its forecast."""

from libc.stdint cimport int64_t

from inferd._native.forecast cimport Forecast
from inferd._native.line cimport Group
from inferd._native.turns cimport Flow
from inferd._native.waiting cimport Waiting
from inferd._native.wire cimport Request


cdef inline int64_t rows_ahead(Group* group, Flow* flow, Request request) noexcept nogil:
    """How many rows of a request's own shape leave before it, if it comes now."""
    if flow == NULL or flow.parked.first == NULL or flow.parked_is_mixed or flow.parked_shape != request.shape_hash:
        return group.rows
    # It would be parked behind these, which come into its group before it.
    return group.rows + flow.rows - flow.rows_in_line


cdef inline bint is_hopeless(
    Forecast forecast, Waiting* held, Request request, Group* group, Flow* flow, bint in_turn,
    const int64_t* short_rows, int64_t now_ns,
) noexcept:
    """Whether there is not time enough to answer a request that would come last in its group.

    `in_turn`: all members of its group leave before it. `short_rows`: the largest short batches by size class.
    """
    cdef int64_t ahead = rows_ahead(group, flow, request) if in_turn else 0
    # The loop runs short batches beside the threads.
    cdef int64_t instances = forecast.instances + (short_rows[group.size_class] > 0)
    cdef int64_t most = forecast.max_rows
    cdef bint full = False
    # Only requests of one row keep to the batch size, which a larger one passes by itself.
    if held.rows == held.requests and request.rows == 1:
        most = held.batch_rows[group.size_class]
        full = held.preferred_count == 0
    return forecast.is_hopeless(
        group.size_class, request.rows, ahead, most, full, instances, request.deadline_ns - now_ns, now_ns
    )
