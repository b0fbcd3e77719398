"""When calls are due in an open loop: at moments that nothing the server does can move."""

from libc.math cimport log
from libc.stdint cimport uint64_t


cdef struct Arrivals:
    # 0: there are none, the loop is closed.
    double interval_ns
    bint poisson
    double due_ns
    uint64_t random


cdef inline void next_arrival(Arrivals* arrivals) noexcept nogil:
    """Move on by the interval; for Poisson arrivals by an exponentially distributed time of that mean."""
    cdef uint64_t bits = arrivals.random
    if not arrivals.poisson:
        arrivals.due_ns += arrivals.interval_ns
        return
    # xorshift64*; the 53 highest bits make a fraction in (0, 1].
    bits ^= bits >> 12
    bits ^= bits << 25
    bits ^= bits >> 27
    arrivals.random = bits
    bits = (bits * <uint64_t>0x2545F4914F6CDD1D) >> 11
    arrivals.due_ns -= log((<double>bits + 1) / 9007199254740992.0) * arrivals.interval_ns
