"""The access log's ring: one entry for each request that has ended, until somebody writes it down.

An entry is a copy of a few numbers; text is made of it by whoever takes it, away from the path of requests.
"""

cimport cython
from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from inferd._native.span cimport span_length
from inferd._native.trace cimport Trace
from inferd._native.wire cimport Request


@cython.final
cdef class AccessLog:
    """Entries in the order in which requests ended; what comes while `room` of them wait is dropped and counted."""

    def __cinit__(self, Py_ssize_t room):
        if room < 1:
            raise ValueError("an access log needs room for an entry")
        self.entries = <Entry*>calloc(room, sizeof(Entry))
        if self.entries == NULL:
            raise MemoryError
        self.names, self.room = [None] * room, room

    def __dealloc__(self):
        free(self.entries)

    cdef void add(
        self, tuple names, Request request, Trace trace, int code, int64_t begun_ns, int64_t now_ns,
    ) noexcept:
        cdef Entry* entry
        cdef Py_ssize_t at
        if self.count == self.room:
            self.dropped += 1
            return
        at = (self.first + self.count) % self.room
        self.count += 1
        entry = &self.entries[at]
        self.names[at] = names
        entry.code, entry.ended_ns, entry.took_ns = code, now_ns, now_ns - begun_ns
        entry.waited_ns, entry.run_ns, entry.rows, entry.is_streamed, entry.id_size = -1, 0, 0, False, 0
        if request is not None:
            if request.arrived_ns and request.taken_ns:
                entry.waited_ns = request.taken_ns - request.arrived_ns
            entry.run_ns, entry.rows, entry.is_streamed = request.run_ns, request.rows, request.streamed
            entry.id_size = <int>min(span_length(request.id_span), ID_BYTES)
            if entry.id_size:
                memcpy(entry.id, request.id_span.at, entry.id_size)
        entry.is_traced = trace is not None
        if trace is not None:
            memcpy(entry.trace_id, <const char*>trace.trace_id, 16)
            memcpy(entry.span_id, <const char*>trace.span_id, 8)

    def note(
        self, tuple names not None, Request request, int code, int64_t begun_ns, int64_t now_ns, Trace trace=None,
    ) -> None:
        """The same for Python: names are (model, version), and may have a dict after them; times are monotonic.

        `request` is None for a call that is no inference; `trace` is that of the call, or None.
        """
        self.add(names, request, trace, code, begun_ns, now_ns)

    def take(self) -> list[tuple]:
        """All that waits: names, code, ended_ns, took_ns, waited_ns, run_ns, rows, is_streamed, id, trace id, span id."""
        cdef Entry* entry
        taken = []
        while self.count:
            entry = &self.entries[self.first]
            taken.append((
                self.names[self.first], entry.code, entry.ended_ns, entry.took_ns, entry.waited_ns, entry.run_ns,
                entry.rows, entry.is_streamed, (<char*>entry.id)[:entry.id_size],
                (<char*>entry.trace_id)[:16] if entry.is_traced else b"",
                (<char*>entry.span_id)[:8] if entry.is_traced else b"",
            ))
            self.names[self.first] = None
            self.first = (self.first + 1) % self.room
            self.count -= 1
        return taken
