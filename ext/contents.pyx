"""Typed contents -> raw contents: what arrives as repeated protobuf fields leaves as little-endian bytes.

``count_contents`` checks them while a request is decoded. The others work on tensors that it has
accepted, so every walk of theirs is over well-formed fields.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from inferd._native.datatype cimport (
    BOOL, BYTES, FP32, FP64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, element_size,
)
from inferd._native.span cimport (
    FIXED32, FIXED64, LENGTH, VARINT, WIRE_OK, WIRE_TRUNCATED, Span, WireStatus,
    read_length, read_tag, read_varint, skip_field, span_length,
)


cdef int contents_field(Datatype datatype) noexcept nogil:
    """The InferTensorContents field that carries a datatype, or 0 where only raw bytes can."""
    if datatype == BOOL:
        return 1
    if datatype == INT8 or datatype == INT16 or datatype == INT32:
        return 2
    if datatype == INT64:
        return 3
    if datatype == UINT8 or datatype == UINT16 or datatype == UINT32:
        return 4
    if datatype == UINT64:
        return 5
    if datatype == FP32:
        return 6
    if datatype == FP64:
        return 7
    if datatype == BYTES:
        return 8
    return 0


cdef WireStatus count_varints(Span values, int64_t* total) noexcept nogil:
    cdef uint64_t ignored = 0
    cdef WireStatus status
    while values.at != values.end:
        status = read_varint(&values, &ignored)
        if status != WIRE_OK:
            return status
        total[0] += 1
    return WIRE_OK


cdef WireStatus count_contents(Span s, int64_t* counts, int depth) noexcept nogil:
    """Check one InferTensorContents message and add its elements to `counts`, indexed by field number."""
    cdef uint32_t field = 0, wire_type = 0
    cdef uint64_t ignored = 0
    cdef Span values
    cdef Py_ssize_t width
    cdef WireStatus status
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        width = 4 if field == 6 else 8
        if 1 <= field <= 5 and wire_type == VARINT:
            status = read_varint(&s, &ignored)
            counts[field] += 1
        elif 1 <= field <= 5 and wire_type == LENGTH:
            status = read_length(&s, &values)
            if status == WIRE_OK:
                status = count_varints(values, &counts[field])
        elif (field == 6 and wire_type == FIXED32) or (field == 7 and wire_type == FIXED64):
            status = skip_field(&s, field, wire_type, depth)
            counts[field] += 1
        elif (field == 6 or field == 7) and wire_type == LENGTH:
            status = read_length(&s, &values)
            if status == WIRE_OK and span_length(values) % width:
                status = WIRE_TRUNCATED
            if status == WIRE_OK:
                counts[field] += span_length(values) // width
        elif field == 8 and wire_type == LENGTH:
            status = read_length(&s, &values)
            counts[field] += 1
        else:
            status = skip_field(&s, field, wire_type, depth)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef bint next_contents(Span* tensor, Span* contents) noexcept nogil:
    """Step through a tensor that read_tensor has accepted, from one contents message to the next."""
    cdef uint32_t field = 0, wire_type = 0
    while tensor.at != tensor.end:
        if read_tag(tensor, &field, &wire_type) != WIRE_OK:
            return False
        if field == 5 and wire_type == LENGTH:
            return read_length(tensor, contents) == WIRE_OK
        if skip_field(tensor, field, wire_type, 1) != WIRE_OK:
            return False
    return False


cdef Py_ssize_t typed_size(Tensor* tensor) noexcept nogil:
    """Bytes that the tensor's typed contents take as raw contents."""
    cdef Span rest = tensor.body
    cdef Span contents, value
    cdef uint32_t field = 0, wire_type = 0
    cdef Py_ssize_t total = 0
    if tensor.datatype != BYTES:
        return <Py_ssize_t>tensor.typed_count * element_size(tensor.datatype)
    while next_contents(&rest, &contents):
        while contents.at != contents.end and read_tag(&contents, &field, &wire_type) == WIRE_OK:
            if field == 8 and wire_type == LENGTH:
                if read_length(&contents, &value) != WIRE_OK:
                    return total
                total += 4 + span_length(value)
            elif skip_field(&contents, field, wire_type, 2) != WIRE_OK:
                return total
    return total


cdef uint8_t* put_number(uint8_t* to, Datatype datatype, uint64_t value, bint* out_of_range) noexcept nogil:
    """Write one varint element in the width of its datatype. Hosts are little-endian, as the wire is."""
    cdef int64_t as_signed = <int64_t><int32_t>value
    cdef uint64_t as_unsigned = <uint64_t><uint32_t>value
    if datatype == BOOL:
        to[0] = value != 0
    elif datatype == INT8:
        out_of_range[0] |= as_signed < -128 or as_signed > 127
        to[0] = <uint8_t>value
    elif datatype == UINT8:
        out_of_range[0] |= as_unsigned > 0xFF
        to[0] = <uint8_t>value
    elif datatype == INT16:
        out_of_range[0] |= as_signed < -32768 or as_signed > 32767
        memcpy(to, &value, 2)
    elif datatype == UINT16:
        out_of_range[0] |= as_unsigned > 0xFFFF
        memcpy(to, &value, 2)
    else:
        memcpy(to, &value, <size_t>element_size(datatype))
    return to + element_size(datatype)


cdef WireStatus materialise(Tensor* tensor, uint8_t* to, uint8_t* end, bint* out_of_range) noexcept nogil:
    """Write typed contents as raw contents into [to, end), which is typed_size() long."""
    cdef Span rest = tensor.body
    cdef Span contents, values
    cdef uint32_t field = 0, wire_type = 0, length
    cdef uint32_t kind = <uint32_t>contents_field(tensor.datatype)
    cdef Py_ssize_t width = element_size(tensor.datatype)
    cdef uint64_t value = 0
    cdef WireStatus status
    while next_contents(&rest, &contents):
        while contents.at != contents.end:
            status = read_tag(&contents, &field, &wire_type)
            if status != WIRE_OK:
                return status
            if field != kind:
                status = skip_field(&contents, field, wire_type, 2)
            elif wire_type == VARINT and kind <= 5:
                status = read_varint(&contents, &value)
                if end - to < width:
                    return WIRE_TRUNCATED
                to = put_number(to, tensor.datatype, value, out_of_range)
            elif (wire_type == FIXED32 and kind == 6) or (wire_type == FIXED64 and kind == 7):
                if end - to < width or span_length(contents) < width:
                    return WIRE_TRUNCATED
                memcpy(to, contents.at, <size_t>width)
                to += width
                contents.at += width
            elif wire_type == LENGTH:
                status = read_length(&contents, &values)
                if status != WIRE_OK:
                    return status
                if kind == 8:
                    if end - to < 4 + span_length(values):
                        return WIRE_TRUNCATED
                    length = <uint32_t>span_length(values)
                    memcpy(to, &length, 4)
                    memcpy(to + 4, values.at, length)
                    to += 4 + length
                elif kind >= 6:
                    if end - to < span_length(values):
                        return WIRE_TRUNCATED
                    memcpy(to, values.at, <size_t>span_length(values))
                    to += span_length(values)
                else:
                    while values.at != values.end:
                        status = read_varint(&values, &value)
                        if status != WIRE_OK:
                            return status
                        if end - to < width:
                            return WIRE_TRUNCATED
                        to = put_number(to, tensor.datatype, value, out_of_range)
            else:
                status = skip_field(&contents, field, wire_type, 2)
            if status != WIRE_OK:
                return status
    return WIRE_OK
