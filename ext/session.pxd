"""One HTTP/2 session of a server: nghttp2's, the streams on it, and who answers them. Knows nothing of sockets."""

from libc.stdint cimport int32_t, int64_t

from inferd._native.hub cimport Hub
from inferd._native.inlet cimport Inlet
from inferd._native.nghttp2 cimport nghttp2_rcbuf
from inferd._native.stream cimport Method, Stream


cdef class Session(Inlet):
    cdef readonly Hub hub
    cdef void* first_stream           # live streams; a reference is held to each
    cdef readonly int streams
    # The highest number of a stream so far, and where the numbers begin that it skipped, RFC 9113 section 5.1.1.
    cdef readonly int32_t last_stream_id
    cdef int32_t skipped_from
    cdef nghttp2_rcbuf* last_path     # of the last call, and what answered it
    cdef Method last_method
    cdef bint is_dirty
    # The DATA frame that comes in: its size, and how much of it is still to come if nothing else is in it.
    cdef int32_t frame_stream_id
    cdef size_t frame_bytes
    cdef size_t frame_left
    cdef readonly bint is_greeted     # the client has sent its settings, and has taken ours
    cdef bint has_settings            # it has sent its own
    cdef readonly bint is_paused      # the client reads more slowly than it is written to
    cdef readonly bint is_leaving     # the client was asked to begin no more calls
    cdef readonly bint has_left       # and was told which were the last
    cdef readonly int64_t headers_since_ns  # since when a call's headers are incomplete, 0 = none are
    # Frames that ask for work and bring nothing: pings, settings, resets, window updates, empty data, calls beyond
    # those allowed. Each frame of an answer pays for one; whoever keeps time forgives the rest. Too many at once
    # close the connection.
    cdef public int64_t unpaid_frames

    cdef int open(self) except -1
    cdef int open_stream(self, int32_t stream_id) except -1
    cdef void close_stream(self, Stream stream) noexcept
    cdef Stream filling(self)
    cdef int let_all_come(self) except -1
    cdef list live(self)
    cdef int begin(self, Stream stream) except -1
    cdef bint is_too_much(self, size_t size) noexcept
    cdef int look_up(self, Stream stream, bytes path, nghttp2_rcbuf* shared) except -1
    cdef void bug(self, Stream stream) noexcept
