"""Counts and histograms of one model version."""

from libc.stdint cimport int64_t

from inferd._native.batch cimport Batch
from inferd._native.wire cimport Request

cdef enum:
    CODES = 17
    # So many numbers of rows are told apart. Clients may choose how many rows they send where a model lets them.
    MAX_SIZES = 4096


cdef class Histogram:
    cdef readonly tuple bounds
    cdef readonly double total
    cdef double* limits
    cdef int64_t* counted
    cdef int limit_count

    cdef void add(self, double value, int64_t times) noexcept nogil


cdef class SizeStats:
    # Batches of one number of rows: how many, and what they took in all.
    cdef readonly int64_t rows
    cdef readonly int64_t batches
    cdef readonly int64_t input_ns
    cdef readonly int64_t infer_ns
    cdef readonly int64_t output_ns


cdef class ModelStats:
    cdef readonly Histogram request_seconds
    cdef readonly Histogram queue_seconds
    cdef readonly Histogram compute_seconds
    # The parts of that.
    cdef readonly Histogram input_seconds
    cdef readonly Histogram infer_seconds
    cdef readonly Histogram output_seconds
    cdef readonly Histogram batch_rows
    cdef readonly int64_t rows
    cdef readonly int64_t batches
    cdef readonly int64_t last_run_ms     # since the Unix epoch; 0 = none yet
    cdef readonly double ok_seconds       # of request_seconds, what went to requests that ended well
    cdef dict by_rows
    cdef int64_t codes[CODES]

    cpdef void finished(self, int code, double seconds) noexcept
    cpdef void ran(self, Request request) noexcept
