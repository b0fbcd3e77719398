"""The monotonic clock, the one that time.monotonic_ns() reads."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <time.h>

    static inline int64_t inferd_monotonic_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    }
    """
    int64_t monotonic_ns "inferd_monotonic_ns" () noexcept nogil
