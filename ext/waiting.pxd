"""Where requests wait until a run takes them: in lines by level, in groups by shape, and behind their own.

Fair turns: with several callers in a queue each has rows for one batch in line, or for as many as its weight is, and what
it has beyond that is parked and follows one by one as its own leave. So a line is never longer than the sum of weights,
whatever one of them sends, each gets its share of the rows that are run, and everything stays a matter of a few pointers.
Where there is only one caller all of its requests stand in line; should another come, what is too much is parked then.
Levels are apart: a caller has a turn at each. Requests whose caller nobody knows stand in line.

Inline, because each request passes here twice. All pointers are borrowed: the queue holds one reference to each request.
"""

from libc.stdint cimport int64_t

from inferd._native.batch cimport SIZE_CLASSES, size_class_of
from inferd._native.groups cimport Groups, add_group, find_group, forget_group
from inferd._native.line cimport (
    Group, Line, join_full, join_group, join_line, leave_full, leave_group, leave_line, put_first,
)
from inferd._native.live cimport INFERD_DEBUG, QUEUED, count
from inferd._native.signature cimport Signature
from inferd._native.turns cimport (
    TURN_BUCKETS, Flow, Turns, add_flow, find_flow, forget_flow, leave_due, make_due, note_parked,
)
from inferd._native.wire cimport Request


cdef struct Waiting:
    # What a BatchQueue holds, and what it counts of it.
    void* queue                # the BatchQueue whose it is
    bint takes_turns           # callers are told apart
    bint in_order              # requests leave as they came: only neighbours may share a batch
    int64_t batch_rows[SIZE_CLASSES]
    int64_t* preferred_rows    # ascending
    int preferred_count
    int64_t rows
    int64_t bytes
    int64_t requests
    # By level, and last the line of late requests; without a schedule the only line there is.
    Line* lines
    Line only_line
    int line_count
    int64_t* of_level          # requests by level, wherever they wait; NULL without a schedule
    Groups groups
    Turns turns


cdef inline int64_t limit_for(Waiting* held, Group* group) noexcept nogil:
    """The size to cut a group at: the largest preferred size that it reaches, else its batch_rows."""
    cdef int64_t most = held.batch_rows[group.size_class]
    cdef int at = held.preferred_count
    while at:
        at -= 1
        if held.preferred_rows[at] <= group.rows and held.preferred_rows[at] <= most:
            return held.preferred_rows[at]
    return most


cdef inline void review(Waiting* held, Group* group) noexcept nogil:
    """Have the group among the full ones if, and only if, it can fill a batch."""
    cdef bint fills = group.rows >= limit_for(held, group)
    if fills != group.is_full:
        if fills:
            join_full(&held.groups.full, group)
        else:
            leave_full(&held.groups.full, group)


cdef inline Group* group_of(Waiting* held, Signature signature, Request request) noexcept:
    """The group of the request's shape; a new one if there is none, NULL if there is no memory for it.

    Where requests leave in order, only the group of the one before it can be its own.
    """
    cdef void* before = NULL
    cdef Group* group
    if held.in_order:
        before = held.lines[0].last if held.lines[0].last != NULL else <void*>request
    group = find_group(&held.groups, signature, request, before)
    if group == NULL:
        group = add_group(&held.groups, request, held.line_count)
        if group != NULL:
            group.queue = held.queue
    return group


cdef inline void enter(Waiting* held, Request request, Group* group) noexcept:
    """Put a request last in its line, and in its group."""
    request.group = <void*>group
    join_line(&held.lines[request.line], request)
    join_group(group, request)
    group.rows += request.rows
    if request.flow != NULL:
        (<Flow*>request.flow).rows_in_line += request.rows
    review(held, group)


cdef inline void leave(Waiting* held, Request request) noexcept:
    """Take a request out of its line and its group, which may free the group."""
    cdef Group* group = <Group*>request.group
    leave_line(&held.lines[request.line], request)
    leave_group(group, request)
    request.group = NULL
    group.rows -= request.rows
    if request.flow != NULL:
        (<Flow*>request.flow).rows_in_line -= request.rows
    if group.first == NULL:
        forget_group(&held.groups, group)
    else:
        review(held, group)


cdef inline void unlink(Waiting* held, Request request) noexcept:
    """Take a queued request out of where it waits. The queue's reference goes to the caller. May free its group.

    refill() is to follow: others of its caller may be parked.
    """
    if request.group == NULL:
        leave_line(&(<Flow*>request.flow).parked, request)
        held.turns.parked -= 1
    else:
        leave(held, request)
    held.rows -= request.rows
    held.bytes -= request.nbytes
    held.requests -= 1
    if held.of_level != NULL:
        held.of_level[request.level] -= 1
    if request.flow != NULL:
        leave_flow(held, request)
    if INFERD_DEBUG:
        count(QUEUED, -1)


# --- turns ------------------------------------------------------------------------------------------------


cdef inline Flow* flow_of(Waiting* held, Request request) noexcept:
    """Where the request's caller, which is known, has its own at its level. NULL if there is no memory."""
    cdef Flow* flow = find_flow(&held.turns, request.caller, request.level)
    if flow == NULL:
        flow = add_flow(&held.turns, request.caller, request.level)
        if flow == NULL:
            return NULL
        flow.queue = held.queue
        if held.turns.flows == 2:
            part(held)
    flow.weight = request.weight
    return flow


cdef inline void leave_flow(Waiting* held, Request request) noexcept:
    """Count a request out of those of its caller."""
    cdef Flow* flow = <Flow*>request.flow
    request.flow = NULL
    flow.requests -= 1
    flow.rows -= request.rows
    if flow.parked.first != NULL and not flow.is_due:
        make_due(&held.turns, flow)
    elif flow.requests == 0:
        forget_flow(&held.turns, flow)


cdef inline bint fits(Waiting* held, Flow* flow, Request request, int size_class) noexcept:
    """Whether one more may stand in line."""
    return flow.rows_in_line == 0 or flow.rows_in_line + request.rows <= held.batch_rows[size_class] * flow.weight


cdef inline void part(Waiting* held) noexcept:
    """A second caller has come: whoever had the line to itself steps back."""
    cdef Flow* flow
    cdef int bucket
    for bucket in range(TURN_BUCKETS):
        flow = held.turns.buckets[bucket]
        while flow != NULL:
            if flow.rows_in_line:
                step_back(held, flow)
            flow = flow.next_in_bucket


cdef inline void step_back(Waiting* held, Flow* flow) noexcept:
    """Park the last ones of a caller until no more stand in line than may."""
    cdef void* at = held.lines[flow.level].last
    cdef Request request
    cdef int64_t most
    while at != NULL:
        request = <Request>at
        at = request.prev_arrival
        if request.flow != <void*>flow:
            continue
        most = held.batch_rows[(<Group*>request.group).size_class] * flow.weight
        if flow.rows_in_line <= max(most, request.rows):
            break
        leave(held, request)
        note_parked(flow, request.shape_hash)
        put_first(&flow.parked, request)
        held.turns.parked += 1


cdef inline void refill(Waiting* held, Signature signature) noexcept:
    """Let those follow whose turn has come because others of their caller have left."""
    cdef Flow* flow
    cdef Request request
    cdef Group* group
    while held.turns.first_due != NULL:
        flow = held.turns.first_due
        while flow.parked.first != NULL:
            request = <Request>flow.parked.first
            if not fits(held, flow, request, size_class_of(request)):
                break
            group = group_of(held, signature, request)
            if group == NULL:
                return  # when one more leaves it is tried again
            leave_line(&flow.parked, request)
            held.turns.parked -= 1
            enter(held, request, group)
        leave_due(&held.turns)
        if flow.requests == 0:
            forget_flow(&held.turns, flow)
