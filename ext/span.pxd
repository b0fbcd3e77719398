"""Bytes on the wire: a borrowed range and the protobuf primitives that walk it. No Python objects.

Every reader advances its span and returns a WireStatus; malformed input is a value, never an exception.
The encoding is the one described at protobuf.dev/programming-guides/encoding.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy


cdef struct Span:
    # [at, end), borrowed: whoever filled it in says which object owns the bytes.
    const uint8_t* at
    const uint8_t* end


cdef enum WireStatus:
    WIRE_OK = 0
    WIRE_TRUNCATED
    WIRE_OVERLONG
    WIRE_BAD_TAG
    WIRE_BAD_UTF8
    WIRE_TOO_DEEP
    WIRE_TOO_MANY
    WIRE_NO_MEMORY


cdef enum WireType:
    VARINT = 0
    FIXED64 = 1
    LENGTH = 2
    GROUP = 3
    END_GROUP = 4
    FIXED32 = 5


# What protobuf's own parsers allow; deeper nesting is an attack or a bug.
cdef enum:
    MAX_DEPTH = 100


cdef inline Py_ssize_t span_length(Span s) noexcept nogil:
    return s.end - s.at


cdef inline bint span_equals(Span s, const uint8_t* other, Py_ssize_t length) noexcept nogil:
    return span_length(s) == length and (length == 0 or memcmp(s.at, other, <size_t>length) == 0)


cdef inline WireStatus read_varint(Span* s, uint64_t* out) noexcept nogil:
    """Advance s past one varint of at most ten bytes. On failure *out is untouched.

    Bits beyond the 64th, which only the tenth byte can have, are dropped, as protobuf's parsers do.
    """
    cdef uint64_t value = 0
    cdef int shift = 0
    cdef uint8_t byte
    while s.at != s.end:
        byte = s.at[0]
        s.at += 1
        value |= <uint64_t>(byte & 0x7F) << shift
        if byte < 0x80:
            out[0] = value
            return WIRE_OK
        shift += 7
        if shift > 63:
            return WIRE_OVERLONG
    return WIRE_TRUNCATED


cdef inline WireStatus read_tag(Span* s, uint32_t* field, uint32_t* wire_type) noexcept nogil:
    """Advance s past one tag. Field 0, wire types 6 and 7 and tags beyond 32 bits are malformed."""
    cdef uint64_t tag = 0
    cdef const uint8_t* start = s.at
    cdef WireStatus status = read_varint(s, &tag)
    if status != WIRE_OK:
        return status
    if s.at - start > 5 or tag > 0xFFFFFFFFU or (tag >> 3) == 0 or (tag & 7) > 5:
        return WIRE_BAD_TAG
    field[0] = <uint32_t>(tag >> 3)
    wire_type[0] = <uint32_t>(tag & 7)
    return WIRE_OK


cdef inline WireStatus read_length(Span* s, Span* out) noexcept nogil:
    """Advance s past a length prefix and its payload; the payload is *out."""
    cdef uint64_t length = 0
    cdef WireStatus status = read_varint(s, &length)
    if status != WIRE_OK:
        return status
    if length > <uint64_t>(s.end - s.at):
        return WIRE_TRUNCATED
    out.at = s.at
    out.end = s.at + length
    s.at = out.end
    return WIRE_OK


cdef inline WireStatus skip_bytes(Span* s, Py_ssize_t count) noexcept nogil:
    if s.end - s.at < count:
        return WIRE_TRUNCATED
    s.at += count
    return WIRE_OK


cdef inline WireStatus skip_scalar(Span* s, uint32_t wire_type) noexcept nogil:
    """Advance s past a field that is not a group."""
    cdef uint64_t ignored = 0
    cdef Span payload
    if wire_type == VARINT:
        return read_varint(s, &ignored)
    if wire_type == FIXED64:
        return skip_bytes(s, 8)
    if wire_type == LENGTH:
        return read_length(s, &payload)
    if wire_type == FIXED32:
        return skip_bytes(s, 4)
    return WIRE_BAD_TAG


cdef inline WireStatus skip_field(Span* s, uint32_t field, uint32_t wire_type, int depth) noexcept nogil:
    """Advance s past an unknown field. `depth` messages are open around it already.

    Groups are walked with a small stack of open field numbers, not by recursion, so that no input
    can use up the C stack.
    """
    cdef uint32_t opened[MAX_DEPTH]
    cdef int level = 0
    cdef WireStatus status
    if wire_type != GROUP:
        return skip_scalar(s, wire_type)
    if depth >= MAX_DEPTH:
        return WIRE_TOO_DEEP
    opened[0] = field
    level = 1
    while level > 0:
        status = read_tag(s, &field, &wire_type)
        if status != WIRE_OK:
            return status
        if wire_type == GROUP:
            if depth + level >= MAX_DEPTH:
                return WIRE_TOO_DEEP
            opened[level] = field
            level += 1
        elif wire_type == END_GROUP:
            level -= 1
            if opened[level] != field:
                return WIRE_BAD_TAG
        else:
            status = skip_scalar(s, wire_type)
            if status != WIRE_OK:
                return status
    return WIRE_OK


cdef inline bint is_utf8(Span s) noexcept nogil:
    """True if s holds well-formed UTF-8 (RFC 3629): no overlong forms, no surrogates, nothing past U+10FFFF."""
    cdef const uint8_t* p = s.at
    cdef uint64_t word
    cdef uint8_t lead
    while p < s.end:
        while s.end - p >= 8:
            memcpy(&word, p, 8)
            if word & <uint64_t>0x8080808080808080U:
                break
            p += 8
        if p == s.end:
            return True
        lead = p[0]
        if lead < 0x80:
            p += 1
        elif lead < 0xC2:
            return False
        elif lead < 0xE0:
            if s.end - p < 2 or (p[1] & 0xC0) != 0x80:
                return False
            p += 2
        elif lead < 0xF0:
            if s.end - p < 3 or (p[1] & 0xC0) != 0x80 or (p[2] & 0xC0) != 0x80:
                return False
            if (lead == 0xE0 and p[1] < 0xA0) or (lead == 0xED and p[1] > 0x9F):
                return False
            p += 3
        elif lead < 0xF5:
            if s.end - p < 4 or (p[1] & 0xC0) != 0x80 or (p[2] & 0xC0) != 0x80 or (p[3] & 0xC0) != 0x80:
                return False
            if (lead == 0xF0 and p[1] < 0x90) or (lead == 0xF4 and p[1] > 0x8F):
                return False
            p += 4
        else:
            return False
    return True


cdef inline WireStatus read_string(Span* s, Span* out) noexcept nogil:
    """A length-prefixed proto3 string: the payload must be UTF-8."""
    cdef WireStatus status = read_length(s, out)
    if status == WIRE_OK and not is_utf8(out[0]):
        return WIRE_BAD_UTF8
    return status


cdef inline int varint_size(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef inline uint8_t* put_varint(uint8_t* to, uint64_t value) noexcept nogil:
    while value >= 0x80:
        to[0] = <uint8_t>(value | 0x80)
        value >>= 7
        to += 1
    to[0] = <uint8_t>value
    return to + 1


cdef inline uint8_t* put_span(uint8_t* to, const uint8_t* data, Py_ssize_t length) noexcept nogil:
    if length:
        memcpy(to, data, <size_t>length)
    return to + length
