"""What stands before every method of a server that asks who calls."""

from libc.stdint cimport int64_t

from inferd._native.stream cimport Stream


cdef class Guard:
    cdef object judge
    cdef object mark
    cdef int64_t looked_ns

    cdef bint admits(self, Stream stream) except -1
    cdef object refusal(self, Stream stream)
