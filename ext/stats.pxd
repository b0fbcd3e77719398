"""Counts and histograms of one model version."""

from libc.stdint cimport int64_t

from inferd._native.batch cimport Batch
from inferd._native.wire cimport Request

cdef enum:
    CODES = 17
    UNKNOWN = 2
    # So many numbers of rows are told apart. Clients may choose how many rows they send where a model lets them.
    MAX_SIZES = 4096


cdef class Histogram:
    cdef readonly tuple bounds
    cdef readonly double total
    cdef double* limits
    cdef int64_t* counted
    cdef int limit_count

    cdef dict examples    # None until there is one

    cdef void add(self, double value, int64_t times) noexcept nogil
    cdef void exemplify(self, double value, bytes trace_id) noexcept


cdef class SizeStats:
    # Batches of one number of rows: how many, and what they took in all.
    cdef readonly int64_t rows
    cdef readonly int64_t batches
    cdef readonly int64_t input_ns
    cdef readonly int64_t infer_ns
    cdef readonly int64_t output_ns


cdef class ModelStats:
    cdef list request_seconds_of          # by code; None for one that never came
    cdef readonly Histogram queue_seconds
    cdef readonly Histogram compute_seconds
    # The parts of that.
    cdef readonly Histogram input_seconds
    cdef readonly Histogram infer_seconds
    cdef readonly Histogram output_seconds
    cdef readonly Histogram batch_rows
    cdef readonly int64_t rows
    cdef readonly int64_t padded_rows     # that batches were filled up with; none of `rows`
    cdef readonly int64_t batches
    cdef readonly int64_t last_run_ms     # since the Unix epoch; 0 = none yet
    cdef readonly int64_t busy_ns         # of all instances, also for runs that failed
    cdef dict by_rows
    cdef dict by_reason
    cdef dict shed_for                    # requests that were kept out of the queue for want of room or time
    cdef int64_t codes[CODES]

    # Requests that came into the queue, those of them that have no end yet, and the ends that were not OK.
    cdef readonly int64_t accepted
    cdef readonly int64_t in_flight
    cdef int64_t failed[CODES]
    cdef readonly int64_t expired         # of those, whose time was over before they ran
    cdef readonly int64_t stopped_batches  # runs stopped because nobody waited for any of their requests
    cdef readonly int64_t wasted_rows     # run for requests that nobody waited for any more

    cdef Histogram seconds_of(self, int code)
    cpdef void finished(self, int code, double seconds) noexcept
    cpdef void accept(self) noexcept
    cpdef void ended(self, int code, double seconds) noexcept
    cpdef void exemplify(self, int code, double seconds, bytes trace_id) noexcept
    cpdef void expire(self) noexcept
    cpdef int shed(self, str reason) except -1
    cpdef void ran(self, Request request, bint waited_for) noexcept
