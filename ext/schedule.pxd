"""What a model's configuration says about who is served first, for how long and how many may wait. Never changed."""

from libc.stdint cimport int64_t

from inferd._native.line cimport Group, Line
from inferd._native.wire cimport Request

cdef enum:
    MOST_LEVELS = 256
    # Batches of higher levels that a level lets pass once its oldest request has waited for the patience.
    PASSED_OVER = 8


cdef struct Policy:
    int64_t timeout_ns     # 0 = none
    int64_t most_requests  # of one level; 0 = no bound
    bint delays            # a request whose time is over goes behind all others, and is not refused
    bint overridable       # the parameter `timeout` may shorten the time, or set it where there is none
    bint is_silent         # it says nothing of time, so the parameter is a deadline


# Why a batch leaves.
cdef enum Reason:
    READY    # nothing is waited for
    DELAYED  # its oldest request has waited for others long enough
    FULL
    TURN     # a lower level was passed over too often


cdef class Schedule:
    cdef readonly int levels
    cdef readonly bint in_order
    cdef readonly bint refuses     # a level has a time after which requests are refused
    cdef readonly int64_t patience_ns
    cdef int default_level
    # Of levels, and of one more for requests that came to be late, if any level delays these.
    cdef int line_count
    cdef int late_line     # -1: there is none
    cdef Policy* policies

    cdef int level_of(self, Request request) noexcept
    cdef void set_times(self, Request request, int64_t now_ns) noexcept
    cdef void* next(self, Line* lines, Group* first_full, int64_t now_ns, int64_t delay_ns, Reason* reason) noexcept
    cdef void* next_full(self, Line* lines, Group* first_full) noexcept
    cdef int owed(self, Line* lines, int64_t now_ns) noexcept
    cdef bint is_late_only(self, Line* lines) noexcept
    cdef int64_t oldest_ns(self, Line* lines) noexcept
    cdef int waited(self, Line* lines, int64_t since_ns) noexcept
    cdef void served(self, Line* lines, int line) noexcept


cdef int64_t after(int64_t now_ns, int64_t timeout_us) noexcept


cdef inline int64_t sooner(int64_t a_ns, int64_t b_ns) noexcept nogil:
    """The sooner of two times, where 0 is never."""
    return b_ns if a_ns == 0 or 0 < b_ns < a_ns else a_ns
