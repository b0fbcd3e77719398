"""What happened between two moments, counted without the GIL."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from inferd._native.client cimport CODES, TEXT_BYTES, Body, Call
from inferd._native.histogram cimport Hdr, Histogram

cdef enum:
    # Odd answers kept per slice for somebody to judge.
    MAX_ODD = 64
    MAX_ODD_BYTES = 16777216
    # Accepted answers per request: a batch's size may move the last bits, and has only so many values.
    MAX_VARIANTS = 64


cdef struct Accepted:
    Body variants[MAX_VARIANTS]
    int count


cdef struct Odd:
    Odd* next
    int request
    uint8_t* answer
    size_t size


cdef struct Tally:
    # Borrowed from the Histogram beside it.
    Hdr* latency
    int64_t sent
    int64_t ok
    uint64_t sent_bytes
    uint64_t received_bytes
    int64_t right
    int64_t unjudged
    int64_t connects
    int64_t lost
    int64_t failures[CODES]
    int text_sizes[CODES]
    char texts[CODES][TEXT_BYTES]
    Odd* odd
    int odd_count
    size_t odd_bytes


cdef void tally_answer(Tally* tally, const Accepted* accepted, Call* call) noexcept nogil
cdef void tally_failure(Tally* tally, const Call* call) noexcept nogil


cdef class Slice:
    cdef readonly Histogram latency
    cdef public int64_t start_ns
    cdef public int64_t end_ns
    cdef public int64_t in_flight
    cdef public int64_t overdue
    cdef public int64_t oldest_ns
    cdef Tally tally
