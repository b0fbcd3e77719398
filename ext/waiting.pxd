"""Where requests wait until a run takes them: see waiting.pyx."""

from libc.stdint cimport int64_t

from inferd._native.batch cimport SIZE_CLASSES
from inferd._native.groups cimport Groups
from inferd._native.line cimport Group, Line
from inferd._native.schedule cimport Schedule
from inferd._native.signature cimport Signature
from inferd._native.turns cimport Flow, Turns
from inferd._native.wire cimport Request


cdef class Waiting:
    cdef readonly Signature signature
    cdef readonly Schedule schedule    # None: one level, and deadlines only
    cdef readonly tuple preferred_rows
    cdef bint has_preferred_rows
    cdef bint takes_turns              # callers are told apart
    cdef int64_t batch_rows[SIZE_CLASSES]
    cdef readonly int64_t rows
    cdef readonly int64_t bytes
    cdef readonly int64_t requests
    # By level, and last the line of late requests; without a schedule the only line there is.
    cdef Line* lines
    cdef Line only_line
    cdef int line_count
    cdef int64_t* of_level             # requests by level, wherever they wait; NULL without a schedule
    cdef Groups groups
    cdef Turns turns

    cdef void abandon(self, Line* line) noexcept
    cdef Group* group_of(self, Request request) except NULL
    cdef void enter(self, Request request, Group* group) noexcept
    cdef void leave(self, Request request) noexcept
    cdef void unlink(self, Request request) noexcept
    cdef void review(self, Group* group) noexcept
    cdef void delay(self, Request request) noexcept
    cdef int64_t limit_for(self, Group* group) noexcept
    cdef int64_t preferred_for(self, Group* group) noexcept
    cdef Flow* flow_of(self, Request request) except? NULL
    cdef bint fits(self, Flow* flow, Request request, int size_class) noexcept
    cdef void step_back(self, Flow* flow) noexcept
    cdef void refill(self) noexcept
