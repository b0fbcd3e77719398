"""HTTP/2 connections of a server, as asyncio protocols. Owns bytes on the wire, knows nothing of inference."""

from cpython.object cimport PyObject
from libc.stdint cimport int64_t, uint8_t

from inferd._native.session cimport Session


cdef class Connection(Session):
    cdef readonly object transport    # None once it is lost
    cdef object write
    cdef readonly object peername     # as the transport gave it
    # The message that the next bytes are read into, and where; None while they go to the hub's buffer.
    cdef bytes landing
    cdef uint8_t* landing_at
    # Bytes for the transport, in an object of their own until they are handed over.
    cdef PyObject* out
    cdef size_t out_size
    cdef size_t out_room
    # How long its reads have kept the loop, since the loop last had time for others.
    cdef int64_t busy_ns
    cdef bint is_costly               # what came last kept it for too long at once
    cdef bint is_flood                # what came was more than anybody needs who means well
    cdef bint is_resting              # not read from until the loop's next turn
    cdef readonly int64_t opened_ns
    cdef readonly int64_t closing_ns  # since when it closes, 0 = not
    cdef public object life           # what whoever keeps house remembers of it

    cdef int receive(self, const uint8_t* data, size_t size) except -1
    cdef int rest(self) except -1
    cdef int emit(self) except -1
    cdef int give_up(self, int error) except -1
