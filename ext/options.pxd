"""How libnghttp2 is told to behave where its habits are not ours."""

from inferd._native.nghttp2 cimport nghttp2_option


cdef nghttp2_option* server_options() except NULL
