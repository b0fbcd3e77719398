"""Shared memory that clients have registered, and where in it a tensor of a request lies."""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from inferd._native.span cimport Span


cdef class Region:
    # Open until the last request that uses it is gone, whether it is registered or not. Memory of a GPU is closed by
    # whoever opened it, who may have a weak reference to know when that is.
    cdef object __weakref__
    cdef readonly str name
    cdef readonly str key
    cdef readonly int64_t offset
    cdef readonly int64_t byte_size
    cdef readonly object memory    # None, or what is open of a GPU's memory
    cdef readonly int device_id
    cdef int fd


cdef struct Place:
    # Bytes of an open file, or of a GPU's memory; the Region that owns them is held by the request.
    void* of_gpu    # that Region if it is a GPU's, which nothing here can read; else NULL
    int fd
    int64_t at
    int64_t nbytes


cdef class Regions:
    cdef dict by_name
    cdef readonly int64_t limit
    cdef int64_t most_string_nbytes    # of one request

    cdef Region place(self, Place* place, Span message, uint32_t field, str what)


cdef bint read_place(const Place* place, uint8_t* to) noexcept nogil
cdef bint write_place(const Place* place, const uint8_t* data, int64_t nbytes) noexcept nogil
cdef bint still_there(const Place* place) noexcept nogil
