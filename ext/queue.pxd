"""BatchQueue: requests in, batches out. No clock, no lock, no thread: time is an argument."""

from libc.stdint cimport int64_t

from inferd._native.batch cimport SIZE_CLASSES, Batch
from inferd._native.forecast cimport Forecast
from inferd._native.line cimport Group, Line
from inferd._native.schedule cimport Schedule
from inferd._native.signature cimport Signature
from inferd._native.waiting cimport Waiting
from inferd._native.wire cimport Request


cdef class BatchQueue:
    cdef readonly Signature signature
    cdef readonly Schedule schedule    # None: one level, and deadlines only
    cdef readonly tuple preferred_rows
    cdef Waiting held
    cdef readonly int64_t max_queue_rows
    cdef readonly int64_t max_queue_bytes
    cdef readonly int64_t max_delay_ns
    cdef readonly Forecast forecast    # None: nothing is refused for want of time
    cdef int64_t short_rows[SIZE_CLASSES]
    # No queued request's time is over earlier than this; 0 = none is set. Not raised when a request leaves.
    cdef int64_t first_deadline_ns
    cdef readonly bint is_closed
    cdef int64_t left                  # batches that left, where they leave in order

    cpdef void put(self, Request request, int64_t now_ns) except *
    cpdef bint drop(self, Request request) noexcept
    cdef bint is_full(self, int64_t rows, int64_t nbytes) noexcept
    cdef object full(self)
    cdef int admit(self, Request request, int64_t now_ns) except -1
    cdef int expire_from(self, Line* line, list late, int64_t now_ns) except -1
    cdef void delay(self, Request request) noexcept
    cdef void abandon(self, Line* line) noexcept
    cdef Batch next_batch(self, int64_t now_ns, bint only_short)
    cdef Batch cut(self, Request head, list members, int64_t now_ns, str reason)
