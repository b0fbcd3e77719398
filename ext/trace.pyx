"""Traces: what was measured of a request that somebody wants to see, and which requests those are.

Nothing here is a span yet: times are noted as they are measured, and whoever takes the traces makes spans of them, away
from the path of requests. A request that is not traced costs one look at whether tracing is on.
"""

cimport cython
from libc.stdint cimport UINT64_MAX, int64_t, uint8_t, uint64_t

import os

cdef enum:
    TRACEPARENT_BYTES = 55
    FLAG_SAMPLED = 1


cdef int hex_digit(uint8_t letter) noexcept nogil:
    """Its value, or -1; the context allows lower case only."""
    if 48 <= letter <= 57:
        return letter - 48
    if 97 <= letter <= 102:
        return letter - 87
    return -1


cdef bint read_hex(const uint8_t* text, int count, uint8_t* out) noexcept nogil:
    """Read `count` bytes out of twice as many digits."""
    cdef int i, high, low
    for i in range(count):
        high, low = hex_digit(text[2 * i]), hex_digit(text[2 * i + 1])
        if high < 0 or low < 0:
            return False
        out[i] = <uint8_t>(high << 4 | low)
    return True


cdef bint is_zero(const uint8_t* bytes_, int count) noexcept nogil:
    cdef int i
    for i in range(count):
        if bytes_[i]:
            return False
    return True


cdef bint read_traceparent(const uint8_t* text, size_t size, TraceParent* parent) noexcept nogil:
    """Read a traceparent: version 00 as it is, later ones by the parts that version 00 has (W3C Trace Context)."""
    cdef uint8_t version = 0
    cdef uint8_t flags = 0
    if size < TRACEPARENT_BYTES or text[2] != c"-" or text[35] != c"-" or text[52] != c"-":
        return False
    if not read_hex(text, 1, &version) or version == 0xFF:
        return False
    if size > TRACEPARENT_BYTES and (version == 0 or text[TRACEPARENT_BYTES] != c"-"):
        return False
    if not read_hex(text + 3, 16, parent.trace_id) or is_zero(parent.trace_id, 16):
        return False
    if not read_hex(text + 36, 8, parent.span_id) or is_zero(parent.span_id, 8):
        return False
    if not read_hex(text + 53, 1, &flags):
        return False
    parent.is_sampled = flags & FLAG_SAMPLED
    return True


@cython.final
cdef class Execution:
    """One run of a batch that has traced members."""

    def __init__(self):
        raise TypeError("an Execution is made where a batch is counted")


cdef Execution execution_of(
    int64_t started_ns, int64_t gathered_ns, int64_t computed_ns, int64_t ended_ns, int64_t rows,
    int64_t padded_rows, int64_t requests, str close_reason,
):
    """A run, with ids of its own; members come by took_part()."""
    cdef Execution made = Execution.__new__(Execution)
    made.trace_id, made.span_id, made.members = os.urandom(16), os.urandom(8), []
    made.started_ns, made.gathered_ns, made.computed_ns, made.ended_ns = started_ns, gathered_ns, computed_ns, ended_ns
    made.rows, made.padded_rows, made.requests, made.close_reason = rows, padded_rows, requests, close_reason
    return made


cdef void took_part(Trace trace, Execution execution) noexcept:
    """The request ran in it."""
    trace.execution = execution
    execution.members.append((trace.trace_id, trace.span_id))


@cython.final
cdef class Trace:
    """One request that is traced. Times are monotonic; 0 = it did not come so far."""

    def __init__(self):
        raise TypeError("a Trace is made by Sampling")

    cpdef void waited(self, int64_t queued_ns, int64_t taken_ns) noexcept:
        """Note when the request came into its queue, and when it left; 0 if it did not."""
        self.queued_ns, self.taken_ns = queued_ns, taken_ns

    cpdef void end(self, int code, int64_t now_ns) noexcept:
        """The request has its answer or its error; the trace is there to be taken. Only the first end counts."""
        if self.ended_ns:
            return
        self.code, self.ended_ns = code, now_ns
        if len(self.traces.found) >= self.traces.most:
            self.traces.dropped += 1
        else:
            self.traces.found.append(self)


@cython.final
cdef class Traces:
    """Traces that have ended, until somebody takes them: `most` of them, more are dropped and counted."""

    def __cinit__(self, Py_ssize_t most):
        self.found, self.most = [], most

    def take(self) -> list[Trace]:
        """All there are; they are the caller's."""
        taken, self.found = self.found, []
        return taken


@cython.final
cdef class Sampling:
    """Which requests are traced: those whose caller traces them, and of those that begin here a part.

    A caller's `sampled` flag is heeded either way. Nothing is traced while `on` is false, or once `left` is 0.
    """

    def __cinit__(self, Traces traces not None):
        self.traces, self.left = traces, -1
        self.random = int.from_bytes(os.urandom(8), "little") | 1

    def set_rate(self, double rate) -> None:
        """Trace this part, from 0 to 1, of the requests whose callers say nothing."""
        self.rate = rate

    cdef bint chance(self) noexcept:
        """Whether a request that begins here is traced."""
        if self.rate >= 1:
            return True
        if self.rate <= 0:
            return False
        # xorshift64*
        self.random ^= self.random >> 12
        self.random ^= self.random << 25
        self.random ^= self.random >> 27
        return <double>(self.random * <uint64_t>0x2545F4914F6CDD1D) < self.rate * <double>UINT64_MAX

    cdef Trace begin(self, const uint8_t* parent, size_t size, int64_t begun_ns):
        """The trace of a request, or None. `parent` is its traceparent; one that cannot be read is none."""
        cdef TraceParent found
        cdef bint has_parent
        cdef Trace made
        if not self.on or self.left == 0:
            return None
        has_parent = size != 0 and read_traceparent(parent, size, &found)
        if not (found.is_sampled if has_parent else self.chance()):
            return None
        if self.left > 0:
            self.left -= 1
        made = Trace.__new__(Trace)
        made.span_id, made.begun_ns, made.traces = os.urandom(8), begun_ns, self.traces
        if has_parent:
            made.trace_id, made.parent_id = (<char*>found.trace_id)[:16], (<char*>found.span_id)[:8]
        else:
            made.trace_id = os.urandom(16)
        return made

    def begin_at(self, int64_t begun_ns, bytes parent=None) -> Trace | None:
        """The trace of a request that came at this time with this traceparent; None if it is not traced."""
        if parent is None:
            return self.begin(NULL, 0, begun_ns)
        return self.begin(<const uint8_t*><char*>parent, <size_t>len(parent), begun_ns)
