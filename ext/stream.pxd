"""One gRPC call as a server sees it: HTTP/2 stream in, messages up; messages down, HTTP/2 stream out.

Knows nothing of sockets (see h2) and nothing of what the messages mean (see Method).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from inferd._native.header cimport Encoding
from inferd._native.headers cimport Headers
from inferd._native.nghttp2 cimport nghttp2_nv, nghttp2_rcbuf
from inferd._native.outlet cimport Outlet
from inferd._native.principal cimport Permission, Principal

cdef enum:
    PREFIX_BYTES = 5


# Where a stream's call stands; only forward.
cdef enum Phase:
    HEADERS_COME   # the request's headers are being read
    OPEN
    ENDING         # the status is decided; what was queued before it still goes out
    CLOSED         # the HTTP/2 stream is gone


cdef class Method:
    """What answers the calls of one path. All of it runs on the loop's thread."""

    cdef int begin(self, Stream stream) except -1
    cdef bint coming(self, Stream stream, size_t size, const uint8_t* begun, size_t here) except -1
    cdef int message(self, Stream stream, bytes body, bint compressed) except -1
    cdef int half_close(self, Stream stream) except -1
    cdef void sent(self, Stream stream) noexcept
    cdef void closed(self, Stream stream) noexcept


cdef class Stream:
    cdef Outlet outlet            # None once CLOSED
    cdef readonly int32_t id
    cdef readonly Method method
    cdef Phase phase
    cdef readonly int64_t arrived_ns
    cdef readonly int64_t deadline_ns    # monotonic; 0 = none
    cdef int64_t answer_by_ns            # when the answer must be there, if that is sooner; it may leave until the deadline
    cdef readonly bint half_closed       # the client has sent all it will

    # Neighbours among the connection's live streams, borrowed.
    cdef void* next_stream
    cdef void* prev_stream

    cdef Headers headers                 # of the request
    cdef size_t header_bytes             # what they cost, those among it that were too many to keep
    cdef Encoding encoding
    cdef int trace_parent                # the number of the header `traceparent`, from 1; 0 without, or if not heeded; -1 with several

    # The message that is coming in.
    cdef uint8_t prefix[PREFIX_BYTES]
    cdef int prefix_filled
    cdef bytes incoming
    cdef size_t filled
    cdef size_t wanted
    cdef readonly size_t unread_bytes    # of messages handed on and not yet taken
    cdef size_t held_bytes               # received, but kept from the client's window until then

    # What goes out: messages in order, the first of them being sent.
    cdef list outgoing
    cdef bytes current
    cdef bint current_compressed
    cdef size_t current_sent
    cdef readonly size_t unsent_bytes
    cdef bint head_sent
    cdef bint deferred
    cdef readonly int code
    cdef bytes text
    cdef list trailers

    # Who calls, and what they may; None where nobody asks.
    cdef readonly Principal principal
    cdef readonly Permission permission

    # What the method keeps with it.
    cdef public object call
    cdef public object caller    # whose call it is, if that is not whoever has the connection
    cdef object owner
    cdef object permit           # of a message that is still to come

    cdef int add_header(self, nghttp2_rcbuf* name, nghttp2_rcbuf* value) noexcept
    cdef int receive(self, const uint8_t* data, size_t size) except -1
    cdef void consume(self, size_t size) noexcept
    cpdef void taken(self, size_t size) noexcept
    cdef int push(self, bytes body, bint compressed) except -1
    cdef int submit(self, nghttp2_nv* headers, size_t count, bint is_all) except -1
    cdef int submit_head(self, list more) except -1
    cdef int resume(self) except -1
    cdef int end(self, int code, bytes text, list trailers) except -1
    cdef bint start_message(self, const uint8_t* begun, size_t here) except -1
    cdef size_t write_status(self, nghttp2_nv* headers) except 0
    cdef int submit_trailers(self) noexcept
    cdef ssize_t next_piece(self, size_t length, uint32_t* flags) noexcept
    cdef int write_piece(self, const uint8_t* head, size_t length) except -1
    cdef int answer(self, bytes body, bytes encoding) except -1
    cdef int fail(self, int code, bytes text, list trailers) except -1
    cdef int cut(self, int code, bytes text) except -1
    cdef void close(self) noexcept
