"""The datatypes of the Open Inference Protocol, numbered as ONNX numbers its tensor element types."""

from inferd._native.span cimport Span, span_equals


cdef enum Datatype:
    NO_DATATYPE = 0
    FP32 = 1
    UINT8 = 2
    INT8 = 3
    UINT16 = 4
    INT16 = 5
    INT32 = 6
    INT64 = 7
    BYTES = 8
    BOOL = 9
    FP16 = 10
    FP64 = 11
    UINT32 = 12
    UINT64 = 13
    BF16 = 16


cdef inline Datatype datatype_of(Span name) noexcept nogil:
    """The datatype that a request names, or NO_DATATYPE."""
    if span_equals(name, b"FP32", 4):
        return FP32
    if span_equals(name, b"INT64", 5):
        return INT64
    if span_equals(name, b"INT32", 5):
        return INT32
    if span_equals(name, b"BYTES", 5):
        return BYTES
    if span_equals(name, b"BOOL", 4):
        return BOOL
    if span_equals(name, b"UINT8", 5):
        return UINT8
    if span_equals(name, b"INT8", 4):
        return INT8
    if span_equals(name, b"UINT16", 6):
        return UINT16
    if span_equals(name, b"INT16", 5):
        return INT16
    if span_equals(name, b"UINT32", 6):
        return UINT32
    if span_equals(name, b"UINT64", 6):
        return UINT64
    if span_equals(name, b"FP16", 4):
        return FP16
    if span_equals(name, b"BF16", 4):
        return BF16
    if span_equals(name, b"FP64", 4):
        return FP64
    return NO_DATATYPE


cdef inline Py_ssize_t element_size(int datatype) noexcept nogil:
    """Bytes per element; 0 for BYTES, whose elements have lengths of their own."""
    if datatype == FP32 or datatype == INT32 or datatype == UINT32:
        return 4
    if datatype == INT64 or datatype == UINT64 or datatype == FP64:
        return 8
    if datatype == FP16 or datatype == BF16 or datatype == INT16 or datatype == UINT16:
        return 2
    if datatype == BOOL or datatype == INT8 or datatype == UINT8:
        return 1
    return 0
