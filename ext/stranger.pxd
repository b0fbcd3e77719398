"""What clients get that do not speak gRPC: see stranger.pyx."""

from inferd._native.stream cimport Stream

cdef bytes not_http2()

# With this status of HTTP.
cdef int refuse_stranger(Stream stream, bytes status, bint is_head) except -1
