"""Many connections in one thread, and the load that they carry. All of it works without the GIL.

A Crowd owns its seats, their connections, its spare and waiting calls and its two files. Address, bodies, headers,
tally and accepted answers are borrowed from the Generator around it.
"""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.arrivals cimport Arrivals
from inferd._native.client cimport Call, Connection, Script
from inferd._native.tally cimport Accepted, Slice, Tally


# One of the connections that the load asks for, whichever socket it has at the moment.
cdef struct Seat:
    Connection* connection
    int64_t connect_at_ns
    int64_t backoff_ns
    bint writing
    bint dirty
    # The server said GOAWAY: its calls end here, new ones start on a seat in its place.
    bint retired
    Seat* next


cdef struct Crowd:
    Script script
    Tally* tally
    Accepted* accepted
    Seat* seats
    int seat_count
    int empty_seats
    Seat* retired
    int streams
    int body_count
    int next_body
    int turn
    const uint8_t* address
    unsigned int address_size
    Arrivals arrivals
    int64_t limit
    int64_t started
    int64_t ended
    int64_t timeout_ns
    int64_t expire_at_ns
    int epoll
    int timer
    int64_t timer_at_ns
    Call* spare
    # Calls that a server gave back unseen, to go out again.
    Call* again
    uint8_t* buffer


cdef int crowd_open(Crowd* crowd, int connections) noexcept nogil
cdef void crowd_leave(Crowd* crowd) noexcept nogil
cdef void crowd_free(Crowd* crowd) noexcept nogil
cdef bint crowd_finished(const Crowd* crowd) noexcept nogil
cdef void crowd_work(Crowd* crowd, int64_t until_ns) noexcept nogil
cdef void crowd_report(Crowd* crowd, Slice made) noexcept
