"""Permits: how many requests the server works on at a time, and whose they are. Knows nothing of queues or batches."""

from libc.stdint cimport int64_t

from inferd._native.wire cimport Request


cdef class Caller:
    # Whose requests are counted together: a principal, or a connection.
    cdef readonly str key          # "" for a connection
    cdef readonly int64_t number   # from 1, never given twice
    cdef readonly int weight       # how large its share of a queue is beside others
    cdef readonly int64_t requests
    cdef readonly int64_t bytes
    cdef readonly Admission admission
    cdef object __weakref__


cdef class Admission:
    # 0 = no bound.
    cdef readonly int64_t max_requests
    cdef readonly int64_t max_bytes
    cdef readonly int64_t max_caller_requests
    # How long a permit may be held for a message that is still coming; 0 = as long as its call may take.
    cdef readonly int64_t message_ns
    # While memory is short, only requests of fewer bytes than this are taken; 0 = it is not short.
    cdef public int64_t spare_bytes
    cdef readonly int64_t requests
    cdef readonly int64_t bytes
    cdef int64_t callers
    cdef Caller anybody
    cdef object by_key
    # Made once: nothing is to be allocated for a refusal.
    cdef object too_many
    cdef object too_many_bytes
    cdef object too_many_of_caller
    cdef object too_little_memory

    cdef object refusal(self, Caller caller, int64_t nbytes)
    cdef void add(self, Caller caller, int64_t nbytes) noexcept
    cdef object acquire(self, Request request, Caller caller)
    cdef object reserve(self, Caller caller, int64_t nbytes)
    cdef Caller new_caller(self, str key)


cdef class Permit:
    # Had before the request is there; given back when nobody holds it any more.
    cdef Caller caller
    cdef int64_t nbytes

    cdef void give(self, Request request) noexcept


cdef void release(Request request) noexcept
