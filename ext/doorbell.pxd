"""How whoever runs batches is told that a queue has work."""


cdef class Bell:
    cpdef void ring(self) except *


cdef class LoopBell(Bell):
    cdef object tell
    cdef bint rung
