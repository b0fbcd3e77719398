"""Typed contents -> raw contents: what arrives as repeated protobuf fields leaves as little-endian bytes."""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.datatype cimport Datatype
from inferd._native.span cimport Span, WireStatus
from inferd._native.wire cimport Tensor


cdef enum:
    # InferTensorContents has fields 1 to 8; this sizes arrays indexed by field number.
    CONTENTS_KINDS = 9


cdef WireStatus count_contents(Span s, int64_t* counts, int depth) noexcept nogil
cdef int contents_field(Datatype datatype) noexcept nogil
cdef Py_ssize_t typed_size(Tensor* tensor) noexcept nogil
cdef WireStatus materialise(Tensor* tensor, uint8_t* to, uint8_t* end, bint* out_of_range) noexcept nogil
