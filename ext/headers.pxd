"""The headers of one request, in the order in which they came; their bytes are shared with the session."""

from libc.stdint cimport uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from inferd._native.nghttp2 cimport (
    nghttp2_rcbuf, nghttp2_rcbuf_decref, nghttp2_rcbuf_get_buf, nghttp2_rcbuf_incref, nghttp2_vec,
)

cdef enum:
    INLINE_HEADERS = 16


cdef struct Header:
    nghttp2_rcbuf* name
    nghttp2_rcbuf* value


# Begins as zeros. Most requests have few enough to need no memory of their own for them.
cdef struct Headers:
    Header* more    # NULL while the inline ones do
    int count
    int room
    Header inlined[INLINE_HEADERS]


cdef inline Header* headers_at(Headers* headers) noexcept:
    return &headers.inlined[0] if headers.more == NULL else headers.more


cdef inline int headers_add(Headers* headers, nghttp2_rcbuf* name, nghttp2_rcbuf* value) noexcept:
    """Keep one. Not 0 if there is no memory."""
    cdef Header* larger
    cdef Header* at = headers_at(headers)
    cdef int room = INLINE_HEADERS if headers.more == NULL else headers.room
    if headers.count == room:
        larger = <Header*>malloc(2 * room * sizeof(Header))
        if larger == NULL:
            return -1
        memcpy(larger, at, headers.count * sizeof(Header))
        free(headers.more)
        headers.more, headers.room = larger, 2 * room
        at = larger
    nghttp2_rcbuf_incref(name)
    nghttp2_rcbuf_incref(value)
    at[headers.count].name, at[headers.count].value = name, value
    headers.count += 1
    return 0


cdef inline void headers_free(Headers* headers) noexcept:
    cdef int i
    cdef Header* at = headers_at(headers)
    for i in range(headers.count):
        nghttp2_rcbuf_decref(at[i].name)
        nghttp2_rcbuf_decref(at[i].value)
    free(headers.more)


cdef inline bytes shared_bytes(nghttp2_rcbuf* part):
    """A copy of a name or a value."""
    cdef nghttp2_vec text = nghttp2_rcbuf_get_buf(part)
    return (<char*>text.base)[:text.len]
