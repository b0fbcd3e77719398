"""The best classes of an output, as text: "score:index" or "score:index:label"."""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.span cimport Span


cdef class Labels:
    cdef tuple lines       # owns the bytes that `spans` borrows
    cdef Span* spans
    cdef int64_t count


cdef bytes best_classes(int datatype, const uint8_t* data, int64_t rows, int64_t width, int64_t classes, Labels labels)
