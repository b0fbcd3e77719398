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

from inferd._native.batch cimport Batch, batch_of, check_bound, size_class_of
from inferd._native.live cimport INFERD_DEBUG, QUEUED, count
from inferd._native.signature cimport Signature, same_shape
from inferd._native.wire cimport BOUND, QUEUED as STATE_QUEUED, TAKEN, Request

from inferd.errors import DeadlineExceeded, NotReady, Overloaded


@cython.final
cdef class BatchQueue:
    """Bound requests waiting for a run, in groups of equal shape, bounded in rows and bytes.

    `batch_rows` is the largest batch to form, until set_batch_rows says otherwise for a size class; a
    request that is larger by itself runs alone.
    `preferred_rows`: sizes to cut a batch at when enough rows are there. `max_delay_ns`: how long the
    oldest request may wait for a batch to fill; 0 means a batch leaves as soon as it is taken.
    Requests of a model without a batch axis always run alone.
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
    ):
        self.signature = signature
        self.max_queue_rows = max_queue_rows
        self.max_queue_bytes = max_queue_bytes
        self.max_delay_ns = max_delay_ns
        self.preferred_rows = tuple(sorted([int(size) for size in preferred_rows]))
        cdef int size_class
        for size_class in range(SIZE_CLASSES):
            self.batch_rows[size_class] = max(batch_rows, 1) if signature.batched else 1

    def __dealloc__(self):
        cdef void* at = self.first
        cdef void* following
        cdef Group* group
        cdef int bucket
        while at != NULL:
            following = (<Request>at).next_arrival
            (<Request>at).group = NULL
            (<Request>at).state = BOUND
            Py_DECREF(<Request>at)
            if INFERD_DEBUG:
                count(QUEUED, -1)
            at = following
        for bucket in range(BUCKETS):
            while self.buckets[bucket] != NULL:
                group = self.buckets[bucket]
                self.buckets[bucket] = group.next_in_bucket
                free(group)

    def set_batch_rows(self, int size_class, int64_t rows) -> None:
        """Set the largest batch to form of requests whose rows are of `size_class` (see Batch)."""
        if not 0 <= size_class < SIZE_CLASSES:
            raise IndexError(size_class)
        cdef void* at = self.first
        cdef Group* group
        self.batch_rows[size_class] = max(rows, 1) if self.signature.batched else 1
        while at != NULL:
            group = <Group*>(<Request>at).group
            if group.size_class == size_class:
                self.review(group)
            at = (<Request>at).next_arrival

    def set_short_rows(self, int size_class, int64_t rows) -> None:
        """Set the largest batch that take_short() hands out of requests whose rows are of `size_class`; 0 is none."""
        if not 0 <= size_class < SIZE_CLASSES:
            raise IndexError(size_class)
        self.short_rows[size_class] = rows

    cpdef void put(self, Request request, int64_t now_ns) except *:
        """Queue a bound request. The queue holds a reference to it until it is taken or dropped.

        Raises Overloaded if the bounds would be passed, NotReady once closed.
        """
        cdef Group* group
        if self.is_closed:
            raise NotReady(f"model '{self.signature.model}' is being stopped; try another replica")
        check_bound(self.signature, request)
        # An empty queue takes any request: a bound below one request's size must not make it unservable.
        if self.requests and (
            request.rows > self.max_queue_rows - self.rows or request.nbytes > self.max_queue_bytes - self.bytes
        ):
            raise Overloaded(
                f"the queue of model '{self.signature.model}' is full ({self.rows} rows, {self.bytes} bytes waiting); try again later"
            )
        group = self.group_of(request)
        request.group = group
        request.state = STATE_QUEUED
        request.arrived_ns = now_ns
        request.next_arrival = NULL
        request.prev_arrival = self.last
        if self.last != NULL:
            (<Request>self.last).next_arrival = <void*>request
        else:
            self.first = <void*>request
        self.last = <void*>request
        request.next_in_group = NULL
        request.prev_in_group = group.last
        if group.last != NULL:
            (<Request>group.last).next_in_group = <void*>request
        else:
            group.first = <void*>request
        group.last = <void*>request
        Py_INCREF(request)
        group.rows += request.rows
        self.rows += request.rows
        self.bytes += request.nbytes
        self.requests += 1
        if request.deadline_ns and (self.first_deadline_ns == 0 or request.deadline_ns < self.first_deadline_ns):
            self.first_deadline_ns = request.deadline_ns
        self.review(group)
        if INFERD_DEBUG:
            count(QUEUED, 1)

    cdef Group* group_of(self, Request request) except NULL:
        """The group of the request's shape; a new one if there is none. Shapes are compared, not only hashes."""
        cdef Group** bucket = &self.buckets[(request.shape_hash ^ (request.shape_hash >> 32)) % BUCKETS]
        cdef Group* group = bucket[0]
        while group != NULL:
            if group.shape_hash == request.shape_hash and same_shape(self.signature, <Request>group.first, request):
                return group
            group = group.next_in_bucket
        group = <Group*>calloc(1, sizeof(Group))
        if group == NULL:
            raise MemoryError
        group.queue = <void*>self
        group.shape_hash = request.shape_hash
        group.size_class = size_class_of(request)
        group.next_in_bucket = bucket[0]
        bucket[0] = group
        return group

    cdef void forget(self, Group* group) noexcept:
        """Free a group that has no requests left."""
        cdef Group** at = &self.buckets[(group.shape_hash ^ (group.shape_hash >> 32)) % BUCKETS]
        if group.is_full:
            self.leave_full(group)
        while at[0] != group:
            at = &at[0].next_in_bucket
        at[0] = group.next_in_bucket
        free(group)

    cdef void review(self, Group* group) noexcept:
        """Have the group among the full ones if, and only if, it can fill a batch."""
        cdef bint fills = group.rows >= self.limit_for(group)
        if fills and not group.is_full:
            self.mark_full(group)
        elif group.is_full and not fills:
            self.leave_full(group)

    cdef void mark_full(self, Group* group) noexcept:
        group.is_full = True
        group.next_full = NULL
        group.prev_full = self.last_full
        if self.last_full != NULL:
            self.last_full.next_full = group
        else:
            self.first_full = group
        self.last_full = group

    cdef void leave_full(self, Group* group) noexcept:
        group.is_full = False
        if group.prev_full != NULL:
            group.prev_full.next_full = group.next_full
        else:
            self.first_full = group.next_full
        if group.next_full != NULL:
            group.next_full.prev_full = group.prev_full
        else:
            self.last_full = group.prev_full

    cdef void unlink(self, Request request) noexcept:
        """Take a queued request out of both lists. The queue's reference goes to the caller. May free the group."""
        cdef Group* group = <Group*>request.group
        if request.prev_arrival != NULL:
            (<Request>request.prev_arrival).next_arrival = request.next_arrival
        else:
            self.first = request.next_arrival
        if request.next_arrival != NULL:
            (<Request>request.next_arrival).prev_arrival = request.prev_arrival
        else:
            self.last = request.prev_arrival
        if request.prev_in_group != NULL:
            (<Request>request.prev_in_group).next_in_group = request.next_in_group
        else:
            group.first = request.next_in_group
        if request.next_in_group != NULL:
            (<Request>request.next_in_group).prev_in_group = request.prev_in_group
        else:
            group.last = request.prev_in_group
        request.next_arrival = request.prev_arrival = NULL
        request.next_in_group = request.prev_in_group = NULL
        request.group = NULL
        group.rows -= request.rows
        self.rows -= request.rows
        self.bytes -= request.nbytes
        self.requests -= 1
        if group.first == NULL:
            self.forget(group)
        else:
            self.review(group)
        if INFERD_DEBUG:
            count(QUEUED, -1)

    cpdef bint drop(self, Request request) noexcept:
        """Take a request out of the queue again. False if it was not in it: it may be running already."""
        if request.state != STATE_QUEUED or (<Group*>request.group).queue != <void*>self:
            return False
        self.unlink(request)
        request.state = BOUND
        Py_DECREF(request)
        return True

    cdef int64_t limit_for(self, Group* group) noexcept:
        """The size to cut a group at: the largest preferred size that it reaches, else its batch_rows."""
        cdef int64_t most = self.batch_rows[group.size_class]
        cdef int64_t best = 0
        cdef int64_t size
        for size in self.preferred_rows:
            if size <= group.rows and size <= most:
                best = size
        return best if best else most

    def take(self, int64_t now_ns) -> Batch | None:
        """Cut the batch that should run now, or None if nothing may leave yet.

        The batch of the oldest request goes first. With a delay, a group that can fill a batch goes at
        once, the others when their oldest request has waited long enough. Call expire() first: a batch
        must not spend rows on requests that nobody waits for any more.
        """
        return self.next_batch(now_ns, False)

    def take_short(self, int64_t now_ns) -> Batch | None:
        """The same, but None also if the batch would have more rows than set_short_rows() allows."""
        return self.next_batch(now_ns, True)

    cdef Batch next_batch(self, int64_t now_ns, bint only_short):
        cdef list members = []
        cdef Request head
        cdef str reason
        cdef Group* group
        if self.first == NULL:
            return None
        head = <Request>self.first
        group = <Group*>head.group
        if self.max_delay_ns == 0 or self.is_closed:
            reason = "ready"
        elif now_ns - head.arrived_ns >= self.max_delay_ns:
            reason = "delay"
        elif self.first_full != NULL:
            group, reason = self.first_full, "full"
        else:
            return None
        if only_short and min(
            group.rows, max(self.limit_for(group), (<Request>group.first).rows)
        ) > self.short_rows[group.size_class]:
            return None
        return self.cut(group, members, now_ns, reason)

    cdef Batch cut(self, Group* group, list members, int64_t now_ns, str reason):
        """Move the oldest requests of the group into `members`, an empty list, and make a batch of them."""
        cdef int64_t limit = self.limit_for(group)
        cdef int64_t rows = 0
        cdef void* at = group.first
        cdef Request request
        while at != NULL:
            request = <Request>at
            if rows and rows + request.rows > limit:
                break
            at = request.next_in_group
            rows += request.rows
            members.append(request)
            # The last unlink frees the group, so nothing of it is read any more.
            self.unlink(request)
            Py_DECREF(request)
            request.state = TAKEN
            request.taken_ns = now_ns
        return batch_of(self.signature, members, rows, reason)

    def expire(self, int64_t now_ns) -> list[Request]:
        """Take out every queued request whose deadline has passed, each with a DeadlineExceeded as its error."""
        cdef list late = []
        cdef Request request
        cdef void* at = self.first
        if self.first_deadline_ns == 0 or now_ns < self.first_deadline_ns:
            return late
        self.first_deadline_ns = 0
        while at != NULL:
            request = <Request>at
            at = request.next_arrival
            if request.deadline_ns == 0:
                continue
            if request.deadline_ns > now_ns:
                if self.first_deadline_ns == 0 or request.deadline_ns < self.first_deadline_ns:
                    self.first_deadline_ns = request.deadline_ns
            else:
                late.append(request)
                self.unlink(request)
                Py_DECREF(request)
                request.state = TAKEN
                request.taken_ns = now_ns
        for request in late:
            request.error = DeadlineExceeded(
                f"the deadline passed after {(now_ns - request.arrived_ns) // 1000000} ms in the queue of model "
                f"'{self.signature.model}'; nothing ran"
            )
        return late

    def due_ns(self) -> int | None:
        """When take() may next have a batch or expire() a request, on the caller's clock; None while empty."""
        if self.first == NULL:
            return None
        cdef int64_t due = (<Request>self.first).arrived_ns
        if self.max_delay_ns == 0 or self.is_closed or self.first_full != NULL:
            return due
        due += self.max_delay_ns
        return min(due, self.first_deadline_ns) if self.first_deadline_ns else due

    def close(self) -> None:
        """Accept nothing more. What is queued is still handed out, without waiting for batches to fill."""
        self.is_closed = True
