"""Counts and histograms of one model version."""

from libc.stdint cimport int64_t

from inferd._native.wire cimport Request

cdef enum:
    CODES = 17


cdef class Histogram:
    cdef readonly tuple bounds
    cdef readonly double total
    cdef double* limits
    cdef int64_t* counted
    cdef int limit_count

    cdef void add(self, double value) noexcept nogil


cdef class ModelStats:
    cdef readonly Histogram request_seconds
    cdef readonly Histogram queue_seconds
    cdef readonly Histogram compute_seconds
    cdef readonly Histogram batch_rows
    cdef readonly int64_t rows
    cdef readonly int64_t batches
    cdef int64_t codes[CODES]

    cpdef void finished(self, int code, double seconds) noexcept
    cpdef void ran(self, Request request) noexcept
