"""What the connections of one server share. Knows nothing of sockets or frames."""

from libc.stdint cimport int64_t, uint32_t

from inferd._native.guard cimport Guard


cdef class Hub:
    cdef readonly dict methods           # path bytes -> Method
    cdef object find                     # path bytes -> Method, for those not in the dict
    cdef object call_soon
    cdef object call_later
    cdef object on_deadline
    cdef object on_left
    cdef readonly set connections
    cdef public Guard guard              # what stands before every method, or None
    cdef public bint heeds_traces        # whether traceparents are looked for, of connections made from then on
    cdef public bint is_leaving          # connections that are still made are asked to go at once
    cdef readonly size_t max_message_bytes
    cdef readonly size_t max_metadata_bytes
    cdef readonly uint32_t max_streams
    cdef readonly uint32_t window_bytes
    cdef readonly int64_t max_unpaid_frames
    # Messages of so many bytes and more are refused before they are read; 0 = all are read that are not too large.
    cdef public size_t spare_bytes
    cdef readonly int64_t unread    # so refused
    # All connections read into one buffer: what it holds is used up before the loop reads again.
    cdef bytearray buffer
    cdef object view
    cdef object short_view
    cdef list dirty
    cdef bint flush_is_planned
    # A flush follows what is being done.
    cdef bint is_busy
    cdef int64_t next_deadline_ns

    cdef int flush(self) except -1
    cdef bint is_too_much(self, size_t size) noexcept
    cdef int plan(self) except -1
    cdef int watch(self, int64_t deadline_ns) except -1
