"""The access log's ring: one entry for each request that has ended, until somebody writes it down."""

from libc.stdint cimport int64_t, uint8_t

from inferd._native.trace cimport Trace
from inferd._native.wire cimport Request

cdef enum:
    # More of a request's id is not kept.
    ID_BYTES = 64


cdef struct Entry:
    int code
    int64_t ended_ns
    int64_t took_ns
    int64_t waited_ns     # in the queue; below 0: it did not come there, or did not leave it
    int64_t run_ns        # of its batch; 0: it did not run
    int64_t rows
    bint is_streamed
    bint is_traced
    uint8_t trace_id[16]
    uint8_t span_id[8]
    int id_size
    uint8_t id[ID_BYTES]


cdef class AccessLog:
    cdef Entry* entries
    cdef list names       # (model, version) of each entry, and what else there is to say in a dict
    cdef Py_ssize_t room
    cdef Py_ssize_t first
    cdef Py_ssize_t count
    cdef readonly int64_t dropped

    cdef void add(
        self, tuple names, Request request, Trace trace, int code, int64_t begun_ns, int64_t now_ns,
    ) noexcept
