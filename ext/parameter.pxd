"""One entry of a map<string, InferParameter>, as requests, inputs and requested outputs carry them. No Python objects."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from inferd._native.span cimport (
    FIXED64, LENGTH, VARINT, WIRE_OK, Span, WireStatus, read_length, read_string, read_tag, read_varint, skip_field, span_equals,
)


cdef enum ParameterKind:
    # The field of InferParameter that is set, by its number; the last one on the wire wins.
    PARAMETER_NOT_SET = 0
    PARAMETER_BOOL = 1
    PARAMETER_INT64 = 2
    PARAMETER_STRING = 3
    PARAMETER_DOUBLE = 4
    PARAMETER_UINT64 = 5


cdef struct Parameter:
    Span key
    ParameterKind kind
    uint64_t number    # of a bool, an int64 or a uint64
    Span text          # of a string


cdef inline WireStatus read_parameter_value(Span s, Parameter* p, int depth) noexcept nogil:
    cdef uint32_t field = 0, wire_type = 0
    cdef WireStatus status
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if (field == PARAMETER_BOOL or field == PARAMETER_INT64 or field == PARAMETER_UINT64) and wire_type == VARINT:
            status = read_varint(&s, &p.number)
            p.kind = <ParameterKind>field
        elif field == PARAMETER_STRING and wire_type == LENGTH:
            status = read_string(&s, &p.text)
            p.kind = PARAMETER_STRING
        else:
            status = skip_field(&s, field, wire_type, depth)
            if field == PARAMETER_DOUBLE and wire_type == FIXED64:
                p.kind = PARAMETER_DOUBLE
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef inline WireStatus read_parameter(Span s, Parameter* p, int depth) noexcept nogil:
    """Advance over one whole entry. `depth` messages are open around what it holds."""
    cdef uint32_t field = 0, wire_type = 0
    cdef Span value
    cdef WireStatus status
    memset(p, 0, sizeof(Parameter))
    while s.at != s.end:
        status = read_tag(&s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if field == 1 and wire_type == LENGTH:
            status = read_string(&s, &p.key)
        elif field == 2 and wire_type == LENGTH:
            status = read_length(&s, &value)
            if status == WIRE_OK:
                status = read_parameter_value(value, p, depth + 1)
        else:
            status = skip_field(&s, field, wire_type, depth)
        if status != WIRE_OK:
            return status
    return WIRE_OK


cdef inline bint has_key(Parameter* p, const char* key, Py_ssize_t length) noexcept nogil:
    return span_equals(p.key, <const unsigned char*>key, length)


cdef inline bint names_shared_memory(Parameter* p) noexcept nogil:
    return (
        has_key(p, b"shared_memory_region", 20)
        or has_key(p, b"shared_memory_offset", 20)
        or has_key(p, b"shared_memory_byte_size", 23)
    )
