"""Lists of queued requests: a line for each level in order of arrival, a group for each shape in order of service.

All links are borrowed: the queue holds one reference to each request. Nothing here touches a reference count.
"""

from libc.stdint cimport int64_t, uint64_t

from inferd._native.wire cimport Request


cdef struct Line:
    # Requests of one level, or those that came to be late, oldest first.
    void* first
    void* last
    int64_t skipped        # batches of higher lines since one began with this line's first, while it had one


cdef struct Group:
    # Requests that may share a batch: by line, and oldest first in each.
    void* queue            # whose group this is; borrowed
    void* first
    void* last
    void** last_of_line    # the last member from each line, or NULL; no array at all where there is only one line
    int64_t rows
    int size_class         # of the bytes in one row: what the learnt batch size depends on
    uint64_t shape_hash
    Group* next_in_bucket
    bint is_full
    Group* next_full
    Group* prev_full


cdef struct FullGroups:
    # Those that can fill a batch right now, in the order in which they became able to.
    Group* first
    Group* last


cdef inline void join_full(FullGroups* full, Group* group) noexcept nogil:
    group.is_full = True
    group.next_full = NULL
    group.prev_full = full.last
    if full.last != NULL:
        full.last.next_full = group
    else:
        full.first = group
    full.last = group


cdef inline void leave_full(FullGroups* full, Group* group) noexcept nogil:
    group.is_full = False
    if group.prev_full != NULL:
        group.prev_full.next_full = group.next_full
    else:
        full.first = group.next_full
    if group.next_full != NULL:
        group.next_full.prev_full = group.prev_full
    else:
        full.last = group.prev_full


cdef inline void join_line(Line* line, Request request) noexcept:
    """Put a request at the end of a line."""
    request.next_arrival = NULL
    request.prev_arrival = line.last
    if line.last != NULL:
        (<Request>line.last).next_arrival = <void*>request
    else:
        line.first = <void*>request
    line.last = <void*>request


cdef inline void put_first(Line* line, Request request) noexcept:
    """Put a request at the head of a line."""
    request.prev_arrival = NULL
    request.next_arrival = line.first
    if line.first != NULL:
        (<Request>line.first).prev_arrival = <void*>request
    else:
        line.last = <void*>request
    line.first = <void*>request


cdef inline void leave_line(Line* line, Request request) noexcept:
    """Take a request out of the line that it is in."""
    if request.prev_arrival != NULL:
        (<Request>request.prev_arrival).next_arrival = request.next_arrival
    else:
        line.first = request.next_arrival
    if request.next_arrival != NULL:
        (<Request>request.next_arrival).prev_arrival = request.prev_arrival
    else:
        line.last = request.prev_arrival
    request.next_arrival = request.prev_arrival = NULL


cdef inline void join_group(Group* group, Request request) noexcept:
    """Put a request behind those of its own line and of higher ones. Rows are counted elsewhere."""
    if group.last_of_line != NULL:
        join_among_lines(group, request)
        return
    request.next_in_group = NULL
    request.prev_in_group = group.last
    if group.last != NULL:
        (<Request>group.last).next_in_group = <void*>request
    else:
        group.first = <void*>request
    group.last = <void*>request


cdef inline void join_among_lines(Group* group, Request request) noexcept:
    cdef void* before = NULL
    cdef int line = request.line
    while before == NULL and line >= 0:
        before = group.last_of_line[line]
        line -= 1
    group.last_of_line[request.line] = <void*>request
    request.prev_in_group = before
    request.next_in_group = group.first if before == NULL else (<Request>before).next_in_group
    if before != NULL:
        (<Request>before).next_in_group = <void*>request
    else:
        group.first = <void*>request
    if request.next_in_group != NULL:
        (<Request>request.next_in_group).prev_in_group = <void*>request
    else:
        group.last = <void*>request


cdef inline void leave_group(Group* group, Request request) noexcept:
    """Take a request out of the group that it is in."""
    cdef void* before = request.prev_in_group
    if group.last_of_line != NULL and group.last_of_line[request.line] == <void*>request:
        if before != NULL and (<Request>before).line != request.line:
            before = NULL
        group.last_of_line[request.line] = before
    if request.prev_in_group != NULL:
        (<Request>request.prev_in_group).next_in_group = request.next_in_group
    else:
        group.first = request.next_in_group
    if request.next_in_group != NULL:
        (<Request>request.next_in_group).prev_in_group = request.prev_in_group
    else:
        group.last = request.prev_in_group
    request.next_in_group = request.prev_in_group = NULL
