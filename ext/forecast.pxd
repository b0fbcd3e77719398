"""The soonest that a request can be answered, by the fastest of the last runs. Time is an argument."""

from libc.stdint cimport int64_t

from inferd._native.batch cimport SIZE_CLASSES

cdef enum:
    TIERS = 17  # of batch sizes: up to 1, 2, 4 ... rows


cdef struct Tier:
    # The fastest run in this stretch of runs and in the one before, and how many there were.
    int64_t now_ns
    int64_t before_ns
    int now_runs
    int before_runs


# Runs of one number of rows, the largest that was of late between a power of two and the next.
cdef struct Full:
    int64_t rows
    int now_runs
    int before_runs
    int64_t now_ns         # the fastest
    int64_t before_ns
    int in_row             # those since the last IN_ROW that came one after the other, and their time together
    int64_t in_row_ns
    int64_t now_mean_ns    # of the fastest IN_ROW; 0 = there were none
    int64_t before_mean_ns


cdef struct Floors:
    Tier tiers[TIERS]
    # Runs of 2 ** tier rows and more take no less than this; it never falls from one tier to the next.
    int64_t floor_ns[TIERS]
    Full fulls[TIERS]
    int64_t most_ns        # no bound for one run is higher
    int runs
    int64_t last_ns        # when the last run ended


cdef class Forecast:
    cdef readonly int64_t instances
    cdef readonly int64_t max_rows
    cdef Floors* of_class[SIZE_CLASSES]

    cdef int64_t needs_ns(
        self, int size_class, int64_t rows, int64_t ahead, int64_t most, bint full, int64_t instances, int64_t now_ns
    ) noexcept
    cdef bint is_hopeless(
        self, int size_class, int64_t rows, int64_t ahead, int64_t most, bint full, int64_t instances,
        int64_t slack_ns, int64_t now_ns,
    ) noexcept
