"""Typed contents -> raw contents: what arrives as repeated protobuf fields leaves as little-endian bytes."""

from libc.stdint cimport uint8_t

from inferd._native.datatype cimport Datatype
from inferd._native.span cimport WireStatus
from inferd._native.wire cimport Tensor


cdef int contents_field(Datatype datatype) noexcept nogil
cdef Py_ssize_t typed_size(Tensor* tensor) noexcept nogil
cdef WireStatus materialise(Tensor* tensor, uint8_t* to, uint8_t* end, bint* out_of_range) noexcept nogil
