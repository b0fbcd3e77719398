"""BatchQueue: requests in, batches out. No clock, no lock, no thread: time is an argument."""

from libc.stdint cimport int64_t, uint64_t

from inferd._native.batch cimport SIZE_CLASSES, Batch
from inferd._native.signature cimport Signature
from inferd._native.wire cimport Request


cdef struct Group:
    # Requests that may share a batch, oldest first; borrowed, the queue holds the references.
    void* queue            # whose group this is; borrowed
    void* first
    void* last
    int64_t rows
    int size_class         # of the bytes in one row: what the learnt batch size depends on
    uint64_t shape_hash
    Group* next_in_bucket
    # Groups that can fill a batch right now, in the order in which they became able to.
    bint is_full
    Group* next_full
    Group* prev_full


cdef enum:
    BUCKETS = 256


cdef class BatchQueue:
    cdef readonly Signature signature
    cdef readonly int64_t max_queue_rows
    cdef readonly int64_t max_queue_bytes
    cdef readonly int64_t max_delay_ns
    cdef readonly tuple preferred_rows
    cdef int64_t batch_rows[SIZE_CLASSES]
    cdef int64_t short_rows[SIZE_CLASSES]
    cdef readonly int64_t rows
    cdef readonly int64_t bytes
    cdef readonly int64_t requests
    # No queued deadline is earlier than this; 0 = none is set. Not raised when a request leaves.
    cdef int64_t first_deadline_ns
    cdef readonly bint is_closed
    cdef void* first
    cdef void* last
    cdef Group* buckets[BUCKETS]
    cdef Group* first_full
    cdef Group* last_full

    cdef Group* group_of(self, Request request) except NULL
    cpdef void put(self, Request request, int64_t now_ns) except *
    cpdef bint drop(self, Request request) noexcept
    cdef void unlink(self, Request request) noexcept
    cdef void review(self, Group* group) noexcept
    cdef void mark_full(self, Group* group) noexcept
    cdef void leave_full(self, Group* group) noexcept
    cdef void forget(self, Group* group) noexcept
    cdef Batch next_batch(self, int64_t now_ns, bint only_short)
    cdef Batch cut(self, Group* group, list members, int64_t now_ns, str reason)
    cdef int64_t limit_for(self, Group* group) noexcept
