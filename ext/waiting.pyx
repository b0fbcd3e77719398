"""Where requests wait until a run takes them: in lines by level, in groups by shape, and behind their own.

Fair turns: with several callers in a queue each has rows for one batch in line, or for as many as its weight is, and what
it has beyond that is parked and follows one by one as its own leave. So a line is never longer than the sum of weights,
whatever one of them sends, each gets its share of the rows that are run, and everything stays a matter of a few pointers.
Where there is only one caller all of its requests stand in line; should another come, what is too much is parked then.
Levels are apart: a caller has a turn at each. Requests whose caller nobody knows stand in line.
"""

from cpython.ref cimport Py_DECREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free

from inferd._native.batch cimport size_class_of
from inferd._native.groups cimport add_group, find_group, forget_group, free_groups
from inferd._native.line cimport join_full, join_group, join_line, leave_full, leave_group, leave_line
from inferd._native.live cimport INFERD_DEBUG, QUEUED, count
from inferd._native.turns cimport TURN_BUCKETS, Flow, add_flow, find_flow, forget_flow, leave_due, make_due
from inferd._native.wire cimport BOUND, Request


cdef class Waiting:
    """What a BatchQueue holds, and what it counts of it."""

    def __dealloc__(self):
        cdef int line, bucket
        cdef Flow* flow
        for line in range(self.line_count if self.lines != NULL else 0):
            self.abandon(&self.lines[line])
        for bucket in range(TURN_BUCKETS):
            while self.turns.buckets[bucket] != NULL:
                flow = self.turns.buckets[bucket]
                self.abandon(&flow.parked)
                self.turns.buckets[bucket] = flow.next_in_bucket
                free(flow)
        free_groups(&self.groups)
        if self.lines != &self.only_line:
            free(self.lines)
        free(self.of_level)

    cdef void abandon(self, Line* line) noexcept:
        """Give back the references to all in a line."""
        cdef void* at = line.first
        cdef void* following
        while at != NULL:
            following = (<Request>at).next_arrival
            (<Request>at).group = (<Request>at).flow = NULL
            (<Request>at).state = BOUND
            Py_DECREF(<Request>at)
            if INFERD_DEBUG:
                count(QUEUED, -1)
            at = following

    def set_batch_rows(self, int size_class, int64_t rows) -> None:
        """Set the largest batch to form of requests whose rows are of `size_class` (see Batch)."""
        if not 0 <= size_class < SIZE_CLASSES:
            raise IndexError(size_class)
        cdef void* at
        cdef Group* group
        cdef int line
        self.batch_rows[size_class] = max(rows, 1) if self.signature.batched else 1
        for line in range(self.line_count):
            at = self.lines[line].first
            while at != NULL:
                group = <Group*>(<Request>at).group
                if group.size_class == size_class:
                    self.review(group)
                at = (<Request>at).next_arrival

    cdef int64_t limit_for(self, Group* group) noexcept:
        """The size to cut a group at: the largest preferred size that it reaches, else its batch_rows."""
        if self.has_preferred_rows:
            return self.preferred_for(group)
        return self.batch_rows[group.size_class]

    cdef int64_t preferred_for(self, Group* group) noexcept:
        cdef int64_t most = self.batch_rows[group.size_class]
        cdef int64_t best = 0
        cdef int64_t size
        for size in self.preferred_rows:
            if size <= group.rows and size <= most:
                best = size
        return best if best else most

    cdef Group* group_of(self, Request request) except NULL:
        """The group of the request's shape; a new one if there is none.

        Where requests leave in order, only the group of the one before it can be its own.
        """
        # Where requests leave in order: the one before it.
        cdef void* before = NULL
        cdef Group* group
        if self.schedule is not None and self.schedule.in_order:
            before = self.lines[0].last if self.lines[0].last != NULL else <void*>request
        group = find_group(&self.groups, self.signature, request, before)
        if group == NULL:
            group = add_group(&self.groups, request, self.line_count)
            group.queue = <void*>self
        return group

    cdef void review(self, Group* group) noexcept:
        """Have the group among the full ones if, and only if, it can fill a batch."""
        cdef bint fills = group.rows >= self.limit_for(group)
        if fills and not group.is_full:
            join_full(&self.groups.full, group)
        elif group.is_full and not fills:
            leave_full(&self.groups.full, group)

    cdef void enter(self, Request request, Group* group) noexcept:
        """Put a request last in its line, and in its group."""
        request.group = <void*>group
        join_line(&self.lines[request.line], request)
        join_group(group, request)
        group.rows += request.rows
        if request.flow != NULL:
            (<Flow*>request.flow).rows_in_line += request.rows
        self.review(group)

    cdef void leave(self, Request request) noexcept:
        """Take a request out of its line and its group, which may free the group."""
        cdef Group* group = <Group*>request.group
        leave_line(&self.lines[request.line], request)
        leave_group(group, request)
        request.group = NULL
        group.rows -= request.rows
        if request.flow != NULL:
            (<Flow*>request.flow).rows_in_line -= request.rows
        if group.first == NULL:
            forget_group(&self.groups, group)
        else:
            self.review(group)

    cdef void unlink(self, Request request) noexcept:
        """Take a queued request out of where it waits. The queue's reference goes to the caller. May free its group.

        Where others of its caller are parked, refill() is to follow.
        """
        cdef Flow* flow = <Flow*>request.flow
        if request.group == NULL:
            leave_line(&flow.parked, request)
            self.turns.parked -= 1
        else:
            self.leave(request)
        self.rows -= request.rows
        self.bytes -= request.nbytes
        self.requests -= 1
        if self.of_level != NULL:
            self.of_level[request.level] -= 1
        if flow != NULL:
            request.flow = NULL
            flow.requests -= 1
            flow.rows -= request.rows
            if flow.parked.first != NULL and not flow.is_due:
                make_due(&self.turns, flow)
            elif flow.requests == 0:
                forget_flow(&self.turns, flow)
        if INFERD_DEBUG:
            count(QUEUED, -1)

    cdef void delay(self, Request request) noexcept:
        """Put a request behind all others."""
        cdef Group* group = <Group*>request.group
        leave_line(&self.lines[request.line], request)
        leave_group(group, request)
        request.line, request.until_ns = self.schedule.late_line, 0
        join_line(&self.lines[request.line], request)
        join_group(group, request)

    # --- turns --------------------------------------------------------------------------------------------

    cdef Flow* flow_of(self, Request request) except? NULL:
        """Where the request's caller has its own at its level; NULL if nobody is told apart."""
        cdef Flow* flow
        cdef Flow* other
        cdef int bucket
        if request.caller == 0 or not self.takes_turns:
            return NULL
        flow = find_flow(&self.turns, request.caller, request.level)
        if flow != NULL:
            flow.weight = request.weight
            return flow
        flow = add_flow(&self.turns, request.caller, request.level)
        if flow == NULL:
            raise MemoryError
        flow.queue, flow.weight = <void*>self, request.weight
        if self.turns.flows == 2:
            for bucket in range(TURN_BUCKETS):
                other = self.turns.buckets[bucket]
                while other != NULL:
                    if other.rows_in_line:
                        self.step_back(other)
                    other = other.next_in_bucket
        return flow

    cdef bint fits(self, Flow* flow, Request request, int size_class) noexcept:
        """Whether one more may stand in line."""
        return flow.rows_in_line == 0 or flow.rows_in_line + request.rows <= self.batch_rows[size_class] * flow.weight

    cdef void step_back(self, Flow* flow) noexcept:
        """Park the last ones of a caller who had the line for himself, until no more stand in it than may."""
        cdef void* at = self.lines[flow.level].last
        cdef Request request
        cdef int64_t most
        while at != NULL:
            request = <Request>at
            at = request.prev_arrival
            if request.flow != <void*>flow:
                continue
            most = self.batch_rows[(<Group*>request.group).size_class] * flow.weight
            if flow.rows_in_line <= max(most, request.rows):
                break
            self.leave(request)
            request.next_arrival = flow.parked.first
            if flow.parked.first != NULL:
                (<Request>flow.parked.first).prev_arrival = <void*>request
            else:
                flow.parked.last = <void*>request
            flow.parked.first = <void*>request
            self.turns.parked += 1

    cdef void refill(self) noexcept:
        """Let those follow whose turn has come because others of their caller have left."""
        cdef Flow* flow
        cdef Request request
        cdef Group* group
        while self.turns.first_due != NULL:
            flow = self.turns.first_due
            while flow.parked.first != NULL:
                request = <Request>flow.parked.first
                if not self.fits(flow, request, size_class_of(request)):
                    break
                try:
                    group = self.group_of(request)
                except MemoryError:
                    return  # when one more leaves it is tried again
                leave_line(&flow.parked, request)
                self.turns.parked -= 1
                self.enter(request, group)
            leave_due(&self.turns)
            if flow.requests == 0:
                forget_flow(&self.turns, flow)
