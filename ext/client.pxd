"""One HTTP/2 connection that makes unary gRPC calls. All of it works without the GIL.

Who owns what: a Connection owns its socket, its session and the calls on its list. A call that has ended is off
the list and belongs to `Script.ended`. Bodies, headers and callbacks are borrowed from whoever made the Script.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from inferd._native.nghttp2 cimport nghttp2_nv, nghttp2_session, nghttp2_session_callbacks

cdef enum:
    CODES = 17
    TEXT_BYTES = 256
    PREFIX_BYTES = 5
    READ_BYTES = 262144


# gRPC status codes that a client gives itself.
cdef enum Code:
    NO_CODE = -1
    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


cdef struct Body:
    # The five bytes of a gRPC message's prefix, then the message.
    const uint8_t* data
    size_t size


cdef struct Call:
    Call* next
    Call* previous
    int64_t due_ns
    int64_t sent_ns
    int request
    int32_t stream
    size_t body_sent
    int http_status
    int code
    # Nothing of it was looked at by the server, which says so: to be sent again, once.
    bint refused
    bint again
    size_t received
    # All DATA that came, prefix included, if the Script keeps answers; else its first bytes only.
    uint8_t* answer
    size_t answer_capacity
    uint8_t prefix[PREFIX_BYTES]
    int text_size
    char text[TEXT_BYTES]


ctypedef void (*Ended)(void* owner, Call* call) noexcept nogil


cdef struct Script:
    const nghttp2_nv* headers
    size_t header_count
    const Body* bodies
    nghttp2_session_callbacks* callbacks
    bint keep_answers
    # Without gRPC any HTTP 200 is an answer.
    bint grpc
    Ended ended
    void* owner


cdef struct Connection:
    const Script* script
    nghttp2_session* session
    int socket
    bint connecting
    # Made by the session and not yet taken by the socket: [out_sent, out_size) of out.
    uint8_t* out
    size_t out_capacity
    size_t out_size
    size_t out_sent
    # Calls under way, the oldest first.
    Call* first
    Call* last
    int calls
    uint64_t sent_bytes
    uint64_t received_bytes


cdef int callbacks_new(nghttp2_session_callbacks** callbacks) noexcept nogil
cdef Connection* connection_new(const Script* script, const void* address, unsigned int size) noexcept nogil
cdef void connection_free(Connection* connection) noexcept nogil
cdef bint connection_established(Connection* connection) noexcept nogil
cdef bint connection_open(Connection* connection) noexcept nogil
cdef int connection_call(Connection* connection, Call* call) noexcept nogil
cdef bint connection_read(Connection* connection, uint8_t* buffer) noexcept nogil
cdef bint connection_write(Connection* connection) noexcept nogil
cdef bint connection_blocked(const Connection* connection) noexcept nogil
cdef void connection_expire(Connection* connection, int64_t sent_until_ns) noexcept nogil
