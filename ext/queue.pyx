"""BatchQueue: requests in, batches out. No clock, no lock, no thread: time is an argument.

Every call is short and runs under the GIL, which is what makes it safe to put from one thread and
take from others. A batch leaves when somebody takes it: while the runner is busy the queue grows,
so batches grow under load and never wait for a timer, unless max_delay_ns asks for one.

Between reading a pointer to a group or request and the last use of it, nothing is allocated that Python's
garbage collector tracks: a collection may run any finalizer, and one of those may drop() a request.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free

from inferd._native.batch cimport SIZE_CLASSES, Batch, batch_of, check_bound
from inferd._native.forecast cimport Forecast
from inferd._native.groups cimport forget_group, free_groups
from inferd._native.hope cimport is_hopeless
from inferd._native.line cimport Group, Line, join_group, join_line, leave_group, leave_line
from inferd._native.live cimport INFERD_DEBUG, QUEUED, count
from inferd._native.schedule cimport DELAYED, FULL, READY, Policy, Reason, Schedule, after, sooner
from inferd._native.signature cimport Signature
from inferd._native.turns cimport TURN_BUCKETS, Flow, forget_flow, note_parked
from inferd._native.waiting cimport Waiting, enter, fits, flow_of, group_of, limit_for, refill, review, unlink
from inferd._native.wire cimport BOUND, QUEUED as STATE_QUEUED, TAKEN, Request

from inferd.errors import DeadlineExceeded, Hopeless, NotReady, Overloaded

cdef tuple REASONS = ("ready", "delay", "full", "turn")  # by Reason


@cython.final
cdef class BatchQueue:
    """Bound requests waiting for a run, in groups of equal shape, bounded in rows and bytes.

    `batch_rows` is the largest batch to form, until set_batch_rows says otherwise for a size class; a
    request that is larger by itself runs alone.
    `preferred_rows`: sizes to cut a batch at when enough rows are there. `max_delay_ns`: how long the
    oldest request may wait for a batch to fill; 0 means a batch leaves as soon as it is taken.
    Requests of a model without a batch axis always run alone.

    With a `schedule` requests wait in levels, for so long and so many as it says. A batch begins with the oldest
    request of the level whose turn it is, and what room is left in it goes to others of its shape, higher levels
    first: rows that share a run cost less than rows that get one of their own. Without, all are served in order of
    arrival, and the request's parameter `timeout` is a deadline.
    """

    def __cinit__(
        self,
        Signature signature not None,
        *,
        int64_t batch_rows,
        int64_t max_queue_rows,
        int64_t max_queue_bytes,
        int64_t max_delay_ns=0,
        preferred_rows=(),
        Schedule schedule=None,
        Forecast forecast=None,
    ):
        self.signature = signature
        self.max_queue_rows = max_queue_rows
        self.max_queue_bytes = max_queue_bytes
        self.max_delay_ns = max_delay_ns
        self.preferred_rows = tuple(sorted([int(size) for size in preferred_rows]))
        self.schedule, self.forecast = schedule, forecast
        self.held.queue = <void*>self
        self.held.lines, self.held.line_count = &self.held.only_line, 1
        self.held.preferred_rows = <int64_t*>calloc(len(self.preferred_rows) + 1, sizeof(int64_t))
        if self.held.preferred_rows == NULL:
            raise MemoryError
        for size in self.preferred_rows:
            self.held.preferred_rows[self.held.preferred_count] = size
            self.held.preferred_count += 1
        if schedule is not None:
            self.held.line_count, self.held.in_order = schedule.line_count, schedule.in_order
            self.held.of_level = <int64_t*>calloc(schedule.levels, sizeof(int64_t))
            if self.held.line_count > 1:
                self.held.lines = <Line*>calloc(self.held.line_count, sizeof(Line))
            if self.held.of_level == NULL or self.held.lines == NULL:
                raise MemoryError
        self.held.takes_turns = schedule is None or (not schedule.in_order and schedule.late_line < 0)
        cdef int size_class
        for size_class in range(SIZE_CLASSES):
            self.held.batch_rows[size_class] = max(batch_rows, 1) if signature.batched else 1

    def __dealloc__(self):
        cdef int line, bucket
        cdef Flow* flow
        for line in range(self.held.line_count if self.held.lines != NULL else 0):
            self.abandon(&self.held.lines[line])
        for bucket in range(TURN_BUCKETS):
            while self.held.turns.buckets[bucket] != NULL:
                flow = self.held.turns.buckets[bucket]
                self.abandon(&flow.parked)
                self.held.turns.buckets[bucket] = flow.next_in_bucket
                free(flow)
        free(self.held.turns.spare)
        free_groups(&self.held.groups)
        if self.held.lines != &self.held.only_line:
            free(self.held.lines)
        free(self.held.of_level)
        free(self.held.preferred_rows)

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

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self.held.rows

    @property
    def bytes(self) -> int:
        """Bytes of the requests that wait."""
        return self.held.bytes

    @property
    def requests(self) -> int:
        """Requests that wait."""
        return self.held.requests

    def set_batch_rows(self, int size_class, int64_t rows) -> None:
        """Set the largest batch to form of requests whose rows are of `size_class` (see Batch)."""
        if not 0 <= size_class < SIZE_CLASSES:
            raise IndexError(size_class)
        cdef void* at
        cdef Group* group
        cdef int line
        self.held.batch_rows[size_class] = max(rows, 1) if self.signature.batched else 1
        for line in range(self.held.line_count):
            at = self.held.lines[line].first
            while at != NULL:
                group = <Group*>(<Request>at).group
                if group.size_class == size_class:
                    review(&self.held, group)
                at = (<Request>at).next_arrival

    def set_short_rows(self, int size_class, int64_t rows) -> None:
        """Set the largest batch that take_short() hands out of requests whose rows are of `size_class`; 0 is none."""
        if not 0 <= size_class < SIZE_CLASSES:
            raise IndexError(size_class)
        self.short_rows[size_class] = rows

    cpdef void put(self, Request request, int64_t now_ns) except *:
        """Queue a bound request. The queue holds a reference to it until it is taken or dropped.

        Raises Overloaded if the bounds would be passed, Hopeless if there is a forecast and it says that the deadline
        will be missed, NotReady once closed.
        """
        cdef Group* group
        cdef Flow* flow = NULL
        cdef Waiting* held = &self.held
        if self.is_closed:
            raise NotReady(f"model '{self.signature.model}' is being stopped; try another replica")
        check_bound(self.signature, request)
        if self.is_full(request.rows, request.nbytes):
            raise self.full()
        if self.schedule is not None:
            self.admit(request, now_ns)
        else:
            request.line = request.level = 0
            if request.timeout_us:
                request.deadline_ns = sooner(request.deadline_ns, after(now_ns, request.timeout_us))
        if request.caller and held.takes_turns:
            # First, because others may step back for it, and a group with them.
            flow = flow_of(held, request)
            if flow == NULL:
                raise MemoryError
        group = group_of(held, self.signature, request)
        if group == NULL or (
            request.deadline_ns and self.forecast is not None
            and is_hopeless(self.forecast, held, request, group, flow, self.schedule is None, self.short_rows, now_ns)
        ):
            if flow != NULL and flow.requests == 0:
                forget_flow(&held.turns, flow)
            if group == NULL:
                raise MemoryError
            if group.first == NULL:
                forget_group(&held.groups, group)
            raise Hopeless(
                f"the deadline is in {max(request.deadline_ns - now_ns, 0) // 1000} us, sooner than model "
                f"'{self.signature.model}' can answer; nothing was queued"
            )
        request.flow = <void*>flow
        request.state = STATE_QUEUED
        request.arrived_ns = now_ns
        Py_INCREF(request)
        held.rows += request.rows
        held.bytes += request.nbytes
        held.requests += 1
        if request.deadline_ns:
            self.first_deadline_ns = sooner(self.first_deadline_ns, request.deadline_ns)
        if held.of_level != NULL:
            held.of_level[request.level] += 1
            self.first_deadline_ns = sooner(self.first_deadline_ns, request.until_ns)
        if flow != NULL and (
            flow.parked.first != NULL or (held.turns.flows > 1 and not fits(held, flow, request, group.size_class))
        ):
            note_parked(flow, request.shape_hash)
            join_line(&flow.parked, request)
            held.turns.parked += 1
            if group.first == NULL:
                forget_group(&held.groups, group)
        else:
            enter(held, request, group)
        if flow != NULL:
            flow.requests += 1
            flow.rows += request.rows
        if INFERD_DEBUG:
            count(QUEUED, 1)

    cdef bint is_full(self, int64_t rows, int64_t nbytes) noexcept:
        """Whether so much more would pass the bounds."""
        cdef Waiting* held = &self.held
        # An empty queue takes any request: a bound below one request's size must not make it unservable.
        return held.requests > 0 and (rows > self.max_queue_rows - held.rows or nbytes > self.max_queue_bytes - held.bytes)

    cdef object full(self):
        waiting = f"{self.held.rows} rows, {self.held.bytes} bytes"
        return Overloaded(f"the queue of model '{self.signature.model}' is full ({waiting} waiting); try again later")

    cdef int admit(self, Request request, int64_t now_ns) except -1:
        """Find the request's level and until when it may wait. Raises Overloaded if no more may wait there."""
        cdef Schedule schedule = self.schedule
        cdef Policy* policy
        request.line = request.level = schedule.level_of(request)
        policy = &schedule.policies[request.level]
        if policy.most_requests and self.held.of_level[request.level] >= policy.most_requests:
            of_priority = f" of priority {request.level + 1}" if schedule.levels > 1 else ""
            raise Overloaded(
                f"the queue of model '{self.signature.model}' is full "
                f"({self.held.of_level[request.level]} requests{of_priority} waiting); try again later"
            )
        schedule.set_times(request, now_ns)
        return 0

    cpdef bint drop(self, Request request) noexcept:
        """Take a request out of the queue again. False if it was not in it: it may be running already."""
        cdef void* queue = NULL
        if request.state == STATE_QUEUED:
            queue = (<Group*>request.group).queue if request.group != NULL else (<Flow*>request.flow).queue
        if queue != <void*>self:
            return False
        unlink(&self.held, request)
        refill(&self.held, self.signature)
        request.state = BOUND
        Py_DECREF(request)
        return True

    def take(self, int64_t now_ns) -> Batch | None:
        """Cut the batch that should run now, or None if nothing may leave yet.

        The batch of the oldest request goes first, in the level whose turn it is. With a delay, a group that can fill
        a batch goes at once, the others when their oldest request has waited long enough. Call expire() first: a batch
        must not spend rows on requests that nobody waits for any more.
        """
        return self.next_batch(now_ns, False)

    def take_short(self, int64_t now_ns) -> Batch | None:
        """The same, but None also if the batch would have more rows than set_short_rows() allows."""
        return self.next_batch(now_ns, True)

    cdef Batch next_batch(self, int64_t now_ns, bint only_short):
        cdef list members = []
        cdef Request head
        cdef Waiting* held = &self.held
        cdef void* at = held.lines[0].first
        cdef int64_t delay_ns = 0 if self.is_closed else self.max_delay_ns
        cdef Reason reason = READY
        cdef Group* group
        if held.requests == held.turns.parked:
            return None
        if self.schedule is not None:
            at = self.schedule.next(held.lines, held.groups.full.first, now_ns, delay_ns, &reason)
        elif delay_ns:
            reason = DELAYED
            if now_ns - (<Request>at).arrived_ns < delay_ns:
                reason = FULL
                at = NULL if held.groups.full.first == NULL else held.groups.full.first.first
        if at == NULL:
            return None
        head = <Request>at
        group = <Group*>head.group
        if only_short and head.on_gpu:
            return None  # whoever asks for short ones waits for no device
        if only_short and min(group.rows, max(limit_for(held, group), head.rows)) > self.short_rows[group.size_class]:
            return None
        return self.cut(head, members, now_ns, REASONS[<int>reason])

    cdef Batch cut(self, Request head, list members, int64_t now_ns, str reason):
        """Move `head`, then the first of its group into `members`, an empty list, and make a batch of them."""
        cdef Group* group = <Group*>head.group
        cdef int64_t limit = limit_for(&self.held, group)
        cdef int64_t rows = 0
        cdef void* at = <void*>head
        # Where `head` is not the first of its group, the first one comes after it.
        cdef void* passed = NULL if group.first == at else group.first
        cdef Request request
        if self.schedule is not None:
            self.schedule.served(self.held.lines, head.line)
            if self.schedule.in_order:
                self.left += 1
        while at != NULL:
            request = <Request>at
            if rows and rows + request.rows > limit:
                break
            at = request.next_in_group if passed == NULL else passed
            passed = NULL
            rows += request.rows
            members.append(request)
            # The last unlink frees the group, so nothing of it is read any more.
            unlink(&self.held, request)
            Py_DECREF(request)
            request.state = TAKEN
            request.taken_ns = now_ns
            request.turn = self.left
        refill(&self.held, self.signature)
        return batch_of(self.signature, members, rows, reason)

    def expire(self, int64_t now_ns) -> list[Request]:
        """Take out every queued request whose time is over, each with a DeadlineExceeded as its error.

        Its time is over at its deadline, or where its level says so; where that level delays, it goes behind all others
        instead.
        """
        cdef list late = []
        cdef Request request
        cdef Flow* flow
        cdef Flow* following
        cdef int line, bucket
        if self.first_deadline_ns == 0 or now_ns < self.first_deadline_ns:
            return late
        self.first_deadline_ns = 0
        for line in range(self.held.line_count):
            self.expire_from(&self.held.lines[line], late, now_ns)
        for bucket in range(TURN_BUCKETS if self.held.turns.parked else 0):
            flow = self.held.turns.buckets[bucket]
            while flow != NULL:
                following = flow.next_in_bucket
                self.expire_from(&flow.parked, late, now_ns)
                flow = following
        refill(&self.held, self.signature)
        for request in late:
            what = "the deadline passed" if 0 < request.deadline_ns <= now_ns else "its time to wait was over"
            request.error = DeadlineExceeded(
                f"{what} after {(now_ns - request.arrived_ns) // 1000000} ms in the queue of model "
                f"'{self.signature.model}'; nothing ran"
            )
        return late

    cdef int expire_from(self, Line* line, list late, int64_t now_ns) except -1:
        """The same for those in one line; what stays counts for when the next one's time is over."""
        cdef void* at = line.first
        cdef Request request
        while at != NULL:
            request = <Request>at
            at = request.next_arrival
            if not (0 < request.deadline_ns <= now_ns):
                if 0 < request.until_ns <= now_ns and self.schedule.policies[request.level].delays:
                    self.delay(request)
                if not (0 < request.until_ns <= now_ns):
                    self.first_deadline_ns = sooner(self.first_deadline_ns, request.deadline_ns)
                    self.first_deadline_ns = sooner(self.first_deadline_ns, request.until_ns)
                    continue
            late.append(request)
            unlink(&self.held, request)
            Py_DECREF(request)
            request.state = TAKEN
            request.taken_ns = now_ns
        return 0

    cdef void delay(self, Request request) noexcept:
        """Put a request behind all others."""
        cdef Group* group = <Group*>request.group
        leave_line(&self.held.lines[request.line], request)
        leave_group(group, request)
        request.line, request.until_ns = self.schedule.late_line, 0
        join_line(&self.held.lines[request.line], request)
        join_group(group, request)

    def due_ns(self) -> int | None:
        """When take() may next have a batch or expire() a request, on the caller's clock; None while empty."""
        cdef int64_t due
        cdef int64_t delay_ns = 0 if self.is_closed else self.max_delay_ns
        cdef Waiting* held = &self.held
        cdef bint some_is_full = held.groups.full.first != NULL
        if held.requests == held.turns.parked:
            return None
        if self.schedule is None:
            due = (<Request>held.lines[0].first).arrived_ns
        else:
            due = self.schedule.oldest_ns(held.lines)
            some_is_full = some_is_full and self.schedule.next_full(held.lines, held.groups.full.first) != NULL
        if delay_ns == 0 or some_is_full:
            return due
        due += delay_ns
        return min(due, self.first_deadline_ns) if self.first_deadline_ns else due

    def overdue_ns(self) -> int | None:
        """When expire() may next have a request; None if none that is queued has a limit to its time."""
        return self.first_deadline_ns if self.first_deadline_ns and self.held.requests else None

    def close(self) -> None:
        """Accept nothing more. What is queued is still handed out, without waiting for batches to fill."""
        self.is_closed = True
