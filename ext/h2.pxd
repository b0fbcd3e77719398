"""HTTP/2 connections of a server, as asyncio protocols. Owns bytes on the wire, knows nothing of inference."""

from cpython.object cimport PyObject
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from inferd._native.nghttp2 cimport nghttp2_option, nghttp2_rcbuf, nghttp2_session_callbacks
from inferd._native.stream cimport Method, Outlet, Stream


cdef class Hub:
    """What the connections of one listener share."""

    cdef readonly dict methods        # path bytes -> Method
    cdef object find                  # path bytes -> Method, for those not in the dict
    cdef object call_soon
    cdef readonly set connections
    cdef readonly size_t max_message_bytes
    cdef readonly size_t max_metadata_bytes
    cdef readonly uint32_t max_streams
    cdef readonly uint32_t window_bytes
    cdef nghttp2_session_callbacks* callbacks
    cdef nghttp2_option* option
    # All connections read into one buffer: what it holds is used up before the loop reads again.
    cdef bytearray buffer
    cdef object view
    cdef list dirty
    cdef bint flush_is_planned
    # A flush follows what is being done.
    cdef bint is_busy
    cdef object on_deadline
    cdef int64_t next_deadline_ns

    cdef int flush(self) except -1
    cdef int plan(self) except -1
    cdef int watch(self, int64_t deadline_ns) except -1


cdef class Connection(Outlet):
    cdef Hub hub
    cdef object transport
    cdef object write
    cdef void* first_stream           # live streams; a reference is held to each
    cdef readonly int streams
    cdef nghttp2_rcbuf* last_path     # of the last call, and what answered it
    cdef Method last_method
    cdef bint is_dirty
    cdef bint is_paused
    cdef bint is_closing
    # Bytes for the transport, in an object of their own until they are handed over.
    cdef PyObject* out
    cdef size_t out_size
    cdef size_t out_room
    cdef readonly int64_t opened_ns
    cdef readonly int64_t received_ns
    # Frames that ask for work and bring nothing: pings, settings, resets, empty data.
    cdef public int64_t unpaid_frames

    cdef int open_stream(self, int32_t stream_id) except -1
    cdef void close_stream(self, Stream stream) noexcept
    cdef list live(self)
    cdef int begin(self, Stream stream) except -1
    cdef int look_up(self, Stream stream, bytes path, nghttp2_rcbuf* shared) except -1
    cdef void bug(self, Stream stream) noexcept
    cdef int emit(self) except -1
    cdef int flush(self) except -1
    cdef int give_up(self, int error) except -1
