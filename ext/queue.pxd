"""BatchQueue: requests in, batches out. No clock, no lock, no thread: time is an argument."""

from libc.stdint cimport int64_t

from inferd._native.batch cimport SIZE_CLASSES, Batch
from inferd._native.forecast cimport Forecast
from inferd._native.groups cimport Groups
from inferd._native.line cimport Group, Line
from inferd._native.schedule cimport Schedule
from inferd._native.signature cimport Signature
from inferd._native.wire cimport Request


cdef class BatchQueue:
    cdef readonly Signature signature
    cdef readonly int64_t max_queue_rows
    cdef readonly int64_t max_queue_bytes
    cdef readonly int64_t max_delay_ns
    cdef readonly tuple preferred_rows
    cdef bint has_preferred_rows
    cdef readonly Schedule schedule    # None: one level, and deadlines only
    cdef readonly Forecast forecast    # None: nothing is refused for want of time
    cdef int64_t batch_rows[SIZE_CLASSES]
    cdef int64_t short_rows[SIZE_CLASSES]
    cdef readonly int64_t rows
    cdef readonly int64_t bytes
    cdef readonly int64_t requests
    # No queued request's time is over earlier than this; 0 = none is set. Not raised when a request leaves.
    cdef int64_t first_deadline_ns
    cdef readonly bint is_closed
    # By level, and last the line of late requests; without a schedule the only line there is.
    cdef Line* lines
    cdef Line only_line
    cdef int line_count
    cdef int64_t* of_level             # requests by level, wherever they wait; NULL without a schedule
    cdef int64_t turns                 # batches that left, where they leave in order
    cdef Groups groups

    cdef Group* group_of(self, Request request) except NULL
    cpdef void put(self, Request request, int64_t now_ns) except *
    cpdef bint drop(self, Request request) noexcept
    cdef void unlink(self, Request request) noexcept
    cdef void review(self, Group* group) noexcept
    cdef int admit(self, Request request, int64_t now_ns) except -1
    cdef void delay(self, Request request) noexcept
    cdef int refuse_hopeless(self, Request request, Group* group, int64_t now_ns) except -1
    cdef Batch next_batch(self, int64_t now_ns, bint only_short)
    cdef Batch cut(self, Request head, list members, int64_t now_ns, str reason)
    cdef int64_t limit_for(self, Group* group) noexcept
    cdef int64_t preferred_for(self, Group* group) noexcept
