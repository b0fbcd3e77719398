"""Whose requests wait in a queue: for each caller and level how many stand in line, and which are parked behind them.

All pointers are borrowed: the queue holds one reference to each request, parked or not.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from inferd._native.line cimport Line
from inferd._native.live cimport INFERD_DEBUG

cdef enum:
    TURN_BUCKETS = 64


cdef struct Flow:
    # Requests of one caller at one level, while there are any.
    void* queue
    int64_t caller
    int level
    int weight             # batches that it may have in line, as its last request says
    int64_t requests       # all of them
    int64_t rows           # of all of them
    int64_t rows_in_line
    Line parked            # those that wait for one before them to leave the line; oldest first
    uint64_t parked_shape  # of all of those, unless they are mixed
    bint parked_is_mixed
    Flow* next_in_bucket
    bint is_due            # one has left the line since it was looked at
    Flow* next_due


cdef struct Turns:
    Flow* buckets[TURN_BUCKETS]
    Flow* spare            # the last one that had no requests any more: on an idle server each request makes one
    int flows
    int64_t parked         # requests
    Flow* first_due        # in the order in which their requests left
    Flow* last_due


cdef inline void note_parked(Flow* flow, uint64_t shape_hash) noexcept nogil:
    """One of this shape is about to be parked."""
    if flow.parked.first == NULL:
        flow.parked_shape, flow.parked_is_mixed = shape_hash, False
    elif flow.parked_shape != shape_hash:
        flow.parked_is_mixed = True


cdef inline Flow** turn_bucket(Turns* turns, int64_t caller) noexcept nogil:
    return &turns.buckets[caller & (TURN_BUCKETS - 1)]


cdef inline Flow* find_flow(Turns* turns, int64_t caller, int level) noexcept nogil:
    """The caller's requests at that level, or NULL if it has none."""
    cdef Flow* flow = turn_bucket(turns, caller)[0]
    while flow != NULL and (flow.caller != caller or flow.level != level):
        flow = flow.next_in_bucket
    return flow


cdef inline Flow* add_flow(Turns* turns, int64_t caller, int level) noexcept nogil:
    """A flow without requests and without a weight; NULL if there is no memory."""
    cdef Flow** bucket = turn_bucket(turns, caller)
    cdef Flow* flow = turns.spare
    if flow != NULL:
        turns.spare = NULL
        memset(flow, 0, sizeof(Flow))
    else:
        flow = <Flow*>calloc(1, sizeof(Flow))
    if flow != NULL:
        flow.caller, flow.level, flow.next_in_bucket = caller, level, bucket[0]
        bucket[0] = flow
        turns.flows += 1
    return flow


cdef inline void forget_flow(Turns* turns, Flow* flow) noexcept nogil:
    """Let go of a flow that has no requests, unless somebody is still to look at it."""
    cdef Flow** at = turn_bucket(turns, flow.caller)
    if flow.is_due:
        return
    while at[0] != flow:
        at = &at[0].next_in_bucket
    at[0] = flow.next_in_bucket
    turns.flows -= 1
    # Not in a debug build, whose sanitizer is to see who still reads it.
    if turns.spare == NULL and not INFERD_DEBUG:
        turns.spare = flow
    else:
        free(flow)


cdef inline void make_due(Turns* turns, Flow* flow) noexcept nogil:
    flow.is_due, flow.next_due = True, NULL
    if turns.last_due != NULL:
        turns.last_due.next_due = flow
    else:
        turns.first_due = flow
    turns.last_due = flow


cdef inline void leave_due(Turns* turns) noexcept nogil:
    """Take the first flow out of those that are due."""
    cdef Flow* flow = turns.first_due
    turns.first_due = flow.next_due
    if turns.first_due == NULL:
        turns.last_due = NULL
    flow.is_due, flow.next_due = False, NULL
