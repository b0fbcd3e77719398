"""How much of a message a client may send before it is known whether it may come: see inlet.pyx."""

from libc.stdint cimport int64_t, uint32_t

from inferd._native.outlet cimport Outlet


cdef class Inlet(Outlet):
    cdef readonly int64_t received_ns    # when something came last
    cdef readonly bint holds_back        # the client sends the beginning of a message, and the rest once it is let
    cdef int64_t held_back_ns            # when a large message was last refused

    cdef int set_first_window(self, uint32_t size) except -1
