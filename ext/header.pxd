"""What gRPC writes into HTTP/2 headers and reads out of them."""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.nghttp2 cimport nghttp2_nv


# How messages are compressed, by grpc-encoding.
cdef enum Encoding:
    IDENTITY
    GZIP
    DEFLATE
    UNKNOWN_ENCODING


# A header whose bytes outlive the session; and one whose bytes live until it is submitted, which copies them.
cdef nghttp2_nv borrowed(const char* name, size_t name_size, const char* value, size_t value_size) noexcept
cdef nghttp2_nv copied(bytes name, bytes value) noexcept

# A grpc-timeout in ns, or -1 if it is none.
cdef int64_t timeout_ns(const uint8_t* text, size_t size) noexcept

cdef Encoding encoding_of(const uint8_t* text, size_t size) noexcept

cdef bytes percent_encoded(bytes text)
