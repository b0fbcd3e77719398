"""What clients get that do not speak gRPC: a status of HTTP, and a text for whoever looks at it."""

from inferd._native.header cimport borrowed, copied
from inferd._native.nghttp2 cimport nghttp2_nv
from inferd._native.stream cimport ENDING, PREFIX_BYTES, Stream

# What a browser, a probe or curl without --http2-prior-knowledge gets.
cdef bytes TEXT = b"This port speaks gRPC, which needs HTTP/2 from the start.\n"
cdef bytes NOT_HTTP2 = (
    b"HTTP/1.1 426 Upgrade Required\r\nupgrade: h2c\r\nconnection: upgrade, close\r\ncontent-type: text/plain\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(TEXT), TEXT)
)
# What they get with it.
cdef bytes NOT_GRPC = b"This port speaks gRPC, which is POST with content-type: application/grpc.\n"
cdef bytes NOT_GRPC_BYTES = b"%d" % len(NOT_GRPC)


cdef bytes not_http2():
    """The answer to HTTP/1."""
    return NOT_HTTP2


cdef int refuse_stranger(Stream stream, bytes status, bint is_head) except -1:
    """End a request of HTTP/2 that is none of gRPC."""
    cdef nghttp2_nv[4] headers
    headers[0] = copied(b":status", status)
    headers[1] = borrowed(b"allow", 5, b"POST", 4)
    headers[2] = borrowed(b"content-type", 12, b"text/plain", 10)
    headers[3] = copied(b"content-length", NOT_GRPC_BYTES)
    # Sent as a message would be whose prefix has left already.
    stream.phase, stream.method = ENDING, None
    stream.current, stream.current_sent = NOT_GRPC, PREFIX_BYTES
    return stream.submit(headers, 4, is_head)
