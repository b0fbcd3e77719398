"""What gRPC writes into HTTP/2 headers and reads out of them."""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memcmp

from inferd._native.nghttp2 cimport (
    NGHTTP2_NV_FLAG_NO_COPY_NAME, NGHTTP2_NV_FLAG_NO_COPY_VALUE, NGHTTP2_NV_FLAG_NONE, nghttp2_nv,
)


cdef nghttp2_nv borrowed(const char* name, size_t name_size, const char* value, size_t value_size) noexcept:
    """A header whose bytes outlive the session."""
    cdef nghttp2_nv header
    header.name, header.namelen = <uint8_t*>name, name_size
    header.value, header.valuelen = <uint8_t*>value, value_size
    header.flags = NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE
    return header


cdef nghttp2_nv copied(bytes name, bytes value) noexcept:
    """A header whose bytes the session copies when it is submitted."""
    cdef nghttp2_nv header
    header.name, header.namelen = <uint8_t*>PyBytes_AS_STRING(name), <size_t>len(name)
    header.value, header.valuelen = <uint8_t*>PyBytes_AS_STRING(value), <size_t>len(value)
    header.flags = NGHTTP2_NV_FLAG_NONE
    return header


cdef int64_t timeout_ns(const uint8_t* text, size_t size) noexcept:
    """A grpc-timeout in ns, or -1: up to eight digits and a unit."""
    cdef int64_t value = 0
    cdef size_t i
    if not 2 <= size <= 9:
        return -1
    for i in range(size - 1):
        if not 48 <= text[i] <= 57:
            return -1
        value = value * 10 + text[i] - 48
    if text[size - 1] == c"n":
        return value
    if text[size - 1] == c"u":
        return value * 1000
    if text[size - 1] == c"m":
        return value * 1000000
    if text[size - 1] == c"S":
        return value * 1000000000
    # A hundred years is as good as any longer time, and cannot overflow.
    if text[size - 1] == c"M":
        return min(value, 52560000) * 60000000000
    if text[size - 1] == c"H":
        return min(value, 876000) * 3600000000000
    return -1


cdef Encoding encoding_of(const uint8_t* text, size_t size) noexcept:
    """What a grpc-encoding names."""
    if size == 8 and memcmp(text, b"identity", 8) == 0:
        return IDENTITY
    if size == 4 and memcmp(text, b"gzip", 4) == 0:
        return GZIP
    if size == 7 and memcmp(text, b"deflate", 7) == 0:
        return DEFLATE
    return UNKNOWN_ENCODING


cdef bytes percent_encoded(bytes text):
    """A grpc-message: printable ASCII but for the percent sign, which begins every other byte's number."""
    if all(32 <= byte < 127 and byte != 37 for byte in text):
        return text
    return b"".join([b"%c" % byte if 32 <= byte < 127 and byte != 37 else b"%%%02X" % byte for byte in text])
