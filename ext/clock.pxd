"""The clocks: the monotonic one, which time.monotonic_ns() reads too, and what time it is."""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <time.h>

    static inline int64_t inferd_monotonic_ns(void) {
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
    }

    static inline int64_t inferd_epoch_ms(void) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
    }
    """
    int64_t monotonic_ns "inferd_monotonic_ns" () noexcept nogil
    int64_t epoch_ms "inferd_epoch_ms" () noexcept nogil
