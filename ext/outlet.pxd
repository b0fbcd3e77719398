"""Where the bytes of streams go: a connection, which sends them on its own time."""

from libc.stdint cimport int32_t, int64_t, uint8_t

from inferd._native.nghttp2 cimport nghttp2_session
from inferd._native.principal cimport Principal


cdef class Outlet:
    cdef nghttp2_session* session
    cdef size_t max_message_bytes
    cdef size_t max_metadata_bytes
    cdef size_t window_bytes
    cdef bint heeds_traces       # whether anybody asks which trace a call is part of
    cdef Principal principal     # who made the last call on it, where callers are asked
    cdef public object caller    # whose requests come on it; None until somebody asks

    cdef void touch(self) noexcept
    cdef int put(self, const uint8_t* data, size_t size) except -1
    cdef int lend(self, bytes owner, size_t start, size_t size) except -1
    cdef int flush(self) except -1
    cdef int watch(self, int64_t deadline_ns) except -1
    cdef bint is_too_much(self, size_t size) noexcept
    cdef int hold_back(self) except -1
    cdef int let_come(self, int32_t stream_id) except -1
    cdef int64_t expire(self, int64_t now_ns) except -1
