"""Which model a request is for, from the first bytes of its message; they are checked when it is all here."""

from inferd._native.span cimport LENGTH, WIRE_OK, Span, read_length, read_tag

from libc.stdint cimport uint32_t


cdef inline bint peek_model(Span begun, Span* name, Span* version) noexcept nogil:
    """Name and version, if they are what the message begins with, as whoever writes fields in order has it."""
    cdef uint32_t field = 0, wire_type = 0
    version.at = version.end = begun.at
    if read_tag(&begun, &field, &wire_type) != WIRE_OK or field != 1 or wire_type != LENGTH:
        return False
    if read_length(&begun, name) != WIRE_OK or read_tag(&begun, &field, &wire_type) != WIRE_OK:
        return False
    if field == 2 and wire_type == LENGTH:
        return read_length(&begun, version) == WIRE_OK
    return True
