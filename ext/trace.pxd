"""Traces: what was measured of a request that somebody wants to see, and which requests those are."""

from libc.stdint cimport int64_t, uint8_t, uint64_t


cdef struct TraceParent:
    uint8_t trace_id[16]
    uint8_t span_id[8]
    bint is_sampled


# False for anything but a traceparent of W3C's Trace Context; then `parent` is as it was, or half written.
cdef bint read_traceparent(const uint8_t* text, size_t size, TraceParent* parent) noexcept nogil


cdef class Execution:
    """One run of a batch that has traced members."""

    cdef readonly bytes trace_id
    cdef readonly bytes span_id
    cdef readonly int64_t started_ns
    cdef readonly int64_t gathered_ns
    cdef readonly int64_t computed_ns
    cdef readonly int64_t ended_ns
    cdef readonly int64_t rows
    cdef readonly int64_t padded_rows
    cdef readonly int64_t requests
    cdef readonly str close_reason
    cdef readonly list members        # the traced ones, as pairs of trace id and span id
    cdef public bint is_told


cdef class Trace:
    """One request that is traced. Times are monotonic; 0 = it did not come so far."""

    cdef readonly bytes trace_id
    cdef readonly bytes span_id
    cdef readonly bytes parent_id     # None: it begins here
    cdef public str state             # the caller's tracestate
    cdef public str model
    cdef public str version
    cdef public str request_id
    cdef public bint streamed
    cdef public str method            # of a call, in full; None: an inference, as `streamed` says
    cdef public str original          # what was asked for, where that is no method of ours
    cdef public object http           # what HTTP says of a call that it carries, else None
    cdef readonly int64_t begun_ns
    cdef readonly int64_t queued_ns
    cdef readonly int64_t taken_ns
    cdef readonly int64_t ended_ns
    cdef readonly int code
    cdef readonly Execution execution
    cdef Traces traces

    cpdef void waited(self, int64_t queued_ns, int64_t taken_ns) noexcept
    cpdef void end(self, int code, int64_t now_ns) noexcept


cdef class Traces:
    cdef list found
    cdef readonly Py_ssize_t most
    cdef readonly int64_t dropped


cdef class Sampling:
    cdef readonly Traces traces
    cdef public bint on
    cdef readonly double rate
    cdef public int64_t left          # so many more; below 0: any number
    cdef uint64_t random

    cdef bint chance(self) noexcept
    cdef Trace begin(self, const uint8_t* parent, size_t size, int64_t begun_ns)


cdef Execution execution_of(
    int64_t started_ns, int64_t gathered_ns, int64_t computed_ns, int64_t ended_ns, int64_t rows,
    int64_t padded_rows, int64_t requests, str close_reason,
)
cdef void took_part(Trace trace, Execution execution) noexcept
